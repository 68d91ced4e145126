#!/usr/bin/env bash
# `phalanx train` from outside, on rows of token ids and models of a few thousand weights: the same numbers on 1, 2 and
# 4 ranks; every way of stopping and killing a run, each continued to the bits of the run that nobody disturbed; what is
# refused and how. $1: the program. TEST_TRACE=1 tells what is going on.
set -u
phalanx=$1
work=$(mktemp -d "${TMPDIR:-/tmp}/phalanx-train-XXXXXX") || exit 1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1 \
       OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
failed=0 step=start pid=
mpi=$(command -v mpirun || true)
h5diff=$(command -v h5diff || true)

trace() { [ -z "${TEST_TRACE:-}" ] || echo "$SECONDS s: $step" >&2; }
fail() { echo "FAILED: $step: $*" >&2; failed=1; }
cleanup() { # what this script has started and not waited for
    [ -n "$pid" ] && kill -9 $(ranks_of "$pid") "$pid" 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT

# ---- data and configuration ------------------------------------------------------------------------------------------
cd "$work" || exit 1
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
  run: {name: recipe, seed: 11, dir: runs}
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

# Its validation takes far longer than a step, and nothing is saved on the way: a stop comes in an evaluation.
evaluation_config() {
    for i in $(seq 1 50); do cat text.jsonl; done > some.jsonl
    for i in $(seq 1 20); do cat some.jsonl; done > much.jsonl
    sed 's/steps: 2/steps: 8/; s/train: text.jsonl/train: text.jsonl, validation: much.jsonl/' \
        base.yaml > evaluation.yaml
    echo 'evaluation: {evaluation_interval: 1}' >> evaluation.yaml
    echo 'checkpointing: {interval: 100, recovery_interval: 100}' >> evaluation.yaml
}

# ---- how runs are started, watched and compared ----------------------------------------------------------------------
launcher() { [ "$1" = 1 ] || echo "$mpi -n $1"; }
train() { # RANKS DIR [options]: to its end; the exit code is the program's
    local ranks=$1 dir=$2; shift 2
    $(launcher "$ranks") "$phalanx" train recipe.yaml --run-dir "$dir" "$@" > "$dir.out" 2> "$dir.err" < /dev/null
}
good() { train "$@" || fail "exit $? of train $*: $(grep '^phalanx: ' "$2.err")"; }
begin() { # RANKS DIR [options]: in the background; pid is the process that was started
    local ranks=$1 dir=$2; shift 2
    TEST_DELAY=0.01 $(launcher "$ranks") "$phalanx" train recipe.yaml --run-dir "$dir" "$@" > "$dir.out" 2> "$dir.err" \
        < /dev/null &
    pid=$!
}
ranks_of() { ps -o pid=,comm= --ppid "$1" 2>/dev/null | awk '$2 ~ /^phalanx/ { print $1 }'; }
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
                           $i !~ /^(time_|timers\/)|per_s$/ }
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

# ---- the same numbers on any number of ranks -------------------------------------------------------------------------
step="1, 2 and 4 ranks"; trace
"$phalanx" train base.yaml > base.out 2> base.err || fail "base: $(cat base.err)"
sed -i 's/"eos_token_id": null/"eos_token_id": 1/' base/policy/config.json
grep -q '"eos_token_id": 1' base/policy/config.json || fail "no stop token in the base model"
good 1 straight
status straight state done
[ "$failed" = 0 ] || { cat straight.err; exit 1; } # nothing below can hold
if [ -n "$mpi" ]; then
    for n in 2 4; do
        good $n np$n
        same straight np$n
    done
fi

# Where the processor has no bf16 these runs say so and are those in float32.
step="1 and 2 ranks in bf16"; trace
good 1 bf16 --set learners.precision=bf16
if "$phalanx" version | grep -q '^bf16 *yes'; then
    cmp -s straight/sft/policy/model.safetensors bf16/sft/policy/model.safetensors && fail "bf16 gives float32's bits"
    grep -q 'bf16 is configured' bf16.err && fail "bf16 is said to be missing"
else
    grep -q 'bf16 is configured, float32 is used' bf16.err || fail "nothing is said of float32 in place of bf16"
    same straight bf16
fi
"$phalanx" inspect bf16/ppo metrics --csv 2> one.err | awk -F, '
    NR == 1 { for (i = 1; i <= NF; i++) if ($i == "rollout/logprob_diff_max") c = i }
    NR > 1 && $c != 0 { bad = 1 } END { exit bad || !c || NR < 2 }' || fail "sampler and learner differ in bf16"
if [ -n "$mpi" ]; then
    good 2 bf16np2 --set learners.precision=bf16
    same bf16 bf16np2
fi

step="a finished run is left as it is"; trace
cp -r straight again
good 1 again
same straight again
status again state done

step="--json"; trace
train 1 again --json || fail "exit $?"
grep -q '"ppo"' again.out || fail "no object on stdout"

# ---- stopping --------------------------------------------------------------------------------------------------------
step="SIGTERM"; trace
without_predecessors term
begin 1 term
reach term 2
kill -TERM "$pid"
ends 75
status term state stopped
status term exit_code 75
grep -q '"resume": "phalanx train recipe.yaml --run-dir term"' term/status.json || fail "no command to continue"
good 1 term
same straight term

step="STOP file on two ranks, continued on four"; trace
if [ -n "$mpi" ]; then
    without_predecessors stop
    begin 2 stop
    reach stop 1
    touch stop/ppo/STOP
    ends 75
    status stop state stopped
    good 4 stop
    same straight stop
    [ ! -e stop/ppo/STOP ] || fail "the STOP file is still there"
fi

step="run.time_limit_s"; trace
without_predecessors limit
TEST_DELAY=0.05 train 1 limit --set ppo.run.time_limit_s=1 --set pretrain.run.time_limit_s=1
[ $? = 75 ] || fail "exit $? before its limit"
status limit reason "the time limit"
good 1 limit
same straight limit

step="stopped before the first iteration is done"; trace
without_predecessors early
TEST_DELAY=0.2 "$phalanx" train recipe.yaml --run-dir early > early.out 2> early.err < /dev/null &
pid=$!
for turn in $(seq 1 500); do [ -e early/ppo/run.h5 ] && break; sleep 0.01; done
kill -TERM "$pid"
ends 75
grep -q 'iteration -1' early.err && fail "speaks of iteration -1"
good 1 early
same straight early

step="stopped during an evaluation"; trace
evaluation_config
if [ -n "$h5diff" ]; then
    "$phalanx" train evaluation.yaml --run-dir whole > whole.out 2>&1 || fail "exit $?: $(tail -n 1 whole.out)"
    for round in 1 2 3; do
        rm -f parts/status.json # of the start before
        "$phalanx" train evaluation.yaml --run-dir parts > parts.out 2> parts.err < /dev/null &
        pid=$!
        reach parts $((2 * round - 1)) ""
        kill -TERM "$pid"
        ends 75
    done
    "$phalanx" train evaluation.yaml --run-dir parts > parts.out 2> parts.err || fail "exit $?: $(cat parts.err)"
    cmp -s whole/policy/model.safetensors parts/policy/model.safetensors || fail "the weights differ"
    for part in loss perplexity; do
        "$h5diff" -q whole/run.h5 parts/run.h5 "/evaluation/$part" "/evaluation/$part" ||
            fail "/evaluation/$part differs"
    done
fi

step="stop.metrics ends a stage for good"; trace
rm -rf metric
cp -r straight metric
rm -rf metric/ppo
good 1 metric --set 'ppo.stop.metrics={num_episodes_lifetime: ">= 36"}'
status metric iteration 3
good 1 metric --set 'ppo.stop.metrics={num_episodes_lifetime: ">= 36"}'
status metric iteration 3
good 1 metric
same straight metric

# ---- killing ---------------------------------------------------------------------------------------------------------
step="kill -9"; trace
without_predecessors killed
begin 1 killed
reach killed 3
kill -9 "$pid"
ends any
good 1 killed
same straight killed

step="kill -9 at any moment of any stage"; trace
rm -rf moments
for units in 1 2 3 4 5 6 8 10 12; do
    "$phalanx" train recipe.yaml --run-dir moments > moments.out 2> moments.err < /dev/null &
    pid=$!
    sleep "$(awk -v n=$units 'BEGIN { print 0.03 * n }')"
    kill -9 "$pid" 2> /dev/null
    ends any
done
good 1 moments
same straight moments

if [ -n "$mpi" ]; then
    step="kill -9 of one of two ranks"; trace
    without_predecessors one
    begin 2 one
    reach one 2
    kill -9 "$(ranks_of "$pid" | tail -n 1)"
    ends any
    good 2 one
    same straight one

    step="kill -9 of all, continued on one rank"; trace
    without_predecessors all
    begin 2 all
    reach all 4
    kill -9 $(ranks_of "$pid") "$pid"
    ends any
    good 1 all
    same straight all
fi

# ---- damage ----------------------------------------------------------------------------------------------------------
step="a damaged checkpoint is skipped"; trace
without_predecessors damaged
begin 1 damaged
reach damaged 3
kill -TERM "$pid"
ends 75
newest=damaged/ppo/$(cat damaged/ppo/latest)
printf 'x' | dd of="$newest/policy/model.safetensors" bs=1 seek=700 conv=notrunc 2> /dev/null
good 1 damaged
grep -q "cannot be used: .*${newest##*/}" damaged.err || fail "no word of ${newest##*/}: $(cat damaged.err)"
same straight damaged
"$phalanx" inspect damaged/ppo events 2> /dev/null | grep -q "checkpoint_skipped.*${newest##*/}" || fail "no event of ${newest##*/}"

step="a failing disk is named and written down"; trace
without_predecessors disk
rm -rf disk/sft
PHALANX_FAULT=store.rename:5 train 1 disk
code=$?
[ $code = 74 ] || fail "exit $code: $(cat disk.err)"
status disk state failed
status disk exit_code 74
good 1 disk
same straight disk

# ---- what may change and what may not --------------------------------------------------------------------------------
refused() { # CODE TEXT COMMAND...: one message, with this text
    local want=$1 text=$2; shift 2
    "$@" > refused.out 2> refused.err < /dev/null; local got=$?
    [ "$got" = "$want" ] || fail "exit $got, want $want: $*: $(cat refused.err)"
    sed -n '/^phalanx: /,/^---/p' refused.err | grep -q -- "$text" || fail "no '$text': $(cat refused.err)"
    [ "$(grep -c '^phalanx: ' refused.err)" = 1 ] || fail "more than one message: $(cat refused.err)"
}

step="a second start on a living run"; trace
without_predecessors twice
begin 1 twice
reach twice 1
refused 78 "twice" "$phalanx" train recipe.yaml --run-dir twice
step="a changed configuration"; trace
kill -TERM "$pid"
ends 75
refused 78 "training.lr" "$phalanx" train recipe.yaml --run-dir twice --set ppo.training.lr=0.5
refused 78 "run.seed" "$phalanx" train recipe.yaml --run-dir twice --set run.seed=4
good 1 twice
same straight twice

step="a raised stop continues a finished run"; trace
good 1 longer --set ppo.stop.iterations=8
cp -r straight raised
good 1 raised --set ppo.stop.iterations=8
same longer raised

step="--from branches"; trace
cp -r straight branch
rm -rf branch/ppo
good 1 branch --stage ppo --from straight/ppo/checkpoint_000004
cmp -s branch/ppo/policy/model.safetensors straight/ppo/policy/model.safetensors || fail "the policy differs"

step="--fresh"; trace
good 1 raised --fresh
same straight raised
[ -d raised.1/ppo ] || fail "the earlier run is gone"

# ---- bad inputs: an exit code and one message, on two ranks as on one ------------------------------------------------
step="bad inputs"; trace
sed '3s/.*/{"prompt_ids": [1, 2/' prompts.jsonl > broken.jsonl
sed '3s/.*/{"prompt_ids": [1, 99]}/' prompts.jsonl > outside.jsonl
sed 's/^stages:/stages: [/' recipe.yaml > syntax.yaml
sed 's/samples_per_prompt/sample_per_prompt/' recipe.yaml > key.yaml
cp -r straight half
rm -rf half/ppo half/reward/reward
for n in 1 2; do
    [ $n = 1 ] || [ -n "$mpi" ] || continue
    start="$(launcher $n) $phalanx train"
    refused 74 "none.yaml" $start none.yaml
    refused 78 "syntax.yaml:[0-9]" $start syntax.yaml
    refused 78 "key.yaml:[0-9].*samples_per_prompt" $start key.yaml
    refused 74 "none.jsonl" $start recipe.yaml --run-dir "missing$n" --set pretrain.data.train=none.jsonl
    rm -rf bad; cp -r straight bad; rm -rf bad/ppo
    refused 65 "broken.jsonl:3" $start recipe.yaml --run-dir bad --set ppo.environment.prompts=broken.jsonl
    refused 65 "outside.jsonl:3" $start recipe.yaml --run-dir bad --set ppo.environment.prompts=outside.jsonl
    refused 78 "reward" $start recipe.yaml --run-dir half --stage ppo
    refused 64 "none" $start recipe.yaml --stage none
done

[ "$failed" = 0 ] && echo "all passed"
exit "$failed"
