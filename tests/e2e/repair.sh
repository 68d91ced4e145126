#!/usr/bin/env bash
# The run file after kill -9: h5py reads it with swmr, `inspect --repair` makes it a plain HDF5 file for h5py.File, h5dump and
# h5diff, a living run's file is not touched, and the run goes on to the bits of the one that nobody disturbed. $1: the program.
set -u
phalanx=$(realpath "$1")
. "$(dirname "$0")/../support/tiny_ppo.sh"
. "$(dirname "$0")/../support/scratch.bash"
export OMP_NUM_THREADS=1 HDF5_USE_FILE_LOCKING=FALSE
failed=0 step=start pid=
fail() { echo "FAILED: $step: $*" >&2; failed=1; }
trap '[ -z "$pid" ] || kill -9 "$pid" 2> /dev/null; rm -rf "$work"' EXIT
cd "$work" || exit 1
python=/usr/bin/python3
"$python" -c 'import h5py' 2> /dev/null || python=
h5dump=$(command -v h5dump || true)
[ -n "$python$h5dump" ] || { echo "skipped: neither h5py (Debian: python3-h5py) nor h5dump (hdf5-tools)"; exit 77; }

rows() { # FILE [swmr=True]: iterations and metrics of a run file, as a notebook reads them
    "$python" - "$1" "${2:-}" << 'PYTHON'
import sys, h5py
with h5py.File(sys.argv[1], "r", **({"swmr": True} if sys.argv[2] else {})) as f:
    m = f["metrics"]
    n = len(m["iteration"])
    assert n > 0 and list(m["iteration"][:n]) == list(range(1, n + 1)), list(m["iteration"][:])
    for name in m.attrs["columns"]:
        assert len(m[name]) >= n, name
    assert f["config"].attrs["training.num_epochs"] == 2 and "training:" in f["config/yaml"].asstr()[()]
    print(n)
PYTHON
}
plain() { # FILE: readers that know nothing of SWMR
    [ -z "$python" ] || rows "$1" > plain.rows 2> plain.err || return 1
    [ -z "$h5dump" ] || { "$h5dump" "$1" > dump 2> plain.err && grep -q 'GROUP "metrics"' dump; }
}
begin() { # DIR: as far as iteration 3, and on
    "$phalanx" train ppo.yaml --run-dir "$1" --set stop.iterations=$iterations > "$1.out" 2> "$1.err" < /dev/null &
    pid=$!
    for turn in $(seq 1 3000); do
        awk -F'[:,]' '/"iteration"/ { exit !($2 >= 3) }' "$1/status.json" 2> /dev/null && return
        kill -0 "$pid" 2> /dev/null || break
        sleep 0.01
    done
    fail "did not reach iteration 3: $(tail -n 3 "$1.err")"
}

tiny_ppo "$phalanx"
iterations=40
"$phalanx" train ppo.yaml --run-dir straight --set stop.iterations=$iterations > straight.out 2>&1 ||
    fail "$(cat straight.out)"

step="a living run is not repaired"
begin run
"$phalanx" inspect run --repair > repair.out 2> repair.err
code=$?
[ $code = 74 ] || fail "exit $code: $(cat repair.err)"
grep -q "run.h5: is being written by process $pid" repair.err || fail "$(cat repair.err)"

step="killed"
kill -9 "$pid" || fail "it was over before it could be killed"
wait "$pid" 2> /dev/null
pid=
[ -z "$python" ] || rows run/run.h5 swmr=True > swmr.rows || fail "not readable with swmr"
plain run/run.h5 && fail "nothing to mend: plain readers open the file"

step="a snapshot of it"
"$phalanx" inspect run --snapshot copy.h5 > repair.out 2> repair.err || fail "$(cat repair.err)"
plain copy.h5 || fail "$(cat plain.err)"
plain run/run.h5 && fail "the snapshot has changed the run file"

step="repaired"
"$phalanx" inspect run metrics --csv > before.csv 2> repair.err || fail "$(cat repair.err)"
"$phalanx" inspect run --repair > repair.out 2> repair.err || fail "$(cat repair.err)"
plain run/run.h5 || fail "$(cat plain.err)"
[ -z "$python" ] || cmp -s swmr.rows plain.rows || fail "$(cat swmr.rows) rows before, $(cat plain.rows) after"
"$phalanx" inspect run metrics --csv > after.csv 2> repair.err || fail "$(cat repair.err)"
cmp before.csv after.csv || fail "other numbers than before"
"$phalanx" inspect run --repair > repair.out 2> repair.err || fail "a second time: $(cat repair.err)"

step="continued"
"$phalanx" train ppo.yaml --run-dir run --set stop.iterations=$iterations > run.out 2> run.err || fail "$(cat run.err)"
grep -q "continues after iteration" run.err || fail "started over: $(cat run.err)"
plain run/run.h5 || fail "$(cat plain.err)"
same_run straight run || fail "$(cat differs)"

[ $failed = 0 ] && echo "all passed"
exit $failed
