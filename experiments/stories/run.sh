#!/usr/bin/env bash
# SFT and PPO of stories260K on TinyStories with a sentiment lexicon as the reward; seeds 1 2 3, or those in SEEDS.
# PHALANX_DATA: the folder of the data; arguments go to `phalanx train`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
data=${PHALANX_DATA:-$root/../shared/data}
for f in text/tinystories-sample.txt models/stories260K/model.safetensors rewards/vader_lexicon.txt \
    rewards/AFINN-en-165.txt; do
    [ -e "$data/$f" ] || { echo "stories: no $data/$f; set PHALANX_DATA to the folder of the data" >&2; exit 77; }
done
. "$root/cmake/setup.sh"
phalanx_setup
work=$here/work
mkdir -p "$work/stories260K"
cat "$data/rewards/vader_lexicon.txt" >"$work/vader.txt"
cat "$data/rewards/AFINN-en-165.txt" >"$work/afinn.txt"
for f in config.json model.safetensors tokenizer.json tokenizer_config.json; do
    cat "$data/models/stories260K/$f" >"$work/stories260K/$f"
done
LC_ALL=C awk -v train="$work/train.jsonl" -v heldout="$work/heldout.jsonl" -f "$here/make_data.awk" \
    "$data/text/tinystories-sample.txt"
cd "$here"
for seed in ${SEEDS:-1 2 3}; do
    "$root/build/release/phalanx" train stories.yaml --run-dir "runs/seed$seed" --set run.seed="$seed" "$@"
done
