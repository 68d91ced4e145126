#!/usr/bin/env bash
# One run directory, one job. A second start on a living run is refused; the lock of a dead process of this host is taken
# over at once, that of another host after 30 s of watching in which it does not change; an owner that was stopped and goes on
# after another took over publishes nothing, wherever it was stopped. $1: the program. OWNERS=long: the 30 s are waited for, else
# only that they are meant is seen, and a shorter silence is waited for.
set -u
phalanx=$(realpath "$1")
. "$(dirname "$0")/../support/tiny_ppo.sh"
. "$(dirname "$0")/../support/scratch.bash"
. "$(dirname "$0")/../support/steps.bash"
export OMP_NUM_THREADS=1
mpi=$(command -v mpirun || true)
processes() { local ranks; ranks=$(ranks_of "$1"); echo "${ranks:-$1}"; }

train() { # DIR [options]: to its end
    local dir=$1; shift
    timeout -k 5 60 "$phalanx" train ppo.yaml --run-dir "$dir" "$@" > "$dir.out" 2> "$dir.err" < /dev/null
}
begin() { # RANKS DIR [options]: as far as iteration 2, slowly, and on
    local ranks=$1 dir=$2 launch= turn; shift 2
    [ "$ranks" = 1 ] || launch="$mpi -n $ranks"
    TEST_DELAY=0.004 $launch "$phalanx" train ppo.yaml --run-dir "$dir" "$@" > "$dir.out" 2> "$dir.err" < /dev/null &
    pid=$!
    for turn in $(seq 1 3000); do
        awk -F'[:,]' '/"iteration"/ { exit !($2 >= 2) }' "$dir/status.json" 2> /dev/null && return
        kill -0 "$pid" 2> /dev/null || break
        sleep 0.01
    done
    fail "did not reach iteration 2: $(tail -n 3 "$dir.err")"
}
refused() { # DIR TEXT [options]: nothing is changed, one message
    local code before dir=$1 text=$2; shift 2
    before=$(cat "$dir/lock")
    timeout -k 5 60 "$phalanx" train ppo.yaml --run-dir "$dir" "$@" > again.out 2> again.err < /dev/null
    code=$?
    [ $code = 78 ] || fail "exit $code, want 78: $(tail -n 2 again.err)"
    [ "$(grep -c '^phalanx: ' again.err)" = 1 ] && grep -q "$text" again.err || fail "not one message with '$text': $(cat again.err)"
    [ "$(sed 's/^[^,]*//' "$dir/lock")" = "$(sed 's/^[^,]*//' <<< "$before")" ] || fail "the lock is another: $(cat "$dir/lock")"
}
lock_of_elsewhere() { # DIR: as if another host had made it
    sed 's/"host": "[^"]*"/"host": "elsewhere"/' "$1/lock" > "$1/other"
    mv "$1/other" "$1/lock"
}
beat() { # DIR: signs of life, by a clock that is wrong
    while sleep 0.2; do
        sed "s/\"heartbeat\": *[0-9.]*/\"heartbeat\": $RANDOM.0/" "$1/lock" > "$1/other" && mv "$1/other" "$1/lock"
    done
}
finished() { # DIR: it is what the straight run is, and nobody else's traces are left
    grep -q '"state": "done"' "$1/status.json" || fail "status.json: $(tr -d '\n' < "$1/status.json")"
    same_run straight "$1" || fail "$(cat differs)"
    [ ! -e "$1/lock" ] || fail "its lock is left: $(cat "$1/lock")"
    local left
    left=$(find "$1" -name '*.tmp*' -o -name 'lock.*' -o -name '*.old')
    [ -z "$left" ] || fail "left behind: $left"
}

cat > judge <<'JUDGE'
#!/usr/bin/env bash
while IFS= read -r line; do
    id=${line#*\"id\":}; id=${id%%,*}
    [ "${TEST_DELAY:-0}" = 0 ] || sleep "$TEST_DELAY"
    echo "{\"id\": $id, \"score\": 0.25}"
done
JUDGE
chmod +x judge
tiny_ppo "$phalanx"
sed -i "s|{kind: length, target: 4}\]|{kind: length, target: 4}, {name: judge, kind: exec, command: [\"$work/judge\"]}]|;
        s/iterations: 4/iterations: 12/; s/evaluation_interval: 2/evaluation_interval: 3/" ppo.yaml
train straight || fail "$(cat straight.err)"

step="a second start on a living run"; trace
begin 1 run
refused run "a run is going on here, process $pid on host"
step="--fresh on a living run"; trace
refused run "a run is going on here, process $pid on host" --fresh
[ ! -e run.1 ] || fail "it was set aside"
kill -0 $pid || fail "it ended: $(tail -n 2 run.err)"
step="its process is killed: the next start does not wait"; trace
kill -9 "$pid"; wait "$pid" 2> /dev/null; pid=
left_lock=$(cat run/lock)
grep -q '"token"' <<< "$left_lock" || fail "no lock is left to take over"
before=$(date +%s%3N)
train run || fail "$(cat run.err)"
[ $(($(date +%s%3N) - before)) -lt 10000 ] || fail "it waited"
finished run
step="--fresh on a run that is over, and on one that was killed"; trace
cp -r straight fresh
sed "s/\"pid\": [0-9]*/\"pid\": 999999999/" <<< "$left_lock" > fresh/lock
timeout -k 5 60 "$phalanx" train ppo.yaml --run-dir fresh/ --fresh > fresh.out 2> fresh.err < /dev/null || fail "$(cat fresh.err)"
finished fresh
finished fresh.1
[ ! -e fresh.2 ] || fail "two were set aside"

step="a lock of another host"; trace
begin 1 other
kill -9 "$pid"; wait "$pid" 2> /dev/null; pid=
lock_of_elsewhere other
beat other & pid=$!
refused other "process [0-9]* on host elsewhere"
refused other "process [0-9]* on host elsewhere" --fresh
kill $pid; wait $pid 2> /dev/null; pid=
rm -f other/other
silence=30
if [ "${OWNERS:-}" != long ]; then
    "$phalanx" train ppo.yaml --run-dir other > other.out 2> other.err < /dev/null & pid=$!
    for turn in $(seq 1 1000); do grep -q 'taken over unless' other.err && break; sleep 0.01; done
    kill -TERM $pid; wait $pid; code=$?
    pid=
    [ $code = 75 ] && grep -q 'taken over unless it changes within 30 s' other.err || fail "exit $code: $(cat other.err)"
    silence=2
    export PHALANX_LOCK_SILENCE_S=$silence
fi
before=$(date +%s%3N)
train other || fail "$(cat other.err)"
before=$(($(date +%s%3N) - before))
[ $before -ge ${silence}000 ] || fail "a silent lock of another host was watched for $before ms only"
finished other
export PHALANX_LOCK_SILENCE_S=0.5 # from here on

# The old owner sleeps at a moment of the seed's choice; its lock is then one of another host.
overtaken() { # RANKS MOMENT_MS WHEN: it goes on when the new owner has begun or has ended
    local dir=owner$1-$2-$3 stopped code owner
    begin "$1" "$dir"
    sleep "0.$(printf %03d "$2")"
    stopped=$(processes "$pid")
    kill -STOP $stopped
    lock_of_elsewhere "$dir"
    mv "$dir.err" "$dir.old.err"
    if [ "$3" = after ]; then
        train "$dir" || fail "the new owner: $(tail -n 2 "$dir.err")"
        cp -r "$dir" "$dir.then"
    else
        TEST_DELAY=0.004 timeout -k 5 60 "$phalanx" train ppo.yaml --run-dir "$dir" > "$dir.out" 2> "$dir.err" < /dev/null &
        owner=$!
        for turn in $(seq 1 1000); do grep -q 'continues after' "$dir.err" && break; sleep 0.01; done
    fi
    kill -CONT $stopped
    wait "$pid"; code=$?
    pid=
    [ $code != 0 ] || fail "the old owner says that it is done"
    grep -q 'taken over by another run\|run.h5: was removed or replaced' "$dir.old.err" || fail "the old owner: $(tail -n 3 "$dir.old.err")"
    if [ "$3" = after ]; then
        rm -f "$dir/log.txt" "$dir.then/log.txt"
        diff -r "$dir" "$dir.then" > differs || fail "the old owner has changed: $(cat differs)"
    else
        wait $owner || fail "the new owner: $(tail -n 2 "$dir.err")"
    fi
    finished "$dir"
}
for when in after while; do
    for moment in 0 40 90; do
        step="an owner of the past goes on, $when, $moment ms"; trace
        overtaken 1 $moment $when
    done
    [ -z "$mpi" ] || { step="two ranks of the past go on, $when"; trace; overtaken 2 20 $when; }
done

[ $failed = 0 ] && echo "all passed"
exit $failed
