#!/usr/bin/env bash
# Builds what bundle.sh packed, without internet or root: libraries that pkg-config does not find, then the program, all into one
# prefix. `build.sh PREFIX all` builds every library. JOBS is the number of compilers at a time.
set -euo pipefail
prefix=$(realpath -m "${1:?usage: build.sh PREFIX [all]}") all=${2:-}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/phalanx-build-XXXXXX")
jobs=${JOBS:-$(nproc)}
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig:$prefix/share/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH} CMAKE_PREFIX_PATH=$prefix
for tool in cc make cmake pkg-config mpicc tar gzip bzip2 xz; do
    command -v $tool > /dev/null || { echo "build.sh: no $tool: valid is a PATH with tar, gzip, bzip2, xz, make, pkg-config and, by the site's modules, compiler, CMake and MPI" >&2; exit 1; }
done
(cd "$here/libraries" && sha256sum --quiet -c SHA256SUMS)

wanted() { [ "$all" = all ] || ! pkg-config --exists "$1"; } # MODULE
unpack() { # NAME: its folder
    mkdir -p "$work/$1" && tar xf "$(ls "$here/libraries/$1"_*.orig.tar.*)" -C "$work/$1" --strip-components=1
    echo "$1" >&2
}
quiet() { "$@" > "$work/log.txt" 2>&1 || { tail -n 40 "$work/log.txt" >&2; echo "build.sh: failed: $*" >&2; exit 1; }; }
with_cmake() { # NAME FOLDER [options]
    local name=$1 folder=$2; shift 2
    unpack "$name"
    mkdir "$work/$name/build" # some libraries look there for what their checks have left where cmake was started
    (cd "$work/$name/build" && quiet cmake -S "$work/$name/$folder" -B . -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$prefix" \
        -DCMAKE_INSTALL_LIBDIR=lib -DBUILD_SHARED_LIBS=ON -DCMAKE_INSTALL_RPATH="$prefix/lib" "$@")
    quiet cmake --build "$work/$name/build" -j "$jobs"
    quiet cmake --install "$work/$name/build"
}

if wanted zlib; then # Debian's archive lacks what its build with CMake needs
    unpack zlib
    (cd "$work/zlib" && quiet ./configure --prefix="$prefix" && quiet make -j "$jobs" && quiet make install)
fi
wanted libzstd && with_cmake libzstd build/cmake -DZSTD_BUILD_PROGRAMS=OFF -DZSTD_BUILD_STATIC=OFF
wanted libxxhash && with_cmake xxhash cmake_unofficial -DXXHASH_BUILD_XXHSUM=OFF
if wanted yaml-0.1; then # its own build needs autotools, that with CMake writes no file for pkg-config
    with_cmake libyaml . -DBUILD_TESTING=OFF
    mkdir -p "$prefix/lib/pkgconfig"
    sed "s,@prefix@,$prefix,; s,@exec_prefix@,$prefix,; s,@includedir@,$prefix/include,; s,@libdir@,$prefix/lib,
         s,@PACKAGE_VERSION@,0.2," "$work/libyaml/yaml-0.1.pc.in" > "$prefix/lib/pkgconfig/yaml-0.1.pc"
fi
wanted jansson && with_cmake jansson . -DJANSSON_BUILD_SHARED_LIBS=ON -DJANSSON_BUILD_DOCS=OFF -DJANSSON_WITHOUT_TESTS=ON \
    -DJANSSON_EXAMPLES=OFF
wanted libpcre2-8 && with_cmake pcre2 . -DPCRE2_BUILD_PCRE2GREP=OFF -DPCRE2_BUILD_TESTS=OFF -DPCRE2_SUPPORT_JIT=ON
wanted libutf8proc && with_cmake utf8proc .
wanted hdf5_hl && with_cmake hdf5 . -DHDF5_BUILD_CPP_LIB=OFF -DHDF5_BUILD_FORTRAN=OFF -DHDF5_BUILD_HL_LIB=ON -DBUILD_TESTING=OFF \
    -DHDF5_BUILD_EXAMPLES=OFF -DHDF5_ENABLE_Z_LIB_SUPPORT=ON -DHDF5_BUILD_JAVA=OFF
if wanted openblas; then # products alone, for every processor the cluster may have
    unpack openblas
    make=(make -C "$work/openblas" ONLY_CBLAS=1 NO_LAPACK=1 USE_OPENMP=1 DYNAMIC_ARCH=1 DYNAMIC_LIST="HASWELL ZEN SKYLAKEX"
        NO_STATIC=1 PREFIX="$prefix")
    quiet "${make[@]}" -j "$jobs" libs shared
    quiet "${make[@]}" install
fi

cmake -S "$here/phalanx" -B "$work/phalanx" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF -DCMAKE_INSTALL_PREFIX="$prefix" \
    -DCMAKE_INSTALL_RPATH="$prefix/lib" > "$work/log.txt" 2>&1 || { tail -n 40 "$work/log.txt" >&2; exit 1; }
quiet cmake --build "$work/phalanx" -j "$jobs"
quiet cmake --install "$work/phalanx"
"$prefix/bin/phalanx" version
rm -rf "$work"
