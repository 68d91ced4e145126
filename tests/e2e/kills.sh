#!/usr/bin/env bash
# kill -9 of one rank or all, at seeded instants of a run of four stages on one, two and four ranks: the job ends on every
# rank, the same command continues on any rank count, at most one iteration is lost, and the finished run equals the one that
# nobody disturbed bit for bit. $1: the program. PHALANX_KILLS: how many (50; 1000 for a night). PHALANX_KILL_SEED: which.
# PHALANX_STRICT_LIMITS=1: a job ends within 10 s of a kill, where the ranks have their cores; else within 60 s.
. "$(dirname "$0")/harness.bash"
kills=${PHALANX_KILLS:-50}
RANDOM=${PHALANX_KILL_SEED:-1}
longest=${PHALANX_KILL_MS:-300} # until the kill: from the start, from when a stage goes on, or from when it has done something
every_step=(--set pretrain.checkpointing.recovery_interval=1 --set sft.checkpointing.recovery_interval=1
            --set reward.checkpointing.recovery_interval=1 --set ppo.checkpointing.recovery_interval=1)

stage_of() { sed -n 's/.*"stage": "\([a-z]*\)".*/\1/p' "$1/status.json" 2> /dev/null; }
iteration_of() { sed -n 's/.*"iteration": \([0-9]*\).*/\1/p' "$1/status.json" 2> /dev/null; }
living_ranks() { ps -o stat=,comm= --ppid "$1" | awk '$1 !~ /^Z/ && $2 ~ /^phalanx/'; }
processes() { pgrep -f -- "--run-dir $work/victim" || true; }

patience=$((${PHALANX_STRICT_LIMITS:+1} + 0 ? 10 : 60)) slowest=0 launcher_hangs=0 # s; ms
# The job of PID ends soon after a kill. What still waits then is told, and ended. Where every rank is gone, Open MPI's mpirun
# itself may never return (a rank that dies in MPI_Init): that is counted, and ended as `phalanx supervise` would.
soon() {
    local turn begin=$((${EPOCHREALTIME/./} / 1000)) spent=0
    while [ $spent -lt $((patience * 1000)) ]; do
        kill -0 "$1" || { [ $spent -le $slowest ] || slowest=$spent; return 0; }
        [ $spent -lt 10000 ] || [ -n "$(living_ranks "$1")" ] || { launcher_hangs=$((launcher_hangs + 1)); kill -9 "$1"; return 0; }
        sleep 0.05
        spent=$((${EPOCHREALTIME/./} / 1000 - begin))
    done 2> /dev/null # also of the shell's own notice
    ps -o pid,ppid,stat,etimes,wchan:20,args --pid "$1" --ppid "$1" >&2
    for turn in $(ranks_of "$1"); do
        [ -z "$(command -v gdb)" ] || gdb -p "$turn" -batch -ex 'thread apply all backtrace 12' 2> /dev/null | grep '^[#T]' >&2
    done
    fail "$patience s after the kill the job has not ended: $(tail -n 3 victim.err)"
    kill -9 $(ranks_of "$1") "$1" 2> /dev/null
}

# What status.json called finished before the kill is not done again. STAGE ITERATION CODE (of the start after it)
loses_nothing() {
    local from
    [ -n "$1" ] && grep -q "== stage $1 ==" victim.err || return 0
    from=$(awk -v stage="$1" '/== stage / { on = index($0, "== stage " stage " ==") }
                              on && /continues after iteration/ { print $4 + 0 ? $4 : $5; exit }
                              on && /done after iteration/ { print $5 + 0; exit }' victim.err)
    [ -n "$from" ] || [ "$3" = 0 ] || return 0 # killed before it got there
    [ "${from:-0}" -ge "$2" ] || fail "iteration $2 of $1 was done, the next start went on after ${from:-none}"
}

base_model
good 1 straight "${every_step[@]}"
[ "$failed" = 0 ] || { cat straight.err; exit 1; }
declare -A hit
killed=0 starts=0 runs=0 stage= iteration=0
while [ "$killed" -lt "$kills" ] && [ "$failed" = 0 ]; do
    counts=(1 1 2 4)
    ranks=${counts[$((RANDOM % 4 * (${#mpi} > 0)))]}
    step="start $starts on $ranks ranks, after $killed kills with seed ${PHALANX_KILL_SEED:-1}"; trace
    starts=$((starts + 1))
    TEST_DELAY=0 $(launcher $ranks) "$phalanx" train recipe.yaml --run-dir "$work/victim" "${every_step[@]}" \
        > victim.out 2> victim.err < /dev/null &
    pid=$!
    ms=$((RANDOM % longest))
    who=$((RANDOM % 3)) early=$((RANDOM % 4))
    since=('' '== stage' ' [1-9][0-9]*/[0-9]* ' ' [1-9][0-9]*/[0-9]* ')
    for turn in $(seq 1 1000); do
        [ "$early" = 0 ] || grep -q "${since[$early]}" victim.err || ! kill -0 "$pid" 2> /dev/null || { sleep 0.01; continue; }
        break
    done
    sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
    if kill -0 "$pid" 2> /dev/null; then
        one=$(ranks_of "$pid" | shuf -n 1 --random-source=<(yes "$starts"))
        if [ "$ranks" = 1 ] || [ "$who" = 0 ] || [ -z "$one" ]; then
            kill -9 $(ranks_of "$pid") "$pid" 2> /dev/null
        else
            kill -9 "$one" 2> /dev/null
        fi
        soon "$pid"
    fi
    wait "$pid" 2> /dev/null; code=$?
    pid=
    loses_nothing "$stage" "$iteration" "$code"
    if [ "$code" = 0 ]; then
        runs=$((runs + 1)) stage= iteration=0
        same straight victim
        rm -rf victim
        continue
    fi
    [ "$code" -gt 128 ] || [ "$ranks" -gt 1 ] || fail "exit $code: $(tail -n 2 victim.err)"
    for turn in $(seq 1 100); do [ -z "$(processes)" ] && break; sleep 0.1; done
    [ -z "$(processes)" ] || fail "ranks live on: $(processes)"
    killed=$((killed + 1))
    stage=$(stage_of victim) iteration=$(iteration_of victim)
    hit[${stage:-start}]=$((${hit[${stage:-start}]:-0} + 1))
done
step="the last run"
if [ "$failed" = 0 ] && [ -d victim ]; then
    good 1 victim "${every_step[@]}"
    loses_nothing "$stage" "$iteration" 0
    same straight victim
    runs=$((runs + 1))
fi
[ "$failed" = 0 ] && {
    echo "$killed kills in $starts starts, $runs runs finished with the bits of the straight one; the slowest end took" \
         "$slowest ms; mpirun stayed behind $launcher_hangs times; kills by stage:"
    for stage in "${!hit[@]}"; do echo "  $stage ${hit[$stage]}"; done
}
exit "$failed"
