#!/usr/bin/env bash
# Bad input from outside: each case ends within five seconds with one message, the exit code of interface.md, no process
# left behind and nothing half-written. $1: the program. The models are made here, from rows of token ids.
set -u
phalanx=$(realpath "$1")
work=$(mktemp -d)
full=
cleanup() {
    [ -z "$full" ] || umount "$full" 2> /dev/null
    chmod -R u+w "$work" 2> /dev/null
    rm -rf "$work"
}
trap cleanup EXIT
cd "$work" || exit 1
export OMP_NUM_THREADS=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
limit=${PHALANX_BAD_INPUT_SECONDS:-5} # a case; more for a build with sanitizers
failed=0
cases=0
launch=()

messages() { grep -a '^phalanx: ' err | grep -acvE '^phalanx: (NOTE|warning): '; }
fail() { echo "FAILED: $*" >&2; failed=1; }

# ends CODE TEXT COMMAND...: the exit code, a text of the message, one message, no process and no half-written file left.
ends() {
    local want=$1 text=$2 start=$EPOCHREALTIME got spent; shift 2
    cases=$((cases + 1))
    timeout -k 1 "$((limit + 5))" "${launch[@]}" "$@" > out 2> err < /dev/null; got=$?
    spent=$(((${EPOCHREALTIME/./} - ${start/./}) / 1000))
    local what="${launch[*]} $*"
    [ "$got" = "$want" ] || fail "exit $got, want $want: $what: $(grep -a phalanx: err | head -3)"
    [ "$(messages)" = 1 ] || fail "$(messages) messages: $what: $(tail -4 err)"
    grep -aqF -- "$text" err || fail "no '$text' in the message of: $what: $(grep -a phalanx: err)"
    [ "$spent" -lt "$((limit * 1000))" ] || fail "$spent ms: $what"
    if grep -aqE 'AddressSanitizer|runtime error|check failed' err; then fail "a bug: $what: $(tail -5 err)"; fi
    local left
    left=$(find . -name '*.tmp' -o -name '*.new' -o -name 'checkpoint_*.tmp*' | head -3)
    [ -z "$left" ] || fail "half-written files after: $what: $left"
    if pgrep -f "$work/score" > /dev/null; then
        sleep 0.2
        if pgrep -f "$work/score" > /dev/null; then fail "a reward program lives on after: $what"; fi
    fi
}

train() { rm -rf run; ends "$1" "$2" "$phalanx" train "${@:3}"; }

# ---- the models ----
cat > sft.yaml <<'Y'
run: {dir: run, seed: 1, threads_per_rank: 1}
algorithm: sft
rl_module:
  policy: {new: {architecture: llama, hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16, vocab_size: 16, max_position_embeddings: 32}}
data: {train: rows.jsonl, max_tokens: 16}
training: {batch_size: 4, lr: 1.0e-3}
stop: {steps: 2}
Y
cat > ppo.yaml <<'Y'
run: {dir: run, seed: 1, threads_per_rank: 1}
algorithm: ppo
rl_module:
  policy: {path: base}
  reference: {same_as: policy}
  critic: {same_as: policy}
environment:
  prompts: prompts.jsonl
  max_prompt_tokens: 8
  max_completion_tokens: 4
  rewards: [{kind: exec, command: [./score], timeout_s: 0.5}]
training: {prompts_per_iteration: 4, minibatch_size: 4, num_epochs: 1}
stop: {iterations: 2}
Y
cat > reward.yaml <<'Y'
run: {dir: run, seed: 1, threads_per_rank: 1}
algorithm: reward
rl_module: {reward: {path: base}}
data: {train: pairs.jsonl, max_tokens: 16}
training: {batch_size: 4, lr: 1.0e-3}
stop: {steps: 2}
Y
for i in 1 2 3 4 5 6 7 8; do
    echo "{\"prompt_ids\":[1,$i],\"completion_ids\":[$i,3,2]}" >> rows.jsonl
    echo "{\"prompt_ids\":[1,$i]}" >> prompts.jsonl
    echo "{\"prompt_ids\":[1,$i],\"chosen_ids\":[$i,3],\"rejected_ids\":[4,5,2]}" >> pairs.jsonl
done
printf '#!/bin/sh\nwhile read -r line; do id=${line#*:}; echo "{\\"id\\":${id%%%%,*},\\"score\\":1}"; done\n' > good-score
cp good-score score; chmod +x score
for file in sft ppo; do
    "$phalanx" train $file.yaml > out 2> err || { echo "the good $file.yaml fails: $(cat err)" >&2; exit 1; }
    [ $file = sft ] && cp -r run/policy base
    rm -rf run
done
"$phalanx" train reward.yaml > out 2> err || { echo "the good reward.yaml fails: $(cat err)" >&2; exit 1; }

# ---- YAML ----
# yaml CODE TEXT SED...: sft.yaml through sed
yaml() { sed "${@:3}" sft.yaml > bad.yaml; train "$1" "$2" bad.yaml; }
yaml 78 "bad.yaml:6:27: unknown key 'training.lrr'; did you mean 'training.lr'?" 's/lr: 1/lrr: 1/'
yaml 78 "bad.yaml:6:24" 's/batch_size: 4/batch_size: four/'
yaml 78 "bad.yaml:6" 's/lr: 1.0e-3/lr: -1/'
yaml 78 "bad.yaml:6:31" 's/lr: 1.0e-3/lr: .nan/'
yaml 78 "duplicate key" 's/lr: 1.0e-3/batch_size: 4/'
yaml 78 "bad.yaml:8" '$a\   indented: 1'
yaml 78 "begun at line 3" 's/^rl_module:/rl_module: [/'
yaml 78 "bad.yaml" 's/^stop:.*/stop: \&a {steps: 2, metrics: *a}/'
yaml 78 "bad.yaml" 's/batch_size: 4/batch_size: 4, batch_tokens: 64/'
yaml 78 "new.hidden_size" 's/hidden_size: 8/hidden_size: 7/'
yaml 78 "no-such" 's/policy: {new.*/policy: {stage: no-such}/'
yaml 78 "algorithm" 's/^algorithm: sft/algorithm: magic/'
{ printf 'a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n'
  for i in 1 2 3 4 5 6 7 8 9; do p=$((i - 1)); printf 'a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n' $i $i $p $p $p $p $p $p $p $p $p; done
} > bad.yaml
train 78 "bad.yaml" bad.yaml
head -c 100000 /dev/zero | tr '\0' '[' > bad.yaml; train 78 "bad.yaml" bad.yaml
: > bad.yaml; train 78 "bad.yaml" bad.yaml
printf 'run: {name: "\xff\xfe"}\n' > bad.yaml; train 78 "bad.yaml" bad.yaml
printf '\x7fELF\x02\x01\x01\x00\x00' > bad.yaml; train 78 "bad.yaml" bad.yaml
{ echo 'include: bad.yaml'; cat sft.yaml; } > bad.yaml; train 78 "bad.yaml" bad.yaml
train 74 "none.yaml" none.yaml
train 74 "$work" "$work"
train 78 "training.lr" sft.yaml --set training.lr=fast
train 78 "not KEY=VALUE" sft.yaml --set training.lr
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
fresh; head -c 100000 /dev/zero | tr '\0' '{' > bad/tokenizer.json; model bad/tokenizer.json
fresh; tokenizer '{"a":-1}'; model bad/tokenizer.json
fresh; tokenizer '{"a":2000000000}'; model bad/tokenizer.json
fresh; echo '{"model":{"type":"Magic"}}' > bad/tokenizer.json; model bad/tokenizer.json
train 65 "no-such-dir" sft.yaml --set rl_module.policy.new=null --set rl_module.policy.path=no-such-dir

# ---- data ----
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
train 74 "none.jsonl" sft.yaml --set data.train=none.jsonl
for i in 1 2 3 4 5; do echo '{"prompt_ids":[1,2],"completion_ids":[3]}'; done > bad.jsonl
train 65 "max_tokens" sft.yaml --set data.train=bad.jsonl --set data.max_tokens=2
for i in 1 2 3 4 5; do echo '{"prompt_ids":[1,2],"chosen_ids":[3],"rejected_ids":[3]}'; done > bad.jsonl
train 65 "bad.jsonl" reward.yaml --set data.train=bad.jsonl
echo '{"prompt_ids":[]}' > bad.jsonl; train 65 "bad.jsonl:1" ppo.yaml --set environment.prompts=bad.jsonl
echo '{"prompt_ids":[1,2,3,4,5,6,7,8,9]}' > bad.jsonl; train 65 "bad.jsonl" ppo.yaml --set environment.prompts=bad.jsonl
train 78 "max_completion_tokens" ppo.yaml --set environment.max_completion_tokens=64

# ---- reward programs ----
program() { { echo '#!/bin/sh'; printf '%s\n' "${@:3}"; } > score; chmod +x score; train "$1" "$2" ppo.yaml --set fault_tolerance.max_skipped_steps=2; }
program 65 "exit status 3" 'exit 3'
program 65 "signal 9" 'read -r line; kill -9 $$'
program 65 "answered none" 'sleep 100'
program 65 "hello" 'read -r line; echo hello; sleep 100'
program 80 "no sample had a usable score" 'n=0; while read -r line; do echo "{\"id\":$n,\"score\":NaN}"; n=$((n+1)); done'
program 65 "nobody asked" 'read -r line; echo "{\"id\":77,\"score\":1}"; sleep 100'
program 65 "second reply" 'read -r line; echo "{\"id\":0,\"score\":1}"; echo "{\"id\":0,\"score\":1}"; sleep 100'
program 65 "mebibyte" 'head -c 3000000 /dev/zero | tr "\0" x; sleep 100'
rm score; train 78 "no such program" ppo.yaml
: > score; chmod -x score; train 78 "score" ppo.yaml
printf '#!/no/such/shell\n' > score; chmod +x score; train 78 "score" ppo.yaml
cp good-score score; chmod +x score

# ---- gradients, memory ----
PHALANX_FAULT=learner.nan:1:0 "$phalanx" train sft.yaml > out 2> err || fail "one skipped step ends the run: $(cat err)"
"$phalanx" inspect run events 2>&1 | grep -q step_skipped || fail "no event step_skipped: $("$phalanx" inspect run events 2>&1)"
for n in 1 5 20 40 60 1000; do
    PHALANX_FAULT=memory:$n:0 train 78 "out of memory" sft.yaml
done

# ---- disks ----
if [ "$(id -u)" = 0 ] && mkdir full && mount -t tmpfs -o size=1m tmpfs full 2> /dev/null; then
    full=$work/full
    for free in 24k 64k 128k 256k 384k 512k 768k 1m 8m; do
        umount full; mount -t tmpfs -o size=$free tmpfs full
        rm -rf run
        timeout 20 "$phalanx" train ppo.yaml --run-dir full/run > out 2> err < /dev/null; code=$?
        [ $code = 0 ] && break
        cases=$((cases + 1))
        [ $code = 74 ] || fail "a disk of $free: exit $code: $(tail -3 err)"
        [ "$(messages)" = 1 ] || fail "a disk of $free: not one message: $(tail -5 err)"
        grep -qi 'no space' err || fail "a disk of $free: no 'No space': $(tail -1 err)"
        left=$(find full -name '*.tmp' | head -3)
        [ -z "$left" ] || fail "a disk of $free: half-written: $left"
    done
    [ $code = 0 ] || fail "8 MiB are not enough"
    mount -o remount,ro full
    train 74 "ead-only" sft.yaml --run-dir full/other
    umount full; full=
else
    echo "a full disk and a read-only one are not tried: that takes root and mount" >&2
fi
: > file; train 74 "file" sft.yaml --run-dir file/run

# ---- two ranks: the same codes, one message ----
if command -v mpirun > /dev/null; then
    launch=(mpirun -n 2)
    limit=$((limit + 5)) # two ranks start slower, on a core that others use too
    train 78 "training.lrr" sft.yaml --set training.lrr=1
    fresh; truncate -s -5 bad/model.safetensors; model bad/model.safetensors
    { cat rows.jsonl; echo '{'; } > bad.jsonl; train 65 "bad.jsonl:9" sft.yaml --set data.train=bad.jsonl
    program 65 "exit status 3" 'exit 3'
    program 65 "answered none" 'sleep 100'
    cp good-score score
    for n in 1 2 3 4 15; do
        PHALANX_FAULT=memory:$n:1 train 78 "out of memory" sft.yaml
    done
    export PHALANX_FAULT=learner.nan:1:1
    rm -rf run; mpirun -n 2 "$phalanx" train sft.yaml > out 2> err || fail "a skipped step of rank 1: $(cat err)"
    "$phalanx" inspect run events 2>&1 | grep -q step_skipped || fail "no event of rank 1's step"
    unset PHALANX_FAULT
fi

[ "$failed" = 0 ] && echo "$cases cases passed"
exit "$failed"
