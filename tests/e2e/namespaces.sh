#!/usr/bin/env bash
# Three hosts: network namespaces with a bridge between them, each with its own host name and /dev/shm, so that MPI goes over
# TCP. Split and colocated runs have the bits of one host; a host that is cut off or dies ends the job within its deadline, and
# the run goes on from there. No packet leaves the namespaces.
# Usage: namespaces.sh PROGRAM. Skips (77) without root, ip, or the right to make namespaces. TEST_TRACE=1 tells what is going on.
set -u
phalanx=$(realpath "${1:?usage: namespaces.sh PROGRAM}")
. "$(dirname "$0")/../support/tiny_ppo.sh"
skip() { echo "skipped: $*"; exit 77; }
[ "$(id -u)" = 0 ] || skip "network namespaces need root"
for tool in ip nsenter unshare mpirun; do command -v $tool > /dev/null || skip "no $tool"; done
mpirun --version | grep -q 'Open MPI) 4' || skip "the launch over namespaces is written for Open MPI 4"
work=$(mktemp -d "${TMPDIR:-/tmp}/phalanx-namespaces-XXXXXX") || exit 1
mount -t tmpfs tmpfs "$work" 2> /dev/null # each host hides /dev/shm behind its own
tag=px$$ failed=0 step=start pid=
end_host() { ip netns pids "$tag-$1" 2> /dev/null | xargs -r kill -9 2> /dev/null; }
cleanup() {
    [ -n "$pid" ] && kill -9 "$pid" 2> /dev/null
    for n in h1 h2 h3 sw; do end_host $n; ip netns del "$tag-$n" 2> /dev/null; done
    cd /; umount -l "$work" 2> /dev/null
    rm -rf "$work"
}
trap cleanup EXIT
trace() { [ -z "${TEST_TRACE:-}" ] || echo "$SECONDS s: $step" >&2; }
fail() { echo "FAILED: $step: $*" >&2; failed=1; }
cd "$work" || exit 1

# ---- hosts h1, h2 and h3, and what starts a process on one, as ssh would ----
{ ip netns add $tag-sw && ip -n $tag-sw link add br0 type bridge && ip -n $tag-sw link set br0 up; } 2> ip.err ||
    skip "no right to make network namespaces: $(tail -n 1 ip.err)"
echo "127.0.0.1 localhost" > hosts
for i in 1 2 3; do
    echo "10.77.0.$i h$i" >> hosts
    { ip netns add $tag-h$i && ip -n $tag-h$i link set lo up &&
        ip link add e0 netns $tag-h$i type veth peer name p$i netns $tag-sw && ip -n $tag-sw link set p$i master br0 up &&
        ip -n $tag-h$i addr add 10.77.0.$i/24 dev e0 && ip -n $tag-h$i link set e0 up; } 2> ip.err ||
        skip "no pair of virtual network devices: $(tail -n 1 ip.err)"
done
cat > on <<END
#!/bin/sh
host=\$1; shift
exec nsenter --net=/run/netns/$tag-\$host unshare --uts --mount --propagation private sh -c "
    hostname \$host && mount --bind $work/hosts /etc/hosts && mount -t tmpfs -o size=1g tmpfs /dev/shm && exec \$*"
END
chmod +x on
./on h1 true || skip "a process cannot be started in a namespace"
printf 'h1 slots=1\nh2 slots=1\nh3 slots=2\n' > slots
export OMPI_MCA_plm=rsh OMPI_MCA_plm_rsh_agent=$work/on OMPI_MCA_oob_tcp_if_include=e0 OMPI_MCA_btl_tcp_if_include=e0 \
       OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_orte_default_hostfile=$work/slots \
       OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
received() { ip -n $tag-"$1" -s link show e0 | awk '/RX:/ { getline; print $1 }'; } # bytes so far
train="mpirun -n 4 $phalanx train ppo.yaml --run-dir" # ranks 0 and 1 are on hosts of their own, 2 and 3 on h3
split="--set env_runners.num_env_runners=2"
over_hosts() { # DIR [options]
    timeout -k 5 120 ./on h1 $train "$@" > "$1.out" 2> "$1.err" < /dev/null || fail "exit $?: $(tail -n 5 "$1.err")"
}
same() { same_run "$1" "$2" || fail "$1 and $2 differ: $(cat differs)"; }

step="the same bits"; trace
tiny_ppo "$phalanx"
env -u OMPI_MCA_plm "$phalanx" train ppo.yaml --run-dir whole > whole.out 2>&1 || fail "$(cat whole.out)"
before=$(received h3)
over_hosts split $split
[ $(($(received h3) - before)) -gt "$(stat -c %s whole/policy/model.safetensors)" ] || fail "the weights did not come over the network"
same whole split
"$phalanx" inspect split ranks > ranks.txt 2>&1
for want in 'h1.*driver+learner\|driver+learner.*h1' 'h2.*learner\|learner.*h2' 'h3.*env_runner\|env_runner.*h3'; do
    grep -q "$want" ranks.txt || fail "the rank map has no $want: $(cat ranks.txt)"
done
over_hosts whole4
same whole whole4

# ---- a host is lost in the middle: the supervisor ends what is left and starts again ----
iterations=60
"$phalanx" train ppo.yaml --run-dir long --set stop.iterations=$iterations > long.out 2>&1 || fail "$(cat long.out)"
iteration() { sed -n 's/.*"iteration": *\([0-9]*\).*/\1/p' "$1/status.json" 2> /dev/null; }
begin() { # DIR: in the background, until it has done five iterations
    ./on h1 "$phalanx" supervise --run-dir "$1" --start-timeout 60 -- $train "$1" $split --set stop.iterations=$iterations \
        --set fault_tolerance.wait_timeout_s=5 --set env_runners.sample_timeout_s=3 > "$1.out" 2> "$1.err" < /dev/null &
    pid=$!
    for turn in $(seq 600); do local at; at=$(iteration "$1"); [ "${at:-0}" -ge 5 ] && return; sleep 0.05; done
    fail "$1 does not begin: $(tail -n 5 "$1.err")"
}
ends() { # DIR SECONDS: the first start is over by then, and the run is done in the end
    local since=$SECONDS
    until grep -q 'supervise: start 1 ' "$1.err" || ! kill -0 $pid 2> /dev/null; do
        [ $((SECONDS - since)) -lt "$2" ] || { fail "$1 hangs: $(tail -n 5 "$1.err")"; kill -9 $pid; end_host h1; break; }
        sleep 0.1
    done
    [ -z "${TEST_TRACE:-}" ] || echo "over $((SECONDS - since)) s after the fault" >&2
    ip -n $tag-h2 link set e0 up
    wait $pid || fail "$1: exit $?: $(tail -n 5 "$1.err")"
    pid=
    grep -q 'continues after iteration' "$1.err" || fail "$1 did not go on from where it was: $(cat "$1.err")"
    cmp -s long/policy/model.safetensors "$1/policy/model.safetensors" || fail "$1: other weights than the undisturbed run"
}
step="a host that is cut off"; trace
begin cut
ip -n $tag-h2 link set e0 down
ends cut 60
step="a host that dies"; trace
begin dead
end_host h3
ends dead 60
step="ranks of one host in containers that do not see each other's processes"; trace
cat > contained << 'S'
#!/bin/sh
[ "$OMPI_COMM_WORLD_RANK" = 0 ] && exec "$@"
exec unshare --pid --fork --mount-proc "$@"
S
chmod +x contained
timeout 60 env -u OMPI_MCA_plm -u OMPI_MCA_oob_tcp_if_include -u OMPI_MCA_btl_tcp_if_include -u OMPI_MCA_orte_default_hostfile \
    mpirun --oversubscribe --mca btl_vader_single_copy_mechanism none -n 2 ./contained "$phalanx" train ppo.yaml --run-dir contained.run \
    --set stop.iterations=4 > contained.out 2> contained.err < /dev/null || fail "exit $?: $(tail -n 3 contained.err)"

[ $failed = 0 ] && echo "over three hosts: split and colocated have the bits of one; one cut off, one dead: went on; and apart in pid namespaces"
exit $failed
