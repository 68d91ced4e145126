#!/usr/bin/env bash
# Seeded faults: while `phalanx supervise` runs a split job, random ranks are killed or stopped at random moments. Every run
# must end by itself with the weights of an undisturbed one, and go on after each fault from the last iteration it reported:
# what was in flight is all it may lose. Every fourth run is plain; the others have a scorer, a node for each rank, or sample
# ahead on two nodes with a scorer (its weights depend on what was in flight: there rows and counts are checked).
# Usage: faults.sh PROGRAM [RUNS [SEED [FAULTS [AT_ONCE]]]]: 8 runs of seed 1 with one fault each, two at a time. `faults.sh
# PROGRAM 200` is the long campaign. It prints what it counted. TEST_TRACE=1 tells what is going on.
set -u
phalanx=$(realpath "$1") runs=${2:-8} seed=${3:-1} faults=${4:-1} at_once=${5:-2}
. "$(dirname "$0")/../support/tiny_ppo.sh"
. "$(dirname "$0")/../support/scratch.bash"
export OMP_NUM_THREADS=1
command -v mpirun > /dev/null || { echo "skipped: no mpirun"; exit 77; }
iterations=25 longest=180 # seconds of a run with all its restarts; past them it hangs
children_of() { ps -o pid=,comm= --ppid "$1" 2>/dev/null | awk -v name="$2" 'index($2, name) == 1 { print $1 }'; }
ranks_of() { for p in $(children_of "$1" mpirun); do children_of "$p" phalanx; done; }
trace() { [ -z "${TEST_TRACE:-}" ] || echo "$SECONDS s: $*" >&2; }
fail() { echo "FAILED: seed $seed, $*" >&2; touch "$work/failed"; }
count() { echo "$*" >> "$work/counts"; }
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

# After a fault the run goes on with the iteration after the last one that it had reported.
check_lost() { # NUMBER LOG
    awk -v run="$1" '/^ppo [0-9]+\// { split($2, at, "/"); done = at[1] }
        /continues after iteration/ { for (i = 1; i < NF; i++) if ($i == "iteration" && $(i + 1) < done) {
            print "run " run " goes on after iteration " $(i + 1) ", had reported " done; bad = 1 } }
        END { exit bad }' "$2"
}

# A run that samples ahead: every iteration is there once, what it counts is what its rows say, and no sample is too old.
check_counts() { # DIR
    "$phalanx" inspect "$1" metrics --csv 2> /dev/null | awk -F, -v want=$iterations '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
        NR > 1 { rows++; tokens += $at["num_env_steps_sampled"]; all = $at["num_env_steps_sampled_lifetime"]
                 samples = $at["num_episodes_lifetime"]; most = $at["staleness/max"] > most ? $at["staleness/max"] : most }
        END { if (rows != want || tokens != all || samples != want * 16 || most > 1) {
                  print rows " rows, " tokens " tokens of " all ", " samples " samples, staleness " most; exit 1 } }'
}

faulty() { # NUMBER
    local dir=run$1 pid victim signal moment fault told= begin=$SECONDS code nodes=4 options=() restarts
    RANDOM=$((seed * 1000 + $1))
    case $(($1 % 4)) in
    1) ;;
    2) options=(--set placement.num_scorers=1) ;;
    3) nodes=1 ;;
    0) nodes=2 options=(--set placement.num_scorers=1 --set env_runners.max_staleness=1) ;;
    esac
    PHALANX_RANKS_PER_NODE=$nodes "$phalanx" supervise --run-dir "$dir" --start-timeout 30 -- mpirun -n 4 "$phalanx" train ppo.yaml --run-dir "$dir" \
        --set env_runners.num_env_runners=2 --set env_runners.sample_timeout_s=2 --set fault_tolerance.wait_timeout_s=8 \
        --set stop.iterations=$iterations "${options[@]}" > "$dir.out" 2> "$dir.err" < /dev/null &
    pid=$!
    for fault in $(seq "$faults"); do
        moment=$((RANDOM % 200 + 10)) victim=$((RANDOM % 4 + 1)) signal=$([ $((RANDOM % 2)) = 0 ] && echo KILL || echo STOP)
        sleep "$(awk -v m=$moment 'BEGIN { print m / 100 }')"
        victim=$(ranks_of "$pid" | sed -n ${victim}p)
        [ -n "$victim" ] && kill -s "$signal" "$victim" 2> /dev/null && told="$told $signal@${moment}0ms" &&
            count $signal
    done
    while kill -0 "$pid" 2> /dev/null && [ $((SECONDS - begin)) -lt $longest ]; do sleep 0.2; done
    if kill -0 "$pid" 2> /dev/null; then
        count hang
        fail "run $1 hangs after$told: $(tail -3 "$dir.err")"
        kill -9 $(ranks_of "$pid") $(children_of "$pid" mpirun) "$pid"
    fi
    wait "$pid" 2> /dev/null
    code=$?
    restarts=$(grep -c 'starting again' "$dir.err")
    trace "run $1:$told, exit $code after $((SECONDS - begin)) s, $restarts restarts"
    count restarts "$restarts"
    count seconds $((SECONDS - begin))
    [ $code -eq 0 ] || { count failure; fail "run $1: exit $code: $(tail -3 "$dir.err")"; }
    check_lost "$1" "$dir.err" || { count lost; fail "run $1: lost more than the iteration in flight"; }
    if [ $(($1 % 4)) = 0 ]; then
        check_counts "$dir" || { count wrong; fail "run $1 counts wrong"; }
    else
        for part in policy critic; do
            cmp -s "want/$part/model.safetensors" "$dir/$part/model.safetensors" || { count wrong; fail "run $1: its $part differs"; }
        done
    fi
    rm -rf "$dir"
}

tiny_ppo "$phalanx"
"$phalanx" train ppo.yaml --run-dir want --set stop.iterations=$iterations > want.out 2>&1 || fail "$(cat want.out)"
for number in $(seq "$runs"); do
    [ "$number" -le "$at_once" ] || wait -n
    faulty "$number" &
done
wait
awk -v runs="$runs" -v seed="$seed" '{ n[$1]++; sum[$1] += $2; most[$1] = $2 > most[$1] ? $2 : most[$1] }
    END { printf "%d runs of seed %d: %d ranks killed, %d stopped, %d restarts; %d hangs, %d failures, %d lost more than an " \
          "iteration, %d wrong results; %.0f s a run, at most %d\n", runs, seed, n["KILL"], n["STOP"], sum["restarts"], n["hang"],
          n["failure"], n["lost"], n["wrong"], sum["seconds"] / runs, most["seconds"] }' counts
[ ! -e failed ]
