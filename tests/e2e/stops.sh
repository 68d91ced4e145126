#!/usr/bin/env bash
# A stop asked for in the middle of every phase of every stage ends soon with exit 75 and a state to continue from; a second
# signal ends at once; so do the other ways to ask. $1: the program. How long a stop may take: PHALANX_STRICT_LIMITS=1: 2 s,
# as promised; twice that by default, others may want the cores. PHALANX_STOP_MS: another limit.
. "$(dirname "$0")/harness.bash"
limit=${PHALANX_STOP_MS:-$((${PHALANX_STRICT_LIMITS:+1} + 0 ? 2000 : 4000))}
slowest=0

cat > long.yaml <<YAML
defaults:
  run: {name: long, seed: 5, threads_per_rank: 1}
  checkpointing: {interval: 0}
  data: {train: many.jsonl, max_tokens: 64, shuffle: false}
stages:
  pretrain:
    algorithm: pretrain
    rl_module: {policy: &new {new: {architecture: llama, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2,
                                    vocab_size: 64, max_position_embeddings: 512}}}
    training: {batch_tokens: 1000000}
    stop: {steps: 50}
  sft:
    algorithm: sft
    rl_module: {policy: *new}
    data: {train: many-demos.jsonl}
    training: {batch_size: 20000}
    stop: {steps: 50}
  reward:
    algorithm: reward
    rl_module: {reward: *new}
    data: {train: many-pairs.jsonl}
    training: {batch_size: 10000}
    stop: {steps: 50}
  ppo:
    algorithm: ppo
    rl_module: {policy: *new, reference: {same_as: policy}, critic: {same_as: policy}}
    environment:
      prompts: prompts.jsonl
      max_prompt_tokens: 6
      max_completion_tokens: 8
      rewards: [{name: judge, kind: exec, command: ["$work/judge"], timeout_s: 600}]
    training: {prompts_per_iteration: 4, num_epochs: 1, minibatch_size: 2}
    stop: {iterations: 1000}
YAML
for i in $(seq 1 1000); do cat text.jsonl; done > many.jsonl
for i in $(seq 1 1000); do cat demos.jsonl; done > many-demos.jsonl
for i in $(seq 1 150); do cat prompts.jsonl; done > many-prompts.jsonl
for i in $(seq 1 500); do cat pairs.jsonl; done > many-pairs.jsonl

now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }
start_long() { # RANKS STAGE [options]
    local ranks=$1 stage=$2; shift 2
    rm -rf long
    $(launcher "$ranks") "$phalanx" train long.yaml --run-dir long --stage "$stage" "$@" > long.out 2> long.err < /dev/null &
    pid=$!
    for turn in $(seq 1 3000); do # what comes before the first iteration is not the phase that is meant
        [ -e "long/$stage/run.h5" ] && break
        kill -0 "$pid" 2> /dev/null || break
        sleep 0.01
    done
    [ -e "long/$stage/run.h5" ] || fail "did not start: $(tail -n 3 long.err)"
}
timed() { # waits for the end after a stop was asked for: exit 75 in time
    local begin=$1 spent
    wait "$pid" 2> /dev/null; local code=$?
    pid=
    spent=$(($(now_ms) - begin))
    [ "$spent" -le "$slowest" ] || slowest=$spent
    [ "$code" = 75 ] || fail "exit $code: $(tail -n 3 long.err)"
    [ "$spent" -le "$limit" ] || fail "$spent ms until the end"
    grep -q '"exit_code": 75' long/status.json || fail "status.json: $(tr -d '\n' < long/status.json)"
    [ -z "${TEST_TRACE:-}" ] || echo "    $spent ms: $(grep -a '^phalanx: ' long.err | tail -n 1)" >&2
}
target() { # mpirun makes an end of its own of SIGTERM: one rank gets it, and all stop
    local rank; rank=$(ranks_of "$pid" | tail -n 1)
    echo "${rank:-$pid}"
}
stop_in() { # WHAT AFTER_S RANKS STAGE [options]: SIGTERM after that time of the phase
    step="a stop while $1, $3 ranks"; trace
    local after=$2; shift 2
    start_long "$@"
    sleep "$after"
    kill -0 "$pid" 2> /dev/null || fail "over before it could be stopped: $(tail -n 3 long.err)"
    local begin; begin=$(now_ms)
    kill -TERM "$(target)"
    timed "$begin"
}

for ranks in 1 2; do
    [ $ranks = 1 ] || [ -n "$mpi" ] || continue
    stop_in sampling 1 $ranks ppo --set ppo.training.prompts_per_iteration=2000 --set ppo.training.minibatch_size=2000 \
        --set ppo.environment.max_completion_tokens=500
    TEST_DELAY=0.5 stop_in scoring 1 $ranks ppo
    stop_in learning 1.5 $ranks ppo --set ppo.training.num_epochs=1000 --set ppo.training.minibatch_size=$ranks
    stop_in "learning from one large batch" 1 $ranks sft
    stop_in writing 1 $ranks ppo --set 'ppo.rl_module.policy.new.vocab_size=60000'
done
stop_in "learning from one large batch" 1 1 pretrain
stop_in "learning from pairs" 1 1 reward
stop_in "evaluating a policy" 1 1 ppo --set ppo.evaluation.evaluation_interval=1 --set ppo.evaluation.prompts=many-prompts.jsonl \
    --set ppo.evaluation.num_prompts=2000 --set ppo.environment.max_completion_tokens=500
stop_in "evaluating a model" 1 1 sft --set sft.evaluation.evaluation_interval=1 --set sft.data.validation=many-demos.jsonl

for signal in INT USR1; do
    step="SIG$signal"; trace
    TEST_DELAY=0.05 start_long 1 ppo
    begin=$(now_ms); kill -$signal "$pid"; timed "$begin"
    status long reason "SIG$signal"
done

step="the end of a Slurm job"; trace # a minute before it
SLURM_JOB_ID=7 SLURM_JOB_END_TIME=$(($(date +%s) + 62)) TEST_DELAY=0.05 start_long 1 ppo
timed "$(($(now_ms) + 1500))"
status long reason "the time limit"

step="a second signal"; trace # 50 MiB are on their way to the disk
start_long 1 ppo --set 'ppo.rl_module.policy.new.vocab_size=200000'
for turn in $(seq 1 3000); do ls -d long/ppo/recovery_*.tmp > /dev/null 2>&1 && break; sleep 0.01; done
kill -TERM "$pid"
sleep 0.3
begin=$(now_ms)
kill -TERM "$pid" 2> /dev/null
wait "$pid"; code=$?
pid=
[ "$code" = 75 ] || fail "exit $code: $(tail -n 3 long.err)"
grep -q "second signal" long.err && [ $(($(now_ms) - begin)) -gt 1000 ] && fail "not at once: $(($(now_ms) - begin)) ms"

step="no recovery slots: the stop itself saves"; trace
base_model
good 1 straight
without_predecessors slotless
begin 1 slotless --set ppo.checkpointing.recovery_interval=0
reach slotless 2
ls -d slotless/ppo/recovery_* > /dev/null 2>&1 && fail "a slot that nobody asked for"
kill -TERM "$pid"
ends 75
good 1 slotless --set ppo.checkpointing.recovery_interval=0
same straight slotless

[ "$failed" = 0 ] && echo "all passed; the slowest stop took $slowest ms"
exit "$failed"
