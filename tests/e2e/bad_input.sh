#!/usr/bin/env bash
# Bad input from outside: each case ends within five seconds with one message, the exit code of interface.md, no process
# left behind and nothing half-written. The models are made here, from rows of token ids.
# Usage: bad_input.sh PROGRAM [RANKS]: the cases on one rank, some of them on two and four, or every case on so many ranks.
set -u
phalanx=$(realpath "$1")
support=$(realpath "$(dirname "$0")/../support/bad_input")
. "$(dirname "$0")/../support/scratch.bash"
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
. "$support/cases.sh"
rotate "${2:-}"

# ---- YAML ----
# yaml CODE TEXT SED...: sft.yaml through sed
yaml() { sed "${@:3}" sft.yaml > bad.yaml; train "$1" "$2" bad.yaml; }
yaml 78 "bad.yaml:6:27: unknown key 'training.lrr'; did you mean 'training.lr'?" 's/lr: 1/lrr: 1/'
yaml 78 "bad.yaml:6:24: training.batch_size: 'four' is not a number" 's/batch_size: 4/batch_size: four/'
yaml 78 "bad.yaml:6:31: training.lr: '-1' is out of range; valid is a number from 0 to 10" 's/lr: 1.0e-3/lr: -1/'
yaml 78 "bad.yaml:6:31" 's/lr: 1.0e-3/lr: .nan/'
yaml 78 "bad.yaml:6:27: duplicate key" 's/lr: 1.0e-3/batch_size: 4/'
yaml 78 "bad.yaml:8" '$a\   indented: 1'
yaml 78 "begun at line 3" 's/^rl_module:/rl_module: [/'
yaml 78 "bad.yaml:7:30: alias *a lies inside its own anchor" 's/^stop:.*/stop: \&a {steps: 2, metrics: *a}/'
yaml 78 "bad.yaml:6:41: training.batch_tokens: contradicts training.batch_size" 's/batch_size: 4/batch_size: 4, batch_tokens: 64/'
yaml 78 "new.hidden_size" 's/hidden_size: 8/hidden_size: 7/'
yaml 78 "no-such" 's/policy: {new.*/policy: {stage: no-such}/'
yaml 78 "algorithm" 's/^algorithm: sft/algorithm: magic/'
{ printf 'a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n'
  for i in 1 2 3 4 5 6 7 8 9; do p=$((i - 1)); printf 'a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n' $i $i $p $p $p $p $p $p $p $p $p; done
} > bad.yaml
train 78 "bad.yaml:6:15: aliases unfold to more than" bad.yaml
head -c 100000 /dev/zero | tr '\0' '[' > bad.yaml; train 78 "bad.yaml:1:33: nested more than" bad.yaml
: > bad.yaml; train 78 "bad.yaml:1:1: the file is empty" bad.yaml
printf 'run: {name: "\xff\xfe"}\n' > bad.yaml; train 78 "bad.yaml:1:14: not UTF-8 (byte 0xFF)" bad.yaml
printf '\x7fELF\x02\x01\x01\x00\x00' > bad.yaml; train 78 "bad.yaml:1:1: not valid YAML" bad.yaml
{ echo 'include: bad.yaml'; cat sft.yaml; } > bad.yaml; train 78 "bad.yaml:1:10: bad.yaml includes itself" bad.yaml
echo 'include: bad.yaml' > other.yaml; { echo 'include: other.yaml'; cat sft.yaml; } > bad.yaml
train 78 "other.yaml:1:10: bad.yaml includes itself" bad.yaml
{ echo 'include: none.yaml'; cat sft.yaml; } > bad.yaml; train 78 "bad.yaml:1:10" bad.yaml
printf '\xef\xbb\xbf' | cat - sft.yaml > bad.yaml; train 0 "" bad.yaml
printf '# \x01\n' | cat sft.yaml - > bad.yaml; train 78 "bad.yaml:8:3: not valid YAML: control characters" bad.yaml
train 74 "none.yaml" none.yaml
train 74 "$work" "$work"
train 78 "training.lr" sft.yaml --set training.lr=fast
train 78 "not KEY=VALUE" sft.yaml --set training.lr
train 78 "--set run.name=x: not UTF-8 (byte 0xFF)" sft.yaml --set $'run.name=x\xff'
train 64 "no stage" sft.yaml --stage ppo
train 64 "one configuration file"
train 65 "none" sft.yaml --from none

# ---- a model's directory ----
# model TEXT: the directory bad, as a policy
model() { train 65 "$1" sft.yaml --set rl_module.policy.new=null --set rl_module.policy.path=bad; }
fresh() { rm -rf bad; cp -r base bad; }
# The weights with a header of one's own, and as many bytes of zeros.
weights() {
    local header=$1 bytes=$2 n=${#1}
    fresh
    { printf "\\x$(printf %02x $((n & 255)))\\x$(printf %02x $((n >> 8 & 255)))\0\0\0\0\0\0%s" "$header"
      head -c "$bytes" /dev/zero; } > bad/model.safetensors
}
header=$(tail -c +9 base/model.safetensors | head -c "$(od -An -tu4 -N4 base/model.safetensors | tr -d ' ')")
data=$(($(stat -c %s base/model.safetensors) - 8 - ${#header}))
weights "$header" "$data"
"$phalanx" evaluate --model bad --data rows.jsonl > out 2> err || fail "the rewritten weights: $(cat err)"
fresh; rm bad/config.json; model config.json
fresh; rm bad/model.safetensors; model model.safetensors
fresh; rm bad/model.safetensors; : > bad/pytorch_model.bin; model safetensors
fresh; truncate -s -5 bad/model.safetensors; model bad/model.safetensors
fresh; truncate -s 4 bad/model.safetensors; model bad/model.safetensors
fresh; : > bad/model.safetensors; model bad/model.safetensors
fresh; printf '\xff\xff\xff\xff\xff\xff\xff\x7f' | dd of=bad/model.safetensors conv=notrunc status=none; model header
fresh; printf '\xff\xff\xff\xff\xff\xff\xff\xff' | dd of=bad/model.safetensors conv=notrunc status=none; model header
weights "${header/\[0,512\]/[0,99999]}" "$data"; model model.embed_tokens.weight
weights "${header/\[512,544\]/[500,532]}" "$data"; model bad/model.safetensors
weights "${header/\[512,544\]/[-32,0]}" "$data"; model model.layers.0.input_layernorm.weight
weights "${header/\[512,544\]/[544,512]}" "$data"; model model.layers.0.input_layernorm.weight
weights "${header/\[16,8\]/[8,16]}" "$data"; model model.embed_tokens.weight
weights "${header/\[16,8\]/[4294967296,4294967296]}" "$data"; model model.embed_tokens.weight
weights "${header/\"F32\"/\"I32\"}" "$data"; model model.embed_tokens.weight
weights "${header/\"F32\"/\"F99\"}" "$data"; model model.embed_tokens.weight
weights "${header/layers.0.input_layernorm/layers.0.other_layernorm}" "$data"; model layernorm
head -c 100000 /dev/zero | tr '\0' '[' > deep; weights "$(head -c 60000 deep)" 10; model "maximum parsing depth"
weights "${header/\}\}/\},\"model.extra.weight\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[$data,$((data + 4))]\}\}}" $((data + 4))
model 'unexpected tensor "model.extra.weight"'
weights "{${header:0:0}" 10; model bad/model.safetensors
fresh; size=$((8 + ${#header}))
printf '\0\0\xc0\x7f' | dd of=bad/model.safetensors conv=notrunc status=none bs=1 seek=$size; model model.embed_tokens.weight
for change in 's/"llama"/"mamba"/' 's/"vocab_size": 16/"vocab_size": -1/' 's/"vocab_size": 16/"vocab_size": 1e99/' \
    's/"num_attention_heads": 2/"num_attention_heads": 3/' 's/"num_hidden_layers": 1/"num_hidden_layers": 2/' \
    's/"hidden_size": 8/"hidden_size": "8"/' 's/"hidden_act": "silu"/"hidden_act": "tanh"/' '1s/{/{{/' '$d'; do
    fresh; sed -i "$change" bad/config.json; model bad
done
fresh; head -c 100000 /dev/zero | tr '\0' '[' > bad/config.json; model bad/config.json
vocabulary() { local i; printf '{"a":0'; for i in $(seq 1 "$1"); do printf ',"t%d":%d' "$i" "$i"; done; printf '}'; }
tokenizer() { printf '{"model":{"type":"BPE","vocab":%s,"merges":[]},"added_tokens":[]}' "$1" > bad/tokenizer.json; }
fresh; tokenizer "$(vocabulary 40)"; model "vocabulary 16"
fresh; echo '{"model":' > bad/tokenizer.json; model bad/tokenizer.json
fresh; yes '{"a":' | head -30000 | tr -d '\n' > bad/tokenizer.json; model "maximum parsing depth"
fresh; tokenizer '{"a":-1}'; model bad/tokenizer.json
fresh; tokenizer '{"a":2000000000}'; model bad/tokenizer.json
fresh; echo '{"model":{"type":"Magic"}}' > bad/tokenizer.json; model bad/tokenizer.json
train 65 "no-such-dir" sft.yaml --set rl_module.policy.new=null --set rl_module.policy.path=no-such-dir
yaml 65 "bad.yaml:4:18: rl_module.policy.path: $work/nowhere: no such directory; valid is" 's/policy: {new.*/policy: {path: nowhere}/'
yaml 65 "bad.yaml:4:18: rl_module.policy.path: $work/rows.jsonl: is a file; valid is" 's/policy: {new.*/policy: {path: rows.jsonl}/'
yaml 65 "bad.yaml:4:14: rl_module.tokenizer: $work/nowhere: no such file" 's/policy: {new.*/tokenizer: nowhere\n  &/'
train 65 "rl_module.reward.path: $work/nowhere: no such directory" ppo.yaml --set rl_module.reward.path=nowhere \
    --set 'environment.rewards=[{kind: model}]'
ends_alone 65 "rl_module.policy.path=nowhere: rl_module.policy.path: $work/nowhere: no such directory" "$phalanx" plan ppo.yaml --set rl_module.policy.path=nowhere

# ---- no regular files: nobody waits for a pipe, and nothing without an end is read ----
mkfifo pipe pipe.jsonl
train 74 "pipe: is a pipe, which can be read once only; valid is a regular file" pipe
train 74 "/dev/zero: is a device; valid is a regular file" /dev/zero
[ -n "${2:-}" ] || { on 1; ends 74 "is a pipe" "$phalanx" train <(cat sft.yaml); }
{ echo 'include: pipe'; cat sft.yaml; } > bad.yaml; train 78 "bad.yaml:1:10: cannot be included: pipe: is a pipe" bad.yaml
: > bad.yaml; truncate -s 100G bad.yaml; train 78 "bad.yaml: more than 1 MiB" bad.yaml
yaml 74 "bad.yaml:5:15: data.train: $work/pipe.jsonl: is a pipe" 's/rows.jsonl/pipe.jsonl/'; rm bad.yaml
train 74 "lexicon': $work/pipe: is a pipe" ppo.yaml --set 'environment.rewards=[{kind: lexicon, file: pipe}]'
for file in config.json generation_config.json tokenizer.json model.safetensors; do
    fresh; rm -f bad/$file; mkfifo bad/$file
    train 74 "bad/$file: is a pipe" sft.yaml --set rl_module.policy.new=null --set rl_module.policy.path=bad
    rm bad/$file; truncate -s 100G bad/$file; model "bad/$file"
done
ends_alone 74 "pipe: is a pipe" "$phalanx" tokens --tokenizer pipe
ends_alone 65 "nothing: no such run" "$phalanx" inspect nothing metrics
run_with() { rm -rf run; mkdir run; "$@"; ends 74 "run/log.txt: cannot open the log file: it is a link, a pipe or a device" "$phalanx" train sft.yaml; }
run_with ln -s ../victim run/log.txt
run_with mkfifo run/log.txt
[ ! -e victim ] || fail "a link led outside the run directory"

# ---- from elsewhere: nothing is read outside, and no more is allocated than could be needed ----
space 3000000
fresh; sed -i 's/"hidden_size": 8/"hidden_size": 131072/; s/"vocab_size": 16/"vocab_size": 16777216/
    s/"num_hidden_layers": 1/"num_hidden_layers": 1024/' bad/config.json
train 78 "out of memory: the plan wants" sft.yaml --set rl_module.policy.new=null --set rl_module.policy.path=bad
fresh; sed -i 's/"num_hidden_layers": 1/"num_hidden_layers": 1000000000/' bad/config.json; model num_hidden_layers
fresh; sed -i 's/"intermediate_size": 16/"intermediate_size": 1000000000/' bad/config.json; model intermediate_size
fresh; sed -i 's/"max_position_embeddings": 32/"max_position_embeddings": 4000000000/' bad/config.json
model max_position_embeddings
space 1000000
weights '{"model.embed_tokens.weight":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}' 64
model model.embed_tokens.weight
fresh; tokenizer '{"a":4194303}'; model "vocabulary 16"
head -c 600000000 /dev/zero | gzip -1 > bad/tokenizer.json.gz
ends_alone 65 "tokenizer.json.gz: more than 256 MiB" "$phalanx" tokens --tokenizer bad/tokenizer.json.gz
space "$(ulimit -Hv)"
fresh; echo '{"metadata":{},"weight_map":{"model.embed_tokens.weight":"../base/model.safetensors"}}' \
    > bad/model.safetensors.index.json
rm bad/model.safetensors; model "valid is a file of the same directory"
echo '{"weight_map":{"model.embed_tokens.weight":"gone.safetensors"}}' > bad/model.safetensors.index.json
model 'bad/model.safetensors.index.json: weight_map names the file "gone.safetensors", which is not there'
rm -rf bad; mkdir -p bad/policy; echo ../base > bad/best; cp sft.yaml bad/config.yaml; : > bad/run.h5
ends_alone 65 "bad/best: names '../base'; valid is a checkpoint beside it" "$phalanx" export bad --iteration best --out exported
[ ! -e exported ] || fail "an export from outside"

# ---- data ----
head -c 600000000 /dev/zero | gzip -1 > bad.jsonl.gz
(space 1000000; train 65 "bad.jsonl.gz:1: one record of more than 64 MiB" sft.yaml --set data.train=bad.jsonl.gz; exit $failed) || failed=1
# rows TEXT LINE...: eight good rows and these
rows() { { cat rows.jsonl; printf '%b\n' "${@:2}"; } > bad.jsonl; train 65 "$1" sft.yaml --set data.train=bad.jsonl; }
rows "bad.jsonl:9" '{"prompt_ids":[1,2],"completion_ids":[1'
rows "bad.jsonl:9" '{"prompt_ids":[1,2]}'
rows "bad.jsonl:9" '{"prompt_ids":[1,16],"completion_ids":[1]}'
rows "bad.jsonl:9" '{"prompt_ids":[1,-1],"completion_ids":[1]}'
rows "bad.jsonl:9" '{"prompt_ids":[1,1.5],"completion_ids":[1]}'
rows "bad.jsonl:9" '{"prompt_ids":"1","completion_ids":[1]}'
rows "bad.jsonl:9" '{"prompt_ids":[1,99999999999999999999],"completion_ids":[1]}'
rows "bad.jsonl:9" '{"a":"\xff\xfe","prompt_ids":[1,2],"completion_ids":[1]}'
rows "bad.jsonl:9" '[1,2]'
: > bad.jsonl; train 65 "bad.jsonl" sft.yaml --set data.train=bad.jsonl
printf '\n\n\n' > bad.jsonl; train 65 "bad.jsonl" sft.yaml --set data.train=bad.jsonl
echo '{"prompt":"a","completion":"b"}' > bad.jsonl; train 65 "tokenizer" sft.yaml --set data.train=bad.jsonl
{ printf '{"prompt_ids":[1,2],"completion_ids":[1],"x":"'; head -c 100000000 /dev/zero | tr '\0' x; echo '"}'; } > bad.jsonl
train 65 "bad.jsonl:1" sft.yaml --set data.train=bad.jsonl
head -c 100000 /dev/zero | tr '\0' '[' > bad.jsonl; train 65 "bad.jsonl:1" sft.yaml --set data.train=bad.jsonl
head -c 3000 /dev/urandom > bad.jsonl.gz; train 65 "bad.jsonl.gz" sft.yaml --set data.train=bad.jsonl.gz
train 74 "--set data.train=none.jsonl: data.train: $work/none.jsonl: cannot open: No such file" sft.yaml --set data.train=none.jsonl
for i in 1 2 3 4 5; do echo '{"prompt_ids":[1,2],"completion_ids":[3]}'; done > bad.jsonl
train 65 "max_tokens" sft.yaml --set data.train=bad.jsonl --set data.max_tokens=2
for i in 1 2 3 4 5; do echo '{"prompt_ids":[1,2],"chosen_ids":[3],"rejected_ids":[3]}'; done > bad.jsonl
train 65 'bad.jsonl:1: field "chosen_ids" equals field "rejected_ids"' reward.yaml --set data.train=bad.jsonl
echo '{"prompt_ids":[]}' > bad.jsonl; train 65 "bad.jsonl:1" ppo.yaml --set environment.prompts=bad.jsonl
echo '{"prompt_ids":[1,2,3,4,5,6,7,8,9]}' > bad.jsonl; train 65 "bad.jsonl" ppo.yaml --set environment.prompts=bad.jsonl
train 78 "max_completion_tokens" ppo.yaml --set environment.max_completion_tokens=64

# ---- reward programs: each rank has its own, which sees its share of the samples alone ----
rotate "${2:-1}"
program() { { echo '#!/bin/sh'; printf '%s\n' "${@:3}"; } > score; chmod +x score; train "$1" "$2" ppo.yaml --set fault_tolerance.max_skipped_steps=2; }
program 65 "exit status 3" 'exit 3'
program 65 "signal 9" 'read -r line; kill -9 $$'
program 65 'standard error: "no such module' 'echo no such module >&2; exit 1'
# one that dies after a reply is started again; one that never replied is refused
program 0 "and was started again" 'read -r line; id=${line#*:}; echo "{\"id\":${id%%,*},\"score\":1}"; exit 0'
program 65 "answered none" 'sleep 100'
program 65 "no JSON object: \"hello\"" 'read -r line; echo hello; sleep 100'
program 80 "no sample had a usable score" 'n=0; while read -r line; do echo "{\"id\":$n,\"score\":NaN}"; n=$((n+1)); done'
program 80 "no sample had a usable score" 'n=0; while read -r line; do echo "{\"id\":$n,\"score\":1e39}"; n=$((n+1)); done'
# finite in double precision, infinite in float32: that sample leaves the batch, and the others are learnt from
program 0 "sample 1: the score is no finite number up to 1e+18 in size" \
    'n=0; while read -r line; do case $n in 1) s=-1e39 ;; *) s=1 ;; esac; echo "{\"id\":$n,\"score\":$s}"; n=$((n+1)); done'
! grep -q step_skipped err || fail "a score that is none cost a step: $(cat err)"
program 65 "nobody asked" 'read -r line; echo "{\"id\":77,\"score\":1}"; sleep 100'
program 0 "second reply" 'read -r line; printf "{\"id\":0,\"score\":1}\n{\"id\":0,\"score\":1}\n"; sleep 100'
program 65 "mebibyte" 'head -c 3000000 /dev/zero | tr "\0" x; sleep 100'
rm score; train 78 "no such program" ppo.yaml
lexicon() { train "$1" "environment.rewards: reward 'lexicon': $work/$2" ppo.yaml --set "environment.rewards=[{kind: lexicon, file: words}]"; }
rm -f words; lexicon 74 "words: cannot open"
echo good > words; lexicon 65 "words:1: no number after the word"
printf 'good\t1e39\n' > words; lexicon 65 "words:1: no number after the word"
: > score; chmod -x score; train 78 "score" ppo.yaml
printf '#!/no/such/shell\n' > score; chmod +x score; train 78 "score" ppo.yaml
cp good-score score; chmod +x score

# ---- gradients, memory ----
last=$((ranks - 1))
export PHALANX_FAULT=learner.nan:1:$last
train 0 "step_skipped" sft.yaml
for n in 1 5 20 40 60 100; do
    PHALANX_FAULT=memory:$n:$last
    train 78 "out of memory: " sft.yaml
    grep -aq "^phalanx: .*out of memory: [a-z]* $last: .* wanted, .* are free" err || fail "neither role nor sizes: $(cat err)"
done
unset PHALANX_FAULT
big=(--set rl_module.policy.new.hidden_size=2048 --set rl_module.policy.new.intermediate_size=8192)
space 2000000 && # what a login node may set
    train 78 "MiB a rank (weights" sft.yaml "${big[@]}" --set rl_module.policy.new.num_hidden_layers=4
space "$(ulimit -Hv)"

# ---- what an earlier start left: samples that cannot be read do not keep the run from going on ----
train 0 "" ppo.yaml
for cut in 100 -200; do
    newest=$(ls run/samples-*.h5 | tail -n 1)
    truncate -s $cut $newest
    rounds=$((${rounds:-2} + 2))
    ends 0 "samples_damaged: $newest: is no HDF5 file that can be read" "$phalanx" train ppo.yaml --set stop.iterations=$rounds
    [ -e $newest.damaged ] || fail "the damaged samples were not kept"
    "$phalanx" inspect run samples --csv > out 2> err || fail "the new sample file: $(cat err)"
done
# ---- and a run whose checkpoints are all damaged is not trained again unasked ----
cp run/policy/model.safetensors kept
for file in run/checkpoint_*/state.h5 run/recovery_?/state.h5; do echo x >> "$file"; done
for again in 1 2; do
    ends 65 "run: none of its" "$phalanx" train ppo.yaml --set stop.iterations=$((rounds + 2))
    grep -q 'or --fresh for a new run' err && cmp -s kept run/policy/model.safetensors || fail "the old result: $(cat err)"
done
ends 0 "" "$phalanx" train ppo.yaml --fresh
rm -rf run run.1

# ---- the same on several ranks; memory from the start on, up to the buffers that are only taken once there is a model ----
if [ $# -lt 2 ] && command -v mpirun > /dev/null; then
    rotate 2; program 65 "exit status 3" 'exit 3'
    rotate 4; program 65 "answered none" 'sleep 100'
    cp good-score score
    for n in 1 30 60 85 110 120; do # those of the roof, which may be missing, are 105 to 107
        rotate $((n % 4 == 0 ? 4 : 2))
        export PHALANX_FAULT=memory:$n:$((ranks - 1))
        train 78 "out of memory: " sft.yaml
    done
    rotate 4
    export PHALANX_FAULT=learner.nan:1:3
    train 0 "step_skipped" sft.yaml
    unset PHALANX_FAULT
fi

passed
