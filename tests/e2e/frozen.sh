#!/usr/bin/env bash
# What a run was started with stays: its reference, its reward model, and the stages that later ones began from. $1: the program.
set -u
phalanx=$(realpath "$1")
. "$(dirname "$0")/../support/tiny_ppo.sh"
. "$(dirname "$0")/../support/scratch.bash"
export OMP_NUM_THREADS=1
failed=0 step=start
fail() { echo "FAILED: $step: $(echo "$*" | tail -n 3 | cut -c1-400)" >&2; failed=1; }
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
train() { "$phalanx" train "$@" > out 2> err < /dev/null; }
refused() { # CODE TEXT and what `train` takes
    local code=$1 text=$2; shift 2
    train "$@"
    local got=$?
    [ $got = "$code" ] || fail "exit $got, want $code: $(cat err)"
    [ "$(grep '^phalanx: ' err | grep -cv NOTE)" = 1 ] && grep -q "$text" err || fail "not one message with '$text': $(cat err)"
}

step="models"
tiny_ppo "$phalanx"
pairs() { awk 'BEGIN { for (i = 0; i < 20; i++) printf "{\"prompt_ids\": [4], \"chosen_ids\": [3, %d, 5], \"rejected_ids\": [3, %d, 7]}\n", 2 + i, 30 - i }'; }
pairs > pairs.jsonl
cat > reward.yaml <<'YAML'
run: {name: reward, dir: reward, seed: 4}
algorithm: reward
rl_module: {reward: {path: base/policy}}
data: {train: pairs.jsonl, max_tokens: 16}
training: {batch_size: 4, lr: 1.0e-3}
stop: {steps: 2}
YAML
train reward.yaml || fail "$(cat err)"
train reward.yaml --run-dir other --set run.seed=5 --set stop.steps=4 || fail "$(cat err)"
train base.yaml --run-dir base2 --set run.seed=9 || fail "$(cat err)"
cp -r base/policy ref
cp -r reward/reward scorer
scored=(--set rl_module.reference.path=ref --set rl_module.reward.path=scorer
    --set 'environment.rewards=[{kind: model}, {kind: length, target: 4}]')

step="the reference and the reward model of a run that goes on"
train ppo.yaml --run-dir run "${scored[@]}" --set stop.iterations=2 || fail "$(cat err)"
cp -r run before
cp ref/model.safetensors keep
cp base2/policy/model.safetensors ref/
refused 65 'the weights of the reference are not those' ppo.yaml --run-dir run "${scored[@]}"
cp keep ref/model.safetensors
cp scorer/model.safetensors keep
cp other/reward/model.safetensors scorer/
refused 65 'the weights of the reward model are not those' ppo.yaml --run-dir run "${scored[@]}"
cp keep scorer/model.safetensors
train ppo.yaml --run-dir run "${scored[@]}" || fail "the same again: $(cat err)"
cp base2/policy/model.safetensors ref/
train ppo.yaml --run-dir branch "${scored[@]}" --from before/checkpoint_000002 || fail "a branch: $(cat err)"

step="a stage that another began from"
cat > stages.yaml <<'YAML'
defaults: {run: {name: two, dir: two, seed: 3}}
stages:
  first:
    algorithm: pretrain
    rl_module: {policy: {path: base/policy}}
    data: {train: text.jsonl, max_tokens: 16}
    training: {batch_size: 10, lr: 1.0e-3}
    stop: {steps: 2}
  second:
    algorithm: ppo
    rl_module: {policy: {stage: first}, critic: {same_as: policy}}
    environment: {prompts: prompts.jsonl, max_prompt_tokens: 6, max_completion_tokens: 12, rewards: [{kind: length, target: 4}]}
    env_runners: {samples_per_prompt: 2}
    training: {prompts_per_iteration: 8, num_epochs: 2, minibatch_size: 5, lr: 3.0e-3, critic_lr: 3.0e-3}
    stop: {iterations: 2}
YAML
train stages.yaml --set first.stop.steps=1 --stage first || fail "$(cat err)"
train stages.yaml || fail "a stop raised before anything began from it: $(cat err)"
cksum < two/first/policy/model.safetensors > sum
refused 78 'stage first is done and stage second has begun from its result' stages.yaml --set first.stop.steps=5
cksum < two/first/policy/model.safetensors | cmp -s - sum || fail "its result has changed"
train stages.yaml --set second.stop.iterations=3 || fail "the last stage goes on: $(cat err)"

exit $failed
