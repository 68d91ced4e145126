#!/usr/bin/env bash
# A gradient that is not finite: the step is skipped on all ranks, counted, and an event; as many of them in a row as
# fault_tolerance.max_skipped_steps end the run with exit 80. A job with more ranks than a batch can share: one message
# that names the key, exit 78. For every algorithm. $1: the program.
set -u
phalanx=$(realpath "$1")
. "$(dirname "$0")/../support/scratch.bash"
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export OMP_NUM_THREADS=1
mpi=$(command -v mpirun || true)
h5dump=$(command -v h5dump || true)
failed=0 ranks=1
fail() { echo "FAILED: $algorithm, $ranks ranks: $*" >&2; failed=1; }

for i in $(seq 2 13); do
    echo "{\"ids\": [$i, 3, 4, $i]}" >> text.jsonl
    echo "{\"prompt_ids\": [$i, 3], \"completion_ids\": [4, 1]}" >> demos.jsonl
    echo "{\"prompt_ids\": [$i, 3], \"chosen_ids\": [$i, 1], \"rejected_ids\": [$i, $i, 1]}" >> pairs.jsonl
    echo "{\"prompt_ids\": [$i, 3]}" >> prompts.jsonl
done
new='{new: {architecture: gpt2, hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, vocab_size: 16,
            max_position_embeddings: 16}}'
for algorithm in pretrain sft reward; do
    case $algorithm in
        pretrain) data=text batch="batch_tokens: 24" module=policy ;;
        sft) data=demos batch="batch_size: 6" module=policy ;;
        reward) data=pairs batch="batch_size: 6" module=reward ;;
    esac
    printf '%s\n' "run: {name: $algorithm, seed: 2}" "algorithm: $algorithm" "rl_module: {$module: $new}" \
        "data: {train: $data.jsonl, max_tokens: 8}" "training: {$batch, lr: 1.0e-3}" "stop: {steps: 6}" \
        > $algorithm.yaml
done
printf '%s\n' "run: {name: ppo, seed: 2}" "algorithm: ppo" "rl_module: {policy: $new, critic: $new}" \
    "environment: {prompts: prompts.jsonl, max_prompt_tokens: 4, max_completion_tokens: 6,
                  rewards: [{kind: length, target: 3}]}" \
    "training: {prompts_per_iteration: 6, minibatch_size: 6, num_epochs: 2, lr: 1.0e-3, critic_lr: 1.0e-3}" \
    "stop: {iterations: 3}" > ppo.yaml

: > events # a file of that name does not hide the view
train() { # CODE TEXT [options]: the exit code, and the text in the only message (in an event where the code is 0)
    local code=$1 text=$2 launch= got; shift 2
    [ $ranks = 1 ] || launch="$mpi -n $ranks"
    rm -rf run
    timeout 60 $launch "$phalanx" train $algorithm.yaml --run-dir run "$@" > out 2> err < /dev/null
    got=$?
    [ $got = "$code" ] || fail "exit $got, want $code: $(tail -n 2 err)"
    "$phalanx" inspect run events > events.txt 2> inspect.err
    if [ "$code" = 0 ]; then
        grep -q "$text" events.txt || fail "no event '$text': $(cat events.txt)"
        return
    fi
    [ "$(grep '^phalanx: ' err | grep -vc '^phalanx: NOTE: ')" = 1 ] || fail "not one message: $(cat err)"
    grep -q "^phalanx: .*$text" err || fail "no '$text': $(cat err)"
}
skipped() { # steps that the metrics call skipped
    "$phalanx" inspect run metrics --csv 2> inspect.err | awk -F, '
        NR == 1 { for (i = 1; i <= NF; i++) if ($i == "num_steps_skipped") c = i }
        NR > 1 { sum += c ? $c : -100 } END { print sum }'
}
steps() { # MODULE: optimizer steps of the last state
    "$h5dump" -a "${1}_optimizer_steps" "run/$(cat run/latest)/state.h5" 2> h5dump.err | sed -n 's/^ *(0): //p'
}

for ranks in 1 2; do
    [ $ranks = 1 ] || [ -n "$mpi" ] || continue
    for algorithm in pretrain sft reward ppo; do
        # one gradient, on the last rank alone: the run goes on, with one step less
        export PHALANX_FAULT=learner.nan:3:$((ranks - 1))
        train 0 "step_skipped.*the gradient is not finite; 1 in a row"
        unset PHALANX_FAULT
        [ "$(grep -c step_skipped events.txt)" = 1 ] || fail "events: $(cat events.txt)"
        [ "$(skipped)" = 1 ] || fail "$(skipped) skipped steps in the metrics, want 1"
        module=policy # of 6 steps, in PPO too: the third gradient there is the policy's
        [ $algorithm != reward ] || module=reward
        [ -z "$h5dump" ] || [ "$(steps $module)" = 5 ] || fail "$(steps $module) optimizer steps, want 5"
        export PHALANX_FAULT=learner.nan:3+:$((ranks - 1))
        train 80 "the gradient was not finite 2 times in a row (fault_tolerance.max_skipped_steps is 2)" \
            --set fault_tolerance.max_skipped_steps=2
        unset PHALANX_FAULT
        [ "$(grep -c step_skipped events.txt)" = 2 ] || fail "events: $(cat events.txt)"
        grep -q '"exit_code": 80' run/status.json || fail "status.json: $(cat run/status.json)"
    done
done

# A log-probability that is no number is said, with an exit code, and not printed.
algorithm=generate
"$phalanx" train pretrain.yaml --run-dir made --set stop.steps=1 > log 2>&1 || fail "$(tail -n 1 log)"
"$phalanx" generate --model made/policy --data prompts.jsonl --max-new-tokens 2 --temperature 1e-40 --json > out 2> err
got=$?
[ $got = 65 ] && grep -q 'prompt 0, sample 0: token 0 .*at temperature 1e-40' err || fail "exit $got: $(cat err out)"

[ -n "$mpi" ] || { echo "no mpirun: jobs of more ranks are not tried"; exit $failed; }
ranks=4
algorithm=pretrain
train 78 "training.batch_tokens is 12: 3 rows .* for 4 ranks" --set training.batch_tokens=12
algorithm=sft
train 78 "training.batch_size is 3: 3 rows for 4 ranks" --set training.batch_size=3
algorithm=reward
train 78 "training.batch_size is 2: 2 rows for 4 ranks" --set training.batch_size=2
algorithm=ppo
train 78 "training.minibatch_size is 3: 3 samples for 4 ranks" --set training.minibatch_size=3
train 78 "training.prompts_per_iteration is 3: 3 prompts for 4 ranks" --set training.prompts_per_iteration=3 \
    --set env_runners.samples_per_prompt=2

[ $failed = 0 ] && echo "all passed"
exit $failed
