"""What a user does with a run file from Python, on a living, a killed and a finished one."""
import math
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np

writer, directory = sys.argv[1:3]
path = os.path.join(directory, "run.h5")
ROWS = 60
METRICS = ["objective/kl", "objective/scores", "objective/entropy", "loss/policy_avg", "loss/value_avg",
           "policy/clipfrac_avg", "val/ratio", "val/ratio_var", "lr", "time_total_s", "timers/sample",
           "rollout/logprob_diff_max"]
COLUMNS = {
    "metrics": ["iteration", "timestamp", "segment"] + METRICS,
    "evaluation": ["iteration", "objective/scores"],
    "events": ["event", "timestamp", "iteration", "rank", "kind", "text"],
    "segments": ["segment", "start", "end", "first_iteration", "last_iteration", "num_ranks", "exit_code", "job_id",
                 "reason", "commit"],
    "ranks": ["entry", "segment", "rank", "cpus", "pid", "host", "role"],
    "tokenizer": ["id", "text"],
}


def check_rows(metrics, n):
    iteration = metrics["iteration"][:n]
    assert (iteration == np.arange(1, n + 1)).all(), iteration
    for i, name in enumerate(METRICS):
        values = metrics[name][:n]
        assert len(values) == n, (name, len(values), n)
        if i == 3:
            assert np.isnan(values).all(), name
        else:
            assert (values == iteration + i / 64.0).all(), (name, values)


def check_layout(file):
    assert file.attrs["format"] == "phalanx-run" and file.attrs["format_version"] == 1
    assert file.attrs["algorithm"] == "ppo" and file.attrs["run_name"] == "kill"
    assert file.attrs["created"].endswith("Z")
    config = file["config"].attrs
    assert config["training.lr"] == 1e-4 and config["training.lr"].dtype == np.float64
    assert config["stop.iterations"] == 100 and config["stop.iterations"].dtype == np.int64
    assert config["training.whiten_advantages"] == 1 and config["run.name"] == "grün"
    assert file["config/yaml"].asstr()[()] == "run: {name: grün}\n"
    assert list(file["tokenizer"].attrs["columns"]) == ["id", "text"]
    assert file["tokenizer"].attrs["eos_token_id"] == 1
    assert list(file["tokenizer/text"].asstr()[:]) == ["<s>", "</s>", "a"]
    for table, columns in COLUMNS.items():
        group = file[table]
        assert list(group.attrs["columns"]) == columns, (table, list(group.attrs["columns"]))
        index = group[columns[0]]
        assert index.dtype == np.int64 and index.fillvalue == -1 and h5py.h5ds.is_scale(index.id), table
        for name in columns:
            column = group[name]
            assert isinstance(column.attrs["units"], str) and isinstance(column.attrs["long_name"], str), name
            assert column.ndim == 1 and column.maxshape == (None,)
            if column.dtype.kind == "f":
                assert column.dtype == np.float64 and math.isnan(column.fillvalue), name
            if column.dtype.kind == "S":
                info = h5py.check_string_dtype(column.dtype)
                assert info.encoding == "utf-8" and info.length == column.dtype.itemsize, name
            if name != columns[0]:
                assert len(column.dims[0]) == 1 and column.dims[0][0] == index, (table, name)
    assert file["metrics/time_total_s"].attrs["units"] == "s"


def start(rows, pause):
    process = subprocess.Popen([writer, "--write", path, str(rows), str(pause)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "open\n"
    return process


# Living: one reader stays open and refreshes, another opens anew, as a notebook does.
process = start(ROWS, 10)
with h5py.File(path, "r", swmr=True) as live:
    check_layout(live)
    seen = set()
    for line in process.stdout:
        reported = int(line)
        for name in ["iteration"] + METRICS:
            live["metrics"][name].refresh()
        n = len(live["metrics/iteration"])
        assert n >= reported, (n, reported)
        check_rows(live["metrics"], n)
        seen.add(n)
        if reported % 20 == 0:
            with h5py.File(path, "r", swmr=True) as again:
                m = again["metrics"]
                check_rows(m, len(m["iteration"]))
    assert len(seen) > 3, seen
assert process.wait() == 0

# Finished: a plain file.
with h5py.File(path, "r") as done:
    check_layout(done)
    check_rows(done["metrics"], ROWS)
    assert len(done["metrics/iteration"]) == ROWS
    assert done["metrics/lr"].compression == "gzip" and done["metrics/lr"].shuffle
    assert list(done["events/text"].asstr()[:]) == ["a fifth"] * (ROWS // 5)
    assert done["segments/reason"].asstr()[0] == "done" and done["segments/exit_code"][0] == 0
size = os.path.getsize(path)

# Killed: with swmr.
os.remove(path)
process = start(10000, 1)
time.sleep(0.3)
process.send_signal(signal.SIGKILL)
process.wait()
with h5py.File(path, "r", swmr=True) as killed:
    check_layout(killed)
    n = len(killed["metrics/iteration"])
    assert n > 3
    check_rows(killed["metrics"], n)
os.rename(path, os.path.join(directory, "killed.h5"))



# Files of others: read when they are tables, refused with a reason when they reach outside or are something else.
def read(file, table="/t"):
    done = subprocess.run([writer, "--read", file, table], stdout=subprocess.PIPE, text=True, timeout=20)
    return done.returncode, done.stdout


def make(change, columns=("i", "x")):
    file = os.path.join(directory, "foreign.h5")
    with h5py.File(file, "w") as f:
        f["t/i"] = np.arange(4)
        f["t/x"] = np.arange(4) / 2
        if columns is not None:
            f["t"].attrs["columns"] = columns
        change(f)
    return read(file)


def replace(name, **options):
    def change(f):
        del f["t/x"]
        f.create_dataset("t/x", **options)
    return change


def link(target):
    def change(f):
        del f["t/x"]
        f["t/x"] = target
    return change


assert make(lambda f: None) == (0, "4 rows\n")
assert make(replace("x", data=np.arange(4.0), compression="gzip", shuffle=True)) == (0, "4 rows\n")
assert make(replace("x", data=np.array([b"a", b"bcd"] * 2))) == (0, "4 rows\n")
virtual = h5py.VirtualLayout(shape=(4,), dtype="f8")
virtual[:] = h5py.VirtualSource("/etc/hostname", "x", shape=(4,))
refused = {
    "another filter": make(replace("x", data=np.arange(4.0), compression="lzf")),
    "external storage": make(replace("x", shape=(4,), dtype="u1", external=[("/etc/passwd", 0, 4)])),
    "virtual": make(lambda f: (f.__delitem__("t/x"), f.create_virtual_dataset("t/x", virtual))),
    "external link": make(link(h5py.ExternalLink(os.path.join(directory, "killed.h5"), "/metrics/lr"))),
    "soft link": make(link(h5py.SoftLink("/t/i"))),
    "two dimensions": make(replace("x", data=np.zeros((4, 2)))),
    "scalar": make(replace("x", data=1.0)),
    "compound": make(replace("x", data=np.zeros(4, dtype=[("a", "f8")]))),
    "variable strings": make(replace("x", data=["a", "b", "c", "d"], dtype=h5py.string_dtype())),
    "no columns": make(lambda f: None, None),
    "columns of numbers": make(lambda f: None, [1, 2]),
    "a missing column": make(lambda f: None, ["i", "y"]),
    "a column twice": make(lambda f: None, ["i", "i"]),
    "a path": make(lambda f: None, ["i", "/t/x"]),
    "a group": make(lambda f: (f.__delitem__("t/x"), f.create_group("t/x"))),
}
for what, (code, said) in refused.items():
    assert code == 65 and "foreign.h5: " in said, (what, code, said)

# Damaged files end in an answer, also where the library itself crashes: in the heap that holds the texts of attributes.
whole = open(os.path.join(directory, "killed.h5"), "rb").read()
random = np.random.default_rng(1)
damaged = os.path.join(directory, "damaged.h5")
heap = whole.index(b"GCOL")
crashes = 0
for k in range(60):
    bad = bytearray(whole[:random.integers(0, len(whole))] if k % 2 and k < 40 else whole)
    low, high = (0, max(len(bad), 1)) if k < 40 else (heap, heap + 4096)
    for at in random.integers(low, high, 20 if k < 40 else 200):
        if bad:
            bad[at] ^= 1 << random.integers(0, 8)
    with open(damaged, "wb") as f:
        f.write(bad)
    code, said = read(damaged, "/metrics")
    assert code in (0, 65, 74), (k, code, said)
    crashes += "the HDF5 library" in said

# Leave a finished one behind for h5dump.
process = start(3, 0)
process.stdout.read()
assert process.wait() == 0
print(f"live looks: {len(seen)}, finished file: {size} bytes, rows after the kill: {n}, "
      f"reads that would have crashed: {crashes}")
