#!/usr/bin/env bash
# Conversations rendered as transformers' apply_chat_template renders the published templates, and which tokens are learned.
# $1: the program; PHALANX_PYTHON: a Python with transformers; PHALANX_CONVERSATIONS: how many a renderer;
# PHALANX_SHARED: the folder with data/.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PHALANX_PYTHON:-python3}
if ! "$python" -c 'import transformers, jinja2' 2>/dev/null; then
    echo "skipped: $python has no transformers (PHALANX_PYTHON names one that has)"
    exit 77
fi
if [ ! -d "${PHALANX_SHARED:-$here/../../../shared}/data/tokenizers" ]; then
    echo "skipped: the shared tokenizers are absent"
    exit 77
fi
"$python" "$here/check_templates.py" "$1" --conversations "${PHALANX_CONVERSATIONS:-40}"
