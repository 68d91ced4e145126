#!/usr/bin/env bash
# Every family of models through pretraining, a reward model and PPO from random weights: the same bits on 1 and 2 ranks,
# no difference between sampler and learner. $1: the program.
set -u
phalanx=$(realpath "$1")
. "$(dirname "$0")/../support/scratch.bash"
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1
mpi=$(command -v mpirun || true)
failed=0
fail() { echo "FAILED: $*" >&2; failed=1; }
cd "$work" || exit 1

ids() { # SEED LOW HIGH: a list of LOW to HIGH ids from 2 to 31
    awk -v seed="$1" -v low="$2" -v high="$3" 'BEGIN { srand(seed); n = low + int(rand() * (high - low + 1));
        for (i = 0; i < n; i++) printf "%s%d", i ? ", " : "", 2 + int(rand() * 30) }'
}
for i in $(seq 1 12); do
    echo "{\"ids\": [$(ids $i 3 14)]}" >> text.jsonl
    echo "{\"prompt_ids\": [$(ids $((300 + i)) 1 5)], \"chosen_ids\": [$(ids $((400 + i)) 1 6), 1]," \
         "\"rejected_ids\": [$(ids $((500 + i)) 1 6)]}" >> pairs.jsonl
    echo "{\"prompt_ids\": [$(ids $((600 + i)) 1 5)]}" >> prompts.jsonl
done

recipe() { # FAMILY [more of its configuration]
    cat <<YAML
defaults: {run: {name: $1, seed: 11, dir: runs}}
stages:
  pretrain:
    algorithm: pretrain
    rl_module: {policy: {new: {architecture: $1, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2,
                               vocab_size: 32, max_position_embeddings: 24, initializer_range: 0.3${2:-}}}}
    data: {train: text.jsonl, max_tokens: 16}
    training: {batch_size: 6, lr: 1.0e-2}
    stop: {steps: 3}
  reward:
    algorithm: reward
    rl_module: {reward: {stage: pretrain}}
    data: {train: pairs.jsonl, max_tokens: 16}
    training: {batch_size: 6, lr: 1.0e-2}
    stop: {epochs: 1}
  ppo:
    algorithm: ppo
    rl_module: {policy: {stage: pretrain}, reference: {same_as: policy}, reward: {stage: reward}, critic: {same_as: reward}}
    environment: {prompts: prompts.jsonl, max_prompt_tokens: 6, max_completion_tokens: 10,
                  rewards: [{kind: model}, {kind: length, target: 4}]}
    training: {prompts_per_iteration: 6, num_epochs: 2, minibatch_size: 4, lr: 3.0e-3, critic_lr: 3.0e-3}
    stop: {iterations: 2}
YAML
}

family() { # FAMILY [more]
    local part difference
    recipe "$@" > "$1.yaml"
    "$phalanx" train "$1.yaml" --run-dir "$1.one" > out 2> err < /dev/null || { fail "$1: exit $?: $(cat err)"; return; }
    grep -q "\"model_type\": \"$1\"" "$1.one/ppo/policy/config.json" || fail "$1: saved as another family"
    difference=$("$phalanx" inspect "$1.one/ppo" metrics --csv |
        awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "rollout/logprob_diff_max") at = i }
                 NR > 1 { printf "%s ", at ? $at : "no column" }')
    [ "$difference" = "0 0 " ] || fail "$1: sampler - learner is $difference"
    [ -n "$mpi" ] || return
    $mpi -n 2 "$phalanx" train "$1.yaml" --run-dir "$1.two" > out 2> err < /dev/null ||
        fail "$1 on 2 ranks: exit $?: $(cat err)"
    for part in pretrain/policy reward/reward ppo/policy ppo/critic; do
        cmp "$1.one/$part/model.safetensors" "$1.two/$part/model.safetensors" || fail "$1: $part differs on 2 ranks"
    done
}

family gpt2
family llama ", num_key_value_heads: 1, head_dim: 10"
family mistral ", num_key_value_heads: 1, sliding_window: 5"
family qwen2 ", tie_word_embeddings: false"
family qwen3 ", num_key_value_heads: 1, head_dim: 10"
family gemma ", num_key_value_heads: 1, head_dim: 10"
family gpt_neox ", tie_word_embeddings: false"
family opt
[ -n "$mpi" ] || echo "no mpirun: on one rank only"

# ---- what a family has not is refused with the key -------------------------------------------------------------------
refused() { # PART FAMILY MORE
    recipe "$2" "$3" > bad.yaml
    "$phalanx" train bad.yaml --run-dir bad > out 2> err < /dev/null
    local code=$?
    [ $code = 78 ] && grep -q "$1" err || fail "$2$3: exit $code, want 78 and \"$1\": $(cat err)"
    [ ! -e bad ] || fail "$2$3: a run directory was made"
}
refused "new.sliding_window: llama has no sliding window" llama ", sliding_window: 5"
refused "new.attention_bias: qwen2 has no such biases" qwen2 ", attention_bias: true"
refused "new.num_key_value_heads: opt has as many" opt ", num_key_value_heads: 1"
refused "new.head_dim: gpt_neox has heads of hidden_size" gpt_neox ", head_dim: 16"
refused "heads of width 4 cannot rotate; valid is a multiple of 8" gpt_neox ", head_dim: 4"
refused "bloom" bloom ""
exit $failed
