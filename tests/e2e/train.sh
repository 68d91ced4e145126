#!/usr/bin/env bash
# `phalanx train` from outside, on rows of token ids and models of a few thousand weights: the same numbers on 1, 2 and
# 4 ranks; every way of stopping and killing a run, each continued to the bits of the run that nobody disturbed; what is
# refused and how. $1: the program. TEST_TRACE=1 tells what is going on.
. "$(dirname "$0")/harness.bash"

# Its validation takes far longer than a step, and nothing is saved on the way: a stop comes in an evaluation.
evaluation_config() {
    for i in $(seq 1 50); do cat text.jsonl; done > some.jsonl
    for i in $(seq 1 20); do cat some.jsonl; done > much.jsonl
    sed 's/steps: 2/steps: 8/; s/train: text.jsonl/train: text.jsonl, validation: much.jsonl/' \
        base.yaml > evaluation.yaml
    echo 'evaluation: {evaluation_interval: 1}' >> evaluation.yaml
    echo 'checkpointing: {interval: 100, recovery_interval: 100}' >> evaluation.yaml
}

# ---- the same numbers on any number of ranks -------------------------------------------------------------------------
step="1, 2 and 4 ranks"; trace
base_model
good 1 straight
status straight state done
[ "$failed" = 0 ] || { cat straight.err; exit 1; } # nothing below can hold
if [ -n "$mpi" ]; then
    for n in 2 4; do
        good $n np$n
        same straight np$n
    done
fi

step="a finished run is left as it is"; trace
cp -r straight again
find again -name model.safetensors -o -name run.h5 | sort | xargs stat -c '%n %i %Y' > before
good 1 again
find again -name model.safetensors -o -name run.h5 | sort | xargs stat -c '%n %i %Y' | cmp -s - before || fail "results are written anew"
same straight again
status again state done
rm -r again/ppo/policy again/sft/policy # but what it lacks it gets
good 1 again
same straight again

step="a finished run whose checkpoints were removed"; trace
cp -r straight bare
rm -rf bare/*/checkpoint_* bare/*/recovery_? bare/*/latest
cp -r bare bare.before
for n in 1 ${mpi:+2}; do
    good $n bare
    [ "$(grep -c 'done after iteration .* left as it is' bare.err)" = 4 ] || fail "not said of 4 stages: $(cat bare.err)"
    grep -q "^  ppo  *ppo  *6 iterations" bare.out || fail "no line of ppo in the table: $(cat bare.out)"
    for what in bare bare.before; do (cd $what; find . -type f ! -name status.json ! -name log.txt | sort | xargs sha256sum); done > sums
    [ "$(sort sums | uniq -c | awk '$1 != 2' | wc -l)" = 0 ] || fail "something was changed: $(sort sums | uniq -u)"
done
status bare state done
train 1 bare --set ppo.stop.iterations=8
[ $? = 65 ] && grep -q "^phalanx: bare/ppo: finished after iteration 6 .*no checkpoint .* to another stop; .* --fresh" bare.err ||
    fail "a raised stop: $(grep '^phalanx: ' bare.err)"
rm -rf bare/ppo/policy
train 1 bare
[ $? = 65 ] && grep -q "^phalanx: bare/ppo: finished after iteration 6 and has neither results nor a checkpoint" bare.err ||
    fail "without results: $(grep '^phalanx: ' bare.err)"

step="done again from long before, over the sample files of the first time"; trace
without_predecessors older
seldom=(--set ppo.checkpointing.interval=2 --set ppo.checkpointing.recovery_interval=0 --set ppo.checkpointing.keep=3)
good 1 older "${seldom[@]}"
same straight older
rm -r older/ppo/checkpoint_00000[46] older/ppo/policy
good 1 older "${seldom[@]}"
grep -q 'continues after iteration 2 ' older.err || fail "did not go on from iteration 2: $(grep continues older.err)"
same straight older
rm -r older/ppo/checkpoint_00000[46] older/ppo/policy
head -c 3000 straight/ppo/samples-000004.h5 > older/ppo/samples-000004.h5
good 1 older "${seldom[@]}"
[ -e older/ppo/samples-000004.h5.damaged ] || fail "a damaged later file is not kept aside"
same straight older

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

step="a STOP file that came while the run waited stops its start, once"; trace
without_predecessors queued
touch queued/STOP
train 1 queued
[ $? = 75 ] || fail "exit $? with a STOP file"
status queued reason "the STOP file"
[ ! -e queued/STOP ] || fail "the STOP file is still there"
good 1 queued
same straight queued

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
        reach parts $((2 * round - 1)) pretrain
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

for n in 1 ${mpi:+2}; do # of this process's own number, too, and of one that nothing has
    rm -rf metric
    cp -r straight metric
    rm -rf metric/ppo
    good $n metric --set 'ppo.stop.metrics={memory_peak: ">= 1"}'
    status metric iteration 1
    good $n metric --set 'ppo.stop.metrics={memory_peak: ">= 1"}'
    rm -rf metric/ppo
    refused 78 "'num_episodes_lifetim' is no metric of ppo; did you mean 'num_episodes_lifetime'" $(launcher $n) "$phalanx" train \
        recipe.yaml --run-dir metric --set 'ppo.stop.metrics={num_episodes_lifetim: ">= 1"}'
    refused 78 "checkpointing.keep_best: 'evaluation/scor' is no metric of ppo" $(launcher $n) "$phalanx" train recipe.yaml \
        --run-dir metric --set ppo.checkpointing.keep_best=evaluation/scor
done

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

step="evaluation may change"; trace
for change in evaluation.prompts=text.jsonl evaluation.evaluation_interval=1; do
    cp -r straight changed
    [ $change != evaluation.prompts=text.jsonl ] || tail -n 7 prompts.jsonl > held.jsonl
    good 1 changed --set ppo.${change/text/held} --set ppo.stop.iterations=8
    for module in policy critic; do
        cmp longer/ppo/$module/model.safetensors changed/ppo/$module/model.safetensors || fail "$change: $module differs"
    done
    "$phalanx" inspect changed/ppo evaluation --csv 2> /dev/null | awk -F, '
        NR == 1 { for (i = 1; i <= NF; i++) if ($i == "iteration") c = i }
        NR > 1 && $c == 8 { measured = 1 } END { exit !measured }' || fail "$change: nothing is measured at the end"
    rm -rf changed
done
sed 's/3/4/' prompts.jsonl > others.jsonl
cp -r straight changed
refused 78 "environment.prompts" "$phalanx" train recipe.yaml --run-dir changed --set ppo.environment.prompts=others.jsonl \
    --set ppo.stop.iterations=8

step="--from branches"; trace
good 1 branch --stage ppo --from straight/ppo/checkpoint_000004
cmp -s branch/ppo/policy/model.safetensors straight/ppo/policy/model.safetensors || fail "the policy differs"
good 1 branch --stage ppo --from "$PWD/straight/ppo/checkpoint_000004" # the same one: it is over
refused 78 "the run in branch/ppo began from .*straight/ppo/checkpoint_000004; valid is the command without --from" \
    "$phalanx" train recipe.yaml --run-dir branch --stage ppo --from straight/ppo/checkpoint_000006
refused 78 "the run in straight/ppo began from no checkpoint" \
    "$phalanx" train recipe.yaml --run-dir straight --stage ppo --from straight/ppo/checkpoint_000004

step="export finds the stage that trained the module"; trace
"$phalanx" export straight --module reward --out exported --json > export.out 2> export.err || fail "export: $(cat export.err)"
grep -q '"from":"straight/reward/reward"' export.out || fail "export says $(cat export.out)"
cmp -s exported/model.safetensors straight/reward/reward/model.safetensors || fail "the exported reward model differs"

step="a reward model has its mean where its run ends, and in every checkpoint"; trace
ends_at() { # DIR STEPS [environment]
    local dir=$1 steps=$2; shift 2
    [ -d "$dir" ] || { cp -r straight "$dir"; rm -rf "$dir/reward" "$dir/ppo"; }
    { env "$@" "$phalanx" train recipe.yaml --run-dir "$dir" --stage reward --set reward.training.lr_schedule=constant \
        --set reward.stop.epochs=null --set reward.stop.steps=$steps --set reward.checkpointing.interval=3 \
        --set reward.checkpointing.recovery_interval=1 > "$dir.out" 2> "$dir.err" < /dev/null; } 2> /dev/null
}
ends_at mean.whole 4 || fail "exit $?: $(tail -n 1 mean.whole.err)"
ends_at mean.early 5 PHALANX_FAULT=rank.die:5 && fail "nothing died"
ends_at mean.early 4 || fail "exit $?: $(tail -n 1 mean.early.err)"
for file in reward/config.json checkpoint_000004/reward/config.json reward/model.safetensors; do
    cmp mean.whole/reward/$file mean.early/reward/$file || fail "$file differs"
done
for file in reward checkpoint_000003/reward checkpoint_000004/reward; do
    grep -q '"reward_mean": -\?[0-9.]*[1-9]' mean.whole/reward/$file/config.json || fail "$file: no mean"
done

step="--fresh"; trace
good 1 raised --fresh
same straight raised
[ -d raised.1/ppo ] || fail "the earlier run is gone"

if [ -n "$mpi" ]; then
    step="ranks whose weights differ"; trace
    without_predecessors astray
    PHALANX_FAULT=learner.astray:4:1 refused 70 "the ranks hold different weights of" $(launcher 2) "$phalanx" train recipe.yaml \
        --run-dir astray
    good 2 astray
    same straight astray
fi

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
