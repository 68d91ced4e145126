#!/usr/bin/env bash
# A stop asked for in the middle of every phase of every stage ends soon with exit 75 and a state to continue from; a second
# signal ends at once; so do the other ways to ask. The cases go through 1, 2 and 4 ranks in turn; PHALANX_STOP_SEED=1 or 2 gives
# each case the next count, and the one after it. $1: the program. How long a stop may take: PHALANX_STRICT_LIMITS=1: 2 s, as
# promised where the ranks have their cores; twice that by default, others may want them. PHALANX_STOP_MS: another limit.
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
    training: {prompts_per_iteration: 4, num_epochs: 1, minibatch_size: 4}
    stop: {iterations: 1000}
YAML
copies() { local i; for ((i = 0; i < $2; i++)); do echo "$1"; done | xargs cat; }
copies text.jsonl 1000 > many.jsonl
copies demos.jsonl 1000 > many-demos.jsonl
copies prompts.jsonl 150 > many-prompts.jsonl
copies pairs.jsonl 500 > many-pairs.jsonl

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
    grep -q '"reason": "\(SIG\|the time\)' long/status.json || fail "the reason is not told: $(grep reason long/status.json)"
    grep -q '"exit_code": 75' long/status.json || fail "status.json: $(tr -d '\n' < long/status.json)"
    [ -z "${TEST_TRACE:-}" ] || echo "    $spent ms: $(grep -a '^phalanx: ' long.err | tail -n 1)" >&2
}
target() { # mpirun makes an end of its own of SIGTERM: one rank gets it, and all stop
    case $(ps -o comm= -p "$pid") in
        phalanx*) echo "$pid" ;; # its children are its own
        *) ranks_of "$pid" | tail -n 1 ;;
    esac
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

counts=(1 2 4)
place=${PHALANX_STOP_SEED:-0}
next() { # ranks: the next of the counts
    ranks=${counts[place++ % 3 * (${#mpi} > 0)]}
}

for round in 1 2; do # with another count each
    next; stop_in sampling 0.7 $ranks ppo --set ppo.training.prompts_per_iteration=2000 --set ppo.training.minibatch_size=2000 \
        --set ppo.environment.max_completion_tokens=500
    next; TEST_DELAY=0.5 stop_in scoring 0.7 $ranks ppo
    next; stop_in learning 1 $ranks ppo --set ppo.training.num_epochs=1000 --set ppo.training.minibatch_size=$ranks
    next; stop_in "learning from one large batch" 0.7 $ranks sft
    next; stop_in writing 0.7 $ranks ppo --set 'ppo.rl_module.policy.new.vocab_size=60000'
done
next; stop_in "learning from one large batch" 0.7 $ranks pretrain
next; stop_in "learning from pairs" 0.7 $ranks reward
next; stop_in "evaluating a policy" 0.7 $ranks ppo --set ppo.evaluation.evaluation_interval=1 --set ppo.evaluation.prompts=many-prompts.jsonl \
    --set ppo.evaluation.num_prompts=2000 --set ppo.environment.max_completion_tokens=500
next; stop_in "evaluating a model" 0.7 $ranks sft --set sft.evaluation.evaluation_interval=1 --set sft.data.validation=many-demos.jsonl

for signal in INT USR1; do
    next
    step="SIG$signal, $ranks ranks"; trace
    TEST_DELAY=0.05 start_long $ranks ppo
    begin=$(now_ms); kill -$signal "$(target)"; timed "$begin"
    status long reason "SIG$signal"
done

next
step="the end of a Slurm job, $ranks ranks"; trace # a minute before it
SLURM_JOB_ID=7 SLURM_JOB_END_TIME=$(($(date +%s) + 64)) TEST_DELAY=0.05 start_long $ranks ppo
timed "$(($(now_ms) + 3500))"
status long reason "the time limit"

next
step="a second signal, $ranks ranks"; trace # 50 MiB are on their way to the disk
start_long $ranks ppo --set 'ppo.rl_module.policy.new.vocab_size=200000'
for turn in $(seq 1 3000); do ls -d long/ppo/recovery_*.tmp > /dev/null 2>&1 && break; sleep 0.01; done
victim=$(target)
kill -TERM "$victim"
sleep 0.3
begin=$(now_ms)
kill -TERM "$victim" 2> /dev/null
wait "$pid"; code=$?
pid=
[ "$code" = 75 ] || fail "exit $code: $(tail -n 3 long.err)"
grep -q "second signal" long.err && [ $(($(now_ms) - begin)) -gt $((limit / 2)) ] && fail "not at once: $(($(now_ms) - begin)) ms"

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
