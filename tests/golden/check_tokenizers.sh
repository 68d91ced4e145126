#!/usr/bin/env bash
# Ids and texts equal to the tokenizers library's. $1: the program; PHALANX_PYTHON: a Python with tokenizers;
# PHALANX_STRINGS: random strings a tokenizer (100000 takes about ten minutes); PHALANX_SHARED: the folder with data/.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PHALANX_PYTHON:-python3}
if ! "$python" -c 'import tokenizers' 2>/dev/null; then
    echo "skipped: $python has no tokenizers library (PHALANX_PYTHON names one that has)"
    exit 77
fi
data=${PHALANX_SHARED:-$here/../../../shared}/data
if [ ! -d "$data/tokenizers" ]; then
    echo "skipped: the shared tokenizers are absent"
    exit 77
fi
"$python" "$here/check_tokenizers.py" "$1" --data "$data" --strings "${PHALANX_STRINGS:-300}" --built "${PHALANX_BUILT:-14}"
