#!/usr/bin/env bash
# The same program and tests against MPICH: the tests of MPI pass at 1, 2 and 4 ranks, and a run, colocated and by role, has the
# bits that it has with the library of PROGRAM. Builds beside PROGRAM's build directory, what is needed alone.
# Usage: mpich.sh PROGRAM. Skips (77) where MPICH's wrappers (mpicc.mpich, mpiexec.mpich) are not there.
set -u
phalanx=$(realpath "$1")
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$(dirname "$phalanx")/.." && pwd)/mpich
for tool in mpicc.mpich mpiexec.mpich mpirun cmake; do
    command -v $tool > /dev/null || { echo "skipped: no $tool"; exit 77; }
done
. "$root/tests/support/tiny_ppo.sh"
. "$(dirname "$0")/../support/scratch.bash"
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export OMP_NUM_THREADS=1
failed=0
fail() { echo "FAILED: $*" >&2; failed=1; }

generator=()
command -v ninja > /dev/null && [ ! -d "$build" ] && generator=(-G Ninja)
tests=$(cd "$root/tests/mpi" && ls test_*.c | sed 's/^\(.*\)\.c$/mpi_\1/')
# shellcheck disable=SC2086
{ cmake -S "$root" -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=ON -DPHALANX_WERROR=ON \
        -DMPI_C_COMPILER=mpicc.mpich -DMPIEXEC_EXECUTABLE="$(command -v mpiexec.mpich)" &&
  cmake --build "$build" -j "$(nproc)" --target phalanx $tests; } > build.log 2>&1 || { tail -n 30 build.log; exit 1; }
"$build/phalanx" version | grep -q '^mpi.*MPICH' || fail "another MPI: $("$build/phalanx" version | grep '^mpi')"

for test in $tests; do
    for ranks in 1 2 4; do
        timeout -k 5 100 mpiexec.mpich -n $ranks "$build/tests/$test" > test.out 2>&1 ||
            fail "$test at $ranks ranks: exit $?: $(tail -n 5 test.out)"
    done
done

tiny_ppo "$phalanx"
train() { # DIR PROGRAM RANKS [options]: with the launcher that MPI names
    local dir=$1; shift
    timeout -k 5 100 "$mpi" -n "$2" "$1" train ppo.yaml --run-dir "$dir" "${@:3}" > "$dir.out" 2>&1 < /dev/null ||
        fail "exit $? of $dir: $(tail -n 5 "$dir.out")"
}
mpi=mpirun train first "$phalanx" 2
mpi=mpiexec.mpich train colocated "$build/phalanx" 2
mpi=mpiexec.mpich train split "$build/phalanx" 4 --set env_runners.num_env_runners=2
same_run first colocated || fail "the run's bits depend on the library: $(cat differs)"
cmp first/policy/model.safetensors split/policy/model.safetensors || fail "env runners give other bits"
exit $failed
