# Sourced by experiments/quickstart/run.sh and tests/run.sh: checks for what the build needs, installs what is missing
# where that is allowed, configures and builds. Expects $root; arguments of phalanx_setup: extra packages for tests.

# Debian and Ubuntu package that brings each thing we look for.
phalanx_missing() {
    local missing=() module
    command -v cmake >/dev/null || missing+=(cmake)
    command -v pkg-config >/dev/null || missing+=(pkg-config)
    command -v cc >/dev/null || missing+=(build-essential)
    command -v mpicc >/dev/null && command -v mpirun >/dev/null || missing+=(libopenmpi-dev openmpi-bin)
    if command -v pkg-config >/dev/null; then
        pkg-config --exists hdf5 || command -v h5cc >/dev/null || missing+=(libhdf5-dev)
        while read -r module package; do
            pkg-config --exists "$module" || missing+=("$package")
        done <<'LIST'
openblas libopenblas-dev
yaml-0.1 libyaml-dev
jansson libjansson-dev
libpcre2-8 libpcre2-dev
libutf8proc libutf8proc-dev
libxxhash libxxhash-dev
zlib zlib1g-dev
libzstd libzstd-dev
LIST
    else
        missing+=(libhdf5-dev libopenblas-dev libyaml-dev libjansson-dev libpcre2-dev libutf8proc-dev libxxhash-dev
                  zlib1g-dev libzstd-dev)
    fi
    if [ "${1:-}" = tests ]; then
        pkg-config --exists cmocka 2>/dev/null || missing+=(libcmocka-dev)
        [ -x /usr/bin/h5dump ] || missing+=(hdf5-tools)
        /usr/bin/python3 -c 'import h5py' 2>/dev/null || missing+=(python3-h5py)
        # The tests of Slurm and of several hosts start daemons and namespaces: only root can, others skip them.
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! { command -v slurmctld && command -v slurmd; } >/dev/null; then
            missing+=(slurmctld slurmd slurm-client)
        fi
        if [ "$(id -u)" = 0 ] && ! command -v ip >/dev/null; then
            missing+=(iproute2) # hosts of network namespaces
        fi
        # So is a second MPI library, beside the first.
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! { command -v mpicc.mpich && command -v mpiexec.mpich; } >/dev/null; then
            missing+=(mpich libmpich-dev)
        fi
    fi
    command -v gnuplot >/dev/null || missing+=(gnuplot-nox)
    echo "${missing[@]}"
}

phalanx_setup() {
    local missing sudo=""
    missing=$(phalanx_missing "${1:-}")
    if [ -n "$missing" ]; then
        [ "$(id -u)" = 0 ] || sudo="sudo -n"
        if command -v apt-get >/dev/null && { [ -z "$sudo" ] || $sudo true 2>/dev/null; }; then
            echo "phalanx: installing $missing" >&2
            export DEBIAN_FRONTEND=noninteractive
            $sudo apt-get update -qq >/dev/null
            # shellcheck disable=SC2086
            $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null || return 1
        else
            echo "phalanx: missing: $missing" >&2
            echo "phalanx: ask your site for these (Debian's names), load the modules that bring them, or see docs/hpc.md" >&2
            return 1
        fi
    fi
    local generator=()
    command -v ninja >/dev/null && [ ! -d "$root/build/release" ] && generator=(-G Ninja)
    (cd "$root" && cmake --preset release "${generator[@]}" -DBUILD_TESTING="$([ "${1:-}" = tests ] && echo ON || echo OFF)" \
        >build-log.txt 2>&1 && cmake --build --preset release -j "$(nproc)" >>build-log.txt 2>&1) || {
        tail -n 40 "$root/build-log.txt" >&2
        echo "phalanx: the build failed; all of it is in build-log.txt" >&2
        return 1
    }
    rm -f "$root/build-log.txt"
}

# Open MPI in containers and on small machines: run as root, more ranks than cores, no binding of threads to one core.
phalanx_mpi_environment() {
    export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1
    if [ "$(id -u)" = 0 ]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    fi
}
