#!/usr/bin/env bash
# Products in bf16 from outside: the same bits on 1 and 2 ranks and after a kill, sampler and learner agree bit for bit, and
# where they have different precisions the learner counts anew. Where the processor has no bf16, runs say so and are those in
# float32. $1: the program. TEST_TRACE=1 tells what is going on.
. "$(dirname "$0")/harness.bash"

largest_difference() { # DIR: of the sampler's and the learner's log-probabilities, over all iterations
    "$phalanx" inspect "$1/ppo" metrics --csv 2> one.err | awk -F, '
        NR == 1 { for (i = 1; i <= NF; i++) if ($i == "rollout/logprob_diff_max") c = i }
        NR > 1 && $c > most { most = $c } END { if (c && NR > 1) print most + 0 }'
}

base_model
good 1 straight
step="learners and env runners in bf16"; trace
good 1 bf16 --set learners.precision=bf16
if ! "$phalanx" version | grep -q '^bf16 *yes: '; then
    "$phalanx" version | grep -q '^bf16 *no: ' || fail "version does not tell why there is no bf16"
    grep -q 'bf16 is configured, float32 is used' bf16.err || fail "nothing is said of float32 in place of bf16"
    same straight bf16
    exit $failed
fi
grep -q 'bf16 is configured' bf16.err && fail "bf16 is said to be missing"
for file in pretrain/policy sft/policy reward/reward ppo/policy ppo/critic; do
    cmp -s straight/$file/model.safetensors bf16/$file/model.safetensors && fail "$file has float32's bits"
done
[ "$(largest_difference bf16)" = 0 ] || fail "sampler and learner differ by $(largest_difference bf16)"
if [ -n "$mpi" ]; then
    good 2 two --set learners.precision=bf16
    same bf16 two
fi

step="kill -9 in bf16"; trace
begin 1 killed --set learners.precision=bf16
reach killed 3
kill -9 "$pid"
ends any
good 1 killed --set learners.precision=bf16
same bf16 killed

step="two precisions"; trace
for pair in bf16,f32 f32,bf16; do
    good 1 mixed --set learners.precision=${pair%,*} --set env_runners.precision=${pair#*,}
    difference=$(largest_difference mixed)
    awk -v d="$difference" 'BEGIN { exit !(d > 0 && d < 0.1) }' || fail "$pair: sampler and learner differ by $difference"
    rm -rf mixed
done
"$phalanx" plan recipe.yaml --set learners.precision=bf16 > plan.out 2> plan.err || fail "plan: $(cat plan.err)"
"$phalanx" bench decode --shape stories15m --batch 2 --prompt 4 --new 4 --precision bf16 --trials 1 --json > bench.out 2> bench.err ||
    fail "bench: $(cat bench.err)"
grep -q '"precision":"bf16"' bench.out || fail "bench decode is not in bf16: $(head -n 3 bench.out)"
exit $failed
