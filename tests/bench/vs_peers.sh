#!/bin/sh
# Phalanx and PyTorch (transformers' generate) by turns on this machine, as many rounds as asked for.
# usage: vs_peers.sh PHALANX PYTHON PEERS [rounds] [threads]
#   PHALANX  the program            PYTHON  one with torch and transformers
#   PEERS    the folder with torch_train.py and hf_generate.py
# Each round is two lines of JSON for each kind of work: ours, then the peer's. Compare lines that stand together.
set -eu
if [ $# -lt 3 ]; then
    sed -n '2,6s/^# //p' "$0" >&2
    exit 64
fi
phalanx=$1 python=$2 peers=$3 rounds=${4:-2} threads=${5:-$(nproc)}
ours() { "$phalanx" bench "$@" --threads "$threads" --trials 3 --json; }
round=0
while [ "$round" -lt "$rounds" ]; do
    ours sample --shape smollm2-135m --batch 32 --prompt 64 --new 64
    "$python" "$peers/hf_generate.py" smollm2-135m 32 64 64 fp32 "$threads"
    ours train --shape gpt2-124m --batch 4 --seq 256
    "$python" "$peers/torch_train.py" gpt2-124m 4 256 fp32 "$threads"
    ours train --shape nano10m --batch 16 --seq 256
    "$python" "$peers/torch_train.py" nano10m 16 256 fp32 "$threads"
    round=$((round + 1))
done
