#!/usr/bin/env bash
# What ranks cost, on two cores with nothing else running, by turns: each run's fastest iteration and its mean; of the rounds the
# best and the median. Ranks wait for the slowest, so on a machine whose cores others share the means say more of them.
# - weak scaling: pretraining with one rank alone, two lone runs at once (what the hardware takes), two ranks with twice the batch;
#   one thread each;
# - PPO with two ranks colocated, and with two learners and two env runners that take turns at the same cores.
# Usage: ranks.sh PROGRAM [ROUNDS [ITERATIONS]]: 3 rounds of 16 iterations, of which the first two do not count; of PPO a third as many.
set -eu
. "$(dirname "$0")/../../cmake/setup.sh"
phalanx_mpi_environment
program=$(realpath "$1") rounds=${2:-3} iterations=${3:-16}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_WAIT_POLICY=passive
awk 'BEGIN { x = 1; for (r = 0; r < 400; r++) { line = "{\"ids\": ["
    for (i = 0; i < 128; i++) { x = x * 16807 % 2147483647; line = line (i ? ", " : "") x % 4000 }; print line "]}" } }' > rows.jsonl
awk 'BEGIN { x = 7; for (r = 0; r < 400; r++) { line = "{\"prompt_ids\": ["
    for (i = 0; i < 16; i++) { x = x * 16807 % 2147483647; line = line (i ? ", " : "") x % 4000 }; print line "]}" } }' > prompts.jsonl
model="{new: {architecture: llama, hidden_size: 256, intermediate_size: 688, num_hidden_layers: 6, num_attention_heads: 8,
    max_position_embeddings: 128, vocab_size: 4096}}"
cat > pretrain.yaml <<END
algorithm: pretrain
run: {dir: run, seed: 1, threads_per_rank: 1}
rl_module: {policy: $model}
data: {train: rows.jsonl, max_tokens: 128}
training: {batch_size: 8, lr: 1.0e-4}
checkpointing: {interval: 0, recovery_interval: 0}
stop: {steps: $iterations}
END
cat > ppo.yaml <<END
algorithm: ppo
run: {dir: run, seed: 1, threads_per_rank: 1}
rl_module: {policy: $model, critic: {same_as: policy}}
environment: {prompts: prompts.jsonl, max_prompt_tokens: 16, max_completion_tokens: 48, rewards: [{kind: length, target: 20}]}
training: {prompts_per_iteration: 64, minibatch_size: 32, num_epochs: 2, lr: 1.0e-5, critic_lr: 1.0e-5}
checkpointing: {interval: 0, recovery_interval: 0}
stop: {iterations: $((iterations / 3 + 2))}
END
# seconds of an iteration: fastest and mean of all but the first two
train() { # NAME RANKS CONFIG [options]
    local name=$1 ranks=$2 config=$3; shift 3
    local launch=()
    [ "$ranks" = 1 ] || launch=(mpirun -n "$ranks")
    "${launch[@]}" "$program" train "$config" --run-dir "$name" --fresh "$@" > "$name.log" 2>&1 || { tail -n 3 "$name.log" >&2; exit 1; }
    "$program" inspect "$name" metrics --csv 2> /dev/null | awk -F, -v name="$name" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "time_this_iter_s") c = i }
        NR > 3 { sum += $c; n++; if (n == 1 || $c < least) least = $c } END { printf "%s %.4f %.4f\n", name, least, sum / n }' >> times
}
for round in $(seq "$rounds"); do
    train lone 1 pretrain.yaml
    train pair.a 1 pretrain.yaml & train pair.b 1 pretrain.yaml; wait
    train ranks 2 pretrain.yaml --set training.batch_size=16
    train colocated 2 ppo.yaml
    train split 4 ppo.yaml --set env_runners.num_env_runners=2
done
sort times | awk '{ sub(/\.[ab]$/, "", $1); n[$1]++; for (f = 1; f <= 2; f++) all[f, $1, n[$1]] = $(f + 1) }
    function sorted(f, k,  i, j, t) {
        for (i = 1; i <= n[k]; i++) for (j = i + 1; j <= n[k]; j++)
            if (all[f, k, j] < all[f, k, i]) { t = all[f, k, i]; all[f, k, i] = all[f, k, j]; all[f, k, j] = t }
        best[f, k] = all[f, k, 1]; median[f, k] = (all[f, k, int((n[k] + 1) / 2)] + all[f, k, int(n[k] / 2) + 1]) / 2 }
    function ratio(what, f, a, b) { printf "%s: best %.3f, median %.3f\n", what, best[f, a] / best[f, b], median[f, a] / median[f, b] }
    END { for (f = 1; f <= 2; f++) { print f == 1 ? "fastest iteration, s" : "mean of the iterations, s"
            for (k in n) { sorted(f, k); printf "  %-10s best %.4f, median %.4f:", k, best[f, k], median[f, k]; for (i = 1; i <= n[k]; i++) printf " %s", all[f, k, i]; print "" }
            ratio("  weak scaling, lone to two ranks", f, "lone", "ranks"); ratio("  two lone runs at once to two ranks", f, "pair", "ranks")
            ratio("  split over colocated", f, "split", "colocated") } }'
