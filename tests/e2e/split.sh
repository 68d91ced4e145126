#!/usr/bin/env bash
# Ranks by role: a split run gives the samples and weights of a colocated one, bit for bit; env runners that stop, die or
# lie cost their own work alone; what cannot be placed is refused by name.
# Usage: split.sh PROGRAM. TEST_TRACE=1 tells what is going on.
set -u
phalanx=$(realpath "$1")
. "$(dirname "$0")/../support/tiny_ppo.sh"
. "$(dirname "$0")/../support/scratch.bash"
. "$(dirname "$0")/../support/steps.bash"
export OMP_NUM_THREADS=1
h5diff=$(command -v h5diff || true)
command -v mpirun > /dev/null || { echo "skipped: no mpirun"; exit 77; }


train() { # RANKS DIR [options]: to its end; the exit code is the program's
    local ranks=$1 dir=$2; shift 2
    timeout -k 5 100 mpirun -n "$ranks" "$phalanx" train ppo.yaml --run-dir "$dir" "$@" > "$dir.out" 2> "$dir.err" < /dev/null
}
runners() { # RUNNERS RANKS DIR [options]
    local runners=$1 ranks=$2 dir=$3; shift 3
    train "$ranks" "$dir" --set env_runners.num_env_runners="$runners" "$@"
}
good() { "$@" || fail "exit $? of $*: $(cat "$(ls -t "$work"/*.err | head -1)" | grep '^phalanx: ' | tail -5)"; }
same() { # DIR DIR: weights, moments, samples and evaluations are equal bit for bit
    local part
    for part in policy critic; do
        cmp -s "$1/$part/model.safetensors" "$2/$part/model.safetensors" || fail "$part of $1 and $2 differ"
    done
    [ -n "$h5diff" ] || return
    for part in $(h5ls -r "$1/samples-000001.h5" | awk '$2 == "Dataset" && $1 !~ "^/samples/(rank|sample)$" { print $1 }'); do
        "$h5diff" -q "$1/samples-000001.h5" "$2/samples-000001.h5" "$part" "$part" || fail "$part of $1 and $2 differ"
    done
    for part in $(h5ls -r "$1/run.h5/evaluation" | awk '$2 == "Dataset" { print "/evaluation" $1 }'); do
        "$h5diff" -q "$1/run.h5" "$2/run.h5" "$part" "$part" || fail "$part of $1 and $2 differ"
    done
}
refused() { # CODE TEXT RANKS [options]
    local code=$1 text=$2 ranks=$3; shift 3
    train "$ranks" refused "$@"
    local got=$?
    [ $got -eq "$code" ] || fail "exit $got, want $code: $(cat refused.err)"
    [ "$(grep -c '^phalanx: ' refused.err)" = 1 ] && grep -q "$text" refused.err || fail "not one message with '$text': $(cat refused.err)"
    [ ! -e refused/run.h5 ] || fail "a refused run has a run file"
}
event() { # DIR KIND: an event of that kind is in the run file
    "$phalanx" inspect "$1" events 2> /dev/null | grep -q "$2" || fail "$1 has no event $2: $("$phalanx" inspect "$1" events 2>&1)"
}

step="a model whose completions end at different lengths"; trace
tiny_ppo "$phalanx"

step="split and colocated"; trace
"$phalanx" train ppo.yaml --run-dir whole > whole.out 2> whole.err || fail "$(cat whole.err)"
good runners 1 2 two
same whole two
good runners 2 4 four
same whole four
good runners 3 4 three --set env_runners.max_requests_in_flight_per_env_runner=1
same whole three
"$phalanx" inspect four ranks > ranks.txt 2>&1
[ "$(grep -c env_runner ranks.txt)" = 2 ] && grep -q 'driver+learner' ranks.txt || fail "the rank map: $(cat ranks.txt)"

step="by node class"; trace
classes() { # FIRST SECOND LIST DIR [options]: two ranks on either node
    local first=$1 second=$2 list=$3 dir=$4; shift 4
    timeout -k 5 100 mpirun -n 2 env SLURMD_NODENAME=$first "$phalanx" train ppo.yaml --run-dir "$dir" \
        --set placement.env_runner_nodes="$list" "$@" : -n 2 env SLURMD_NODENAME=$second "$phalanx" train ppo.yaml \
        --run-dir "$dir" --set placement.env_runner_nodes="$list" "$@" > "$dir.out" 2> "$dir.err" < /dev/null
}
good classes big1 cpu03 'old7,cpu[01-08]' classed
same whole classed
grep -q 'ranks: learner 0-1, env_runner 2-3' classed.err || fail "not printed: $(head -3 classed.err)"
SLURM_JOB_NODELIST_HET_GROUP_1='cpu[02-03]' good classes big1 cpu03 het-group:1 classed1 --set placement.num_evaluators=1
same whole classed1
"$phalanx" inspect classed1 ranks | grep -q evaluator || fail "the rank map: $("$phalanx" inspect classed1 ranks)"
wrong_class() { # TEXT FIRST SECOND LIST [options]
    local text=$1; shift
    classes "$1" "$2" "$3" refused "${@:4}"
    [ $? = 78 ] && [ "$(grep -c '^phalanx: ' refused.err)" = 1 ] && grep -q "$text" refused.err || fail "not one message with '$text': $(cat refused.err)"
    [ ! -e refused/run.h5 ] || fail "a refused run has a run file"
}
wrong_class 'rank 2 is not on these nodes, but rank 1 before it is' cpu03 big1 'cpu[01-08]'
wrong_class 'none of the 4 ranks is on these nodes (rank 0 is on big1)' big1 big2 'cpu[01-08]'
wrong_class 'is no list of nodes; valid is like' big1 cpu03 'cpu[01'
wrong_class 'SLURM_JOB_NODELIST_HET_GROUP_3 is not set' big1 cpu03 het-group:3
wrong_class 'but env_runners.num_env_runners is 3' big1 cpu03 cpu03 --set env_runners.num_env_runners=3

step="scorers"; trace
good runners 2 4 scored --set placement.num_scorers=1
same whole scored
good runners 2 8 eight --set placement.num_scorers=2 --set placement.num_evaluators=1 --set placement.num_spares=1
same whole eight
"$phalanx" inspect eight ranks > ranks.txt 2>&1
[ "$(grep -c scorer ranks.txt)" = 2 ] && [ "$(grep -c learner ranks.txt)" = 2 ] && [ "$(grep -c evaluator ranks.txt)" = 1 ] ||
    fail "the rank map: $(cat ranks.txt)"
grep -q 'ranks: learner 0-1, scorer 2-3, env_runner 4-5, evaluator 6, spare 7' eight.err || fail "not printed: $(head -3 eight.err)"
cat > rm.yaml <<'YAML'
run: {name: rm, dir: rm, seed: 3}
algorithm: reward
rl_module: {reward: {path: base/policy}}
data: {train: pairs.jsonl, max_tokens: 16}
training: {batch_size: 8, lr: 1.0e-2}
stop: {steps: 3}
YAML
for i in $(seq 1 8); do
    echo "{\"prompt_ids\": [$(ids $i 1 4)], \"chosen_ids\": [$(ids $((20 + i)) 1 5)], \"rejected_ids\": [$(ids $((40 + i)) 4 9)]}"
done > pairs.jsonl
"$phalanx" train rm.yaml > rm.out 2> rm.err || fail "$(cat rm.err)"
sed 's/rl_module: {/rl_module: {reward: {path: rm\/reward}, /; s/rewards: .*/rewards: [{kind: model}, {kind: length, target: 4}]}/
     s/same_as: policy/same_as: reward/' ppo.yaml > ppo-rm.yaml
mv ppo.yaml ppo-length.yaml && cp ppo-rm.yaml ppo.yaml
"$phalanx" train ppo.yaml --run-dir judged > judged.out 2> judged.err || fail "$(cat judged.err)"
PHALANX_RANKS_PER_NODE=2 good runners 1 4 judged4 --set placement.num_scorers=2
same judged judged4
PHALANX_FAULT=rank.die:3:1 runners 2 4 judgedead --set placement.num_scorers=1
[ $? -ne 124 ] || fail "hangs"
grep -q 'post-mortem: a rank died: rank 1 (scorer' judgedead.err || fail "no post-mortem: $(cat judgedead.err)"
good runners 2 4 judgedead --set placement.num_scorers=1
same judged judgedead
good runners 2 4 judgedahead --set placement.num_scorers=1 --set env_runners.max_staleness=1
mv ppo-length.yaml ppo.yaml

step="a time line"; trace
good runners 2 4 lined --set debugging.timeline=true
same whole lined
"$phalanx" inspect lined timeline > trace.json 2> trace.err || fail "$(cat trace.err)"
for want in "process_name.*rank 0: driver+learner" "process_name.*rank 3: env_runner" '"learn", "ph": "B", "pid": 1,.*"iteration": 4' \
            '"generate", "ph": "B", "pid": 2,'; do
    grep -q "$want" trace.json || fail "no $want in the time line: $(head -c 600 trace.json)"
done
[ "$(grep -c '"ph": "B"' trace.json)" = "$(grep -c '"ph": "E"' trace.json)" ] || fail "phases that do not end"
if command -v python3 > /dev/null; then python3 -m json.tool trace.json > /dev/null || fail "no JSON"; fi

step="weights between nodes"; trace
PHALANX_RANKS_PER_NODE=1 good runners 2 4 nodes --set debugging.timeline=true
same whole nodes
"$phalanx" inspect nodes timeline > trace.json 2> trace.err || fail "$(cat trace.err)"
for want in '"sum, while backward goes on", "ph": "X", "pid": 1, "tid": 1' '"receive", "ph": "X", "pid": 3, "tid": 2'; do
    grep -q "$want" trace.json || fail "no $want in the time line: $(head -c 600 trace.json)"
done
awk '{ pid = ts = $0; sub(/.*"pid": /, "", pid); sub(/.*"ts": /, "", ts) } # the weights leave while the critic learns
    pid + 0 != 0 { next }
    /"ph": "B"/ { if ($0 ~ /"learn"/) from[++n] = ts + 0; learning = $0 ~ /"learn"/ }
    /"ph": "E"/ && learning { to[n] = ts + 0; learning = 0 }
    /"send to another node"/ { sent[++sends] = ts + 0 }
    END { for (s = 1; s <= sends; s++) for (i = 1; i <= n; i++) within += sent[s] >= from[i] && sent[s] <= to[i]
          if (n < 4 || within < n) { print n " times learnt, " within " of " sends " sends meanwhile"; exit 1 } }' trace.json ||
    fail "weights are not sent while the critic learns"

often=(--set reporting.samples.every=100 --set checkpointing.recovery_interval=40) # of many iterations most of the time is writing

step="an env runner that stops is left out and taken back"; trace
PHALANX_FAULT=env_runner.hang:9:3 mpirun -n 4 "$phalanx" train ppo.yaml --run-dir back --set env_runners.num_env_runners=2 \
    --set env_runners.sample_timeout_s=0.5 --set stop.iterations=600 "${often[@]}" \
    > back.out 2> back.err < /dev/null &
pid=$! stopped=
for turn in $(seq 1 400); do
    stopped=$(ps -o pid=,stat=,comm= --ppid "$pid" | awk '$2 ~ /^T/ && $3 ~ /^phalanx/ { print $1 }')
    [ -n "$stopped" ] && break
    sleep 0.02
done
[ -n "$stopped" ] || fail "nobody stopped"
for turn in $(seq 1 200); do grep -q env_runner_left_out back.err && break; sleep 0.05; done
sleep 0.3 # some iterations without it
kill -CONT $stopped
wait "$pid" || fail "exit $?: $(tail -3 back.err)"
pid=
event back env_runner_left_out
event back env_runner_back
[ "$(grep -c env_runner_left_out back.err)" -le 5 ] || fail "it is left out again and again: $(grep -c env_runner_left_out back.err) times"
"$phalanx" train ppo.yaml --run-dir long --set stop.iterations=600 "${often[@]}" > long.out 2> long.err ||
    fail "$(cat long.err)"
cmp -s long/policy/model.safetensors back/policy/model.safetensors || fail "its weights differ"
"$phalanx" inspect back metrics --csv 2> /dev/null | awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "num_healthy_workers") k = i }
    NR > 1 { few += $k == 1; all += $k == 2 } END { exit !(few > 0 && all > 0) }' || fail "healthy counts are not in the metrics"

step="one that stops for good does not keep the job"; trace
PHALANX_FAULT=env_runner.hang:9:3 good runners 2 4 gone --set env_runners.sample_timeout_s=0.5
same whole gone

step="a batch of weights that were never published is refused"; trace
PHALANX_FAULT=env_runner.hash:3:2 good runners 2 4 liar
event liar batch_refused
same whole liar

step="a stop while others sample"; trace
mpirun -n 4 "$phalanx" train ppo.yaml --run-dir stop --set env_runners.num_env_runners=2 --set stop.iterations=600 \
    "${often[@]}" > stop.out 2> stop.err < /dev/null &
pid=$!
for turn in $(seq 1 400); do grep -q '^ppo [0-9]' stop.err && break; sleep 0.02; done
kill -USR1 "$pid" # mpirun passes it on
wait "$pid"
code=$?
pid=
[ $code -eq 75 ] || fail "exit $code, want 75: $(tail -3 stop.err)"
good train 1 stop --set stop.iterations=600 "${often[@]}" # colocated from here on
cmp -s long/policy/model.safetensors stop/policy/model.safetensors || fail "its weights differ"

step="a rank that hangs ends the job by the deadline"; trace
begin=$SECONDS
PHALANX_FAULT=rank.hang:3:1 runners 2 4 stuck --set fault_tolerance.wait_timeout_s=2
[ $? -eq 69 ] || fail "exit $?, want 69"
[ $((SECONDS - begin)) -lt 20 ] || fail "takes $((SECONDS - begin)) s to end"
grep -q 'no answer from the other ranks after a wait of 2 s' stuck.err &&
    grep -q 'rank 1 (learner, pid .* of iteration [23] for' stuck.err ||
    fail "no post-mortem: $(cat stuck.err)"
[ "$(grep -c 'ending the job' stuck.err)" = 1 ] || fail "not one message: $(cat stuck.err)"
grep -q '"state": "failed"' stuck/status.json && grep -q '"exit_code": 69' stuck/status.json &&
    grep -q '"iteration": [12]' stuck/status.json || fail "status: $(cat stuck/status.json)"
good runners 1 2 stuck
same whole stuck

step="a rank that hangs on another node is named by one that heard it"; trace
for rank in 0 1; do
    PHALANX_RANKS_PER_NODE=1 PHALANX_FAULT=rank.hang:3:$rank train 2 far$rank --set fault_tolerance.wait_timeout_s=2
    [ $? -eq 69 ] || fail "exit $?, want 69"
    grep -q "last heard: rank $rank (.*learner, pid .* on .*) in phase '.*' of iteration [23] for" far$rank.err ||
        fail "no post-mortem: $(cat far$rank.err)"
done

step="a job that is suspended goes on"; trace
mpirun -n 4 "$phalanx" train ppo.yaml --run-dir slept --set env_runners.num_env_runners=2 --set fault_tolerance.wait_timeout_s=2 \
    --set stop.iterations=200 "${often[@]}" > slept.out 2> slept.err < /dev/null &
pid=$!
for turn in $(seq 1 400); do grep -q '^ppo [0-9]' slept.err && break; sleep 0.02; done
all="$pid $(ranks_of "$pid")"
kill -STOP $all
sleep 4
kill -CONT $all
wait "$pid" || fail "exit $?: $(tail -3 slept.err)"
pid=
"$phalanx" train ppo.yaml --run-dir awake --set stop.iterations=200 "${often[@]}" > awake.out 2> awake.err || fail "$(cat awake.err)"
cmp -s awake/policy/model.safetensors slept/policy/model.safetensors || fail "its weights differ"

step="too few env runners: checkpoint and exit 69"; trace
PHALANX_FAULT=env_runner.hang:50:1 runners 1 2 few --set env_runners.sample_timeout_s=0.5
code=$?
[ $code -eq 69 ] || fail "exit $code, want 69: $(cat few.err)"
grep -q '^phalanx: 0 of 1 env runners answer' few.err || fail "not said: $(cat few.err)"
grep -q '"exit_code": 69' few/status.json || fail "status.json: $(cat few/status.json)"
ls few | grep -Eq 'recovery_|checkpoint_' || fail "nothing was saved: $(ls few)"
good train 1 few
same whole few

step="a dead env runner"; trace # the launcher ends the job, or the job ends first
PHALANX_FAULT=env_runner.die:20:2 runners 2 4 dead
[ $? -ne 124 ] || fail "hangs"
grep -q 'post-mortem: a rank died: rank 2 (env_runner, pid .* in phase .* of iteration' dead.err || fail "no post-mortem: $(cat dead.err)"
good train 2 dead
same whole dead

step="a dead learner"; trace
PHALANX_FAULT=rank.die:3:1 runners 2 4 core
code=$?
[ $code -ne 124 ] && [ $code -ne 0 ] || fail "exit $code"
good runners 1 2 core
same whole core
if mpirun --version 2>/dev/null | grep -q 'Open MPI) 4'; then
    step="a launcher that lets survivors go on"; trace
    begin=$SECONDS
    PHALANX_FAULT=rank.die:3:1 timeout -k 5 60 mpirun --enable-recovery -n 4 "$phalanx" train ppo.yaml --run-dir alone \
        --set env_runners.num_env_runners=2 > alone.out 2> alone.err < /dev/null
    [ $((SECONDS - begin)) -lt 20 ] || fail "takes $((SECONDS - begin)) s to end"
    grep -q 'post-mortem: a rank died: rank 1 (learner' alone.err || fail "no post-mortem: $(cat alone.err)"
    PHALANX_FAULT=env_runner.die:20:2 timeout -k 5 60 mpirun --enable-recovery -n 4 "$phalanx" train ppo.yaml --run-dir onward \
        --set env_runners.num_env_runners=2 > onward.out 2> onward.err < /dev/null || fail "exit $?: $(cat onward.err)"
    event onward env_runner_died
    same whole onward
    begin=$SECONDS # on another node: by the deadline; and where MPI cannot end the job, each rank ends itself
    PHALANX_RANKS_PER_NODE=1 PHALANX_FAULT=rank.die:3:1 timeout -k 5 60 mpirun --enable-recovery -n 2 "$phalanx" train ppo.yaml \
        --run-dir lost --set fault_tolerance.wait_timeout_s=2 > lost.out 2> lost.err < /dev/null
    [ $((SECONDS - begin)) -lt 20 ] || fail "takes $((SECONDS - begin)) s to end"
    grep -q 'last heard: rank 1 (learner' lost.err || fail "no post-mortem: $(cat lost.err)"
    PHALANX_FAULT=mpi.abort:1+:0 timeout -k 5 60 mpirun --enable-recovery -n 2 "$phalanx" train ppo.yaml --run-dir deaf \
        --set stop.iterations=600 "${often[@]}" > deaf.out 2> deaf.err < /dev/null &
    pid=$!
    for turn in $(seq 1 400); do grep -q '^ppo [0-9]' deaf.err && break; sleep 0.02; done
    launcher=$(ps -o pid= --ppid "$pid")
    kill -9 $(ranks_of $launcher | tail -1)
    wait "$pid"
    [ $? -ne 124 ] || fail "hangs where MPI_Abort does"
    pid=
fi

step="sampling ahead"; trace
good runners 2 4 ahead --set env_runners.max_staleness=1 --set stop.iterations=8
PHALANX_FAULT=rank.die:5:0 runners 2 4 killed --set env_runners.max_staleness=1 --set stop.iterations=8
good runners 2 4 killed --set env_runners.max_staleness=1 --set stop.iterations=8
mpirun -n 4 "$phalanx" train ppo.yaml --run-dir stopped --set env_runners.num_env_runners=2 --set env_runners.max_staleness=1 \
    --set stop.iterations=80 > stopped.out 2> stopped.err < /dev/null &
pid=$!
for turn in $(seq 1 400); do grep -q '^ppo [0-9]' stopped.err && break; sleep 0.02; done
kill -USR1 "$pid"
wait "$pid"
code=$?
pid=
[ $code -eq 75 ] || fail "exit $code, want 75: $(tail -3 stopped.err)"
good runners 2 4 stopped --set env_runners.max_staleness=1 --set stop.iterations=80
for dir in ahead killed stopped; do # what was in flight at the kill or stop is sampled again, and counted once
    "$phalanx" inspect $dir metrics --csv 2> /dev/null | awk -F, -v want=$([ $dir = stopped ] && echo 80 || echo 8) '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
        NR > 1 { rows++; tokens += $at["num_env_steps_sampled"]; all = $at["num_env_steps_sampled_lifetime"]
                 samples = $at["num_episodes_lifetime"]; most = $at["staleness/max"] > most ? $at["staleness/max"] : most }
        END { if (rows != want || tokens != all || samples != want * 16 || most != 1) {
                  print rows " rows, " tokens " tokens of " all ", " samples " samples, staleness " most; exit 1 } }' ||
        fail "$dir counts wrong"
done

step="requests of an evaluation and of an iteration ahead keep to themselves"; trace
still=(--set training.lr=1e-12 --set training.num_epochs=1 --set training.minibatch_size=128 --set env_runners.samples_per_prompt=16
    --set env_runners.max_slots=1 --set evaluation.evaluation_interval=1 --set evaluation.num_prompts=20 --set stop.iterations=80)
answers() { # DIR: what was sampled and answered, of weights that hardly change
    "$phalanx" inspect "$1" metrics --csv 2> /dev/null | awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
        { print $2, $at["objective/scores"], $at["response_length/mean"] }'
    "$phalanx" inspect "$1" evaluation --csv 2> /dev/null | cut -d, -f2-
}
"$phalanx" train ppo.yaml --run-dir calm "${still[@]}" > calm.out 2> calm.err || fail "$(cat calm.err)"
good runners 1 2 apart --set env_runners.max_staleness=1 "${still[@]}"
diff <(answers calm) <(answers apart) > apart.diff || fail "they differ: $(head -4 apart.diff)"
[ "$(answers apart | wc -l)" = 163 ] || fail "rows are missing: $(answers apart | wc -l)"
! grep -q batch_refused apart.err stopped.err ahead.err || fail "a batch was refused: $(grep -h batch_refused ./*.err | head -1)"

step="what does not fit is refused"; trace
refused 78 'env_runners.num_env_runners: 2 of 2 ranks' 2 --set env_runners.num_env_runners=2
refused 78 'learners.num_learners is 2 and 1 ranks only sample' 2 --set env_runners.num_env_runners=1 --set learners.num_learners=2

exit $failed
