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

# ---- full ----
# The name of the file that a message is about, without what makes temporary names unique.
name_file() { grep -a '^phalanx: ' err | grep -av 'NOTE' | sed -E 's/^phalanx: (warning: )?//; s/: .*//; s/\.px-[0-9a-f]*-[0-9]*\.tmp//g; s/\.tmp$//; s/.*\///' | tail -1; }

declare -A seen
sweep() {
    local free
    for ((free = 4; ; free += 4)); do
        umount full; mount -t tmpfs -o size=${free}k tmpfs full
        timeout 20 "$phalanx" train ppo.yaml --run-dir full/run > out 2> err < /dev/null; code=$?
        [ $code != 0 ] || return 0
        cases=$((cases + 1))
        [ $code = 74 ] || fail "a disk of $free KiB: exit $code: $(tail -3 err)"
        [ "$(messages)" = 1 ] || fail "a disk of $free KiB: not one message: $(tail -5 err)"
        grep -aqi '^phalanx: .*no space' err || fail "a disk of $free KiB: no 'No space': $(tail -1 err)"
        left=$(find full -name '*.tmp' -o -name lock | head -3)
        [ -z "$left" ] || fail "a disk of $free KiB: half-written: $left"
        [ $free -lt 4096 ] || { fail "4 MiB are not enough"; return 0; }
        file=$(name_file)
        [ -z "${seen[$file]:-}" ] || continue
        seen[$file]=1
        mount -o remount,size=8m full
        timeout 20 "$phalanx" train ppo.yaml --run-dir full/run > out 2> err < /dev/null || \
            fail "does not go on after $file did not fit: $(tail -1 err)"
    done
}

if mkdir full && mount -t tmpfs -o size=1m tmpfs full 2> /dev/null; then
    full=$work/full
    sweep
    for file in config.yaml status.json run.h5 samples-000001.h5 model.safetensors config.json state.h5 MANIFEST.json latest; do
        [ -n "${seen[$file]:-}" ] || fail "no disk was too small for $file: ${!seen[*]}"
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
vanish 'rm -r later'; stages 65 "later: no config.json" "${moved[@]}"
vanish 'rm run.yaml'; stages 74 "run.yaml: cannot open: No such file or directory"
vanish 'rm -r run'; train 74 "run" ppo.yaml
[ ! -e run ] || fail "a removed run directory is back: $(find run | head)"
vanish 'rm run/run.h5'; train 74 "run/run.h5: was removed or replaced" ppo.yaml
vanish 'rm -r run/recovery_b'; train 0 "ppo 2/2" ppo.yaml
vanish 'rm run/samples-000001.h5'; train 0 "ppo 2/2" ppo.yaml

passed
