#!/bin/bash
# Peak memory of a 135M-parameter model is what the plan at the start of the run says, within 5 %; a plan that no machine
# can hold is refused before anything is allocated; and an iteration that is like the one before allocates nothing.
# Usage: memory.sh PROGRAM ['ALGORITHM:RANKS[:LAYERS]...'], of sft, reward, ppo and split (with an env runner); LAYERS in place of
# all 30. Skips (77) where the runs do not fit.
set -u
program=${1:?usage: memory.sh PROGRAM}
free=$(awk '/^MemAvailable:/ {print int($2 / 1024)}' /proc/meminfo)
if [ "$free" -lt 12288 ]; then
    echo "skipped: $free MiB are free, the runs need 12288"
    exit 77
fi
export TMPDIR=${TMPDIR:-/tmp} # a weight file in memory has no pages of its own to be used
. "$(dirname "$0")/../support/scratch.bash"
dir=$work
trap 'rm -rf "$dir"' EXIT
failed=0

# Token ids stand for texts: no tokenizer is needed. rows COUNT FIELD LENGTH [FIELD LENGTH ...]
rows() {
    awk -v spec="${*:2}" -v count="$1" 'BEGIN {
        n = split(spec, s, " "); x = 12345
        for (r = 0; r < count; r++) {
            line = "{"
            for (f = 1; f < n; f += 2) {
                line = line (f > 1 ? ", " : "") "\"" s[f] "\": ["
                for (i = 0; i < s[f + 1]; i++) { x = (x * 16807) % 2147483647; line = line (i ? ", " : "") 10 + x % 49000 }
                line = line "]"
            }
            print line "}"
        }
    }'
}
rows 16 prompt_ids 8 completion_ids 24 > "$dir/sft.jsonl"
rows 16 prompt_ids 8 chosen_ids 24 rejected_ids 24 > "$dir/pairs.jsonl"
rows 16 prompt_ids 8 > "$dir/prompts.jsonl"

# ---- refused at once: no machine has it ----
small='{architecture: llama, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, max_position_embeddings: 64,
        vocab_size: 50000}'
cat > "$dir/small.yaml" <<END
algorithm: ppo
rl_module: {policy: {new: $small}, critic: {same_as: policy}}
environment: {prompts: $dir/prompts.jsonl, max_prompt_tokens: 8, max_completion_tokens: 16,
              rewards: [{kind: length, target: 8}]}
training: {prompts_per_iteration: 4, minibatch_size: 4, num_epochs: 1, lr: 1.0e-5, critic_lr: 1.0e-5}
debugging: {log_level: debug}
stop: {iterations: 3}
END
"$program" train "$dir/small.yaml" --run-dir "$dir/run.big" --set rl_module.policy.new.hidden_size=16384 \
    --set rl_module.policy.new.num_attention_heads=128 \
    --set rl_module.policy.new.num_hidden_layers=96 > "$dir/big.log" 2>&1
code=$?
if [ $code -ne 78 ] || ! grep -q 'out of memory: the plan wants .* bytes) are free; most of it is for' "$dir/big.log"; then
    echo "FAILED: an impossible plan ends with $code, valid is 78 and what was wanted of what is free:"; cat "$dir/big.log"; failed=1
fi

# ---- nothing is allocated after the first iteration ----
"$program" train "$dir/small.yaml" --run-dir "$dir/run.small" > "$dir/small.log" 2>&1 || { cat "$dir/small.log"; failed=1; }
for iteration in 2 3; do
    grep -q "iteration $iteration: 0 allocations" "$dir/small.log" && continue
    echo "FAILED: iteration $iteration allocates: $(grep allocations "$dir/small.log")"; failed=1
done

# ---- peak against plan ----
# SmolLM2-135M's shape
new='{architecture: llama, hidden_size: 576, num_hidden_layers: 30, num_attention_heads: 9, num_key_value_heads: 3,
      intermediate_size: 1536, max_position_embeddings: 2048, vocab_size: 49152, tie_word_embeddings: true}'
cat > "$dir/sft.yaml" <<END
algorithm: sft
rl_module: {policy: {new: $new}}
data: {train: $dir/sft.jsonl, max_tokens: 64}
training: {batch_size: 4, lr: 1.0e-5}
stop: {steps: 1}
END
cat > "$dir/reward.yaml" <<END
algorithm: reward
rl_module: {reward: {new: $new}}
data: {train: $dir/pairs.jsonl, max_tokens: 64}
training: {batch_size: 4, lr: 1.0e-5}
stop: {steps: 1}
END
# Not bit-exact across ranks: one gradient block in place of four, so that two learners fit and end soon.
cat > "$dir/ppo.yaml" <<END
algorithm: ppo
debugging: {deterministic: false}
rl_module: {policy: {new: $new}, critic: {same_as: policy}}
environment: {prompts: $dir/prompts.jsonl, max_prompt_tokens: 8, max_completion_tokens: 16,
              rewards: [{kind: length, target: 8}]}
training: {prompts_per_iteration: 4, minibatch_size: 4, num_epochs: 1, lr: 1.0e-5, critic_lr: 1.0e-5}
stop: {iterations: 1}
END

# anonymous PID: sets `now` to its resident anonymous KiB; no process is started, as this runs often
anonymous() {
    local name value unit
    now=
    while read -r name value unit; do
        [ "$name" = RssAnon: ] && { now=$value; return; }
    done 2>/dev/null < "/proc/$1/status"
}

# The same with one rank that only samples: what it takes beside the node's copy of the weights.
{ cat "$dir/ppo.yaml"; echo 'env_runners: {num_env_runners: 1}'; } > "$dir/split.yaml"

# measure NAME RANKS LAYERS: peak of anonymous bytes of every rank less what it had before the first allocation, MiB
measure() {
    local name=$1 ranks=$2 layers=$3 log=$dir/$1.$2.log launcher=() before=() peak=() pid module=policy
    [ "$name" = reward ] && module=reward
    [ "$ranks" -gt 1 ] && launcher=(mpirun -n "$ranks")
    ${launcher[@]+"${launcher[@]}"} "$program" train "$dir/$name.yaml" \
        --run-dir "$dir/run.$name.$ranks" --set run.threads_per_rank=$((ranks > 1 ? 1 : 2)) \
        --set rl_module.$module.new.num_hidden_layers="$layers" > "$log" 2>&1 &
    local job=$! planned= now=
    while kill -0 $job 2>/dev/null; do
        local children=
        [ "$ranks" -gt 1 ] && read -r children 2>/dev/null < "/proc/$job/task/$job/children"
        for pid in ${children:-$job}; do
            [ "/proc/$pid/exe" -ef "$program" ] || continue
            anonymous "$pid"
            [ -n "$now" ] || continue
            if [ -z "$planned" ]; then
                planned=$(awk '$1 == "a" && ($2 == "rank" || $2 == "learner") {print $3}' "$log")
                [ -z "$planned" ] && before[$pid]=$now
            fi
            [ "$now" -gt "${peak[$pid]:-0}" ] && peak[$pid]=$now
        done
        if [ -n "$planned" ]; then sleep 0.05; else sleep 0.002; fi # what it had before is to be seen just before
    done
    wait $job
    local code=$?
    if [ $code -ne 0 ]; then
        echo "FAILED: $name on $ranks ranks ends with $code"; tail -5 "$log"; failed=1; return
    fi
    local last=$(printf '%s\n' "${!peak[@]}" | sort -n | tail -1)
    # Ranks are alike before they allocate; one that went ahead while the launcher still held the plan's lines was read late.
    local start=$(printf '%s\n' "${before[@]:-0}" | sort -n | head -1)
    if [ "${#peak[@]}" -ne "$ranks" ]; then
        echo "FAILED: $name on $ranks ranks: ${#peak[@]} processes were seen"; failed=1
    fi
    for pid in "${!peak[@]}"; do # launched in the order of their ranks: the one that samples comes last
        [ "$name" = split ] && planned=$(awk -v a="a learner" -v b="an env runner" -v last="$last" -v pid="$pid" \
            'index($0, pid == last ? b : a) {print $(pid == last ? 4 : 3); exit}' "$log")
        awk -v name="$name" -v ranks="$ranks" -v plan="$planned" -v peak="${peak[$pid]}" -v before="$start" 'BEGIN {
            used = (peak - before) / 1024; share = used / plan
            good = share < 1.05 && share > 0.95
            printf "%s: %s, %d rank(s): plan %.1f MiB, peak %.1f MiB over %.1f before, %.2f %%\n", good ? "ok" : "FAILED", name,
                   ranks, plan, used, before / 1024, 100 * (share - 1)
            exit !good
        }' || failed=1
    done
}

[ "${2:-}" = small ] && exit $failed
for run in ${2:-ppo:1 sft:2:8 split:2:8}; do
    IFS=: read -r name ranks layers <<< "$run"
    measure "$name" "$ranks" "${layers:-30}"
    rm -rf "$dir"/run.*
done
exit $failed
