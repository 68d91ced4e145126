#!/usr/bin/env bash
# Reward models from two sets of pairs: rasbt (polite against not) and hh (harmless against not), or those in SETS.
# PHALANX_DATA: the folder of the data; arguments go to `phalanx train`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
data=${PHALANX_DATA:-$root/../shared/data}
for f in preference/rasbt-instruction-data-with-preference.json preference/hh-harmless-test.jsonl.gz \
    models/stories260K/model.safetensors; do
    [ -e "$data/$f" ] || { echo "reward-models: no $data/$f; set PHALANX_DATA to the folder of the data" >&2; exit 77; }
done
. "$root/cmake/setup.sh"
phalanx_setup
work=$here/work
mkdir -p "$work/stories260K"
for f in config.json model.safetensors tokenizer.json tokenizer_config.json; do
    cat "$data/models/stories260K/$f" >"$work/stories260K/$f"
done
export LC_ALL=C
awk -f "$here/lines.awk" "$data/preference/rasbt-instruction-data-with-preference.json" |
    awk -v train="$work/rasbt-train.jsonl" -v heldout="$work/rasbt-heldout.jsonl" -f "$here/split.awk"
gzip -dc "$data/preference/hh-harmless-test.jsonl.gz" |
    awk -v limit=1600 -v train="$work/hh-train.jsonl" -v heldout="$work/hh-heldout.jsonl" -f "$here/split.awk"
cd "$here"
for set in ${SETS:-rasbt hh}; do
    if [ "$set" = hh-smollm2 ]; then
        ln -sfn "${SMOLLM2:?names the Hugging Face directory of SmolLM2-135M-Instruct}" "$work/smollm2"
    fi
    awk -f length_baseline.awk "$work/${set%-smollm2}-heldout.jsonl"
    "$root/build/release/phalanx" train "$set.yaml" "$@"
done
