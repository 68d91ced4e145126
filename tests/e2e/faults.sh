#!/usr/bin/env bash
# Seeded faults: while `phalanx supervise` runs a split job, random ranks are killed or stopped at random moments. Every run
# must end by itself with the weights of an undisturbed one, and go on after each fault from the last iteration it reported:
# what was in flight is all it may lose.
# Usage: faults.sh PROGRAM [RUNS [SEED [FAULTS]]]: 12 runs of seed 1 with one fault each. TEST_TRACE=1 tells what is going on.
set -u
phalanx=$1 runs=${2:-12} seed=${3:-1} faults=${4:-1}
. "$(dirname "$0")/../support/tiny_ppo.sh"
work=$(mktemp -d "${TMPDIR:-/tmp}/phalanx-faults-XXXXXX") || exit 1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1 \
       OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
command -v mpirun > /dev/null || { echo "skipped: no mpirun"; exit 77; }
iterations=25 longest=180 # seconds of a run with all its restarts; past them it hangs
children_of() { ps -o pid=,comm= --ppid "$1" 2>/dev/null | awk -v name="$2" 'index($2, name) == 1 { print $1 }'; }
ranks_of() { for p in $(children_of "$1" mpirun); do children_of "$p" phalanx; done; }
trace() { [ -z "${TEST_TRACE:-}" ] || echo "$SECONDS s: $*" >&2; }
fail() { echo "FAILED: seed $seed, $*" >&2; touch "$work/failed"; }
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

# After a fault the run goes on with the iteration after the last one that it had reported.
check_lost() { # NUMBER LOG
    awk -v run="$1" '/^ppo [0-9]+\// { split($2, at, "/"); done = at[1] }
        /continues after iteration/ { for (i = 1; i < NF; i++) if ($i == "iteration" && $(i + 1) < done) {
            print "run " run " goes on after iteration " $(i + 1) ", had reported " done; bad = 1 } }
        END { exit bad }' "$2"
}

faulty() { # NUMBER
    local dir=run$1 pid victim signal moment fault told= begin=$SECONDS code
    RANDOM=$((seed * 1000 + $1))
    "$phalanx" supervise --run-dir "$dir" --start-timeout 30 -- mpirun -n 4 "$phalanx" train ppo.yaml --run-dir "$dir" \
        --set env_runners.num_env_runners=2 --set env_runners.sample_timeout_s=1 --set fault_tolerance.wait_timeout_s=3 \
        --set stop.iterations=$iterations > "$dir.out" 2> "$dir.err" < /dev/null &
    pid=$!
    for fault in $(seq "$faults"); do
        moment=$((RANDOM % 200 + 10)) victim=$((RANDOM % 4 + 1)) signal=$([ $((RANDOM % 2)) = 0 ] && echo KILL || echo STOP)
        sleep "$(awk -v m=$moment 'BEGIN { print m / 100 }')"
        victim=$(ranks_of "$pid" | sed -n ${victim}p)
        [ -n "$victim" ] && kill -s "$signal" "$victim" 2> /dev/null && told="$told $signal@${moment}0ms"
    done
    while kill -0 "$pid" 2> /dev/null && [ $((SECONDS - begin)) -lt $longest ]; do sleep 0.2; done
    if kill -0 "$pid" 2> /dev/null; then
        fail "run $1 hangs after$told: $(tail -3 "$dir.err")"
        kill -9 $(ranks_of "$pid") $(children_of "$pid" mpirun) "$pid"
    fi
    wait "$pid" 2> /dev/null
    code=$?
    trace "run $1:$told, exit $code after $((SECONDS - begin)) s, $(grep -c 'starting again' "$dir.err") restarts"
    [ $code -eq 0 ] || fail "run $1: exit $code: $(tail -3 "$dir.err")"
    check_lost "$1" "$dir.err" || fail "run $1: lost more than the iteration in flight"
    for part in policy critic; do
        cmp -s "want/$part/model.safetensors" "$dir/$part/model.safetensors" || fail "run $1: its $part differs"
    done
    rm -rf "$dir"
}

tiny_ppo "$phalanx"
"$phalanx" train ppo.yaml --run-dir want --set stop.iterations=$iterations > want.out 2>&1 || fail "$(cat want.out)"
for number in $(seq 1 2 "$runs"); do # two at a time
    faulty "$number" & other=$!
    [ "$number" -lt "$runs" ] && faulty $((number + 1))
    wait $other
done
[ ! -e failed ]
