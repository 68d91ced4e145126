#!/usr/bin/env bash
# Rules and programs that score completions: what they are shown, what becomes of a run when they fail, and what is refused
# before one starts. $1: the program.
set -u
phalanx=$(realpath "$1")
. "$(dirname "$0")/../support/scratch.bash"
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export OMP_NUM_THREADS=1
failed=0 step=start
fail() { echo "FAILED: $step: $*" >&2; failed=1; }

# ---- a tokenizer as Llama 2's: a space before every text, taken away again where a text begins ----
mkdir tokenizer
cat > tokenizer/tokenizer.json <<'J'
{"version": "1.0", "added_tokens": [
    {"id": 0, "content": "<s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
    {"id": 1, "content": "</s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}],
 "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
 "pre_tokenizer": null,
 "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
    {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
 "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
 "model": {"type": "BPE", "vocab": {"<s>": 0, "</s>": 1, "▁": 2, "a": 3, "b": 4, "▁a": 5, "▁b": 6}, "merges": ["▁ a", "▁ b"]}}
J
echo '{"bos_token": "<s>", "eos_token": "</s>"}' > tokenizer/tokenizer_config.json
for text in a b "a b" "b a" "a a" ab ba "b b"; do echo "{\"prompt\": \"$text\", \"answer\": \"a\"}"; done > prompts.jsonl
cat > score <<'P'
#!/usr/bin/env bash
echo "$$" >> starts
while IFS= read -r line; do
    echo "$line" >> requests
    id=${line#*\"id\":}; id=${id%%,*}
    echo "{\"id\": $id, \"score\": 0.5}"
done
P
chmod +x score
cat > ppo.yaml <<'Y'
run: {name: rewards, dir: run, seed: 5, threads_per_rank: 1}
algorithm: ppo
rl_module:
  tokenizer: tokenizer
  policy: {new: {architecture: llama, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 32}}
  critic: {same_as: policy}
environment: {prompts: prompts.jsonl, max_prompt_tokens: 8, max_completion_tokens: 6, missing_eos: {mode: none},
              rewards: [{name: judge, kind: exec, command: [./score], timeout_s: 2}]}
training: {prompts_per_iteration: 8, minibatch_size: 8, num_epochs: 1}
checkpointing: {recovery_interval: 0, interval: 0}
stop: {iterations: 2}
Y
echo '{"prompt": "a", "completion": " b"}' > completions.jsonl
train() { # CODE [options]: exit code, in `run`; an answer within 30 seconds
    local want=$1; shift
    rm -rf run starts requests
    timeout -k 5 30 "$phalanx" train ppo.yaml "$@" > out 2> err < /dev/null; local got=$?
    [ "$got" = "$want" ] || fail "exit $got, want $want: $(tail -n 3 err)"
}
says() { grep -qF -- "$1" err || fail "no '$1': $(tail -n 3 err)"; }
events() { "$phalanx" inspect run events --csv; }

step="what a program is shown"
train 0
"$phalanx" inspect run samples --csv > samples.csv || fail "inspect: exit $?"
[ "$(wc -l < requests)" = 16 ] || fail "$(wc -l < requests) requests"
spaces=$(grep -cE '"completion":" [ab]' requests)
[ "$spaces" -ge 2 ] || fail "$spaces completions begin with a space: $(cut -c1-80 requests)"
# Each request against the samples, whose text has the special tokens too.
awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
    { p = $at["prompt"]; c = $at["completion"]; gsub(/<\/?s>/, "", p); gsub(/<\/?s>/, "", c); sub(/^ /, "", p); print p "|" c }' \
    samples.csv | sort > shown.samples
sed -E 's/.*"prompt":"([^"]*)","completion":"([^"]*)".*/\1|\2/' requests | sort > shown.requests
cmp -s shown.samples shown.requests || fail "samples and requests differ: $(diff shown.samples shown.requests | head -n 6)"

program() { { echo '#!/usr/bin/env bash'; echo 'echo $$ >> starts'; printf '%s\n' "$@"; } > score; }
answer='while IFS= read -r line; do id=${line#*\"id\":}; echo "{\"id\": ${id%%,*}, \"score\": 0.5}"; done'
failures() { "$phalanx" inspect run samples --csv | awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "reward_judge") c = i; next }
    $c != 0.5 { n++ } END { print n + 0 }'; }

step="a warning before the answers"
program 'echo "UserWarning: pipelines, one after another"' "$answer"
train 0
[ "$(failures)" = 0 ] || fail "$(failures) samples have no score"
[ "$(events | grep -c 'reward_failed.*UserWarning: pipelines, one after another')" = 1 ] || fail "not one event: $(events)"

step="signals that reach every process of a step"
program 'for name in TERM INT USR1; do kill -s $name $$; done' "$answer"
train 0
[ "$(failures)" = 0 ] && [ "$(wc -l < starts)" = 1 ] || fail "$(failures) samples have no score, $(wc -l < starts) starts: $(events)"

step="a program that hangs once"
batch='for i in 1 2 3 4 5 6 7 8; do IFS= read -r line; id=${line#*\"id\":}; echo "{\"id\": ${id%%,*}, \"score\": 0.5}"; done'
program "if mkdir hung 2> /dev/null; then $batch"'; echo "waiting for a lock" >&2; read -r line; sleep 60; fi' "$answer"
train 0
[ "$(failures)" = 8 ] || fail "$(failures) samples have no score"
[ "$(wc -l < starts)" = 2 ] || fail "$(wc -l < starts) starts"
events | grep -q "reward_failed.*no reply within 2 s (each must be flushed): the program './score' was killed and was started again.*waiting for a lock" ||
    fail "no event: $(events)"
says "waiting for a lock"
! pgrep -f "$work/score" > /dev/null || fail "it lives on: $(pgrep -af "$work/score")"

step="a program that a stop's signal ends a moment before it reaches us"
program "if mkdir ended 2> /dev/null; then $batch"'; read -r line; (sleep 0.1; kill -TERM $PPID) < /dev/null > /dev/null 2>&1 & exit 0; fi' "$answer"
train 75
! events | grep -q reward_failed || fail "an event: $(events)"
timeout -k 5 30 "$phalanx" train ppo.yaml > out 2> err < /dev/null || fail "exit $?: $(tail -n 3 err)"
[ "$(failures)" = 0 ] || fail "$(failures) samples have no score"

step="a program that dies once, in the middle of a batch"
program 'if mkdir died 2> /dev/null; then read -r line; printf "{\"id\":0,\"score\":0.5}\n"; exit 3; fi' "$answer"
train 0
[ "$(failures)" = 7 ] || fail "$(failures) samples have no score"
events | grep -q "ended with exit status 3 after 1 of 8 replies and was started again" || fail "no event: $(events)"

step="a program that is silent from the second batch on"
program "if mkdir fine 2> /dev/null; then $batch; fi" 'sleep 60'
train 80 --set environment.rewards.judge.timeout_s=0.3 --set fault_tolerance.max_skipped_steps=2 --set stop.iterations=9
says "no sample had a usable score 2 times in a row"

step="a program that never replies"
program 'sleep 60'
train 65 --set environment.rewards.judge.timeout_s=0.3
says "the program './score' answered none of 8 requests within 0.3 s; valid is a line"
program 'while read -r line; do echo "score: 1"; done'
SECONDS=0
train 65 --set environment.rewards.judge.timeout_s=60
says 'answered none of 8 requests, it printed something that is no JSON object: "score: 1"'
[ $SECONDS -lt 20 ] || fail "after $SECONDS s"

step="a program that never starts well"
program 'echo "ModuleNotFoundError: torch" >&2; exit 1'
train 65
says 'ended with exit status 1 after 0 of 8 replies; the last line it printed: ""; the end of its standard error: "ModuleNotFoundError: torch'
"$phalanx" evaluate --rewards "exec:./score" --data completions.jsonl > out 2> err; [ $? = 65 ] || fail "evaluate: $(cat out err)"

step="evaluate: a program without any usable score"
program 'while IFS= read -r line; do id=${line#*\"id\":}; echo "{\"id\": ${id%%,*}, \"score\": null}"; done'
"$phalanx" evaluate --rewards "exec:./score" --data completions.jsonl > out 2> err; [ $? = 65 ] || fail "evaluate: $(cat out err)"
says "reward 'exec' gave none of 1 records a score: reward 'exec': sample 0: the score is no finite number"

# ---- what is refused before anything is sampled ----
refused() { # CODE TEXT [options]
    local want=$1 text=$2; shift 2
    train "$want" "$@"
    says "$text"
    [ "$(grep '^phalanx: ' err | grep -cv '^phalanx: NOTE')" = 1 ] || fail "not one message: $(cat err)"
    [ ! -e starts ] || [ ! -e requests ] || fail "it was asked for scores"
    [ ! -e run/run.h5 ] || fail "the run began"
}
exact='environment.rewards=[{kind: exact, field: answer}]'
program "$answer"

step="a prompt without the field"
{ head -n 5 prompts.jsonl; echo; echo '{"prompt": "a", "answers": "b"}'; } > some.jsonl
refused 65 "$work/some.jsonl:7: reward 'exact': the record has no field 'answer'" --set "$exact" --set environment.prompts=some.jsonl
{ cat prompts.jsonl; echo '{"prompt": "a", "answer": null}'; } > null.jsonl
refused 65 "$work/null.jsonl:9: reward 'exact': field 'answer' of the record is no answer" --set "$exact" \
    --set evaluation.evaluation_interval=1 --set evaluation.prompts=null.jsonl
train 0 --set "$exact" --set evaluation.evaluation_interval=1 --set evaluation.prompts=null.jsonl \
    --set 'evaluation.rewards=[{kind: length, target: 4}]'
refused 65 "$work/null.jsonl:9: reward 'judge'" --set evaluation.evaluation_interval=1 --set evaluation.prompts=null.jsonl \
    --set 'evaluation.rewards=[{name: judge, kind: exact, field: answer}]'
"$phalanx" evaluate --rewards exact:answer --data completions.jsonl > out 2> err; [ $? = 65 ] || fail "evaluate: $(cat out err)"
says "completions.jsonl:1: reward 'exact': the record has no field 'answer'"

step="a reward that reads text where there is none"
for i in 2 3 4 5 6 7 8 9; do echo "{\"prompt_ids\": [1, $i], \"answer\": 1}"; done > ids.jsonl
printf 'a\t1\n' > words.txt
none=(--set rl_module.tokenizer=null --set rl_module.policy.new.vocab_size=16 --set environment.prompts=ids.jsonl)
for reward in "kind: lexicon, file: words.txt" "kind: regex, pattern: a" "kind: exact, field: answer"; do
    refused 78 "reads text, and there is no tokenizer" "${none[@]}" --set "environment.rewards=[{kind: length, target: 3}, {$reward}]"
    says "valid is one in rl_module.tokenizer"
    says "environment.rewards.1"
done
refused 78 "evaluation.rewards.0" "${none[@]}" --set 'environment.rewards=[{kind: length, target: 3}]' \
    --set evaluation.evaluation_interval=1 --set evaluation.prompts=ids.jsonl --set 'evaluation.rewards=[{kind: regex, pattern: a}]'
train 0 "${none[@]}" --set 'environment.rewards=[{kind: length, target: 3}]'

[ $failed = 0 ] && echo "rewards: all passed"
exit $failed
