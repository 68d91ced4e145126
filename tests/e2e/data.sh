#!/usr/bin/env bash
# Data sets from outside, on rows of token ids: several files with weights, compressed and not. $1: the program.
set -u
phalanx=$(realpath "$1")
. "$(dirname "$0")/../support/scratch.bash"
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export OMP_NUM_THREADS=1
failed=0 step=start
mpi=$(command -v mpirun || true)
fail() { echo "FAILED: $step: $*" >&2; failed=1; }

# ---- data and configuration ----
rows() { # SEED COUNT: texts of 3 to 12 ids
    awk -v seed="$1" -v count="$2" 'BEGIN { srand(seed); for (r = 0; r < count; r++) { n = 3 + int(rand() * 10); printf "{\"ids\": ["
        for (i = 0; i < n; i++) printf "%s%d", i ? ", " : "", 2 + int(rand() * 14); print "]}" } }'
}
rows 1 20 > a.jsonl
rows 2 14 | gzip > b.jsonl.gz
echo '[{"prompt_ids": [3, 4], "completion_ids": [5, 6, 1]}, {"prompt_ids": [7], "completion_ids": [8, 1]}]' > c.json
rows 3 8 > heldout.jsonl
cat > mix.yaml <<'Y'
run: {seed: 5, threads_per_rank: 1}
algorithm: sft
rl_module:
  policy: {new: {architecture: llama, hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, vocab_size: 16,
                 max_position_embeddings: 16}}
data: {train: [{file: a.jsonl, weight: 0.5}, b.jsonl.gz, {file: c.json, weight: 3}], validation: heldout.jsonl, max_tokens: 10}
training: {batch_size: 6, lr: 1.0e-2}
checkpointing: {recovery_interval: 1}
stop: {epochs: 3}
Y
train() { # RANKS DIR [options]
    local ranks=$1 dir=$2; shift 2
    ${launch:-} $([ "$ranks" = 1 ] || echo "$mpi -n $ranks") "$phalanx" train mix.yaml --run-dir "$dir" "$@" > "$dir.out" 2> "$dir.err"
}
weights() { sha256sum < "$1/policy/model.safetensors"; }
metrics() { "$phalanx" inspect "$1" metrics --csv | cut -d, -f1,5-12; }

# ---- several files ----
step="files with weights"
train 1 one || fail "exit $?: $(tail -3 one.err)"
# 10 rows of the first, 14 of the second, 2 x 3 of the third: 30 an epoch, 3 epochs of 5 steps of 6.
grep -q 'optimizer step' one.err && grep -q '15 optimizer steps' one.err || fail "not 15 steps: $(grep optimizer one.err)"
grep -q 'train x 0.5.*a.jsonl: 20 rows' one.err || fail "no line for a.jsonl"
grep -q 'train x 3.*c.json: 2 rows (prompt_ids+completion_ids)' one.err || fail "no line for c.json"

step="passes that are no whole number of steps"
last() { "$phalanx" inspect "$1" metrics --csv | awk -F, -v name="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i } END { print NR - 1, $c }'; }
for batch in batch_size=8 batch_tokens=40; do # each row twice: 2 x 30
    train 1 rest --fresh --set training.batch_size=null --set data.packing=false --set training.$batch --set stop.epochs=2 || fail "exit $?: $(tail -3 rest.err)"
    case "$batch $(last rest epoch)" in
    "batch_size=8 8 2" | batch_tokens=*" 2") ;;
    *) fail "$batch: steps and passes $(last rest epoch), want 2 passes" ;;
    esac
done
for i in 2 3 4 5 6; do echo "{\"prompt_ids\": [1, $i], \"chosen_ids\": [$i, 3], \"rejected_ids\": [4, 5, 2]}"; done > pairs.jsonl
pairs() { sed -e 's/^algorithm: .*/algorithm: reward/; s/policy: {/reward: {/; s/^data: .*/data: {train: pairs.jsonl, max_tokens: 10}/' mix.yaml > pairs.yaml
    "$phalanx" train pairs.yaml --run-dir pairs "$@" > pairs.out 2> pairs.err || fail "exit $?: $(tail -3 pairs.err)"; }
pairs --set training.batch_size=32 --set stop.epochs=1
[ "$(last pairs epoch)" = "1 1" ] || fail "5 pairs in steps of 32: steps and passes $(last pairs epoch)"
pairs --set training.batch_size=3 --set stop.epochs=1 --fresh
[ "$(last pairs epoch)" = "2 1" ] || fail "5 pairs in steps of 3: steps and passes $(last pairs epoch)"

# ---- statistics ----
step="statistics"
{ echo '{"ids": [2, 3]}'; echo '{"ids": [2, 3]}'; echo '{"ids": [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]}'; echo '{"ids": [4, 5, 6]}'; } > s.jsonl
echo '{"prompt_ids": [2, 3], "completion_ids": [4, 1]}' > t.jsonl
{ echo '{"prompt_ids": [2,3,4,5,6,7,8,9,10,11], "completion_ids": [4, 1]}'; } >> t.jsonl # the prompt alone fills the row
train 1 stats --set 'data.train=[s.jsonl,t.jsonl]' --set stop.epochs=1 || fail "exit $?: $(tail -3 stats.err)"
grep -q 's.jsonl: 4 rows (ids), 17 tokens, length 2 to 10, mean 4.2; 1 cut, 0 dropped .*, 1 duplicate prompts' stats.err ||
    fail "s.jsonl in the log: $(grep s.jsonl stats.err)"
grep -q 'rows by length: 2-3:3 8-15:1' stats.err || fail "no histogram in the log"
grep -q 't.jsonl: 1 rows (prompt_ids+completion_ids).* 1 dropped (0 too long, 0 with equal sides, 1 with nothing to learn), 1 dup' stats.err ||
    fail "t.jsonl in the log: $(grep t.jsonl stats.err)"
if command -v h5dump > /dev/null; then
    column() { h5dump -d "$1" stats/run.h5 | sed -n 's/^ *(0): //p' | head -1 | tr -d ' "'; }
    for want in /data/shape:ids,prompt_ids+completion_ids,ids /data/rows:4,1,8 /data/cut:1,0,2 /data/dropped_empty:0,1,0 \
                /data/duplicate_prompts:1,1,0; do
        [ "$(column "${want%%:*}" | sed 's/\\000//g')" = "${want#*:}" ] || fail "${want%%:*} is $(column "${want%%:*}")"
    done
    [ "$(column /data_lengths/rows | cut -d, -f1-2)" = 3,1 ] || fail "lengths: $(column /data_lengths/rows)"
fi
"$phalanx" tokens --stats --data s.jsonl --max-tokens 10 > s.stats || fail "tokens --stats: exit $?"
for want in 'shape              ids' 'cut                1' 'duplicate prompts  1' '8 - 15            1'; do
    grep -q "$want" s.stats || fail "tokens --stats lacks '$want': $(cat s.stats)"
done

step="statistics tell what training would"
{ echo '{"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}'; echo '{"prompt_ids": [1], "chosen_ids": 4, "rejected_ids": [3]}'; } > p.jsonl
"$phalanx" tokens --stats --data p.jsonl > p.stats 2> p.err; [ $? = 65 ] || fail "a bad pair: exit code"
grep -q 'p.jsonl:2: field "chosen_ids" is an integer' p.err || fail "a bad pair: $(cat p.err)"
"$phalanx" tokens --stats --data p.jsonl --as prompts | grep -q 'kind               prompts' || fail "--as prompts"
"$phalanx" tokens --stats --data p.jsonl --as texts 2> p.err; [ $? = 64 ] || fail "--as texts: $(cat p.err)"

step="texts longer than the model's context"
{ rows 6 5; awk 'BEGIN { printf "{\"ids\": ["; for (i = 0; i < 40; i++) printf "%s%d", i ? ", " : "", 2 + i * 7 % 13; print "]}" }'; } > long.jsonl
cat > pretrain.yaml <<'Y'
run: {seed: 5, threads_per_rank: 1}
algorithm: pretrain
rl_module:
  policy: {new: {architecture: llama, hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, vocab_size: 16,
                 max_position_embeddings: 16, initializer_range: 0.5}}
data: {train: a.jsonl, validation: long.jsonl, max_tokens: 16}
training: {batch_size: 6, lr: 1.0e-2}
evaluation: {evaluation_interval: 1}
stop: {steps: 1}
Y
for most in 16 7; do # the context, and less
    "$phalanx" train pretrain.yaml --run-dir "pretrain$most" --set data.max_tokens=$most > long.out 2> long.err || fail "exit $?: $(tail -3 long.err)"
    "$phalanx" evaluate --model "pretrain$most/policy" --data long.jsonl --max-tokens $((most % 16)) --json --per-record long.rows > long.eval ||
        fail "evaluate: exit $?"
    "$phalanx" inspect "pretrain$most" evaluation --csv > long.csv
    /usr/bin/python3 - long.eval long.csv long.rows long.jsonl $most <<'P' || fail "$most: not what pretraining evaluates: $(cat long.eval) $(tail -1 long.csv)"
import csv, json, sys
said, run = json.load(open(sys.argv[1])), list(csv.DictReader(open(sys.argv[2])))[-1]
rows, texts = ([json.loads(line) for line in open(f)] for f in sys.argv[3:5])
most, lengths = int(sys.argv[5]), [len(t["ids"]) for t in texts]
pieces = [-(-n // most) for n in lengths]
assert abs(said["loss"] - float(run["loss"])) < 2e-7 and said["tokens"] == float(run["num_tokens"])
assert (said["rows"], said["pieces"], said["cut"]) == (6, sum(pieces), 0)
assert [(r["record"], r["tokens"], len(r["logprobs"])) for r in rows] == [(i, n - p, n - p) for i, (n, p) in enumerate(zip(lengths, pieces))]
assert abs(sum(r["nll"] for r in rows) / said["tokens"] - said["loss"]) < 1e-7
assert all(abs(r["nll"] + sum(r["logprobs"])) < 1e-5 for r in rows)
P
    [ -z "$mpi" ] || $mpi -n 2 "$phalanx" evaluate --model "pretrain$most/policy" --data long.jsonl --max-tokens $((most % 16)) --json |
        cmp -s - long.eval || fail "$most: another evaluation on two ranks"
done
# a completion keeps its prompt, and so loses its end
echo '{"prompt_ids": [2, 3, 4], "completion_ids": [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 2, 3, 4, 5, 6, 7, 8]}' > end.jsonl
"$phalanx" evaluate --model pretrain16/policy --data end.jsonl --json | grep -q '"tokens":13,"rows":1,"pieces":1,"cut":1,' || fail "a long completion"

step="rows in temporary files"
mkdir tmp
TMPDIR=$PWD/tmp "$phalanx" tokens --stats --data s.jsonl --max-tokens 10 --memory-mib 0 > f.stats 2> f.err || fail "tokens: exit $?"
cmp -s s.stats f.stats || fail "other statistics than in memory: $(cat f.stats)"
grep -q 'made into token ids once, in .*/tmp/phalanx-data-' f.err || fail "not in temporary files: $(cat f.err)"
"$phalanx" evaluate --model one/policy --data s.jsonl --json > m.eval || fail "evaluate: exit $?"
for ranks in 1 ${mpi:+2}; do
    TMPDIR=$PWD/tmp $([ "$ranks" = 1 ] || echo "$mpi -n $ranks") "$phalanx" evaluate --model one/policy --data s.jsonl --memory-mib 0 \
        --json > f.eval 2> f.err || fail "evaluate, $ranks ranks: exit $?: $(tail -2 f.err)"
    cmp -s m.eval f.eval || fail "$ranks ranks: another evaluation than in memory: $(cat f.eval)"
    grep -q 'made into token ids once, in .*/tmp/phalanx-data-' f.err || fail "$ranks ranks: not in temporary files"
done
TMPDIR=$PWD/tmp "$phalanx" tokens --stats --data p.jsonl --memory-mib 0 > f.stats 2>&1; [ $? = 65 ] || fail "a bad row in files: exit code"
[ -z "$(ls tmp | grep phalanx-data)" ] || fail "left behind: $(ls tmp)"

if [ -n "$mpi" ]; then
    step="files with weights, 2 ranks"
    train 2 two || fail "exit $?"
    [ "$(weights one)" = "$(weights two)" ] || fail "other weights than on one rank"
fi

step="files with weights, stopped and continued"
train 1 part --set stop.epochs=null --set stop.steps=7 --set training.lr_schedule=constant || fail "exit $?"
train 1 part --set stop.epochs=null --set stop.steps=15 --set training.lr_schedule=constant || fail "exit $?: $(tail -2 part.err)"
train 1 whole --set stop.epochs=null --set stop.steps=15 --set training.lr_schedule=constant || fail "exit $?"
[ "$(weights part)" = "$(weights whole)" ] || fail "other weights than without the stop"

step="another weight is another run"
train 1 part --set stop.epochs=null --set stop.steps=15 --set training.lr_schedule=constant \
    --set 'data.train=[a.jsonl,b.jsonl.gz]'
[ $? = 78 ] || fail "accepted"

# ---- packing ----
step="packing"
rows 4 400 > pack.jsonl # about 66 steps an epoch
pack() { train "$1" "$2" --set training.batch_size=null --set training.batch_tokens=45 --set training.lr_schedule=constant \
    --set data.train=pack.jsonl --set data.packing="$3" --set stop.epochs=null --set stop.steps="$4"; }
pack 1 packed true 12 || fail "exit $?: $(tail -3 packed.err)"
pack 1 loose false 12 || fail "exit $?: $(tail -3 loose.err)"
[ "$(weights packed)" != "$(weights loose)" ] || fail "data.packing changes nothing"
took() { "$phalanx" inspect "$1" metrics --csv | awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "num_tokens") c = i } END { print $c }'; }
[ "$(took packed)" -gt "$(took loose)" ] && [ "$(took packed)" -gt $((12 * 45 * 97 / 100)) ] || fail "tokens: $(took packed), $(took loose)"
pack 1 packed-part true 5 && pack 1 packed-part true 12 || fail "continued: exit $?: $(tail -3 packed-part.err)"
[ "$(weights packed)" = "$(weights packed-part)" ] || fail "other weights after a stop"
if [ -n "$mpi" ]; then
    pack 2 packed-two true 12 || fail "2 ranks: exit $?: $(tail -3 packed-two.err)"
    [ "$(weights packed)" = "$(weights packed-two)" ] || fail "other weights on two ranks"
fi

# ---- where answers end: by a template's own token that is not the EOS, by EOS where it has none, by a stop string ----
step="the end of an answer"
for i in $(seq 0 19); do
    echo "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi $i\"}, {\"role\": \"assistant\", \"content\": \"Yes, $i.\"}]}" >> talk.jsonl
    echo "{\"prompt\": \"<|im_start|>user\\nHi $i<|im_end|>\\n<|im_start|>assistant\\n\"}" >> written.jsonl # as the template would
done
"$phalanx" tokenizer train --data talk.jsonl --vocab-size 300 --special '<|endoftext|>' --special '<|im_start|>' \
    --special '<|im_end|>' --out tokenizer 2> tokenizer.err || fail "tokenizer: $(cat tokenizer.err)"
sed -i '/"eos_token"/s/<|im_end|>/<|endoftext|>/' tokenizer/tokenizer_config.json
cat > talk.yaml <<'Y'
algorithm: sft
run: {seed: 3, threads_per_rank: 1}
rl_module: {tokenizer: tokenizer, policy: {new: {architecture: llama, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2}}}
data: {train: talk.jsonl}
training: {batch_size: 20, lr: 1.0e-2, lr_schedule: constant}
stop: {steps: 150}
Y
cat > sample.yaml <<'Y'
algorithm: ppo
run: {seed: 3, threads_per_rank: 1}
environment: {prompts: talk.jsonl, max_completion_tokens: 24, rewards: [{kind: length, target: 8}]}
training: {prompts_per_iteration: 8}
stop: {iterations: 1}
Y
sample() { # DIR POLICY [options]: iteration 1 of PPO; prints how many of the 8 samples ended
    local dir=$1 policy=$2; shift 2
    "$phalanx" train sample.yaml --run-dir "$dir" --set "rl_module.policy.path=$policy" "$@" > "$dir.out" 2> "$dir.err" || return
    "$phalanx" inspect "$dir" metrics --csv |
        awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "val/num_eos_tokens") c = i } END { print $c }'
}
for template in chatml hh; do
    "$phalanx" train talk.yaml --run-dir "talk-$template" --set "environment.chat.template=$template" > talk.out 2> talk.err ||
        fail "$template: exit $?: $(tail -3 talk.err)"
    ended=$(sample "ppo-$template" "talk-$template/policy" --set "environment.chat.template=$template")
    [ "$ended" = 8 ] || fail "$template: $ended of 8 samples ended: $(tail -3 "ppo-$template.err")"
    "$phalanx" generate --model "talk-$template/policy" --chat --template "$template" --prompt 'Hi 3' --temperature 0 \
        --max-new-tokens 24 --json > answer || fail "generate --chat: exit $?"
    grep -q '"finish_reason":"stop"}$' answer || fail "$template: generate runs on: $(cat answer)"
    echo 'Hi 3' | "$phalanx" chat --model "talk-$template/policy" --template "$template" --max-new-tokens 24 --json > answer
    grep -q '"finish_reason":"stop"}$' answer || fail "$template: chat runs on: $(cat answer)"
done
loss_of() { "$phalanx" evaluate --model talk-hh/policy --data talk.jsonl "$@" --json 2> loss.err | grep -o '"loss":[^,]*'; }
[ -n "$(loss_of)" ] && [ "$(loss_of)" = "$(loss_of --template hh)" ] && [ "$(loss_of)" != "$(loss_of --template chatml)" ] ||
    fail "a result does not say which template it was trained with: $(loss_of; loss_of --template hh; cat loss.err)"
grep -q '"chat_renderer": "hh"' talk-hh/policy/tokenizer_config.json && ! grep -q chat_renderer talk-chatml/policy/tokenizer_config.json ||
    fail "chat_renderer: $(grep -s chat_renderer talk-*/policy/tokenizer_config.json)"
"$phalanx" train talk.yaml --run-dir none --set environment.chat.template=foo > talk.out 2> talk.err; [ $? = 78 ] || fail "template foo: exit code"
grep -q 'environment.chat.template=foo: environment.chat.template: there is no chat template "foo"; valid are' talk.err || fail "$(cat talk.err)"
cp -r tokenizer odd; echo '{{ own }}' > odd/chat_template.jinja
"$phalanx" train talk.yaml --run-dir none --set rl_module.tokenizer=odd > talk.out 2> talk.err; [ $? = 78 ] || fail "a template of its own: exit code"
grep -q "^phalanx: talk.yaml: environment.chat.template: the chat template of .*odd is not known (hash .*); name its renderer: none" talk.err || fail "$(cat talk.err)"
"$phalanx" tokens --tokenizer odd --chat --data talk.jsonl 2> talk.err; [ $? = 64 ] || fail "a template of its own, tokens: exit code"
grep -q "^phalanx: --template: the chat template of .*odd is not known" talk.err || fail "$(cat talk.err)"
grep -q 'samples stop at 24 tokens, <|endoftext|> (0), <|im_end|> (2)$' ppo-chatml.err || fail "stops: $(grep 'samples stop' ppo-chatml.err)"
grep -q 'samples stop at 24 tokens, <|endoftext|> (0)$' ppo-hh.err || fail "stops: $(grep 'samples stop' ppo-hh.err)"

grep -q '"eos_token_id": \[ *0, *2 *\]' <(tr -s ' \n' ' ' < talk-chatml/policy/generation_config.json) || fail "$(cat talk-chatml/policy/generation_config.json)"
grep -q '"eos_token_id": 0' talk-hh/policy/generation_config.json || fail "$(cat talk-hh/policy/generation_config.json)"
[ "$(sample own talk-chatml/policy --set environment.prompts=written.jsonl)" = 8 ] || fail "the policy does not end its answers"

step="a stop string that is a special token"
cp -r talk-chatml/policy plain # which says nothing of the template's end
for file in plain/config.json plain/generation_config.json; do
    tr -s ' \n' ' ' < $file | sed 's/"eos_token_id": \[[^]]*\]/"eos_token_id": 0/' > config.new && mv config.new $file
done
[ "$(sample text plain --set environment.prompts=written.jsonl)" = 0 ] || fail "texts end as conversations do"
ended=$(sample strings plain --set environment.prompts=written.jsonl --set 'environment.stop_strings=["<|im_end|>","no such"]')
[ "$ended" = 8 ] || fail "$ended of 8 samples ended: $(tail -3 strings.err)"
grep -q 'samples stop at .*, <|im_end|> (2), the text "no such"$' strings.err || fail "stops: $(grep 'samples stop' strings.err)"
sample refused plain --set 'environment.stop_strings=["<|im_end|>x"]'; [ $? = 78 ] || fail "accepted"
grep -q 'has the special token <|im_end|> in it; valid is the token alone' refused.err || fail "$(tail -3 refused.err)"
"$phalanx" generate --model plain --prompt $'<|im_start|>user\nHi 3<|im_end|>\n<|im_start|>assistant\n' --temperature 0 \
    --max-new-tokens 24 --stop '<|im_end|>' --json > answer || fail "generate --stop: exit $?"
grep -q '"finish_reason":"stop"}$' answer || fail "generate --stop runs on: $(cat answer)"
"$phalanx" generate --model plain --prompt x --stop '<|im_end|>x' 2> answer; [ $? = 64 ] || fail "--stop: $(cat answer)"

# ---- rows in files below cache/ ----
step="rows in files"
train 1 files --set data.memory_mib=0 || fail "exit $?: $(tail -3 files.err)"
[ "$(weights one)" = "$(weights files)" ] || fail "other weights than with rows in memory"
[ "$(ls files/cache | wc -l)" = 2 ] || fail "not two data sets in cache/: $(ls files/cache)"
[ -z "$(find files/cache -name '*.building*')" ] || fail "a builder left something"
[ "$(grep -c 'made into token ids once' files.err)" = 2 ] || fail "not made once each"
"$phalanx" inspect files health > inspect.out 2>&1 || fail "inspect: $(cat inspect.out)"

step="rows in files, continued"
train 1 files --set data.memory_mib=0 --set stop.epochs=4 || fail "exit $?: $(tail -3 files.err)"
grep -q 'made into token ids once' files.err && fail "made again"
train 1 files --set data.memory_mib=1000 --set stop.epochs=5 || fail "exit $?: another place of the rows is not accepted"

if [ -n "$mpi" ]; then
    step="rows in files, 4 ranks"
    train 4 four --set data.memory_mib=0 || fail "exit $?: $(tail -3 four.err)"
    [ "$(weights one)" = "$(weights four)" ] || fail "other weights than on one rank"
    [ "$(grep -c 'made into token ids once' four.err)" = 2 ] || fail "not made once each: $(grep once four.err)"
fi

step="memory"
plan() { awk '$2 == "data" || $1 == "data" { for (i = 1; i < NF; i++) if ($(i + 1) == "MiB") print int($i * 1024) }' "$1.err" | head -1; }
for i in 1 2 3 4 5 6 7 8; do cat a.jsonl a.jsonl a.jsonl a.jsonl; done > some.jsonl
for i in $(seq 1 100); do cat some.jsonl; done > many.jsonl # 64,000 rows
for mib in 0 1000; do
    train 1 "many$mib" --set data.train=many.jsonl --set data.memory_mib=$mib --set stop.epochs=null --set stop.steps=2 ||
        fail "exit $?: $(tail -3 "many$mib.err")"
done
[ "$(weights many0)" = "$(weights many1000)" ] || fail "other weights than with rows in memory"
[ "$(plan many0)" -lt 1024 ] && [ "$(plan many1000)" -gt 4096 ] || fail "KiB planned: $(plan many0) and $(plan many1000)"

step="a full disk"
if (ulimit -f 8; trap '' XFSZ; train 1 full --set data.train=many.jsonl --set data.memory_mib=0); then fail "accepted"; fi
grep -aq 'phalanx: .*full/cache/.*: File too large' full.err || fail "no message: $(tail -2 full.err)"
[ -z "$(find full/cache -name '*.building*')" ] || fail "the builder left something"

[ $failed = 0 ] && echo "data: all passed"
exit $failed
