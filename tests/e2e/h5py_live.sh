#!/bin/bash
# Reads a run file with h5py while a program writes it, and the finished file with h5py and h5dump.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$(dirname "$1")" && pwd)
writer=$build/tests/unit_store_test_kill
python=/usr/bin/python3
if ! "$python" -c 'import h5py, numpy' 2>/dev/null; then
    echo "skipped: $python has no h5py (Debian: python3-h5py)"
    exit 77
fi
if [ ! -x "$writer" ]; then
    echo "skipped: $writer is not built"
    exit 77
fi
. "$(dirname "$0")/../support/scratch.bash"
dir=$work
trap 'rm -rf "$dir"' EXIT
HDF5_USE_FILE_LOCKING=FALSE "$python" "$here/h5py_live.py" "$writer" "$dir" || exit 1
if command -v h5dump >/dev/null; then
    h5dump -H "$dir/run.h5" >"$dir/dump" || { echo "h5dump cannot read the finished file"; exit 1; }
    for word in 'GROUP "metrics"' 'DATASET "kl"' 'DIMENSION_LIST' 'STRPAD H5T_STR_NULLTERM' 'CSET H5T_CSET_UTF8'; do
        grep -qF "$word" "$dir/dump" || { echo "h5dump -H does not show: $word"; exit 1; }
    done
fi
echo passed
