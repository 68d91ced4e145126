#!/bin/bash
# Frozen models are there once a node: in a PPO run the reward model (F32) lies in its file's pages, so does the reference where
# it is BF16, and as F16 it is converted once into memory of the node; every rank uses both, and none has a copy; a weight file that is written over
# while it is used ends the run with a message.
# Usage: mapped.sh PROGRAM. Skips (77) without mpirun.
set -u
program=${1:?usage: mapped.sh PROGRAM}
command -v mpirun > /dev/null || { echo "skipped: no mpirun"; exit 77; }
export TMPDIR=${TMPDIR:-/tmp} # a weight file in memory has no pages of its own to be used
. "$(dirname "$0")/../support/scratch.bash"
dir=$work
trap 'rm -rf "$dir"' EXIT
failed=0

rows() { # rows COUNT FIELD LENGTH [FIELD LENGTH ...]
    awk -v spec="${*:2}" -v count="$1" 'BEGIN {
        n = split(spec, s, " "); x = 12345
        for (r = 0; r < count; r++) {
            line = "{"
            for (f = 1; f < n; f += 2) {
                line = line (f > 1 ? ", " : "") "\"" s[f] "\": ["
                for (i = 0; i < s[f + 1]; i++) { x = (x * 16807) % 2147483647; line = line (i ? ", " : "") 10 + x % 15000 }
                line = line "]"
            }
            print line "}"
        }
    }'
}
rows 8 prompt_ids 8 completion_ids 8 > "$dir/sft.jsonl"
rows 8 prompt_ids 8 chosen_ids 8 rejected_ids 8 > "$dir/pairs.jsonl"
rows 8 prompt_ids 8 > "$dir/prompts.jsonl"

# About 28 MiB: small enough to train at once, large enough to be seen.
new='{architecture: llama, hidden_size: 256, num_hidden_layers: 4, num_attention_heads: 4, intermediate_size: 768,
      max_position_embeddings: 64, vocab_size: 16000, tie_word_embeddings: true}'
for stage in "sft policy sft.jsonl" "reward reward pairs.jsonl"; do
    set -- $stage
    cat > "$dir/$1.yaml" <<END
algorithm: $1
rl_module: {$2: {new: $new}}
data: {train: $dir/$3, max_tokens: 64}
training: {batch_size: 4, lr: 1.0e-5}
debugging: {deterministic: false}
stop: {steps: 1}
END
    "$program" train "$dir/$1.yaml" --run-dir "$dir/$1" > "$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
done
for dtype in f16 bf16; do
    mkdir "$dir/$dtype" && "$program" export "$dir/sft" --out "$dir/$dtype/policy" --dtype $dtype > "$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
done
cat > "$dir/ppo.yaml" <<END
algorithm: ppo
debugging: {deterministic: false}
rl_module: {policy: {path: $dir/sft/policy}, reference: {path: $dir/f16/policy}, reward: {path: $dir/reward/reward},
            critic: {same_as: policy}}
environment: {prompts: $dir/prompts.jsonl, max_prompt_tokens: 8, max_completion_tokens: 16, rewards: [{kind: model}]}
training: {prompts_per_iteration: 4, minibatch_size: 4, num_epochs: 1, lr: 1.0e-5, critic_lr: 1.0e-5}
stop: {iterations: 400}
END

# mapped PID NAME: resident KiB of maps of the file NAME of 1 MiB or more in a process, and how much of that is its own alone
mapped() {
    awk -v name="$2" '/^[0-9a-f]+-[0-9a-f]+ / {on = index($0, name) > 0} on && /^Size:/ && $2 < 1024 {on = 0}
        on && /^Rss:/ {rss += $2} on && /^Private_Dirty:/ {own += $2} END {print rss + 0, own + 0}' "/proc/$1/smaps"
}

# start RANKS [options]: a run of PPO in the background; pids: its processes once an iteration is done
start() {
    rm -rf "$dir/ppo"
    mpirun -n "$1" "$program" train "$dir/ppo.yaml" --run-dir "$dir/ppo" --set run.threads_per_rank=1 \
        --set debugging.log_level=debug "${@:2}" > "$dir/ppo.log" 2>&1 &
    job=$! pids=
    for wait in $(seq 600); do
        grep -q 'ppo [0-9]*/400' "$dir/ppo.log" && break
        kill -0 $job 2>/dev/null || { cat "$dir/ppo.log"; exit 1; }
        sleep 0.1
    done
    local children
    read -r children < "/proc/$job/task/$job/children"
    for pid in $children; do [ "/proc/$pid/exe" -ef "$program" ] && pids="$pids $pid"; done
}

bytes=$(stat -c %s "$dir/sft/policy/model.safetensors")
check_shared() { # "NAME PERCENT"...: of the bytes in float32; of its embedding, a scorer reads rows
    local pid file name percent rss own
    for pid in $pids; do
        for file in "$@"; do
            read -r name percent <<< "$file"
            read -r rss own < <(mapped "$pid" "$name")
            echo "rank $pid: $name: $rss KiB resident, $own KiB its own, of $((bytes / 1024)) KiB"
            if [ "$rss" -lt $((bytes / 1024 * percent / 100)) ] || [ "$own" -gt 0 ]; then
                echo "FAILED: a frozen model is not once on the node"; failed=1
            fi
        done
    done
}
start 2
check_shared "/dev/shm/phalanx- 90" "reward/reward/model.safetensors 40"
[ "$(echo $pids | wc -w)" -eq 2 ] || { echo "FAILED: ranks seen:$pids"; failed=1; }

# A rank that does not convert has its frozen models as soon as it has their addresses. The bound is a slow machine's.
grep -o "\[.*\(reference\|reward\): frozen.*ms" "$dir/ppo.log" > "$dir/starts"
cat "$dir/starts"
[ "$(wc -l < "$dir/starts")" -eq 4 ] && awk '/rank 1/ && $(NF - 1) > 100 { exit 1 }' "$dir/starts" || { echo "FAILED: frozen models are slow to start"; failed=1; }

# ---- written over in place ----
printf '{' | dd of="$dir/reward/reward/model.safetensors" bs=1 seek=8 conv=notrunc 2> /dev/null
wait $job
code=$?
if [ $code -ne 65 ] || ! grep -q 'reward/model.safetensors: the file was changed while it was in use' "$dir/ppo.log"; then
    echo "FAILED: a changed file ends the run with $code, valid is 65 and a message:"; tail -5 "$dir/ppo.log"; failed=1
fi

# ---- cut ----
start 2 --set rl_module.reference.path="$dir/bf16/policy"
check_shared "bf16/policy/model.safetensors 45"
: > "$dir/reward/reward/model.safetensors"
wait $job
code=$?
if [ $code -ne 65 ] || ! grep -q 'model.safetensors: the file was' "$dir/ppo.log"; then
    echo "FAILED: a cut file ends the run with $code, valid is 65 and a message:"; tail -5 "$dir/ppo.log"; failed=1
fi
exit $failed
