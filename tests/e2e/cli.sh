#!/usr/bin/env bash
# The program from outside: help, exit codes, and each command that needs no training. Needs ../shared/data for models.
set -u
phalanx=$(realpath "$1")
root=$(cd "$(dirname "$0")/../.." && pwd)
shared=$root/../shared/data
. "$(dirname "$0")/../support/scratch.bash"
trap 'rm -rf "$work"' EXIT
failed=0

fail() { echo "FAILED: $*" >&2; failed=1; }
# code WANTED TEXT COMMAND...: the exit code, and a text that its messages have
code() {
    local want=$1 text=$2; shift 2
    "$@" > "$work/out" 2> "$work/err" < /dev/null; local got=$?
    [ "$got" = "$want" ] || fail "exit $got, want $want: $*: $(cat "$work/err")"
    grep -qF -- "$text" "$work/out" "$work/err" || fail "no '$text' in the answer of: $*: $(cat "$work/err")"
    [ "$got" = 0 ] || [ "$(grep '^phalanx: ' "$work/err" | grep -cv NOTE:)" = 1 ] || fail "not one message: $*: $(cat "$work/err")"
}
same() { [ "$1" = "$2" ] || fail "$3: got '$1', want '$2'"; }

# ---- help, usage ----
code 0 "commands:" "$phalanx" --help
for command in train plan submit supervise config generate chat evaluate tokens tokenizer export inspect watch report bench version; do
    code 0 "options:" "$phalanx" "$command" --help
    cp "$work/out" "$work/help"
    grep -q '^examples:' "$work/help" && grep -q '^exit codes: 0 done' "$work/help" || fail "help of $command lacks a part"
    code 0 "options:" "$phalanx" help "$command"
    cmp -s "$work/out" "$work/help" || fail "help $command differs from $command --help"
    "$phalanx" --help | grep -q "^  $command " || fail "$command is not in the overview"
done
code 64 "no command" "$phalanx"
code 64 "did you mean 'generate'" "$phalanx" genrate
for command in train plan submit; do
    code 64 "$command: no configuration file was given" "$phalanx" $command
    code 64 "$command: 3 arguments were given, 'a.yaml' and 'b.yaml' among them" "$phalanx" $command a.yaml b.yaml c.yaml
done
code 64 "which command?" "$phalanx" supervise --restarts 3
[ "$("$phalanx" supervise --json --run-dir "$work/none" -- sh -c 'exit 65' 2> "$work/err")" = '{"starts":1,"exit_code":65,"run_dir":"'"$work/none"'"}' ] ||
    fail "supervise --json"
code 64 "valid is exit, requeue or succeed" "$phalanx" supervise --on-stop retry -- true
code 64 "valid is one of them" "$phalanx" inspect "$work/none" --csv --json
for command in "bench train" "generate --model x --prompt y" "chat --model x" "evaluate --model x --data y"; do
    code 64 "valid are f32, bf16" "$phalanx" $command --precision f16
done
code 64 "did you mean --model" "$phalanx" generate --modle x
code 64 "--model is missing" "$phalanx" generate
code 64 "one of --prompt" "$phalanx" generate --model x
code 64 "valid is a number" "$phalanx" generate --model x --prompt y --temperature hot
code 64 "valid is a whole number" "$phalanx" generate --model x --prompt y --top-k=1.5
code 64 "needs a value" "$phalanx" generate --model
code 64 "takes no value" "$phalanx" generate --json=yes
code 64 "unexpected argument" "$phalanx" generate stray
code 65 "no such directory" "$phalanx" generate --model "$work/none" --prompt y
code 65 "no such directory" "$phalanx" export "$work/none" --out "$work/x"
code 65 "$0: is a file; valid is a run, a stage" "$phalanx" export "$0" --out "$work/x"
for command in inspect watch "report --out $work/x.html"; do
    code 65 "none: no such run; valid is" "$phalanx" $command "$work/none"
done
code 65 "is a file; valid is a Hugging Face model directory" "$phalanx" evaluate --model "$0" --data "$work/none"
code 64 "valid are policy" "$phalanx" export "$work" --out "$work/x" --module actor
code 64 "did you mean metrics" "$phalanx" inspect "$work" metrcs
code 64 "'metrics' is one view and there is another" "$phalanx" inspect "$work" metrics events
code 64 "has more than 32 words" "$phalanx" evaluate --rewards "exec:true $(seq -s ' ' 40)" --data /dev/null
code 78 "PHALANX_ISA is 'avx_512'; valid are generic, avx2, avx512, amx" env PHALANX_ISA=avx_512 "$phalanx" bench gemm
code 0 "batch_invariant" "$phalanx" version
code 0 '"compiler":' "$phalanx" version --json
grep -qiE '"compiler":"[^"]*(gcc|clang) [^"]*[0-9]' "$work/out" || fail "no name of the compiler: $(cat "$work/out")"
code 0 "0.1" "$phalanx" --version
code 0 "onednn " "$phalanx" version

# ---- bench: every part under a roof ----
code 0 '"bound":"memory"' "$phalanx" bench attention train head adamw sample decode --shape nano10m --batch 2 --seq 32 \
    --prompt 4 --new 3 --trials 1 --json
for part in "attention" "attention backward" "train" "head + loss" "adamw" "sample" "decode"; do
    grep -q "\"what\":\"$part\".*\"roof_gflops\":[0-9].*\"share\":[0-9]" "$work/out" || fail "$part stands under no roof"
done
code 64 "valid is 2 or more" "$phalanx" bench decode --new 1 --json
code 64 "over the ranks of mpirun" "$phalanx" bench allreduce
code 64 "'gem' is unknown" "$phalanx" bench gem

# ---- a reader that has seen enough ----
{ sleep 0.3; "$phalanx" config --schema 2> "$work/err"; echo $? > "$work/code"; } | true
same "$(cat "$work/code" "$work/err")" 141 "a closed pipe"

# ---- config ----
code 0 '"$schema"' "$phalanx" config --schema
for file in "$root"/configs/*.yaml; do
    code 0 "" "$phalanx" config "$file"
    cp "$work/out" "$work/resolved.yaml"
    code 0 "" "$phalanx" config "$file" --json
    cp "$work/out" "$work/resolved.json"
    for printed in "$work"/resolved.*; do
        code 0 "" "$phalanx" config "$printed"
        cmp -s "$work/out" "$work/resolved.yaml" || fail "$printed of $file is another configuration: $(diff "$work/out" "$work/resolved.yaml")"
    done
done
printf 'algorithm: ppo\ntrainning: {lr: 1}\n' > "$work/wrong.yaml"
code 78 "$work/wrong.yaml:2" "$phalanx" config "$work/wrong.yaml"
code 74 "none.yaml" "$phalanx" config "$work/none.yaml"

# ---- tokenizer train, tokens ----
for i in 1 2 3 4 5 6 7 8; do echo "the cat sat on the mat and the dog sat on the log $i"; done > "$work/text.txt"
code 64 "--out is missing" "$phalanx" tokenizer train --data "$work/text.txt" --vocab-size 280
learn() { code 64 "$1" "$phalanx" tokenizer train --data "$work/text.txt" --out "$work/none" "${@:2}"; }
learn "--vocab-size is 10; valid is 257 or more" --vocab-size 10
learn "--vocab-size is 257; valid is 258 or more, for 256 bytes and 2 special tokens" --vocab-size 257 --special '<a>' --special '<b>'
learn "--special is empty" --vocab-size 300 --special ''
learn "--special is not UTF-8" --vocab-size 300 --special $'\xff'
learn "--special <a> is given twice" --vocab-size 300 --special '<a>' --special '<b>' --special '<a>'
code 0 "" "$phalanx" tokenizer train --data "$work/text.txt" --vocab-size 280 --out "$work/tok"
[ -s "$work/tok/tokenizer.json" ] || fail "no tokenizer.json"
line='the cat, caf\u00e9 sat'
printf "$line\n" > "$work/line"
"$phalanx" tokens --tokenizer "$work/tok" < "$work/line" > "$work/ids" || fail "tokens"
"$phalanx" tokens --tokenizer "$work/tok" --decode < "$work/ids" > "$work/back" || fail "tokens --decode"
cmp -s "$work/line" "$work/back" || fail "round trip: $(cat "$work/back")"
"$phalanx" tokens --tokenizer "$work/tok" --json < "$work/line" | grep -q '^{"ids":\[.*\],"tokens":\["the"' || fail "tokens --json"
"$phalanx" tokens --tokenizer "$work/tok" --decode --json < "$work/ids" | grep -q '"text":"the cat' || fail "decode --json"
printf '1 2 9999\n' | "$phalanx" tokens --tokenizer "$work/tok" --decode > /dev/null 2>&1; same $? 65 "an id that is none"
code 0 "rows               1" "$phalanx" tokens --tokenizer "$work/tok" --data "$work/text.txt" --stats
code 64 "--chat needs a chat template" "$phalanx" tokens --tokenizer "$work/tok" --data "$work/text.txt" --chat
code 64 '--template: there is no chat template "foo"; valid are auto, none' "$phalanx" tokens --tokenizer "$work/tok" \
    --data "$work/text.txt" --stats --template foo

# ---- under a launcher: what is one process's work is done once, and the others end at once ----
# Of what a launcher leaves in the environment, each way says that this is its second process; a batch script is the first.
for second in "OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=1" "PMI_SIZE=2 PMI_RANK=1" "SLURM_NTASKS=2 SLURM_STEP_ID=0 SLURM_PROCID=1"; do
    for command in "tokens --tokenizer $work/none" "export $work/none --out $work/x" "config --schema" "--help" "genrate" "train --help"; do
        same "$(env $second "$phalanx" $command < /dev/null 2>&1 | grep -v 'NOTE: .* is the work of one process'; echo ${PIPESTATUS[0]})" 0 \
            "the second process: $second: $command"
    done
    same "$(env $second "$phalanx" tokens --tokenizer none 2>&1 | grep -c 'NOTE: tokens is the work of one process')" 1 "$second: a note"
done
same "$(SLURM_NTASKS=2 SLURM_PROCID=0 "$phalanx" tokens --tokenizer "$work/tok" < "$work/line")" "$(cat "$work/ids")" "tokens in a batch script"
if mpirun=$(command -v mpirun); then
    same "$("$mpirun" -n 2 "$phalanx" tokens --tokenizer "$work/tok" < "$work/line")" "$(cat "$work/ids")" "tokens under mpirun"
    code 65 "no such directory" timeout 60 "$mpirun" -n 2 "$phalanx" export "$work/none" --out "$work/x"
    code 64 "--data is missing" timeout 60 "$mpirun" -n 2 "$phalanx" evaluate --model x
    same "$("$mpirun" -n 2 "$phalanx" evaluate --help | grep -c '^options:')" 1 "help under mpirun"
fi

# ---- evaluate --rewards ----
printf 'good\t2\nbad\t-3\n' > "$work/words.txt"
printf '{"prompt":"p","completion":"a good day","answer":"a good day"}\n{"prompt":"p","completion":"bad","answer":"no"}\n' \
    > "$work/completions.jsonl"
code 0 '"records":2' "$phalanx" evaluate --rewards "lexicon:$work/words.txt,exact:answer,regex:a{1,2}" --json \
    --data "$work/completions.jsonl" --per-record "$work/scores"
same "$(head -1 "$work/scores" | cut -c1-35)" '{"rewards":{"lexicon":0.45883146774' "lexicon of the first record" # 2/sqrt(19)
[ -z "$mpirun" ] || same "$("$mpirun" -n 2 "$phalanx" evaluate --rewards exact:answer --data "$work/completions.jsonl" --json | wc -l)" 1 \
    "evaluate --rewards under mpirun"
grep -q '"exact":0.0,"regex":1.0}}$' "$work/scores" || fail "scores of the second record"
cp "$work/completions.jsonl" "$work/kept"; ln -s completions.jsonl "$work/alias"; ln "$work/completions.jsonl" "$work/twin"
for name in completions.jsonl ./completions.jsonl alias twin; do
    code 64 "is the data itself" "$phalanx" evaluate --rewards exact:answer --data "$work/completions.jsonl" --per-record "$work/$name"
done
cmp -s "$work/completions.jsonl" "$work/kept" || fail "the data are written over"
code 65 "no field 'answer2'" "$phalanx" evaluate --rewards exact:answer2 --data "$work/completions.jsonl"
code 64 "valid are lexicon" "$phalanx" evaluate --rewards magic:1 --data "$work/completions.jsonl"
code 78 "no such program" "$phalanx" evaluate --rewards exec:no-such-program --data "$work/completions.jsonl"

if [ ! -d "$shared/models/stories260K" ]; then
    echo "$shared/models is absent: generate, evaluate and chat are skipped" >&2
    [ "$failed" = 0 ] && exit 77
    exit 1
fi
model=$shared/models/stories260K

# ---- generate ---- (the greedy ids are those of transformers)
greedy=(--model "$model" --prompt 'Once upon a time' --temperature 0)
same "$("$phalanx" generate "${greedy[@]}" --max-new-tokens 20)" ', there was a little girl named Lily. She loved to play outsid' greedy
"$phalanx" generate "${greedy[@]}" --max-new-tokens 6 --json > "$work/line"
grep -q '^{"prompt_id":0,"sample":0,"ids":\[432,383,286,261,376,298\],"text":", there was a little g","logprobs":\[-0.0317' "$work/line" &&
    grep -q '"finish_reason":"length"}$' "$work/line" || fail "generate --json: $(cat "$work/line")"
"$phalanx" generate "${greedy[@]}" --max-new-tokens 60 --stop ' She' --json > "$work/line"
grep -q '"text":", there was a little girl named Lily."' "$work/line" && grep -q '"finish_reason":"stop"}$' "$work/line" ||
    fail "--stop: $(cat "$work/line")"
"$phalanx" generate --model "$model" --prompt '<s>Once upon a time' --temperature 0 --max-new-tokens 6 --json > "$work/own"
"$phalanx" generate "${greedy[@]}" --max-new-tokens 6 --json | cmp -s - "$work/own" || fail "a prompt with a BOS of its own has two"
first=(--model "$model" --prompt 'Once upon a' --temperature 0 --max-new-tokens 4) # its completion begins with a space
same "$("$phalanx" generate "${first[@]}")" ' time, there was' "the first space"
"$phalanx" generate "${first[@]}" --json | grep -qF '"text":" time, there was","logprobs"' || fail "the first space of --json"
same "$("$phalanx" generate "${first[@]}" --max-new-tokens 20 --stop ' time')" "" "a stop string that begins with the first space"
code 64 "--chat needs a chat template" "$phalanx" generate --model "$model" --prompt x --chat
code 64 '--template: there is no chat template "foo"; valid are auto, none' "$phalanx" evaluate --model "$model" --data "$work/none" \
    --template foo
code 65 "none: no such file; a tokenizer is" "$phalanx" generate --model "$model" --prompt x --tokenizer "$work/none"
code 64 "at most 507 fit" "$phalanx" generate "${greedy[@]}" --max-new-tokens 508
printf '{"prompt_ids":[1,403,407]}\n{"prompt_ids":[1]}\n{"prompt_ids":[1,403,407]}\n' > "$work/prompts.jsonl"
"$phalanx" generate --model "$model" --data "$work/prompts.jsonl" --samples 3 --seed 5 --max-new-tokens 12 --json > "$work/nine" ||
    fail "generate --data"
same "$(wc -l < "$work/nine")" 9 "samples"
same "$(cut -d, -f1,2 "$work/nine" | sed -n 5p)" '{"prompt_id":1,"sample":1' "order of samples"
OMP_NUM_THREADS=1 "$phalanx" generate --model "$model" --data "$work/prompts.jsonl" --samples 3 --seed 5 --max-new-tokens 12 \
    --json | cmp -s - "$work/nine" || fail "other threads, other samples"
same "$(sort -u "$work/nine" | wc -l)" 9 "samples differ"
printf '{"prompt_ids":[1,512]}\n' > "$work/bad.jsonl"
code 65 "bad.jsonl:1" "$phalanx" generate --model "$model" --data "$work/bad.jsonl"
{ echo; echo '{"prompt":"Once"}'; echo '{"prompt":""}'; echo '{"prompt":"One day"}'; } > "$work/some.jsonl"
code 0 "NOTE: $work/some.jsonl: 1 of 3 prompts have no token and are left out" "$phalanx" generate --model "$model" \
    --data "$work/some.jsonl" --max-new-tokens 2 --json
same "$(cut -d, -f1 "$work/out" | tr '\n' ' ')" '{"prompt_id":0 {"prompt_id":2 ' "prompts that are left"
long=$(/usr/bin/python3 -c 'print("and the sun " * 200)')
echo "{\"prompt\":\"$long\"}" >> "$work/some.jsonl"
code 65 "phalanx: $work/some.jsonl:5: the prompt has 802 tokens; valid are at most 511, for the model's context is 512" \
    "$phalanx" generate --model "$model" --data "$work/some.jsonl"
code 65 "phalanx: the prompt has 802 tokens; valid are at most 511" "$phalanx" generate --model "$model" --prompt "$long"
if [ -d "$shared/models/verl-arith-random" ]; then
    printf '{"prompt_ids":[1,2]}\n' > "$work/two.jsonl"
    code 0 '"text":null' "$phalanx" generate --model "$shared/models/verl-arith-random" --data "$work/two.jsonl" \
        --max-new-tokens 3 --json
    code 65 "no tokenizer.json" "$phalanx" generate --model "$shared/models/verl-arith-random" --prompt hi
fi

# ---- evaluate ---- (numbers from transformers in float32: mean 0.06236952, sum of 6)
printf '{"ids":[1,403,407,261,378,432,383]}\n' > "$work/rows.jsonl"
"$phalanx" evaluate --model "$model" --data "$work/rows.jsonl" --json --per-record "$work/nll" > "$work/line" || fail "evaluate"
grep -q '^{"loss":0.062369[0-9]*,"perplexity":1.0643[0-9]*,"tokens":6,"rows":1,' "$work/line" || fail "evaluate: $(cat "$work/line")"
grep -q '"nll":0.37421[0-9]*,"tokens":6,"logprobs":\[-0.24374' "$work/nll" || fail "per record: $(cat "$work/nll")"
printf '{"prompt_ids":[1,403,407,261],"completion_ids":[378,432,383]}\n' > "$work/rows.jsonl"
code 0 '"tokens":3' "$phalanx" evaluate --model "$model" --data "$work/rows.jsonl" --json
printf '{"ids":[1,2]}\nnot json\n' > "$work/rows.jsonl"
code 65 "rows.jsonl:2" "$phalanx" evaluate --model "$model" --data "$work/rows.jsonl"

# ---- train: completions from before and after; a branch has none from before, and damaged ones are no reason to fail ----
cat > "$work/ppo.yaml" << YAML
run: {seed: 1, threads_per_rank: 1}
algorithm: ppo
rl_module: {policy: {path: "$model"}, critic: {same_as: policy}}
environment: {prompts: stories.jsonl, max_completion_tokens: 6, rewards: [{kind: length, target: 4}]}
training: {prompts_per_iteration: 2, minibatch_size: 2, num_epochs: 1, lr: 1.0e-4}
evaluation: {evaluation_interval: 1, prompts: stories.jsonl, num_prompts: 2}
checkpointing: {interval: 1}
stop: {iterations: 2}
YAML
printf '{"prompt":"Once"}\n{"prompt":"One day"}\n' > "$work/stories.jsonl"
code 0 "ppo 2/2" "$phalanx" train "$work/ppo.yaml" --run-dir "$work/run"
grep -q '"stage": "ppo"' "$work/run/status.json" || fail "status.json names no stage: $(cat "$work/run/status.json")"
grep -q '"before"' "$work/run/examples.json" && grep -q '"after"' "$work/run/examples.json" || fail "no examples: $(cat "$work/run/examples.json")"
code 0 "ppo 2/2" "$phalanx" train "$work/ppo.yaml" --run-dir "$work/branch" --from "$work/run/checkpoint_000001"
"$phalanx" train "$work/ppo.yaml" --run-dir "$work/run" --json > /dev/full 2> "$work/err"
[ $? = 74 ] && grep -q 'standard output: No space' "$work/err" || fail "the end table is lost: $(cat "$work/err")"
code 0 "2 iterations" "$phalanx" train "$work/ppo.yaml" --run-dir "$work/branch2" --from "$work/run/checkpoint_000002" --set stop.iterations=2
"$phalanx" train "$work/ppo.yaml" --run-dir "$work/branch2" --set stop.iterations=2 2>&1 | grep -q ' nan s' && fail "a branch with nothing to do took nan s"
mkdir "$work/nest"; cp -r "$work/run/policy" "$work/nest/policy-base"; cp -r "$work/run/policy" "$work/nest/policy"
code 78 "nest/policy is where this run writes its own" "$phalanx" train "$work/ppo.yaml" --run-dir "$work/nest" --set "rl_module.policy={path: $work/nest/policy}"
grep -q '"state": "failed"' "$work/nest/status.json" && grep -q '"exit_code": 78' "$work/nest/status.json" || fail "status of a refused run: $(cat "$work/nest/status.json")"
cmp -s "$work/nest/policy/model.safetensors" "$work/nest/policy-base/model.safetensors" || fail "the model in the run's directory has changed"
code 0 "ppo 2/2" "$phalanx" train "$work/ppo.yaml" --run-dir "$work/nest" --set "rl_module.policy={path: $work/nest/policy-base}"
for command in plan train; do
    code 78 "rl_module.reward: the model has no score head" "$phalanx" $command "$work/ppo.yaml" --set run.dir="$work/headless" \
        --set "rl_module.reward={path: $model}" --set "environment.rewards=[{kind: model}]"
done
mkdir "$work/foreign"; echo mine > "$work/foreign/run.h5"
code 0 "foreign/run.h5.damaged" "$phalanx" train "$work/ppo.yaml" --run-dir "$work/foreign"
[ "$(cat "$work/foreign/run.h5.damaged")" = mine ] || fail "a file of somebody else is gone"
ln -s foreign "$work/link"
code 0 "foreign.1" "$phalanx" train "$work/ppo.yaml" --run-dir "$work/link" --fresh
[ -L "$work/link" ] && [ -s "$work/foreign/run.h5" ] && [ -s "$work/foreign.1/run.h5.damaged" ] || fail "--fresh through a link: $(ls -l "$work")"
echo '[{' > "$work/run/examples.json"
code 0 "no examples of completions before and after: " "$phalanx" train "$work/ppo.yaml" --run-dir "$work/run" --set stop.iterations=3
# Linear over 2 steps: half in the last of them. Over 3: a third left for the third.
grep -q '^phalanx: NOTE: training.lr_schedule linear now ends after iteration 3: the learning rate was 5e-05 in the last step and is 3.33e-05 in the next$' \
    "$work/err" || fail "another end, another schedule: $(grep NOTE "$work/err")"
code 0 "ppo 2/2" "$phalanx" train "$work/ppo.yaml" --run-dir "$work/constant" --set training.lr_schedule=constant
code 0 "ppo 3/3" "$phalanx" train "$work/ppo.yaml" --run-dir "$work/constant" --set training.lr_schedule=constant --set stop.iterations=3
! grep -q 'lr_schedule .* now' "$work/err" || fail "a constant rate has no end"

# ---- export of a model's directory, chat ----
code 0 "" "$phalanx" export "$model" --out "$work/half" --dtype bf16
code 0 "" "$phalanx" export "$model" --out "$work/whole"
"$phalanx" generate --model "$work/whole" --prompt 'Once upon a time' --temperature 0 --max-new-tokens 6 | grep -q ', there was a little' ||
    fail "an exported model generates"
[ "$(stat -c %s "$work/half/model.safetensors")" -lt "$(($(stat -c %s "$work/whole/model.safetensors") * 6 / 10))" ] ||
    fail "bf16 is not half of f32"
code 64 "is the model itself" "$phalanx" export "$work/whole" --out "$work/whole"
short=$work/short # a context below what bench takes by itself
cp -r "$work/whole" "$short"
sed -i 's/"max_position_embeddings": 512/"max_position_embeddings": 40/' "$short/config.json"
code 0 '"what":"sample"' "$phalanx" bench sample decode adamw --model "$short" --batch 1 --trials 1 --json
code 0 '"what":"train","shape":"'"$short"'"' "$phalanx" bench train --model "$short" --batch 1 --trials 1 --json
code 0 '"what":"sample"' "$phalanx" bench sample adamw --model "$short" --seq 41 --new 30 --batch 1 --trials 1 --json
code 64 "--seq is 41; valid is at most 40, the model's context" "$phalanx" bench train --model "$short" --seq 41
code 64 "--prompt 20 and --new 30 do not fit the context of 40 tokens" "$phalanx" bench sample --model "$short" --prompt 20 --new 30
printf 'Hello\n/reset\nAgain\n/quit\nnever\n' | "$phalanx" chat --model "$model" --template chatml --max-new-tokens 5 > "$work/out" 2> "$work/err" ||
    fail "chat: $(cat "$work/err")"
grep -q 'is forgotten' "$work/err" || fail "chat /reset"
printf 'Hello\nAgain\n' | "$phalanx" chat --model "$model" --template chatml --max-new-tokens 5 --json > "$work/json" || fail "chat --json"
/usr/bin/python3 - "$work/json" "$work/out" << 'EOF' || fail "chat --json says something else"
import json, sys
answers = [json.loads(line) for line in open(sys.argv[1])]
assert [(a["role"], a["finish_reason"], a["tokens"]) for a in answers] == [("assistant", "length", 5)] * 2, answers
assert answers[0]["content"] == open(sys.argv[2]).read().split("\n")[0], answers
EOF
mkfifo "$work/lines" # nobody writes a line: a signal ends the wait for one
timeout -k 1 30 "$phalanx" chat --model "$model" --template chatml < "$work/lines" 2> "$work/err" & pid=$!
exec 9> "$work/lines"
sleep 1
kill -TERM $pid; wait $pid; got=$?
exec 9>&-
[ $got = 0 ] || fail "chat does not end at its prompt: $got, $(cat "$work/err")"
code 65 "no chat template" "$phalanx" chat --model "$model"

# ---- values that are empty, or look like something else ----
code 64 "--stop is empty" "$phalanx" chat --model "$model" --stop ''
code 64 "--rewards is empty" "$phalanx" evaluate --rewards '' --data "$work/none.jsonl"
code 0 "" "$phalanx" generate --model "$model" --prompt -h --max-new-tokens 2
grep -q 'options:' "$work/out" && fail "a prompt that is -h is taken for help"
"$phalanx" tokens --tokenizer "$model" < "$work" > "$work/out" 2> "$work/err"; got=$?
[ $got = 74 ] || fail "standard input that cannot be read: exit $got"
printf '{"text": "a b", "data": [{"text": "no"}]}\n{"text": "c"}\n' > "$work/nested.jsonl"
same "$("$phalanx" tokens --tokenizer "$model" --data "$work/nested.jsonl" | wc -l)" 2 "records with a list of objects called data"
for name in words.jsonl words.ndjson words.json; do # with a byte order mark
    printf '\xef\xbb\xbf{"text": "hello world hello world"}\n{"text": "hello world"}\n' > "$work/$name"
    "$phalanx" tokenizer train --data "$work/$name" --vocab-size 262 --out "$work/$name.out" > "$work/out" 2> "$work/err" ||
        fail "tokenizer train $name: $(cat "$work/err")"
    grep -q '"text' "$work/$name.out/tokenizer.json" && fail "$name: the tokenizer has learnt JSON"
    grep -q 'he' "$work/$name.out/tokenizer.json" || fail "$name: the tokenizer has not learnt its text"
done

[ "$failed" = 0 ] && echo "all passed"
exit "$failed"
