#!/usr/bin/env bash
# From a bare machine to an aligned model: sets up, builds, makes the data and the tokenizer, and runs the four stages of
# configs/quickstart.yaml on two ranks. Arguments go to `phalanx train`; RANKS and RUN_DIR may be set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
. "$root/cmake/setup.sh"
phalanx_setup
phalanx_mpi_environment
build=$root/build/release
work=$here/work

if [ ! -f "$work/data/DONE" ]; then
    mkdir -p "$work/data"
    "$build/quickstart/quickstart_make_data" "$work/data" >&2
    touch "$work/data/DONE"
fi
cp -f "$build/quickstart/quickstart_gold" "$work/gold"
if [ ! -f "$work/tokenizer/tokenizer.json" ]; then
    "$build/phalanx" tokenizer train --data "$work/data/corpus.txt" --vocab-size 1024 --out "$work/tokenizer" >&2
fi

cd "$root"
options=(--run-dir "${RUN_DIR:-runs/quickstart}")
exec mpirun -n "${RANKS:-2}" "$build/phalanx" train configs/quickstart.yaml "${options[@]}" "$@"
