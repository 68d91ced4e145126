#!/usr/bin/env bash
# Where MPI reports deaths (ULFM: Open MPI 5), an env runner that is killed is dropped and the run goes on in place, to the bits of
# an undisturbed one; a dead learner ends the job at once, by name.
# Usage: ulfm.sh PROGRAM. Where the MPI library of PROGRAM has no ULFM, PHALANX_ULFM_ROOT names the root directory of a system that
# has it (docs/hpc.md): the sources are built and this is run in there. Else it skips (77). TEST_TRACE=1 tells what is going on.
set -u
phalanx=$(realpath "${1:?usage: ulfm.sh PROGRAM}")
source=$(cd "$(dirname "$0")/../.." && pwd)
skip() { echo "skipped: $*"; exit 77; }
ulfm=$("$phalanx" version | sed -n 's/^ulfm *//p')
if [ "${ulfm#no}" != "$ulfm" ]; then
    root=${PHALANX_ULFM_ROOT:-}
    [ -n "$root" ] || skip "ulfm: $ulfm; PHALANX_ULFM_ROOT names no system with it"
    [ "$(id -u)" = 0 ] || skip "chroot needs root"
    rm -rf "$root/phalanx" # a build of other sources is no witness
    mkdir -p "$root/phalanx" && (cd "$source" && tar -cf - CMake* cmake configs docs experiments include src tests README.md LICENSE) |
        tar -xf - -C "$root/phalanx" || exit 1
    chroot "$root" env TEST_TRACE="${TEST_TRACE:-}" bash -c 'cd /phalanx && {
        cmake --preset release -G Ninja -DBUILD_TESTING=OFF && cmake --build --preset release -j "$(nproc)" --target phalanx; } > build.log 2>&1 ||
        { tail -n 20 build.log >&2; exit 1; }
        build/release/phalanx version | grep -q "^ulfm *off" || { echo "skipped: no ULFM in $(build/release/phalanx version | grep ^mpi)"; exit 77; }
        exec bash tests/e2e/ulfm.sh build/release/phalanx'
    exit
fi

. "$source/tests/support/tiny_ppo.sh"
work=$(mktemp -d "${TMPDIR:-/tmp}/phalanx-ulfm-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe \
       PRTE_MCA_hwloc_default_binding_policy=none OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
failed=0 step=start
trace() { [ -z "${TEST_TRACE:-}" ] || echo "$SECONDS s: $step" >&2; }
fail() { echo "FAILED: $step: $*" >&2; failed=1; }
cd "$work" || exit 1
train() { # DIR [options]: two learners, two env runners; the exit code is mpirun's
    timeout -k 5 100 mpirun --with-ft ulfm -n 4 "$phalanx" train ppo.yaml --run-dir "$1" --set env_runners.num_env_runners=2 \
        "${@:2}" > "$1.out" 2> "$1.err" < /dev/null
}
said() { grep -q "$2" "$1.err" || fail "$1 does not say '$2': $(cat "$1.err")"; }
same() { same_run "$1" "$2" || fail "$1 and $2 differ: $(cat differs)"; }

step="a model whose completions end at different lengths"; trace
tiny_ppo "$phalanx"
"$phalanx" train ppo.yaml --run-dir whole > whole.out 2>&1 || fail "$(cat whole.out)"

for each in 4 1; do # ranks of a node: the dead one's neighbours see it, or MPI alone does
    step="a killed env runner, $each ranks a node"; trace
    PHALANX_RANKS_PER_NODE=$each PHALANX_FAULT=env_runner.die:20:2 train dropped$each || fail "exit $?: $(cat dropped$each.err)"
    same whole dropped$each
    "$phalanx" inspect dropped$each events 2> /dev/null | grep -q env_runner_died || fail "no event: $("$phalanx" inspect dropped$each events 2>&1)"
    "$phalanx" inspect dropped$each metrics --csv 2> /dev/null | awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "num_healthy_workers") k = i }
        END { exit !(k > 0 && $k == 1) }' || fail "the healthy count is not 1 at the end"
done

step="fewer than are wanted"; trace
PHALANX_RANKS_PER_NODE=1 PHALANX_FAULT=env_runner.die:20:2 train few --set fault_tolerance.min_healthy_env_runners=2
code=$?
[ $code = 69 ] || fail "exit $code, want 69: $(cat few.err)"
said few '^phalanx: 1 of 2 env runners answer'
train few || fail "exit $?: $(cat few.err)"
same whole few

step="a killed learner"; trace
begin=$SECONDS
PHALANX_RANKS_PER_NODE=1 PHALANX_FAULT=rank.die:3:1 train core
code=$?
[ $code != 0 ] && [ $((SECONDS - begin)) -lt 30 ] || fail "exit $code after $((SECONDS - begin)) s"
said core 'died, last heard: rank 1 (learner'
train core || fail "exit $?: $(cat core.err)"
same whole core

exit $failed
