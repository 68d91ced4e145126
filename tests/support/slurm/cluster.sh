#!/bin/bash
# A Slurm of four nodes n1..n4 on this machine, for tests alone (no authentication, loopback only).
#   cluster.sh up DIR     starts it and waits until all nodes are idle; then: export SLURM_CONF=DIR/slurm.conf
#   cluster.sh down DIR   ends its jobs and daemons
# Each slurmd has its own host name, /dev/shm and TmpFS: MPI ranks of two nodes must not meet in shared files.
set -u
command=${1:?usage: cluster.sh up|down DIR} D=${2:?usage: cluster.sh up|down DIR}
nodes="n1 n2 n3 n4"
export SLURM_CONF=$D/slurm.conf

write_conf() {
    local port=$((21000 + $$ % 400 * 20)) cpus=2 task=task/affinity
    [ "$(nproc)" -ge 2 ] || task=task/none
    cat > "$SLURM_CONF" <<END
ClusterName=phalanx
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
SlurmctldPort=$port
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool/%n
TmpFS=$D/tmp/%n
SlurmctldPidFile=$D/slurmctld.pid
SlurmdPidFile=$D/slurmd-%n.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=$task
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=100000
ReturnToService=2
KillWait=5
MinJobAge=600
SlurmctldTimeout=60
SlurmdTimeout=60
SlurmdParameters=config_overrides
JobRequeue=1
NodeName=n[1-4] NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + 4))] CPUs=$cpus CoresPerSocket=$cpus ThreadsPerCore=1 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=n[1-4] Default=YES MaxTime=60:00 State=UP
END
}

up() {
    for n in $nodes; do mkdir -p "$D/spool/$n" "$D/tmp/$n"; done
    mkdir -p "$D/state" "$D/log"
    write_conf
    { cat /etc/hosts; for n in $nodes; do echo "127.0.0.1 $n"; done; } > "$D/hosts"
    slurmctld -f "$SLURM_CONF" || return 1
    for n in $nodes; do
        unshare --uts --mount --propagation private sh -c "
            hostname $n && mount --bind '$D/hosts' /etc/hosts && mount -t tmpfs -o mode=1777,size=1g tmpfs /dev/shm &&
            exec slurmd -f '$SLURM_CONF' -N $n" || return 1
    done
    for i in $(seq 150); do
        [ "$(sinfo -h -N -o '%t' 2> /dev/null | grep -c '^idle')" = 4 ] && return 0
        sleep 0.2
    done
    echo "cluster.sh: the nodes are not idle after 30 s:" >&2
    sinfo -N >&2; tail -n 5 "$D"/log/*.log >&2
    return 1
}

down() {
    squeue -h -o %A 2> /dev/null | sort -u | xargs -r scancel 2> /dev/null
    for i in $(seq 40); do [ -z "$(squeue -h 2> /dev/null)" ] && break; sleep 0.25; done
    for f in "$D"/slurmd-n?.pid "$D/slurmctld.pid"; do [ -e "$f" ] && kill "$(cat "$f")" 2> /dev/null; done
    for i in $(seq 40); do ls "$D"/*.pid > /dev/null 2>&1 || break; sleep 0.1; done
    return 0
}

$command
