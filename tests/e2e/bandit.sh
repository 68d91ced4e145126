#!/usr/bin/env bash
# PPO learns what the reward asks for and nothing else: the score is the share of one letter of eight among the letters of a
# completion, a random policy has 1/8 of it, and within 200 iterations more than 90 % must be that letter. $1: the program.
set -u
phalanx=$(realpath "$1")
. "$(dirname "$0")/../support/scratch.bash"
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
cat > tokenizer.json <<'J'
{"version": "1.0", "added_tokens": [{"id": 8, "content": "<eos>", "special": true, "single_word": false, "lstrip": false,
  "rstrip": false, "normalized": false}],
 "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
 "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 5, "g": 6, "h": 7}, "merges": []}}
J
echo '{"eos_token": "<eos>"}' > tokenizer_config.json
for letter in a b c d e f g h; do echo "{\"prompt\": \"$letter\"}"; done > prompts.jsonl
cat > share <<'P'
#!/usr/bin/env bash
while IFS= read -r line; do
    id=${line#*\"id\":}; id=${id%%[,\}]*}
    text=${line#*\"completion\":}; text=${text#*\"}; text=${text%%\"*}
    others=${text//c/}
    n=${#text}; share=$((n ? 1000 * (n - ${#others}) / n : 0))
    printf '{"id": %d, "score": %d.%03d}\n' $id $((share / 1000)) $((share % 1000))
done
P
chmod +x share
cat > bandit.yaml <<'Y'
run: {name: bandit, dir: run, seed: 5, threads_per_rank: 1}
algorithm: ppo
rl_module:
  tokenizer: .
  policy: {new: {architecture: llama, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 16}}
  critic: {same_as: policy}
environment: {prompts: prompts.jsonl, max_prompt_tokens: 4, max_completion_tokens: 8,
              rewards: [{name: share, kind: exec, command: [./share]}], missing_eos: {mode: none}}
training: {prompts_per_iteration: 32, minibatch_size: 16, num_epochs: 2, lr: 3.0e-3, critic_lr: 3.0e-3, kl: {coeff: 0.0}}
checkpointing: {recovery_interval: 0, interval: 0}
reporting: {samples: {every: 0}}
stop: {iterations: 199}
Y
"$phalanx" train bandit.yaml --json > out 2> err || { echo "FAILED: $(tail -3 err)"; exit 1; }
"$phalanx" inspect run metrics --csv > metrics.csv || exit 1
awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "objective/scores") c = i; next }
    NR == 2 { first = $c } { last = $c }
    END {
        printf "share of the letter: %.3f in the first iteration, %.3f in iteration %d\n", first, last, NR - 1
        exit !(first < 0.3 && last > 0.9 && NR - 1 < 200)
    }' metrics.csv || { echo "FAILED: the bandit was not learnt"; exit 1; }
awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
    { for (k = split("generate logprobs learn", phase, " "); k > 0; k--) {
        rate = $at[phase[k] "_gflop_per_s"]; share = $at[phase[k] "_roof_share"]; roof = $at["roof_gflop_per_s"]
        if (!(rate > 0 && roof > 0 && share * roof > 0.999 * rate && share * roof < 1.001 * rate)) exit bad = 1
    } }
    END { exit bad || NR < 2 }' metrics.csv || { echo "FAILED: a phase has no rate, or its share is not that of the roof"; exit 1; }
