# What the tests of bad input share: cases that must end with one message and one exit code, and small models to end.
# Sourced with the program's path in $phalanx, from a directory of its own.
# PHALANX_STRICT_LIMITS=1: five seconds on any number of ranks, as promised; else more for ranks that share their cores.
patience=${PHALANX_BAD_INPUT_SECONDS:-5} # seconds a case; more for a build with sanitizers
limit=$patience
declare -A slowest
here=$PWD
failed=0
cases=0
launch=()
ranks=1
export OMP_NUM_THREADS=1

messages() { grep -a '^phalanx: ' err | grep -acvE '^phalanx: (NOTE|warning): '; }
fail() { echo "FAILED: $*" >&2; failed=1; }

# on RANKS: cases from here on run on so many ranks. A launcher ends all ranks when the first one ends with an error, so
# each waits for the codes of the others before it passes its own on.
on() {
    ranks=$1
    launch=()
    limit=$patience
    [ "$ranks" -gt 1 ] || return 0
    launch=(mpirun -n "$ranks" ./one-rank)
    [ -n "${PHALANX_STRICT_LIMITS:-}" ] || limit=$((patience + 5)) # ranks start slower, on cores that others use too
    cat > one-rank << S
#!/bin/sh
"\$@"; code=\$?
echo "\$code" > codes/\$\$
n=0
while [ "\$(ls codes | wc -l)" -lt $ranks ] && [ \$n -lt 40 ]; do sleep 0.05; n=\$((n + 1)); done
exit "\$code"
S
    chmod +x one-rank
}

# living SESSION: its processes and the reward programs; those that are dead and only not yet buried do not count.
living() { { ps -s "$1" -o pid=,stat=,args=; pgrep -af "$here/score" | sed 's/ / S /'; } | awk '$2 !~ /Z/'; }

# ends CODE TEXT COMMAND...: the exit code of every rank, a text of the message, one message, no process and no
# half-written file left. PHALANX_BAD_INPUT_SHOW=1 shows the messages.
ends() {
    local want=$1 text=$2 start=$EPOCHREALTIME got spent left session; shift 2
    cases=$((cases + 1))
    rm -rf codes; mkdir codes
    setsid timeout -k 1 "$((limit + 5))" "${launch[@]}" "$@" > out 2> err < /dev/null & session=$!
    wait $session; got=$?
    spent=$(((${EPOCHREALTIME/./} - ${start/./}) / 1000))
    local what="${launch[*]} $*"
    [ -z "${PHALANX_BAD_INPUT_SHOW:-}" ] || echo "$got, $spent ms: $(grep -a '^phalanx: ' err | cut -c10- | head -c 500)" >&2
    [ "$got" = "$want" ] || fail "exit $got, want $want: $what: $(grep -a phalanx: err | head -3)"
    if [ "$ranks" -gt 1 ]; then
        [ "$(cat codes/* 2> /dev/null | sort | uniq -c | tr -s ' ')" = " $ranks $want" ] || \
            fail "the ranks end with $(cat codes/* 2> /dev/null | tr '\n' ' '), want $want: $what"
    fi
    [ "$want" = 0 ] || [ "$(messages)" = 1 ] || fail "$(messages) messages: $what: $(tail -4 err)"
    [ "$want" != 0 ] || [ "$(messages)" = 0 ] || fail "a message: $what: $(tail -4 err)"
    grep -aqF -- "$text" err || fail "no '$text' in the message of: $what: $(grep -a phalanx: err)"
    [ "$spent" -le "${slowest[$ranks]:-0}" ] || slowest[$ranks]=$spent
    [ "$spent" -lt "$((limit * 1000))" ] || fail "$spent ms: $what"
    if grep -aqE 'AddressSanitizer|runtime error|check failed' err; then fail "a bug: $what: $(tail -5 err)"; fi
    left=$(find . -name '*.tmp' -o -name '*.new' -o -name 'checkpoint_*.tmp*' -o -name lock | head -3)
    [ -z "$left" ] || fail "half-written files after: $what: $left"
    left=$(living $session)
    [ -z "$left" ] || { sleep 0.3; left=$(living $session); }
    [ -z "$left" ] || fail "processes live on after: $what: $left"
}

# The end of a script: how many cases, and the slowest by ranks.
passed() {
    local n times=
    for n in "${!slowest[@]}"; do times+="; ${slowest[$n]} ms on $n ranks"; done
    [ "$failed" = 0 ] && echo "$cases cases passed; the slowest$times" | sed 's/slowest;/slowest:/; s/on 1 ranks/on 1 rank/'
    exit "$failed"
}

# Commands that are one process and not to be launched.
ends_alone() { local launch=() ranks=1; ends "$@"; }

# space KIB: address space that commands may take from here on; fails where that is no bound, as a program with sanitizers
# takes terabytes.
space() { (ulimit -Sv 1000000; "$phalanx" version) > /dev/null 2>&1 && ulimit -Sv "$1"; }

# rotate [RANKS]: cases of `train` from here on run on one rank each, every twelfth on two and every twelfth on four;
# PHALANX_BAD_INPUT_SEED=1 to 11: others of them. With RANKS: all on so many.
rotation=() turns=${PHALANX_BAD_INPUT_SEED:-0}
rotate() {
    rotation=()
    on "${1:-1}"
    [ -n "${1:-}" ] || ! command -v mpirun > /dev/null || rotation=(1 1 2 1 1 1 1 1 4 1 1 1)
}
train() {
    [ ${#rotation[@]} = 0 ] || on "${rotation[turns++ % ${#rotation[@]}]}"
    rm -rf run
    ends "$1" "$2" "$phalanx" train "${@:3}"
}

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
