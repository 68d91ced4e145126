#!/usr/bin/env bash
# Sets up, builds and runs the tests. Without arguments: everything labelled quick; arguments go to ctest instead.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/cmake/setup.sh"
phalanx_setup tests
phalanx_mpi_environment
cd "$root"
if [ $# -eq 0 ]; then
    set -- -L quick
fi
exec ctest --preset release -j $(($(nproc) + 1)) "$@" # scripts wait half of their time
