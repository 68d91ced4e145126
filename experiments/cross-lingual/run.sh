#!/usr/bin/env bash
# Chinese with and without an English start; seeds 1 2 3, or those in SEEDS. Prints how many steps either takes to each loss
# and draws loss.svg. PHALANX_DATA: the folder of the data; arguments go to `phalanx train`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
data=${PHALANX_DATA:-$root/../shared/data}
for f in text/tinystories-sample.txt text/wikitext2-valid.txt text/tinyshakespeare.txt zh/tatoeba-cmn-eng.txt \
    zh/poetry_corpus_simplified.json; do
    [ -e "$data/$f" ] || { echo "cross-lingual: no $data/$f; set PHALANX_DATA to the folder of the data" >&2; exit 77; }
done
. "$root/cmake/setup.sh"
phalanx_setup
phalanx=$root/build/release/phalanx
work=$here/work
mkdir -p "$work"
cd "$here"
# Paragraphs of eight sentences in an order that does not depend on the machine; one in twenty is held out.
paragraphs() {
    awk -v join="$2" 'NF { text = text (text == "" ? "" : join) $0; if (++n % 8 == 0) { print text; text = "" } }' |
        awk -v out="$work/$1" '{ print > (NR % 20 ? out ".txt" : out "-heldout.txt"); print "" > (NR % 20 ? out ".txt" : out "-heldout.txt") }'
}
shuffled() { awk -F'\t' -v column="$1" '{ print (NR * 7919) % 21121 "\t" $column }' "$data/zh/tatoeba-cmn-eng.txt" | sort -n | cut -f 2; }
{ cat "$data/text/tinystories-sample.txt" "$data/text/wikitext2-valid.txt" "$data/text/tinyshakespeare.txt"; shuffled 1; } |
    paragraphs english ' '
{ shuffled 2; sed -n 's/.*"content": "\(.*\)".*/\1/p' "$data/zh/poetry_corpus_simplified.json" | awk 'NR <= 6000'; } | paragraphs chinese ''
[ -d "$work/tokenizer" ] ||
    "$phalanx" tokenizer train --data "$work/english.txt" --data "$work/chinese.txt" --vocab-size 6000 --out "$work/tokenizer"
for seed in ${SEEDS:-1 2 3}; do
    "$phalanx" train cross-lingual.yaml --run-dir "runs/seed$seed" --set run.seed="$seed" "$@"
done
for seed in ${SEEDS:-1 2 3}; do # seed, start, step, held-out loss
    for start in transferred scratch; do
        "$phalanx" inspect "runs/seed$seed/$start" evaluation --csv |
            awk -F, -v seed="$seed" -v start="$start" 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
                                                       { print seed "," start "," $at["iteration"] "," $at["loss"] }'
    done
done > curves.csv
awk -F, -f steps.awk curves.csv
command -v gnuplot >/dev/null && gnuplot plot.gp
