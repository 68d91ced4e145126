#!/usr/bin/env bash
# A real Slurm of four nodes on this machine: `submit` and every template of slurm/, time limit, signal, requeue, resume,
# array, chain, roles in a heterogeneous job, both launchers, killed and stopped ranks. Every run ends with the weights of an
# undisturbed one, and Slurm calls each job what it is.
# Usage: slurm.sh PROGRAM. Skips (77) without root, Slurm's daemons or the right to make namespaces. TEST_TRACE=1 tells what is
# going on.
set -u
phalanx=$(realpath "${1:?usage: slurm.sh PROGRAM}")
root=$(cd "$(dirname "$0")/../.." && pwd)
skip() { echo "skipped: $*"; exit 77; }
[ "$(id -u)" = 0 ] || skip "a test Slurm needs root"
for tool in slurmctld slurmd sbatch srun unshare mpirun; do command -v $tool > /dev/null || skip "no $tool"; done
unshare --uts --mount true 2> /dev/null || skip "no right to make namespaces"
"$phalanx" version 2> /dev/null | grep -q 'Open MPI' || skip "srun --mpi=pmix is tested with Open MPI"

work=$(mktemp -d)
mount -t tmpfs tmpfs "$work" 2> /dev/null # each node hides /dev/shm behind its own
cluster="$root/tests/support/slurm/cluster.sh"
export SLURM_CONF=$work/slurm/slurm.conf PHALANX_SITE=$work/site.yaml PHALANX=$phalanx PHALANX_SLURM=$root/slurm
export OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_mpi_yield_when_idle=1 OMP_WAIT_POLICY=passive
unset OMP_NUM_THREADS
trap 'bash "$cluster" down "$work/slurm"; cd /; umount -l "$work" 2> /dev/null; rm -rf "$work"' EXIT
mkdir "$work/slurm"; cd "$work" || exit 1
failed=0
trace() { [ -z "${TEST_TRACE:-}" ] || echo "$SECONDS s: $*" >&2; }
fail() { echo "FAILED: $*" >&2; failed=1; }
bash "$cluster" up "$work/slurm" || skip "Slurm does not start on this machine"

# ---- a run whose pace a reward program sets: an iteration takes at least 0.08 seconds ----
for i in 1 2 3 4 5 6 7 8; do echo "{\"prompt_ids\": [1, 2, 3, $i]}"; done > prompts.jsonl
cat > pace.sh <<'END'
while read -r line; do
    [[ $line =~ \"id\":\ *\"?([^,\"}]*) ]] || continue
    if [ "$1" = slow ] && [ ! -e "${0%/*}/hurry" ]; then sleep 0.1; else sleep 0.01; fi
    echo "{\"id\": ${BASH_REMATCH[1]}, \"score\": 1}"
done
END
cat > run.yaml <<END
run: {name: paced, seed: 1, threads_per_rank: 1}
algorithm: ppo
rl_module: {policy: {new: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, vocab_size: 64, max_position_embeddings: 32}},
            critic: {same_as: policy}}
environment: {prompts: prompts.jsonl, max_prompt_tokens: 8, max_completion_tokens: 8, rewards: [{kind: length, target: 4},
              {kind: exec, weight: 0.0, command: [bash, $work/pace.sh, quick]}]}
training: {prompts_per_iteration: 8, minibatch_size: 8, num_epochs: 1, lr: 1.0e-3, critic_lr: 1.0e-3}
checkpointing: {interval: 0}
stop: {iterations: 60}
END
sed 's/quick/slow/' run.yaml > slow.yaml # until a file says hurry
cat > site.yaml <<'END'
nodes: 2
cpus_per_task: 1
time: 10
signal_s: 45
END
state() { scontrol show job "$1" 2> /dev/null | grep -o "JobState=[A-Z_]*" | head -n 1 | cut -d= -f2; }
iteration() { sed -n 's/.*"iteration": *\([0-9]*\).*/\1/p' "$1/status.json" 2> /dev/null; }
reach() { # DIR ITERATION
    for i in $(seq 1200); do local at; at=$(iteration "$1"); [ "${at:-0}" -ge "$2" ] && { trace "$1 is at $2"; return; }; sleep 0.1; done
    fail "$1 does not reach iteration $2: $(cat ./*.out | tail -n 20)"
}
ended() { # JOB STATE NAME
    for i in $(seq 1800); do
        case $(state "$1") in PENDING|RUNNING|COMPLETING|SUSPENDED|REQUEUED|CONFIGURING) sleep 0.1 ;; *) break ;; esac
    done
    trace "$3: job $1 has ended"
    [ "$(state "$1")" = "$2" ] || fail "$3: job $1 is $(state "$1"), want $2: $(tail -n 25 ./*-"$1"*.out); $(scontrol show job "$1")"
}
template() { # NAME DIR [options of sbatch] -- [options of train]
    local name=$1 dir=$2 id options=(); shift 2
    while [ "$1" != -- ]; do options+=("$1"); shift; done; shift
    id=$(RUN_DIR=$dir sbatch --parsable $("$root/slurm/site.sh") --time=10 "${options[@]}" "$root/slurm/$name.sbatch" run.yaml "$@" \
        2> sbatch.err) && [ -n "$id" ] || fail "$name.sbatch: $(cat sbatch.err)"
    echo "$id"
}
submit() { local id; id=$("$phalanx" submit "${config:-run.yaml}" "$@" 2> submit.err) && [ -n "$id" ] || fail "submit $*: $(cat submit.err)"; echo "$id"; }
log() { cat ./*-"$1"*.out; } # of a job
says() { log "$1" | grep -q "$2" || fail "$3: its log has no '$2': $(log "$1" | tail -n 25)"; }
stop_job() { scancel --signal=USR1 --batch "$1"; } # as Slurm does before the limit
weights() { sha256sum < "$1/policy/model.safetensors"; }
same() { [ "$(weights "$1")" = "$(weights reference)" ] || fail "$2: other weights than the undisturbed run"; }
rank_pid() { # DIR RANK: its process
    for p in $(pgrep -x phalanx); do
        tr '\0' '\n' < /proc/$p/environ 2> /dev/null | grep -qx "PMIX_RANK=$2" && tr '\0' ' ' < /proc/$p/cmdline | grep -q -- "--run-dir $1 " &&
            { echo $p; return; }
    done
}

# The limit comes 45 s or more after USR1: the longest wait, so it goes first and is looked at last.
limit=$(config=slow.yaml submit --run-dir limit --time 1 --nodes 1)
"$phalanx" train run.yaml --run-dir reference > reference.log 2>&1 || fail "reference: $(cat reference.log)"

# ---- a rank is killed, another is stopped: the step ends, the supervisor starts it again within the same job ----
killed=$(submit --run-dir killed)
stuck=$(submit --run-dir stuck --set fault_tolerance.wait_timeout_s=4)
array=$(submit --run-dir swept --nodes 1 --array run.seed=1:2 --set stop.iterations=4)
reach killed 5; kill -9 "$(rank_pid killed 1)"
reach stuck 5; kill -STOP "$(rank_pid stuck 1)"
odd="an odd # 'directory'"; mkdir "$odd"
from_odd=$(cd "$odd" && config=../run.yaml submit --run-dir odd --nodes 1 --set stop.iterations=4)
sweep=$(KEY=run.seed VALUES="1 2" template sweep gridded --array=0-1 --cpus-per-task=1 -- --set stop.iterations=4)
ended "$killed" COMPLETED killed; same killed killed
ended "$stuck" COMPLETED stuck; same stuck stuck
for job in $killed $stuck; do
    says "$job" 'supervise: start 1 of at most 11 ended after .* exit code .*; the run is at iteration .*starting again' "a lost rank"
done
says "$stuck" 'no answer from the other ranks after a wait of 4 s' stuck

# ---- arrays, of both makes ----
for cell in "${array}_0" "${array}_1" "${sweep}_0" "${sweep}_1"; do ended "$cell" COMPLETED array; done
[ "$(weights swept-seed1)" != "$(weights swept-seed2)" ] || fail "two seeds, one result"
for n in 1 2; do [ "$(weights swept-seed$n)" = "$(weights gridded-seed$n)" ] || fail "submit and the template differ for seed $n"; done

# ---- from a directory whose name sbatch would take for several words and a comment ----
ended "$from_odd" COMPLETED "an odd directory"
[ -s "$odd/paced-$from_odd.out" ] && [ -d "$odd/odd/policy" ] || fail "an odd directory: nothing there: $(ls "$odd")"

# ---- a signal: saved, back into the queue, resumed; one node with srun, several with mpirun ----
one=$(template one-node single --)
many=$(LAUNCHER=mpirun template many-nodes several --nodes=2 --cpus-per-task=1 --)
reach single 5; stop_job "$one"
reach several 5; stop_job "$many"
# ---- meanwhile roles in a heterogeneous job: the ranks of its second component sample; one stops, and comes back ----
by_class=(--set placement.env_runner_nodes=het-group:1 --set env_runners.sample_timeout_s=1)
het=$(submit --run-dir het --nodes 1 --ntasks-per-node 2 --het-group 2x1x1 "${by_class[@]}")
reach het 3; runner=$(rank_pid het 3); kill -STOP "$runner"
for i in $(seq 300); do log "$het" | grep -q env_runner_left_out && break; sleep 0.1; done
kill -CONT "$runner"
by_hand=$(template heterogeneous by-hand --nodes=1 --ntasks-per-node=2 --cpus-per-task=1 : --nodes=2 --ntasks-per-node=1 \
    --cpus-per-task=1 -- "${by_class[@]}" --set stop.iterations=4)
for job in $one $many; do
    ended "$job" COMPLETED signalled; says "$job" 'continues after iteration' signalled
    [ "$(scontrol show job "$job" | grep -o 'Restarts=[0-9]*')" = Restarts=1 ] || fail "signalled: $(scontrol show job "$job")"
done
same single one-node; same several many-nodes
ended "$het" COMPLETED heterogeneous; same het heterogeneous
ended "$by_hand" COMPLETED "the heterogeneous template"
for job in $het $by_hand; do says "$job" 'ranks: learner 0-1, env_runner 2-3' heterogeneous; done
[ "$("$phalanx" inspect het metrics --json |
    /usr/bin/python3 -c 'import json, sys; r = json.load(sys.stdin)[-1]; print(round(3600 * r["core_hours"] / r["time_total_s"]))')" = 4 ] ||
    fail "core_hours: $("$phalanx" inspect het metrics | tail -n 2)"
for event in env_runner_left_out env_runner_back; do says "$het" $event heterogeneous; done

# ---- chains, of both makes: a stopped link counts as completed, the next goes on ----
sed 's/^nodes: 2/nodes: 1\nntasks_per_node: 2\nlauncher: mpirun\nrequeue: false/' site.yaml > mpirun.yaml
chain=$(submit --site mpirun.yaml --run-dir chained --chain 2)
first=$(template chain linked --)
second=$(template chain linked --dependency=afterok:"$first" --kill-on-invalid-dep=yes --)
# ---- a file STOP ends a run for good: cancelled, no failure; where nothing continues a run, exit code 75 says so ----
told=$(submit --run-dir told --nodes 1)
alone=$(submit --site mpirun.yaml --run-dir alone)
reach chained 3; stop_job "${chain%%$'\n'*}"
reach linked 3; stop_job "$first"
reach told 3; touch told/STOP
reach alone 3; stop_job "$alone"
for link in $chain $first $second; do ended "$link" COMPLETED "a link"; done
same chained chained; same linked linked
ended "$told" CANCELLED "stopped by a file"; says "$told" "stopped by the run's file STOP and is cancelled" STOP
ended "$alone" FAILED "nothing continues"; says "$alone" 'saved but not done, and nothing continues it' "nothing continues"
scontrol show job "$alone" | grep -q 'ExitCode=75:0' || fail "not exit code 75: $(scontrol show job "$alone")"

# ---- the time limit: Slurm sends the signal by itself ----
for i in $(seq 900); do log "$limit" | grep -q 'continues after iteration' && break; sleep 0.1; done
touch hurry
ended "$limit" COMPLETED limit
says "$limit" 'goes back into the queue' limit; says "$limit" 'continues after iteration' limit
same limit limit

[ $failed = 0 ] && echo "under Slurm: submitted by hand and by submit, killed, stopped, signalled, requeued, swept, chained, roles, over the limit"
exit $failed
