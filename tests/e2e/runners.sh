#!/usr/bin/env bash
# Env runners with messages as long as they get, with nothing to do for long, and with weights that come through one that
# stands still: each run ends with the bits of the colocated one, and nobody who answers is left out.
# Usage: runners.sh PROGRAM. TEST_TRACE=1 tells what is going on.
set -u
phalanx=$(realpath "$1")
. "$(dirname "$0")/../support/tiny_ppo.sh"
. "$(dirname "$0")/../support/scratch.bash"
. "$(dirname "$0")/../support/steps.bash"
export OMP_NUM_THREADS=1
command -v mpirun > /dev/null || { echo "skipped: no mpirun"; exit 77; }


for i in $(seq 1 40); do echo "{\"prompt_ids\": [$(ids $i 1 5)]}" >> prompts.jsonl; done
cat > ppo.yaml <<'YAML'
run: {name: ppo, seed: 5}
algorithm: ppo
rl_module: {policy: {new: {architecture: llama, hidden_size: 128, num_hidden_layers: 2, num_attention_heads: 2, vocab_size: 700,
                           max_position_embeddings: 600, initializer_range: 0.2}}, critic: {same_as: policy}}
environment: {prompts: prompts.jsonl, max_prompt_tokens: 6, max_completion_tokens: 20, rewards: [{kind: length, target: 4}]}
env_runners: {samples_per_prompt: 2}
training: {prompts_per_iteration: 8, num_epochs: 1, minibatch_size: 8, lr: 1.0e-3}
stop: {iterations: 4}
YAML
train() { # RANKS DIR [options]: to its end; the exit code is the program's
    local ranks=$1 dir=$2; shift 2
    timeout -k 5 100 mpirun -n "$ranks" "$phalanx" train ppo.yaml --run-dir "$dir" "$@" > "$dir.out" 2> "$dir.err" < /dev/null
}
good() { train "$@" || fail "exit $? of $*: $(grep '^phalanx: ' "$2.err" | tail -3)"; }
same() { same_run "$1" "$2" || fail "$1 and $2 differ: $(cat differs)"; }
events() { "$phalanx" inspect "$1" events 2> /dev/null; }
none_left_out() { # DIR [but this rank]
    events "$1" | grep env_runner_left_out | grep -vq "rank ${2:-none}" &&
        fail "somebody who answers is left out of $1: $(events "$1" | grep left_out)"
}

step="a batch of more than a piece of weights"; trace
long=(--set rl_module.policy.new.hidden_size=16 --set rl_module.policy.new.vocab_size=32 --set environment.max_completion_tokens=300
      --set env_runners.samples_per_prompt=120 --set env_runners.max_slots=256 --set training.prompts_per_iteration=2
      --set training.minibatch_size=60 --set stop.iterations=1)
"$phalanx" train ppo.yaml --run-dir long "${long[@]}" > long.out 2> long.err || fail "$(tail -3 long.err)"
good 2 long2 "${long[@]}" --set env_runners.num_env_runners=1
same long long2

step="weights of several pieces to another node"; trace
"$phalanx" train ppo.yaml --run-dir whole > whole.out 2> whole.err || fail "$(tail -3 whole.err)"
[ "$(stat -c %s whole/policy/model.safetensors)" -gt 1500000 ] || fail "the policy is too small to be sent in pieces"
export PHALANX_RANKS_PER_NODE=2
nodes=(--set env_runners.num_env_runners=2)
good 4 nodes "${nodes[@]}"
same whole nodes
none_left_out nodes

step="no work for longer than a wait may last"; trace
# 2 learners, 1 env runner, 1 spare: the spare waits all along, the runner while the learners learn
slow=(--set training.num_epochs=24)
"$phalanx" train ppo.yaml --run-dir slow "${slow[@]}" > slow.out 2> slow.err || fail "$(tail -3 slow.err)"
began=$SECONDS
good 4 idle "${slow[@]}" --set placement.num_spares=1 --set env_runners.num_env_runners=1 --set fault_tolerance.wait_timeout_s=2
[ $((SECONDS - began)) -ge 3 ] || fail "the run is too short to tell"
same slow idle
good 4 short --set training.num_epochs=70 --set stop.iterations=2 "${nodes[@]}" --set env_runners.sample_timeout_s=1.5
none_left_out short

step="the rank through which weights come stands still, and answers again"; trace
timeout -k 5 100 mpirun -n 4 "$phalanx" train ppo.yaml --run-dir stopped "${slow[@]}" "${nodes[@]}" --set stop.iterations=6 \
    --set env_runners.sample_timeout_s=2.5 > stopped.out 2> stopped.err < /dev/null &
pid=$!
at() { awk -F'[:,]' -v want="$1" '/"iteration"/ { found = $2 + 0 >= want } END { exit !found }' stopped/status.json 2> /dev/null; }
reached() { for i in $(seq 1 2000); do at "$1" && return; kill -0 $pid 2> /dev/null || return; sleep 0.01; done; }
reached 1
mpirun_pid=$(pgrep -P $pid mpirun || echo $pid)
carrier=
for rank in $(ranks_of "$mpirun_pid"); do
    tr '\0' '\n' < /proc/$rank/environ | grep -q '^OMPI_COMM_WORLD_RANK=2$' && carrier=$rank
done
[ -n "$carrier" ] && kill -STOP $carrier || fail "rank 2 is not found"
reached 4
[ -n "$carrier" ] && kill -CONT $carrier
wait $pid
got=$?
pid=
[ $got = 0 ] || fail "exit $got: $(grep '^phalanx: ' stopped.err | tail -3)"
events stopped | grep -q 'env_runner_left_out.*rank 2' || fail "rank 2 is not left out: $(events stopped)"
events stopped | grep -q 'env_runner_back' || fail "rank 2 does not come back: $(events stopped)"
none_left_out stopped 2
"$phalanx" train ppo.yaml --run-dir straight "${slow[@]}" --set stop.iterations=6 > straight.out 2> straight.err || fail "$(tail -3 straight.err)"
for part in policy critic; do
    cmp -s straight/$part/model.safetensors stopped/$part/model.safetensors || fail "$part differs"
done
exit $failed
