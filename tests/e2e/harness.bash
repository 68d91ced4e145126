# What the scripts about training share, sourced by them: a recipe of four stages on rows of token ids and models of a few
# thousand weights in a directory of its own, ways to start, watch and kill its runs, and the comparison of two of them bit
# for bit. $1: the program. TEST_TRACE=1 tells what is going on.
set -u
phalanx=$(realpath "$1")
. "$(dirname "${BASH_SOURCE[0]}")/../support/scratch.bash"
. "$(dirname "${BASH_SOURCE[0]}")/../support/steps.bash"
export OMP_NUM_THREADS=1
mpi=$(command -v mpirun || true)
h5diff=$(command -v h5diff || true)


# ---- data and configuration ------------------------------------------------------------------------------------------
ids() { # SEED LOW HIGH: a list of LOW to HIGH ids from 2 to 31
    awk -v seed="$1" -v low="$2" -v high="$3" 'BEGIN { srand(seed); n = low + int(rand() * (high - low + 1));
        for (i = 0; i < n; i++) printf "%s%d", i ? ", " : "", 2 + int(rand() * 30) }'
}
for i in $(seq 1 20); do
    echo "{\"ids\": [$(ids $i 3 14)]}" >> text.jsonl
    echo "{\"prompt_ids\": [$(ids $((100 + i)) 1 5)], \"completion_ids\": [$(ids $((200 + i)) 1 6), 1]}" >> demos.jsonl
    echo "{\"prompt_ids\": [$(ids $((300 + i)) 1 5)], \"chosen_ids\": [$(ids $((400 + i)) 1 6), 1]," \
         "\"rejected_ids\": [$(ids $((500 + i)) 1 6)]}" >> pairs.jsonl
    echo "{\"prompt_ids\": [$(ids $((600 + i)) 1 5)]}" >> prompts.jsonl
done

# A judge that takes TEST_DELAY seconds for each answer: long runs without long computations.
cat > judge <<'JUDGE'
#!/usr/bin/env bash
while IFS= read -r line; do
    id=${line#*\"id\":}; id=${id%%,*}
    [ "${TEST_DELAY:-0}" = 0 ] || sleep "$TEST_DELAY"
    echo "{\"id\": $id, \"score\": 0.25}"
done
JUDGE
chmod +x judge

cat > base.yaml <<'YAML'
run: {name: base, dir: base, seed: 3}
algorithm: pretrain
rl_module: {policy: {new: {architecture: llama, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2,
                           vocab_size: 32, max_position_embeddings: 24, initializer_range: 0.3}}}
data: {train: text.jsonl, max_tokens: 16}
training: {batch_size: 10, lr: 1.0e-3}
stop: {steps: 2}
YAML

cat > recipe.yaml <<YAML
defaults:
  run: {name: recipe, seed: 11, dir: runs, threads_per_rank: 1}
  checkpointing: {interval: 4}
stages:
  pretrain:
    algorithm: pretrain
    rl_module: {policy: {path: base/policy}}
    data: {train: text.jsonl, validation: text.jsonl, max_tokens: 16}
    training: {batch_tokens: 60, lr: 1.0e-2}
    evaluation: {evaluation_interval: 4}
    stop: {steps: 6}
  sft:
    algorithm: sft
    rl_module: {policy: {stage: pretrain}}
    data: {train: demos.jsonl, max_tokens: 16}
    training: {batch_size: 7, lr: 1.0e-2}
    stop: {epochs: 2}
  reward:
    algorithm: reward
    rl_module: {reward: {stage: sft}}
    data: {train: pairs.jsonl, validation: pairs.jsonl, max_tokens: 16}
    training: {batch_size: 6, lr: 1.0e-2}
    stop: {epochs: 1}
  ppo:
    algorithm: ppo
    rl_module: {policy: {stage: sft}, reference: {same_as: policy}, reward: {stage: reward}, critic: {same_as: reward}}
    environment:
      prompts: prompts.jsonl
      max_prompt_tokens: 6
      max_completion_tokens: 10
      rewards: [{kind: model}, {kind: length, target: 4}, {name: judge, kind: exec, command: ["$work/judge"]}]
    env_runners: {samples_per_prompt: 2}
    training: {prompts_per_iteration: 6, num_epochs: 2, minibatch_size: 5, lr: 3.0e-3, critic_lr: 3.0e-3,
               lr_schedule: constant, kl: {coeff: 0.1, target: 0.5, horizon: 100}}
    evaluation: {evaluation_interval: 2, prompts: prompts.jsonl, num_prompts: 5, rewards: [{kind: length, target: 4}]}
    reporting: {samples: {iterations_per_file: 3}}
    stop: {iterations: 6}
YAML

# ---- how runs are started, watched and compared ----------------------------------------------------------------------
launcher() { [ "$1" = 1 ] || echo "$mpi -n $1"; }
train() { # RANKS DIR [options]: to its end; the exit code is the program's
    local ranks=$1 dir=$2; shift 2
    $(launcher "$ranks") "$phalanx" train recipe.yaml --run-dir "$dir" "$@" > "$dir.out" 2> "$dir.err" < /dev/null
}
good() { train "$@" || fail "exit $? of train $*: $(grep '^phalanx: ' "$2.err")"; }
refused() { # CODE TEXT COMMAND...: one message, with this text
    local want=$1 text=$2; shift 2
    "$@" > refused.out 2> refused.err < /dev/null; local got=$?
    [ "$got" = "$want" ] || fail "exit $got, want $want: $*: $(cat refused.err)"
    sed -n '/^phalanx: /,/^---/p' refused.err | grep -q -- "$text" || fail "no '$text': $(cat refused.err)"
    [ "$(grep -v '^phalanx: NOTE: ' refused.err | grep -c '^phalanx: ')" = 1 ] || fail "more than one message: $(cat refused.err)"
}
begin() { # RANKS DIR [options]: in the background; pid is the process that was started
    local ranks=$1 dir=$2; shift 2
    TEST_DELAY=0.01 $(launcher "$ranks") "$phalanx" train recipe.yaml --run-dir "$dir" "$@" > "$dir.out" 2> "$dir.err" \
        < /dev/null &
    pid=$!
}
reach() { # DIR ITERATION [STAGE]: waits until that iteration of the stage (ppo) is done
    local turn
    for turn in $(seq 1 2000); do
        grep -q "\"stage\": \"${3-ppo}\"" "$1/status.json" 2>/dev/null &&
            awk -F'[:,]' -v want="$2" '/"iteration"/ { exit !($2 + 0 >= want) }' "$1/status.json" && return
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.01
    done
    fail "$1 did not reach iteration $2: $(tail -n 3 "$1.err")"
}
ends() { # CODE: waits for the process that was started
    wait "$pid" 2>/dev/null; local got=$?
    pid=
    [ "$1" = any ] || [ "$got" = "$1" ] || fail "exit $got, want $1"
}
status() { grep -q "\"$2\": \"*$3" "$1/status.json" || fail "$1: $2 is not $3: $(tr -d '\n' < "$1/status.json")"; }
without_predecessors() { # DIR: a run whose stages before ppo are done
    rm -rf "$1" "$1".1
    cp -r straight "$1"
    rm -rf "$1/ppo" "$1/status.json" "$1/log.txt"
}
columns() { # drops the columns that tell time, machine and history
    awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) 
                 keep[i] = $i !~ /^(run|timestamp|segment|rank|eps|core_hours|memory_peak|num_healthy_workers)$/ &&
                           $i !~ /^(time_|timers\/)|(per_s|roof_share)$/ }
             { line = ""; for (i = 1; i <= NF; i++) if (keep[i]) line = line "," $i; print line }'
}
same() { # DIR DIR: results, metrics, evaluations, samples and moments are equal bit for bit
    local file stage part
    for file in pretrain/policy sft/policy reward/reward ppo/policy ppo/critic; do
        cmp -s "$1/$file/model.safetensors" "$2/$file/model.safetensors" || fail "$1 and $2: weights of $file differ"
        cmp -s "$1/$file/config.json" "$2/$file/config.json" || fail "$1 and $2: $file/config.json differs"
    done
    for stage in pretrain sft reward ppo; do
        for part in metrics samples; do
            [ $part = metrics ] || [ $stage = ppo ] || continue
            "$phalanx" inspect "$1/$stage" $part --csv 2> one.err | columns > one.csv
            "$phalanx" inspect "$2/$stage" $part --csv 2> two.err | columns > two.csv
            [ -s one.csv ] || fail "$1/$stage: inspect $part prints nothing: $(cat one.err)"
            cmp -s one.csv two.csv ||
                fail "$1 and $2: $part of $stage differ: $(diff one.csv two.csv | cut -c1-200 | head -n 8)"
        done
    done
    [ -n "$h5diff" ] || return
    for part in prompt_tokens tokens updates order; do
        for file in "$1"/ppo/samples-*.h5; do
            "$h5diff" -q "$file" "$2/ppo/${file##*/}" "/$part" "/$part" ||
                fail "$1 and $2: /$part of ${file##*/} differs"
        done
    done
    part=/evaluation/objective
    "$h5diff" -q "$1/ppo/run.h5" "$2/ppo/run.h5" $part $part ||
        fail "$1 and $2: /evaluation differs"
    file=$(basename "$(ls -d "$1"/ppo/checkpoint_* | tail -n 1)")
    for part in policy critic; do
        "$h5diff" -q "$1/ppo/$file/state.h5" "$2/ppo/$file/state.h5" "/$part" "/$part" ||
            fail "$1 and $2: moments of the $part in $file differ"
    done
}

base_model() { # the model that the recipe starts from, with a stop token
    "$phalanx" train base.yaml > base.out 2> base.err || fail "base: $(cat base.err)"
    sed -i 's/"eos_token_id": null/"eos_token_id": 1/' base/policy/config.json
    grep -q '"eos_token_id": 1' base/policy/config.json || fail "no stop token in the base model"
}
