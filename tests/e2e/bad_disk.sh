#!/usr/bin/env bash
# Disks that are full, read-only or lose what a run needs: one message that names the file, exit code 74, nothing
# half-written; and once there is room again, the same command goes on. The full disks are small memory file systems of every
# size at which some file of the run is the first that does not fit.
# Usage: bad_disk.sh PROGRAM. Mounts need root or user namespaces; without either, that part is not tried.
set -u
if [ "$(id -u)" != 0 ] && [ -z "${PHALANX_UNSHARED:-}" ] && unshare -rm true 2> /dev/null; then
    PHALANX_UNSHARED=1 exec unshare -rm bash "$0" "$@"
fi
phalanx=$(realpath "$1")
support=$(realpath "$(dirname "$0")/../support/bad_input")
. "$(dirname "$0")/../support/scratch.bash"
full=
cleanup() {
    [ -z "$full" ] || umount "$full" 2> /dev/null
    rm -rf "$work"
}
trap cleanup EXIT
cd "$work" || exit 1
. "$support/cases.sh"
sed 's/^algorithm: sft/algorithm: pretrain/' sft.yaml > pretrain.yaml

# ---- full ----
# The name of the file that a message is about, without what makes temporary names unique.
name_file() { grep -a '^phalanx: ' err | grep -av 'NOTE' | sed -E 's/^phalanx: (warning: )?//; s/: .*//; s/\.px-[0-9a-f]*-[0-9]*\.tmp//g; s/\.tmp$//; s/.*\///' | tail -1; }

# One start on a memory file system with room for so much (options of mount), and once there is more room, another.
# Every other run of ppo has two ranks: both write.
declare -A seen
point() { # OPTIONS ALGORITHM [options]: false when all of it fitted
    local options=$1 algorithm=$2 code file left launch=(timeout 20); shift 2
    [ "$algorithm" = ppo ] && [ $((cases % 2)) = 1 ] && [ -n "$mpi" ] && launch+=(mpirun -n 2)
    umount full; mount -t tmpfs -o "$options" tmpfs full
    "${launch[@]}" "$phalanx" train "$algorithm.yaml" --run-dir full/run "$@" > out 2> err < /dev/null; code=$?
    [ $code != 0 ] || return 1
    cases=$((cases + 1))
    what="$algorithm on a disk of $options"
    [ $code = 74 ] || fail "$what: exit $code: $(tail -3 err)"
    [ "$(messages)" = 1 ] || fail "$what: not one message: $(tail -5 err)"
    grep -aqi '^phalanx: .*no space' err || fail "$what: no 'No space': $(tail -1 err)"
    left=$(find full -name '*.tmp' -o -name lock | head -3)
    [ -z "$left" ] || fail "$what: half-written: $left"
    file=$(name_file)
    [ -z "${seen[$algorithm $file]:-}" ] || return 0
    seen[$algorithm $file]=1
    mount -o remount,size=8m,nr_inodes=1000 full
    "${launch[@]}" "$phalanx" train "$algorithm.yaml" --run-dir full/run "$@" > out 2> err < /dev/null || \
        fail "$what: does not go on after $file did not fit: $(tail -1 err)"
}
# Full at every size from 4 KiB on, STEP KiB apart: files that grow; and at every number of files: those that are small.
sweep() { # STEP FILES_STEP ALGORITHM [options]
    local step=$1 files_step=$2 free files; shift 2
    for ((free = 4; free < 4096; free += step)); do point size=${free}k,nr_inodes=1000 "$@" || break; done
    [ $free -lt 4096 ] || fail "4 MiB are not enough for $1"
    for ((files = 2; files < 200; files += files_step)); do point size=8m,nr_inodes=$files "$@" || break; done
    [ $files -lt 200 ] || fail "200 files are not enough for $1"
}

mpi=$(command -v mpirun)
if mkdir full && mount -t tmpfs -o size=1m tmpfs full 2> /dev/null; then
    full=$work/full
    for algorithm in ppo sft reward pretrain; do
        step=${BAD_DISK:+4} files_step=${BAD_DISK:+1} cache=()
        [ $algorithm = ppo ] || cache=(--set data.memory_mib=0) # token ids in files
        sweep "${step:-$([ $algorithm = ppo ] && echo 20 || echo 28)}" "${files_step:-1}" $algorithm "${cache[@]}"
    done
    mount -o remount,size=8m,nr_inodes=1000 full
    for file in {ppo,sft,reward,pretrain}" "{lock,config.yaml,status.json,run.h5,model.safetensors,config.json,state.h5,MANIFEST.json,latest} \
        "ppo samples-000001.h5" {sft,reward,pretrain}" cache"; do
        [ -n "${seen[$file]:-}" ] || fail "no disk was too small for $file: $(printf '%s; ' "${!seen[@]}")"
    done
    mount -o remount,ro full
    train 74 "full/other: cannot create the directory: Read-only" sft.yaml --run-dir full/other
    umount full; full=
else
    echo "full and read-only disks are not tried: no mount" >&2
fi
for blocks in 1 16 60; do # files may not grow beyond: kernel and HDF5 say so in their ways
    (ulimit -f $blocks; train 74 "File too large" ppo.yaml; exit $failed) || failed=1
done
: > file; train 74 "file: exists and is not a directory" sft.yaml --run-dir file
train 74 "file/run: cannot create the directory: Not a directory" sft.yaml --run-dir file/run

# ---- what vanishes while the run goes on: the reward program takes it away at its fifth request, in iteration 2 ----
vanish() {
    cat > score << S
#!/bin/sh
n=0
while read -r line; do
    id=\${line#*:}; n=\$((n + 1))
    [ \$n != 5 ] || { $1; }
    echo "{\\"id\\":\${id%%,*},\\"score\\":1}"
done
S
    chmod +x score
}
cat > two.yaml << 'Y'
defaults:
  run: {dir: run, seed: 1, threads_per_rank: 1}
stages:
Y
for stage in ppo sft; do
    echo "  $stage:" >> two.yaml
    grep -v '^run:' $stage.yaml | sed 's/^/    /' >> two.yaml
done
stages() { cp -r base later; cp rows.jsonl later.jsonl; cp two.yaml run.yaml; train "$1" "$2" run.yaml "${@:3}" --set sft.data.train=later.jsonl; }
moved=(--set sft.rl_module.policy.new=null --set sft.rl_module.policy.path=later)
vanish 'rm prompts.jsonl base/*'
cp -r base kept; cp prompts.jsonl kept.jsonl
train 0 "ppo 2/2" ppo.yaml # all of it was read at the start
mv kept/* base; mv kept.jsonl prompts.jsonl
vanish 'rm later.jsonl'; stages 74 "sft.data.train=later.jsonl: data.train: $work/later.jsonl: cannot open: No such file or directory"
vanish 'rm later/model.safetensors'; stages 65 "later: no weights" "${moved[@]}"
vanish 'rm -r later'; stages 65 "sft.rl_module.policy.path=later: rl_module.policy.path: $work/later: no such directory" "${moved[@]}"
vanish 'rm run.yaml'; stages 74 "run.yaml: cannot open: No such file or directory"
vanish 'rm -r run'; train 74 "run" ppo.yaml
[ ! -e run ] || fail "a removed run directory is back: $(find run | head)"
vanish 'rm run/run.h5'; train 74 "run/run.h5: was removed or replaced" ppo.yaml
vanish 'rm -r run/recovery_b'; train 0 "ppo 2/2" ppo.yaml
vanish 'rm run/samples-000001.h5'; train 0 "ppo 2/2" ppo.yaml

passed
