#!/usr/bin/env bash
# What ranks find where they run: they share a node's processors as they are bound, agree on one instruction set, and say in
# one line each what costs speed or safety. Other machines are pretended by a preloaded library.
# Usage: startup.sh PROGRAM
set -u
phalanx=$(realpath "$1")
here=$(cd "$(dirname "$0")/../support" && pwd)
. "$here/tiny_ppo.sh"
. "$(dirname "$0")/../support/scratch.bash"
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
unset OMP_NUM_THREADS OPENBLAS_NUM_THREADS PHALANX_ISA
failed=0
fail() { echo "FAILED: $*" >&2; failed=1; }
command -v mpirun > /dev/null || { echo "skipped: no mpirun"; exit 77; }
cc -shared -fPIC -o shim.so "$here/other_machine.c" -ldl 2> cc.err || { echo "skipped: no cc: $(head -n 1 cc.err)"; exit 77; }
tiny_ppo "$phalanx"

# ranks "ENVIRONMENT OF RANK 0" "... OF RANK 1" DIR [options]
ranks() {
    local one=$1 two=$2 dir=$3; shift 3
    local run="$phalanx train ppo.yaml --run-dir $dir --set stop.iterations=1 $*"
    # shellcheck disable=SC2086
    timeout -k 5 60 mpirun -n 1 env $one $run : -n 1 env $two $run > "$dir.out" 2> "$dir.err" < /dev/null ||
        fail "exit $? of $dir: $(grep '^phalanx: ' "$dir.err")"
}
says() { grep -q "$2" "$1.err" || fail "$1 does not say '$2': $(grep -i 'NOTE\|threads' "$1.err")"; }
silent() { ! grep -q "$2" "$1.err" || fail "$1 says: $(grep "$2" "$1.err")"; }
quiet='NOTE.*\(x 1 threads\|bound\|mixed\|OpenBLAS\|run.dir\|OMP_NUM\)'
sanitizer=$(ldd "$phalanx" | awk '/libasan/ {print $3}') # wants to be the first
shim="LD_PRELOAD=${sanitizer:+$sanitizer:}$work/shim.so"

# ---- threads: a node's processors are shared as the ranks are bound ----
ranks "$shim SHIM_CPUS=0-5 SHIM_LAUNCHER=0-5" "$shim SHIM_CPUS=0-5 SHIM_LAUNCHER=0-5" shared
says shared '2 ranks x 3 threads'
silent shared "$quiet"
ranks "$shim SHIM_CPUS=0-2 SHIM_LAUNCHER=0-5" "$shim SHIM_CPUS=3-5 SHIM_LAUNCHER=0-5" bound
says bound '2 ranks x 3 threads'
silent bound "$quiet"
ranks "$shim SHIM_CPUS=0-0 SHIM_LAUNCHER=0-5" "$shim SHIM_CPUS=1-1 SHIM_LAUNCHER=0-5" idle
says idle 'NOTE: .*: ranks are bound to 2 of 6 processors, the others stay idle: mpirun --bind-to none'
ranks "$shim SHIM_CPUS=0-0 SHIM_LAUNCHER=0-5" "$shim SHIM_CPUS=1-1 SHIM_LAUNCHER=0-5" narrow --set run.threads_per_rank=2
says narrow 'NOTE: rank 0 on .*: 2 threads share what it is bound to, 1 processor: .*--map-by slot:PE=2'
ranks "$shim SHIM_CPUS=0-1" "$shim SHIM_CPUS=0-1" crowded --set run.threads_per_rank=2
says crowded 'NOTE: .*: 2 ranks x 2 threads compute at the same time on 2 processors: run.threads_per_rank: auto'
ranks "$shim SHIM_CPUS=0-2" "$shim SHIM_CPUS=0-2" turns --set env_runners.num_env_runners=1
says turns 'x 3 threads'
silent turns "$quiet"
ranks "$shim SHIM_CPUS=0-1" "$shim SHIM_CPUS=2-3" apart --set env_runners.num_env_runners=1
says apart 'NOTE: .*take turns, but each is bound to processors of its own'
ranks "$shim SHIM_CPUS=0-3 OMP_NUM_THREADS=7" "$shim SHIM_CPUS=0-3" omp
says omp 'NOTE: OMP_NUM_THREADS is 7, but run.threads_per_rank: auto gives rank 0 2 threads'

# ---- what else costs speed or safety ----
ranks "$shim SHIM_MAGIC=0x6969" "" nfs
says nfs 'NOTE: run.dir nfs is on NFS.*inspect RUN --snapshot'
ranks "" "" local
silent local 'run.dir'
printf 'model name\t: Old 7\n' > cpuinfo
ranks "" "$shim SHIM_CPUINFO=$work/cpuinfo" generations
says generations 'NOTE: mixed processors: rank 0 .*, rank 1 on .* on Old 7; .*--constraint'
ranks "PHALANX_GEMM=openblas OPENBLAS_NUM_THREADS=2" "PHALANX_GEMM=openblas" blas
grep -q 'openblas.so' "blas.err" || says blas 'NOTE: OpenBLAS .* 2 threads in each rank .*OPENBLAS_NUM_THREADS=1'
ranks "PHALANX_GEMM=openblas OPENBLAS_NUM_THREADS=1" "PHALANX_GEMM=openblas OPENBLAS_NUM_THREADS=1" one
silent one 'OPENBLAS_NUM'

# ---- one instruction set: the lowest, with its bits ----
PHALANX_ISA=generic "$phalanx" train ppo.yaml --run-dir lowest > lowest.out 2> lowest.err || fail "$(cat lowest.err)"
mpirun -n 1 env PHALANX_ISA=generic "$phalanx" train ppo.yaml --run-dir mixed : -n 1 "$phalanx" train ppo.yaml --run-dir mixed \
    > mixed.out 2> mixed.err || fail "$(cat mixed.err)"
same_run lowest mixed || fail "ranks of two instruction sets do not compute as on the lower one: $(cat differs)"
if ! "$phalanx" version | grep -q 'isa.*generic'; then
    says mixed 'NOTE: mixed processors: rank 1 .* has avx.*, rank 0 .* generic; all ranks use generic'
    "$phalanx" train ppo.yaml --run-dir mixed --set stop.iterations=5 > on.out 2> on.err || fail "$(cat on.err)"
    "$phalanx" inspect mixed events 2> /dev/null | grep -q 'instruction_set.*generic until here, avx' ||
        fail "no event: $("$phalanx" inspect mixed events 2>&1)"
    "$phalanx" train ppo.yaml --run-dir mixed --set stop.iterations=6 > on.out 2> on.err || fail "$(cat on.err)"
    [ "$("$phalanx" inspect mixed events 2> /dev/null | grep -c instruction_set)" = 1 ] || fail "an event without a change"
fi
exit $failed
