#!/usr/bin/env bash
# What a run's directory says after it was stopped, changed and continued: sample files by their first iteration and without
# rows of an abandoned course, settings that changed, and the state at which a limit ended it. $1: the program. TEST_TRACE=1 tells what is going on.
set -u
phalanx=$(realpath "$1")
. "$(dirname "$0")/../support/tiny_ppo.sh"
. "$(dirname "$0")/../support/scratch.bash"
. "$(dirname "$0")/../support/steps.bash"
export OMP_NUM_THREADS=1
tiny_ppo "$phalanx"
train() { # CODE DIR [options]
    local code=$1 dir=$2; shift 2
    "$phalanx" train ppo.yaml --run-dir "$dir" "$@" > out 2> err < /dev/null
    local got=$?
    [ $got = "$code" ] || fail "exit $got, want $code: $(grep '^phalanx: ' err | tail -2)"
}
files() { (cd "$1" && ls samples-*.h5 | tr '\n' ' '); }
iterations() { # of the samples of a run: "1:16 2:16" rows each
    "$phalanx" inspect "$1" samples --csv 2> err | awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "iteration") c = i }
        NR > 1 { n[$c]++ } END { for (i = 0; i < 100; i++) if (n[i]) printf "%d:%d ", i, n[i] }'
}

step="sample files"; trace
train 0 one --set stop.iterations=3 --set reporting.samples.iterations_per_file=1
[ "$(files one)" = "samples-000001.h5 samples-000002.h5 samples-000003.h5 " ] || fail "$(files one)"
train 0 one --set stop.iterations=6 --set reporting.samples.iterations_per_file=2 --set reporting.samples.tokens=false
[ "$(files one)" = "samples-000001.h5 samples-000002.h5 samples-000003.h5 samples-000005.h5 " ] || fail "$(files one)"
[ "$(iterations one)" = "1:16 2:16 3:16 4:16 5:16 6:16 " ] || fail "$(iterations one)"
if command -v h5ls > /dev/null; then
    h5ls one/samples-000003.h5 | grep -q '^tokens ' || fail "tokens of iteration 3 are gone"
    h5ls one/samples-000005.h5 | grep -q '^tokens ' && fail "tokens are there that were not wanted"
fi
"$phalanx" inspect one events 2> /dev/null | grep -q 'setting_changed *stop.iterations: 3 -> 6' || fail "no event of what changed"
train 0 every --set reporting.samples.every=2
[ "$(files every)" = "samples-000002.h5 " ] && [ "$(iterations every)" = "2:16 4:16 " ] || fail "every second: $(files every)"

step="rows of an abandoned course"; trace
back=(--set checkpointing.interval=2 --set checkpointing.keep=null --set checkpointing.recovery_interval=100)
train 0 back --set stop.iterations=6 --set reporting.samples.iterations_per_file=3 "${back[@]}"
rm -rf back/checkpoint_000004 back/checkpoint_000006 back/policy back/critic back/status.json
train 0 back --set stop.iterations=6 --set reporting.samples.every=6 "${back[@]}"
[ "$(files back)" = "samples-000001.h5 " ] && [ "$(iterations back)" = "1:16 2:16 6:16 " ] || fail "$(files back): $(iterations back)"
command -v h5dump > /dev/null && [ "$(h5dump -y -w 0 -d /segments/first_iteration back/run.h5 | awk '/DATA [{]/ { getline; print $1 $2; exit }')" != "1,3" ] &&
    fail "segments begin with $(h5dump -y -w 0 -d /segments/first_iteration back/run.h5)"

step="the limit of KL"; trace
train 80 limit --set fault_tolerance.kl_limit=1e-9 --set training.lr=0.1
"$phalanx" inspect limit events 2> /dev/null | grep -q ' kl_limit ' || fail "no event"
last=$(sed -n 's/.*"iteration": \([0-9]*\).*/\1/p' limit/status.json)
grep -qs "\"iteration\": $last" limit/recovery_*/MANIFEST.json || fail "the state after iteration $last is not kept"

exit $failed
