#!/usr/bin/env bash
# One archive with the sources of the program and of the libraries it needs, for a machine without internet.
#   docs/packaging/bundle.sh phalanx-bundle.tar          on any Debian or Ubuntu with internet; no root
#   tar xf phalanx-bundle.tar && phalanx-bundle/build.sh $HOME/phalanx          there
# The libraries are the upstream archives of Debian's source packages, checked against Debian's signatures. MPI, a C compiler,
# CMake 3.22, make and pkg-config are the site's.
set -euo pipefail
out=$(realpath -m "${1:?usage: bundle.sh OUT.tar}")
here=$(cd "$(dirname "$0")" && pwd) root=$(cd "$(dirname "$0")/../.." && pwd)
sources="zlib libzstd xxhash libyaml jansson pcre2 utf8proc hdf5 openblas"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

. /etc/os-release
list=/etc/apt/sources.list.d/debian.sources
mirror=$(awk '/^URIs:/ { print $2; exit }' $list 2> /dev/null || true)
mkdir -p "$work"/{lists/partial,cache/archives/partial,phalanx-bundle/libraries}
echo "deb-src ${mirror:-http://deb.debian.org/debian} ${VERSION_CODENAME:?} main" > "$work/sources.list"
apt=(apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$work/lists"
    -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)")
"${apt[@]}" update
for source in $sources; do
    (cd "$work/phalanx-bundle/libraries" && "${apt[@]}" source --download-only "$source")
done
(cd "$work/phalanx-bundle/libraries" && rm -f ./*.dsc ./*.debian.tar.* ./*.diff.gz ./*.asc && sha256sum ./*.tar.* > SHA256SUMS)
git -C "$root" archive --prefix=phalanx-bundle/phalanx/ HEAD | tar x -C "$work"
git -C "$root" rev-parse --short=12 HEAD > "$work/phalanx-bundle/phalanx/COMMIT"
cp "$here/build.sh" "$work/phalanx-bundle/"
tar cf "$out" -C "$work" phalanx-bundle
(cd "$work/phalanx-bundle/libraries" && du -h ./*.tar.*)
