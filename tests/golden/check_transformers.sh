#!/usr/bin/env bash
# transformers opens what we save. $1: the program; PHALANX_PYTHON: a Python with PyTorch and transformers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PHALANX_PYTHON:-python3}
saver=${PHALANX_SAVER:-$(dirname "$1")/tests/golden_test_saved}
if ! "$python" -c 'import torch, transformers' 2>/dev/null; then
    echo "skipped: $python has no PyTorch and transformers (PHALANX_PYTHON names one that has)"
    exit 77
fi
if [ ! -x "$saver" ]; then
    echo "skipped: $saver is not built"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/saved"
PHALANX_SAVED="$work/saved" "$saver" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
HF_HUB_OFFLINE=1 "$python" "$here/check_transformers.py" "$here/models" "$work/saved"
