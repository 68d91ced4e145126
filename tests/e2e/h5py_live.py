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

# Leave a finished one behind for h5dump.
process = start(3, 0)
process.stdout.read()
assert process.wait() == 0
print(f"live looks: {len(seen)}, finished file: {size} bytes, rows after the kill: {n}")
