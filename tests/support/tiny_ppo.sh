# Sourced: a PPO run that takes a second, in the current directory.

ids() { # SEED LOW HIGH: a list of LOW to HIGH ids from 2 to 31
    awk -v seed="$1" -v low="$2" -v high="$3" 'BEGIN { srand(seed); n = low + int(rand() * (high - low + 1));
        for (i = 0; i < n; i++) printf "%s%d", i ? ", " : "", 2 + int(rand() * 30) }'
}
tiny_ppo() { # PROGRAM: base.yaml and ppo.yaml, their data, and a model whose completions end at different lengths
for i in $(seq 1 20); do
    echo "{\"ids\": [$(ids $i 3 14)]}" >> text.jsonl
    echo "{\"prompt_ids\": [$(ids $((600 + i)) 1 5)]}" >> prompts.jsonl
done
cat > base.yaml <<'YAML'
run: {name: base, dir: base, seed: 3}
algorithm: pretrain
rl_module: {policy: {new: {architecture: llama, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2,
                           vocab_size: 32, max_position_embeddings: 24, initializer_range: 0.3}}}
data: {train: text.jsonl, max_tokens: 16}
training: {batch_size: 10, lr: 1.0e-3}
stop: {steps: 2}
YAML
cat > ppo.yaml <<'YAML'
run: {name: ppo, seed: 5}
algorithm: ppo
rl_module: {policy: {path: base/policy}, critic: {same_as: policy}}
environment: {prompts: prompts.jsonl, max_prompt_tokens: 6, max_completion_tokens: 12, rewards: [{kind: length, target: 4}]}
env_runners: {samples_per_prompt: 2, sample_timeout_s: 20}
training: {prompts_per_iteration: 8, num_epochs: 2, minibatch_size: 5, lr: 3.0e-3, critic_lr: 3.0e-3, lr_schedule: constant,
           kl: {coeff: 0.1, target: 0.5, horizon: 100}}
evaluation: {evaluation_interval: 2, prompts: prompts.jsonl, num_prompts: 5}
stop: {iterations: 4}
YAML
"$1" train base.yaml > base.out 2> base.err || fail "$(cat base.err)"
sed -i 's/"eos_token_id": *[^,}]*/"eos_token_id": [1, 2, 3, 4, 5]/' base/policy/config.json
grep -q '"eos_token_id": \[1' base/policy/config.json || sed -i '0,/{/s//{ "eos_token_id": [1, 2, 3, 4, 5],/' base/policy/config.json
rm -f base/policy/generation_config.json
}
same_run() { # DIR DIR: weights, metrics and samples are equal bit for bit; else the file `differs` says what is not
    local part
    for part in policy critic; do
        cmp "$1/$part/model.safetensors" "$2/$part/model.safetensors" > differs 2>&1 || return 1
    done
    for part in metrics samples; do # without the columns that tell time, machine and history
        for dir in "$1" "$2"; do
            "$phalanx" inspect "$dir" $part --csv 2> inspect.err | awk -F, '
                NR == 1 { for (i = 1; i <= NF; i++) keep[i] = $i !~ /^(run|timestamp|segment|rank|eps|core_hours|memory_peak)$/ &&
                                                               $i !~ /^(num_healthy_workers$|time_|timers\/)|(per_s|roof_share)$/ }
                { for (i = 1; i <= NF; i++) if (keep[i]) printf "%s,", $i; print "" }' > "$part.$([ "$dir" = "$1" ] && echo one || echo two)"
        done
        [ -s $part.one ] || { cp inspect.err differs; return 1; }
        diff $part.one $part.two > diff.out || { { echo "$part:"; head -n 6 diff.out | cut -c1-300; } > differs; return 1; }
    done
}
