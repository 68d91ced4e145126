#!/usr/bin/env bash
# plan, submit --dry-run and supervise from outside, without Slurm: a chain of stages that have not run is planned, what
# cannot run is refused at its line, scripts are ones that bash takes, and a command is restarted as the manual says.
# PHALANX_TIMING=1, on a quiet machine: every kind of run takes what its plan says within a quarter; else two within eight times.
set -u
phalanx=$(realpath "$1")
root=$(cd "$(dirname "$0")/../.." && pwd)
. "$(dirname "$0")/../support/scratch.bash"
trap 'rm -rf "$work"' EXIT
failed=0
export PHALANX_SITE=$work/site.yaml
cd "$work" || exit 1

fail() { echo "FAILED: $*" >&2; failed=1; }
code() {
    local want=$1 text=$2; shift 2
    "$@" > "$work/out" 2> "$work/err" < /dev/null; local got=$?
    [ "$got" = "$want" ] || fail "exit $got, want $want: $*: $(cat "$work/err")"
    grep -qF -- "$text" "$work/out" "$work/err" || fail "no '$text' in the answer of: $*: $(cat "$work/err" "$work/out")"
}
field() { /usr/bin/python3 -c "import json; x=json.load(open('$work/out')); print($1)"; }

# Token ids stand for texts: no tokenizer is needed.
for i in 1 2 3 4 5 6 7 8; do
    echo "{\"prompt_ids\": [1, 2, 3], \"completion_ids\": [4, 5, 6, 7, 8, $i]}" >> sft.jsonl
    echo "{\"prompt_ids\": [1, 2, 3, $i]}" >> prompts.jsonl
done
cat > run.yaml <<'END'
defaults:
  run: {name: tiny, dir: "runs/{name}", threads_per_rank: 1}
stages:
  sft:
    algorithm: sft
    rl_module: {policy: {new: {hidden_size: 32, num_hidden_layers: 5, num_attention_heads: 2, vocab_size: 64, max_position_embeddings: 64}}}
    data: {train: sft.jsonl, validation: sft.jsonl}
    training: {batch_size: 4}
    stop: {steps: 6}
  ppo:
    algorithm: ppo
    rl_module: {policy: {stage: sft}, critic: {same_as: policy}}
    environment: {prompts: prompts.jsonl, max_prompt_tokens: 8, max_completion_tokens: 16, rewards: [{kind: length, target: 8}]}
    training: {prompts_per_iteration: 8, minibatch_size: 8}
    evaluation: {prompts: prompts.jsonl, evaluation_interval: 1}
    stop: {iterations: 2}
END
echo 'cpus_per_task: 1' > site.yaml

# ---- plan ----
code 0 "shares" "$phalanx" plan run.yaml
code 0 '"stages"' "$phalanx" plan run.yaml --nodes 2 --ntasks-per-node 2 --json
[ "$(field 'len(x["ranks"])')" = 4 ] || fail "four ranks have $(field 'x["ranks"]')"
[ "$(field '[s["iterations"] for s in x["stages"]]')" = "[6, 2]" ] || fail "schedule: $(cat out)"
[ "$(field 'x["stages"][1]["completion_tokens"]')" = 6.0 ] || fail "completions are those of the demonstrations: $(cat out)"
[ "$(field 'x["seconds"] > 0 and x["disk_bytes"] > 1e4 and x["files"] > 20')" = True ] || fail "totals: $(cat out)"
policy=$(field 'x["stages"][1]["roles"][0]["memory"]["policy"]')
[ -e runs ] && fail "a plan leaves files behind"

# the run agrees with its plan, to the byte
SLURM_HET_SIZE=2 SLURM_JOB_CPUS_PER_NODE_HET_GROUP_0="3(x2)" SLURM_JOB_CPUS_PER_NODE_HET_GROUP_1=1 SLURM_JOB_CPUS_PER_NODE=1 \
    "$phalanx" train run.yaml > /dev/null 2> train.log || fail "train: $(cat train.log)"
code 0 '"stages"' "$phalanx" plan run.yaml --json
grep -A4 'plan: ppo' train.log | grep -q "policy  *$(field '"%.1f" % (x["stages"][1]["roles"][0]["memory"]["policy"] / 1048576)') MiB" ||
    fail "memory of the plan and of the run differ: $(grep -A4 'plan: ppo' train.log), $(cat out)"
files=$(find runs -type f | wc -l); bytes=$(du -sb runs | cut -f1)
[ "$(field "x['files'] >= $files and x['disk_bytes'] >= 0.9 * $bytes and x['disk_bytes'] < 3 * $bytes")" = True ] ||
    fail "$files files, $bytes bytes, planned $(field 'x["files"], x["disk_bytes"]')"
[ -n "$policy" ] || fail "no memory of the policy"

# cores that the job holds: those of Slurm's allocation, elsewhere what its ranks may use
taskset -c "$(taskset -pc $$ | sed 's/.*: *//; s/[-,].*//')" "$phalanx" train run.yaml --stage sft --run-dir bound > /dev/null 2> train.log ||
    fail "train: $(cat train.log)"
for run in "runs/tiny/sft 7" "bound/sft 1"; do
    code 0 core_hours "$phalanx" inspect ${run% *} metrics --json
    [ "$(field 'round(x[-1]["core_hours"] / x[-1]["time_total_s"] * 3600)')" = "${run#* }" ] || fail "cores of $run: $(cat out)"
done

# what the program writes itself is planned as its original: here prompts of 512 tokens are the default, more than the models take
sed 's/max_prompt_tokens: 8, //' run.yaml > default.yaml
code 0 '"stages"' "$phalanx" plan default.yaml --stage ppo --set run.name=tiny --json
cp out planned
for form in yaml json; do
    code 0 max_prompt_tokens "$phalanx" config default.yaml --set run.name=tiny $([ $form = yaml ] || echo --json)
    cp out written.$form
    code 0 '"stages"' "$phalanx" plan written.$form --stage ppo --json
    for part in "['schedule']" "['disk_bytes']" "['completion_tokens']" "['roles'][0]['memory']['rollout']"; do
        [ "$(field "x['stages'][0]$part")" = "$(field "json.load(open('planned'))['stages'][0]$part")" ] ||
            fail "$part of written.$form: $(cat out planned)"
    done
done
code 78 "max_prompt_tokens + max_completion_tokens is 527" "$phalanx" plan written.yaml --set ppo.environment.max_prompt_tokens=511
code 0 "" "$phalanx" plan runs/tiny/sft/config.yaml --run-dir again
code 78 "rl_module.policy.stage: stage 'sft' is not in this file" "$phalanx" plan runs/tiny/ppo/config.yaml --run-dir again
code 0 "" "$phalanx" plan runs/tiny/ppo/config.yaml --run-dir again --set rl_module.policy.path=../sft/policy

# ---- roles: by rank, node and stage; a heterogeneous job ----
roles='[r["roles"]["ppo"] for r in x["ranks"]]'
split="--set env_runners.num_env_runners=2 --set placement.num_scorers=1 --set placement.num_evaluators=1 --set sft.training.batch_size=8"
code 0 '"stages"' "$phalanx" plan run.yaml --nodes 2 --ntasks-per-node 3 $split --json
[ "$(field "$roles")" = "['driver+learner', 'learner', 'scorer', 'env_runner', 'env_runner', 'evaluator']" ] || fail "roles: $(cat out)"
[ "$(field '{r["roles"]["sft"] for r in x["ranks"][1:]}, [r["node"] for r in x["ranks"]]')" = "{'learner'} [0, 0, 0, 1, 1, 1]" ] ||
    fail "nodes: $(cat out)"
field '*[(r["role"], r["ranks"], r["memory_bytes"], r["frozen_bytes"]) for r in x["stages"][1]["roles"]], sep="\n"' > map
/usr/bin/python3 - out <<'END' || fail "memory of nodes: $(cat map)"
import json, sys
s = json.load(open(sys.argv[1]))["stages"][1]
by = {r["role"]: r for r in s["roles"]}
def node(*names): return sum(by[n]["memory_bytes"] for n in names) + s["shared_bytes"] + max(by[n]["frozen_bytes"] for n in names)
want = [node("driver+learner", "learner", "scorer"), node("env_runner", "env_runner", "evaluator")]
sys.exit(0 if s["node_memory_bytes"] == want and want[0] != want[1] and s["shared_bytes"] > 0 and
         "collector" in by["driver+learner"]["memory"] and "collector" not in by["learner"]["memory"] and
         set(by["env_runner"]["memory"]) == {"sampler", "messages", "data"} else 1)
END
code 0 "node 1 " "$phalanx" plan run.yaml --nodes 2 --ntasks-per-node 3 $split
grep -q 'node 1 .* MiB  env_runner 3-4, evaluator 5' out || fail "the map: $(cat out)"
het="--ntasks-per-node 2 --het-group 2x2x4 --set placement.env_runner_nodes=het-group:1"
code 0 '"stages"' "$phalanx" plan run.yaml $het --stage ppo --json
[ "$(field '[(r["role"], r["ranks"]) for r in x["stages"][0]["roles"]]')" = "[('driver+learner', 1), ('learner', 1), ('env_runner', 4)]" ] ||
    fail "components: $(cat out)"
[ "$(field 'round(x["core_hours"] / x["seconds"] * 3600)')" = 18 ] || fail "cores of all components: $(cat out)"
code 0 "env_runner 1" "$phalanx" plan run.yaml --nodes 2 --stage ppo --set 'placement.env_runner_nodes=cpu[7]'
code 78 "valid is het-group:1" "$phalanx" plan run.yaml $het --stage ppo --set placement.env_runner_nodes=het-group:0
code 78 "names 3 nodes, the job has 3" "$phalanx" plan run.yaml --nodes 3 --stage ppo --set 'placement.env_runner_nodes=cpu[1-3]'
code 64 "valid is NODESxRANKSxCORES" "$phalanx" plan run.yaml --het-group 2x2
code 0 "#SBATCH hetjob" "$phalanx" submit run.yaml $het --stage ppo --dry-run
bash -n out || fail "bash does not take the script: $(cat out)"
for text in '--het-group=0 --mpi=pmix --nodes=1 --ntasks=2 --cpus-per-task=1' '--het-group=1 --mpi=pmix --nodes=2 --ntasks=4 --cpus-per-task=4'; do
    grep -qF -- "$text" out || fail "no $text in $(cat out)"
done
code 64 "no arrays of heterogeneous" "$phalanx" submit run.yaml $het --stage ppo --dry-run --array run.seed=1:2

# ---- what cannot run ----
sed 's/hidden_size: 32/hidden_size: 33/' run.yaml > odd.yaml
code 78 "odd.yaml:6:" "$phalanx" plan odd.yaml
sed 's/max_completion_tokens: 16/max_completion_tokens: 80/' run.yaml > long.yaml
code 78 "long.yaml:13:" "$phalanx" plan long.yaml
code 74 "gone.jsonl" "$phalanx" plan run.yaml --set sft.data.train=gone.jsonl
code 0 '"stages"' "$phalanx" plan run.yaml --json
node=$(field 'x["stages"][1]["node_memory_bytes"][0]') # with packed matrices, which a node with less does without
echo "memory_gib: $(/usr/bin/python3 -c "print(($node - 1024) / 2**30)")" > site.yaml
code 0 '"stages"' "$phalanx" plan run.yaml --json
[ "$(field "x['stages'][1]['node_memory_bytes'][0] < $node - 1024")" = True ] || fail "less memory, the same plan: $(cat out)"
echo 'memory_gib: 0.001' > site.yaml
code 78 "out of memory: the plan wants" "$phalanx" plan run.yaml
grep -q 'run.yaml:[0-9]*:[0-9]*: out of memory' err || fail "no line: $(cat err)"
echo 'memory_gib: 4000' > site.yaml
cat > wide.yaml <<'END'
run: {name: wide}
algorithm: ppo
rl_module: {policy: {new: {architecture: gpt2, hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, vocab_size: 16,
            max_position_embeddings: 16640}}, critic: {same_as: policy}}
environment: {prompts: ids.jsonl, max_prompt_tokens: 4, max_completion_tokens: 16384, rewards: [{kind: length, target: 3}]}
env_runners: {num_env_runners: 1, samples_per_prompt: 65536}
training: {prompts_per_iteration: 1, minibatch_size: 1}
stop: {iterations: 1}
END
echo '{"prompt_ids": [3, 4]}' > ids.jsonl
code 78 "are a message of 8.0 GiB between ranks; valid is at most 2 GiB" "$phalanx" plan wide.yaml --nodes 1 \
    --ntasks-per-node 2 --cpus-per-task 1
grep -q 'wide.yaml:[0-9]*:[0-9]*: the samples of one prompt' err || fail "no line: $(cat err)"
printf 'acount: x\nlauncher: prun\nmodules: {a: b}\nmax_time: soon\n' > site.yaml
code 78 "site.yaml:1:1: unknown key 'acount'; did you mean 'account'?" "$phalanx" plan run.yaml
for line in 2:11 3:10 4:11; do grep -q "site.yaml:$line: " err || fail "site.yaml:$line: $(cat err)"; done

# ---- time ----
timing="--small --within 8"
[ "${PHALANX_TIMING:-}" = 1 ] && timing="--within 0.25"
if command -v mpirun > /dev/null; then
    /usr/bin/python3 "$root/experiments/estimate/estimate.py" "$phalanx" $timing > out 2>&1 || fail "planned and taken: $(cat out)"
    [ "$timing" = "--within 0.25" ] && cat out
fi

# ---- teams of threads, and the end of every wait ----
echo 'cpus_per_task: 1' > site.yaml
code 0 "in all" timeout -s KILL 120 "$phalanx" plan run.yaml --cpus-per-task 2 --ntasks-per-node 2 --set run.threads_per_rank=2
stopped() { # SIGNAL COMMAND...: once the command waits for a process of its own, the signal ends both
    local signal=$1 pid child; shift
    timeout -s KILL 120 "$@" > out 2> err & pid=$!
    for i in $(seq 300); do
        child=$(pgrep -P "$(pgrep -P $pid)" | head -n 1) && [ -n "$child" ] && break; sleep 0.1
    done 2> /dev/null
    kill -"$signal" "$(pgrep -P $pid)"; wait $pid; local got=$?
    [ $got = 75 ] && grep -q "stopped by SIG$signal" err || fail "$signal for $*: exit $got, $(cat err)"
    [ -n "$child" ] && [ ! -e "/proc/$child" ] || fail "$signal for $*: its process '$child' goes on"
}
wide="sft.rl_module.policy.new.hidden_size=1024"
stopped TERM "$phalanx" plan run.yaml --set $wide
stopped INT "$phalanx" plan run.yaml --set $wide
mkdir -p bin; ln -sf "$(command -v cat)" "$(command -v grep)" bin/
printf '#!/bin/sh\nexec /bin/sleep 100\n' > bin/sbatch; chmod +x bin/sbatch
PATH=$work/bin:$PATH stopped TERM "$phalanx" submit run.yaml --stage sft
cat > bin/sbatch <<'END'
#!/bin/sh
[ $((0x$(/bin/sed -n 's/^SigIgn:.//p' /proc/self/status) & 0x1001000)) = 0 ] || exit 2
[ ! -e second ] || exit 1
: > second
echo 41
END
PATH=$work/bin:$PATH code 74 '{"job_ids":["41"]}' "$phalanx" submit run.yaml --stage sft --chain 2 --json
rm bin/sbatch

# ---- scripts ----
cat > site.yaml <<'END'
account: abc
partition: cpu
modules: [gcc/12, openmpi/4.1]
setup: ["export SITE=1"]
sbatch: [--mail-type=END]
launcher: mpirun
max_time: 0:30:00
cpus_per_task: 1
END
code 0 "#SBATCH --account=abc" "$phalanx" submit run.yaml --dry-run --set "run.name=it's"
bash -n out || fail "bash does not take the script: $(cat out)"
for text in 'module load gcc/12 openmpi/4.1' 'export SITE=1' '--mail-type=END' 'mpirun -n 1' '--signal=B:USR1@180' '--on-stop requeue' \
    "--set 'run.name=it'\\''s'"; do
    grep -qF -- "$text" out || fail "no $text in $(cat out)"
done
code 0 "#SBATCH --array=0-5" "$phalanx" submit run.yaml --dry-run --array run.seed=1:3 --array sft.training.lr=1e-6,3e-6
bash -n out || fail "bash does not take the script: $(cat out)"
grep -qF '5) cell=(--set run.seed=3 --set sft.training.lr=3e-6 ); dir=runs/tiny-seed3-lr3e-6 ;;' out || fail "cells: $(cat out)"
code 0 "--on-stop succeed" "$phalanx" submit run.yaml --dry-run --chain 3
code 64 "valid is FIRST:LAST" "$phalanx" submit run.yaml --dry-run --array run.seed=3:1
code 64 "valid are letters" "$phalanx" submit run.yaml --dry-run --array 'run.name=a;b'
code 64 "valid is KEY=" "$phalanx" submit run.yaml --dry-run --array run.seed
code 64 "'1' twice" "$phalanx" submit run.yaml --dry-run --array run.seed=1,2,1
code 78 "--set run.sed=1: unknown key 'run.sed'; did you mean 'run.seed'?" "$phalanx" submit run.yaml --dry-run --array run.sed=1:2
code 78 "--set ppo.training.lr=-3e-6: training.lr: '-3e-6' is out of range" "$phalanx" submit run.yaml --dry-run \
    --array sft.training.lr=1e-6,3e-6 --array ppo.training.lr=3e-6,-3e-6
code 78 "environment.rewards has no entry 'tone'" "$phalanx" submit run.yaml --dry-run --array environment.rewards.tone.weight=1,2
code 78 "minibatch_size: 8 is above the 4 samples" "$phalanx" submit run.yaml --dry-run --array ppo.training.prompts_per_iteration=8,4
code 0 "stop.metrics.a b=1" "$phalanx" submit run.yaml --dry-run --array 'ppo.stop.metrics.a b=1,2'
bash -n out || fail "bash does not take the script: $(cat out)"
mkdir "odd # \"dir\\'"; cd "odd # \"dir\\'" || exit 1 # quotes as sbatch reads them
code 0 "#SBATCH --chdir=\"$work/odd # \\\"dir\\\\'\"" "$phalanx" submit ../run.yaml --dry-run
cd "$work"; mkdir $'line\nbreak'; cd $'line\nbreak' || exit 1
code 78 "a line break" "$phalanx" submit ../run.yaml --dry-run
cd "$work" || exit 1
code 64 "valid is MINUTES" "$phalanx" submit run.yaml --dry-run --time tomorrow
code 0 "in all" "$phalanx" plan run.yaml --sbatch run.sbatch
bash -n run.sbatch && grep -q '^dir=runs/tiny' run.sbatch || fail "plan --sbatch: $(cat run.sbatch)"
cp run.yaml kept.yaml; ln -s run.yaml alias.yaml
for name in run.yaml "$work/run.yaml" alias.yaml; do
    code 64 "--sbatch $name is the configuration itself" "$phalanx" plan run.yaml --sbatch "$name"
done
cmp -s run.yaml kept.yaml || fail "the configuration is written over"
PATH=$work/bin code 74 "sbatch cannot be started" "$phalanx" submit run.yaml

# ---- the command that continues ----
dir=$'runs/it\'s $HOME \xff'
code 75 "the time limit" "$phalanx" train run.yaml --stage sft --set 'run.name=a "b"' --set run.time_limit_s=0.001 --run-dir "$dir"
/usr/bin/python3 -c 'import json, sys; s = json.load(open(sys.argv[1])); assert s["state"] == "stopped"; print(s["resume"])' \
    "$dir/status.json" > resume || fail "status.json of a run whose directory is no text"
phalanx() { printf '<%s>' "$@"; }
[ "$(. ./resume)" = "<train><run.yaml><--stage><sft><--set><run.name=a \"b\"><--set><run.time_limit_s=0.001><--run-dir><$dir>" ] ||
    fail "not the command that was given: $(cat resume)"
unset -f phalanx

# ---- supervise ----
cat > command.sh <<'END'
n=$(cat count 2> /dev/null || echo 0); echo $((n + 1)) > count
[ "$n" -lt "$1" ] && { [ "$n" = 0 ] && kill -9 $$; exit 1; }
exit "$2"
END
starts() { # WANTED_CODE WANTED_STARTS FAILURES LAST_CODE
    rm -f count
    "$phalanx" supervise --restarts 2 --run-dir runs/tiny -- bash command.sh "$3" "$4" 2> err; local got=$?
    [ $got = "$1" ] && [ "$(cat count)" = "$2" ] || fail "supervise $*: exit $got after $(cat count) starts: $(cat err)"
}
starts 0 3 2 0
[ "$(grep -c 'supervise: start' err)" = 2 ] && grep -q 'start 1 of at most 3 .* exit code 137, .*iteration 2 of stage ppo, state done' err ||
    fail "a line a restart: $(cat err)"
starts 1 3 9 0
starts 75 1 0 75
for hopeless in 64 65 78 80; do starts $hopeless 1 0 $hopeless; done
ignored='[ $((0x$(sed -n "s/^SigIgn:.//p" /proc/self/status) & 0x1001000)) = 0 ]' # neither SIGPIPE nor SIGXFSZ
"$phalanx" supervise --restarts 0 -- bash -c "$ignored" || fail "a supervised command ignores signals"
"$phalanx" supervise --on-stop succeed -- bash -c 'exit 75' || fail "supervise --on-stop succeed"
"$phalanx" supervise -- bash -c 'trap "exit 75" USR1; touch ready; while :; do sleep 0.05; done' 2> err & pid=$!
for i in $(seq 200); do [ -e ready ] && break; sleep 0.05; done
kill -TERM $pid; wait $pid; got=$?
[ $got = 75 ] || fail "a signal is passed on as USR1 and 75 comes back: $got, $(cat err)"
code 64 "cannot be started" "$phalanx" supervise -- "$work/nothing"
begin=$SECONDS # a launcher that hangs before the run has begun
"$phalanx" supervise --run-dir runs/never --start-timeout 1 -- bash -c 'echo start >> starts; [ $(wc -l < starts) = 2 ] || sleep 200' \
    2> err && [ "$(wc -l < starts)" = 2 ] && [ $((SECONDS - begin)) -lt 60 ] && grep -q 'the run has not begun after [0-9]* s' err ||
    fail "supervise --start-timeout: $(cat err)"
rm -f starts # and where the command alone says which run it is
echo 'echo start >> starts; [ $(wc -l < starts) = 2 ] || sleep 200' > hang.sh
timeout -k 5 60 "$phalanx" supervise --start-timeout 1 -- bash hang.sh train run.yaml --set run.dir=runs/{name}-never 2> err &&
    [ "$(wc -l < starts)" = 2 ] && grep -q 'the run has not begun after [0-9]* s' err || fail "supervise finds no run: $(cat err)"

code 78 "time limit 3 is not longer than signal_s, 180 s" "$phalanx" submit run.yaml --stage sft --time 3 --dry-run
code 0 "" "$phalanx" submit run.yaml --stage sft --time 4 --dry-run

code 78 "'los' is no metric of sft; did you mean 'loss'?" "$phalanx" plan run.yaml --stage sft --set sft.stop.metrics="{los: '< 1'}"
code 78 "checkpointing.keep_best: 'los' is no metric of sft" "$phalanx" plan run.yaml --stage sft --set sft.checkpointing.keep_best=los

# --fresh is for the first start of a job: the next ones, and a job that comes back from the queue, go on.
echo 'printf "%s\n" "$*" >> words; [ $(wc -l < words) = $1 ]' > words.sh
"$phalanx" supervise --run-dir runs/never -- bash words.sh 2 train run.yaml --fresh --stage a 2> err &&
    [ "$(cat words)" = "2 train run.yaml --fresh --stage a"$'\n'"2 train run.yaml --stage a" ] || fail "--fresh at each start: $(cat words)"
rm words
SLURM_RESTART_COUNT=1 "$phalanx" supervise --run-dir runs/never -- bash words.sh 1 train run.yaml --fresh 2> err &&
    [ "$(cat words)" = "1 train run.yaml" ] || fail "--fresh in a job that was requeued: $(cat words)"

# What Slurm is ending for another reason than the time limit is not put back into the queue.
mkdir -p slurm
cat > slurm/scontrol <<'END'
#!/bin/sh
[ "$1" = requeue ] && { echo "$2" >> requeued; kill -TERM $$ $PPID; exit; } # Slurm ends all that runs in the job
[ -n "$JOB_SAYS" ] || exit 1
echo "JobId=7 JobName=a UserId=b(1) $JOB_SAYS Dependency=(null) Requeue=1"
END
chmod +x slurm/scontrol
for says in "JobState=RUNNING Reason=None" "JobState=COMPLETING Reason=TimeLimit" "JobState=COMPLETING Reason=None" "JobState=PENDING Reason=BeginTime"; do
    rm -f requeued
    JOB_SAYS=$says SLURM_JOB_ID=7 PATH=$PWD/slurm:$PATH "$phalanx" supervise --on-stop requeue --run-dir runs/never -- bash -c 'exit 75' 2> err
    got=$?
    case $says in
    *RUNNING* | *TimeLimit) [ $got = 75 ] && [ "$(cat requeued)" = 7 ] && ! grep -q failed err || fail "$says: $got, $(cat err)" ;;
    *) [ $got = 75 ] && [ ! -e requeued ] && grep -q 'job 7 is being cancelled or requeued by Slurm' err || fail "$says: $got, $(cat err)" ;;
    esac
done

rm -f requeued # who cannot be asked is not ending the job, and that is no error of the run's
JOB_SAYS='' SLURM_JOB_ID=7 PATH=$PWD/slurm:$PATH "$phalanx" supervise --on-stop requeue --run-dir runs/never -- bash -c 'exit 75' 2> err
[ $? = 75 ] && [ "$(cat requeued)" = 7 ] && ! grep -q 'scontrol failed' err || fail "a controller that does not answer: $(cat err)"

# A job that comes back from the queue and stops where it was would do so for ever.
mkdir -p runs/slow
comes_back() { # RESTARTS ITERATION: the run is at 3, and later at ITERATION
    rm -f requeued
    echo '{"state": "stopped", "stage": "ppo", "iteration": 3}' > runs/slow/status.json
    SLURM_RESTART_COUNT=$1 JOB_SAYS="JobState=RUNNING" SLURM_JOB_ID=7 PATH=$PWD/slurm:$PATH "$phalanx" supervise --on-stop requeue \
        --run-dir runs/slow -- bash -c "sed -i 's/: 3/: $2/' runs/slow/status.json; exit 75" 2> err
    [ $? = 75 ] || fail "a job that comes back: $(cat err)"
}
comes_back 0 3; [ -e requeued ] || fail "the first start of a job: not requeued: $(cat err)"
comes_back 2 4; [ -e requeued ] || fail "a job that gets on: not requeued: $(cat err)"
comes_back 2 3; [ ! -e requeued ] && grep -q 'no iteration was done since .* (iteration 3 of stage ppo)' err || fail "no end: $(cat err)"

# A run on another host whose clock is off: its lock changes, so it lives.
"$phalanx" supervise --restarts 0 --run-dir . --start-timeout 2 -- bash -c 'for n in 1 2 3 4 5 6; do sleep 1
    echo "{\"heartbeat\": $n, \"host\": \"elsewhere\", \"pid\": 1, \"start\": 1, \"token\": \"a\"}" > lock; done; rm lock' 2> err ||
    fail "a run whose clock is off was ended: $(cat err)"

[ $failed = 0 ] && echo "plan, submit and supervise: as they say"
exit $failed
