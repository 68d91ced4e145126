#!/usr/bin/env bash
# float32 through OpenBLAS (PHALANX_GEMM=openblas) in place of the program's own products: the same answers. With the kernels
# of this processor and with those for Haswell, and what holds there of "a row's bits are its own" is printed.
# Usage: openblas.sh PROGRAM
set -u
phalanx=$(realpath "$1") tests=$(realpath "$(dirname "$1")")/tests
. "$(dirname "$0")/../support/scratch.bash"
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0 step=start
fail() { echo "FAILED: $step: $*" >&2; failed=1; }
field() { "$phalanx" version | sed -n "s/^$1  *//p"; }

step="a choice that is none"
PHALANX_GEMM=mkl "$phalanx" bench gemm > none.out 2> none.err && fail "it is taken"
grep -q "valid are own, openblas" none.err || fail "$(cat none.err)"
[ "$(field blas)" = "none (own products)" ] && [ "$(field batch_invariant)" = yes ] || fail "own products: $(field blas)"

export PHALANX_GEMM=openblas
case $(field blas) in OpenBLAS*) ;; *) echo "skipped: no libopenblas.so.0"; exit 77 ;; esac

for i in 1 2 3 4 5 6 7 8; do echo "{\"prompt_ids\": [$i, 9, $((i + 10))]}"; done > prompts.jsonl
cat > ppo.yaml <<'YAML'
run: {name: ppo, seed: 5}
algorithm: ppo
rl_module: {policy: {new: {architecture: llama, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 2,
                           vocab_size: 100, max_position_embeddings: 40}}, critic: {same_as: policy}}
environment: {prompts: prompts.jsonl, max_prompt_tokens: 6, max_completion_tokens: 24, rewards: [{kind: length, target: 4}]}
training: {prompts_per_iteration: 8, minibatch_size: 8, lr: 1.0e-3}
stop: {iterations: 2}
YAML
kernels() { # the CPU whose kernels are asked for; "": this one's
    local invariant test
    step="OpenBLAS ${1:-with the kernels of this processor}"
    [ -z "$1" ] || export OPENBLAS_CORETYPE=$1
    invariant=$(field batch_invariant)
    echo "$(field blas): batch-invariant: $invariant"
    case $(field blas) in OpenBLAS*"$1 kernels") ;; *) fail "$(field blas) is in use" ;; esac
    for test in unit_compute_test_rows unit_compute_test_closed_forms unit_model_test_engine unit_model_test_generate \
                golden_test_golden; do
        "$tests/$test" > test.out 2>&1 || fail "$test: $(grep -v 'OK \]\|RUN' test.out | tail -5)"
    done
    "$phalanx" train ppo.yaml --run-dir "run$1" > run.out 2> run.err || fail "$(tail -3 run.err)"
    grep -q "through OpenBLAS" run.out run.err || fail "the plan does not name OpenBLAS"
    [ "$invariant" = yes ] && return
    grep -q "recomputed by the learner" run.out run.err || fail "nothing is said of recomputed log-probabilities"
    "$phalanx" inspect "run$1" metrics --csv 2> csv.err | awk -F, '
        NR == 1 { for (i = 1; i <= NF; i++) if ($i == "rollout/logprob_diff_max") c = i }
        NR > 1 && !($c < 1e-4) { bad = 1 } END { exit bad || !c || NR < 2 }' || fail "sampler and learner differ by 1e-4 or more"
}
kernels ""
[ "$(uname -m)" = x86_64 ] && kernels Haswell
exit $failed
