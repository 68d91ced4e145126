#!/usr/bin/env bash
# A real Slurm of four nodes on this machine: submit, run, time limit, signal, requeue, resume, array, chain, heterogeneous
# job, both launchers, a killed rank and a stopped one. Every run ends with the weights of an undisturbed one.
# Usage: slurm.sh PROGRAM. Skips (77) without root, Slurm's daemons or the right to make namespaces.
set -u
phalanx=$(realpath "${1:?usage: slurm.sh PROGRAM}")
root=$(cd "$(dirname "$0")/../.." && pwd)
skip() { echo "skipped: $*"; exit 77; }
[ "$(id -u)" = 0 ] || skip "a test Slurm needs root"
for tool in slurmctld slurmd sbatch srun unshare mpirun; do command -v $tool > /dev/null || skip "no $tool"; done
unshare --uts --mount true 2> /dev/null || skip "no right to make namespaces"
"$phalanx" version 2> /dev/null | grep -q 'Open MPI' || skip "srun --mpi=pmix is tested with Open MPI"

work=$(mktemp -d)
cluster="$root/tests/support/slurm/cluster.sh"
export SLURM_CONF=$work/slurm/slurm.conf PHALANX_SITE=$work/site.yaml PHALANX=$phalanx PHALANX_SLURM=$root/slurm
export OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_mpi_yield_when_idle=1 OMP_WAIT_POLICY=passive
unset OMP_NUM_THREADS
trap 'bash "$cluster" down "$work/slurm"; rm -rf "$work"' EXIT
mkdir "$work/slurm"; cd "$work" || exit 1
failed=0
fail() { echo "FAILED: $*" >&2; failed=1; }
bash "$cluster" up "$work/slurm" || skip "Slurm does not start on this machine"

# ---- a run whose pace a reward program sets: an iteration takes about PACE seconds on two ranks or one ----
for i in 1 2 3 4 5 6 7 8; do echo "{\"prompt_ids\": [1, 2, 3, $i]}"; done > prompts.jsonl
cat > pace.sh <<'END'
while read -r line; do
    [[ $line =~ \"id\":\ *\"?([^,\"}]*) ]] && sleep "$1" && echo "{\"id\": ${BASH_REMATCH[1]}, \"score\": 1}"
done
END
cat > run.yaml <<END
run: {name: paced, seed: 1, threads_per_rank: 1}
algorithm: ppo
rl_module: {policy: {new: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, vocab_size: 64, max_position_embeddings: 32}},
            critic: {same_as: policy}}
environment: {prompts: prompts.jsonl, max_prompt_tokens: 8, max_completion_tokens: 8, rewards: [{kind: length, target: 4},
              {kind: exec, weight: 0.0, command: [bash, $work/pace.sh, "0.01"]}]}
training: {prompts_per_iteration: 8, minibatch_size: 8, num_epochs: 1, lr: 1.0e-3, critic_lr: 1.0e-3}
checkpointing: {interval: 0}
stop: {iterations: 60}
END
cat > site.yaml <<'END'
nodes: 2
cpus_per_task: 1
time: 10
signal_s: 45
END
state() { scontrol show job "$1" 2> /dev/null | grep -o "JobState=[A-Z_]*" | head -n 1 | cut -d= -f2; }
iteration() { sed -n 's/.*"iteration": *\([0-9]*\).*/\1/p' "$1/status.json" 2> /dev/null; }
reach() { # DIR ITERATION
    for i in $(seq 300); do local at; at=$(iteration "$1"); [ "${at:-0}" -ge "$2" ] && return; sleep 0.1; done
    fail "$1 does not reach iteration $2: $(cat ./*.out | tail -n 20)"
}
ended() { # JOB STATE NAME
    for i in $(seq 600); do
        case $(state "$1") in PENDING|RUNNING|COMPLETING|SUSPENDED|REQUEUED|CONFIGURING) sleep 0.1 ;; *) break ;; esac
    done
    [ "$(state "$1")" = "$2" ] || fail "$3: job $1 is $(state "$1"), want $2: $(tail -n 25 ./*-"$1"*.out); $(scontrol show job "$1")"
}
submit() { local id; id=$("$phalanx" submit run.yaml "$@" 2> submit.err) && [ -n "$id" ] || fail "submit $*: $(cat submit.err)"; echo "$id"; }
weights() { sha256sum < "$1/policy/model.safetensors"; }
same() { [ "$(weights "$1")" = "$(weights reference)" ] || fail "$2: other weights than the undisturbed run"; }
rank_pid() { # DIR RANK: its process
    for p in $(pgrep -x phalanx); do
        tr '\0' '\n' < /proc/$p/environ 2> /dev/null | grep -qx "PMIX_RANK=$2" && tr '\0' ' ' < /proc/$p/cmdline | grep -q -- "--run-dir $1 " &&
            { echo $p; return; }
    done
}

# The limit comes 45 s or more after USR1: the longest wait, so it goes first and is looked at last.
limit=$(submit --run-dir limit --time 1 --nodes 1 --set stop.iterations=350)
"$phalanx" train run.yaml --run-dir reference > reference.log 2>&1 || fail "reference: $(cat reference.log)"

# ---- a rank is killed: the step ends, the supervisor starts it again within the same job ----
job=$(submit --run-dir killed)
reach killed 5; kill -9 "$(rank_pid killed 1)"
ended "$job" COMPLETED killed; same killed killed
grep -q 'supervise: start 1 of at most 11 ended after .* exit code .*; the run is at iteration .*starting again' paced-"$job".out ||
    fail "no post-mortem: $(cat paced-"$job".out)"

# ---- a signal, as Slurm sends it before the limit: saved, back into the queue, resumed ----
job=$(submit --run-dir signalled)
array=$(submit --run-dir swept --nodes 1 --array run.seed=1:2 --set stop.iterations=4)
reach signalled 5; scancel --signal=USR1 --batch "$job"
ended "$job" COMPLETED signalled; same signalled signalled
[ "$(scontrol show job "$job" | grep -o 'Restarts=[0-9]*')" = Restarts=1 ] || fail "signalled: $(scontrol show job "$job")"
grep -q 'continues after iteration' paced-"$job".out || fail "no resume: $(cat paced-"$job".out)"

# ---- array ----
ended "${array}_0" COMPLETED array; ended "${array}_1" COMPLETED array
[ "$(weights swept-seed1)" != "$(weights swept-seed2)" ] || fail "two seeds, one result"

# ---- chain: a stopped link counts as completed, the next goes on; mpirun inside the allocation ----
sed 's/^nodes: 2/nodes: 1\nntasks_per_node: 2\nlauncher: mpirun\nrequeue: false/' site.yaml > mpirun.yaml
chain=$(submit --site mpirun.yaml --run-dir chained --chain 2)
first=${chain%%$'\n'*} second=${chain##*$'\n'}
# ---- heterogeneous job, one MPI world; meanwhile ----
het=$(RUN_DIR=het sbatch --parsable $("$root/slurm/site.sh") --time=5 --nodes=1 --ntasks-per-node=1 --cpus-per-task=1 : \
    --nodes=1 --ntasks-per-node=1 --cpus-per-task=1 "$root/slurm/heterogeneous.sbatch" run.yaml 2> het.err) ||
    fail "heterogeneous: $(cat het.err)"
reach chained 3; scancel --signal=USR1 --batch "$first"
ended "$first" COMPLETED "first link"; ended "$second" COMPLETED "second link"; same chained chained
ended "$het" COMPLETED heterogeneous; same het heterogeneous

# ---- a file STOP ends a run for good ----
job=$(submit --run-dir told --nodes 1)
reach told 3; touch told/STOP
ended "$job" FAILED "stopped by a file"
grep -q 'exit code 75\|stopped by its file STOP' paced-"$job".out || fail "STOP: $(cat paced-"$job".out)"

# ---- the time limit ----
ended "$limit" COMPLETED limit
grep -q 'goes back into the queue' paced-"$limit".out && grep -q 'continues after iteration' paced-"$limit".out ||
    fail "the limit: $(cat paced-"$limit".out)"

[ $failed = 0 ] && echo "under Slurm: submitted, killed, signalled, requeued, swept, chained, heterogeneous, stopped, over the limit"
exit $failed
