#!/usr/bin/env bash
# The same answer on any number of ranks and threads and with any micro-batches, for every stage (pretrain, sft,
# reward, ppo): to the bit with debugging.deterministic, else to the bit in the first iteration's samples and by
# tolerance in the rest. The same for each instruction set and for products through OpenBLAS; what holds there is printed.
# $1: the program. INVARIANCE=long: every combination instead of a few.
set -u
phalanx=$(realpath "$1")
long=${INVARIANCE:-}
. "$(dirname "$0")/../support/scratch.bash"
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
mpi=$(command -v mpirun || true)
for tool in h5diff cmp; do
    command -v $tool > tool.out || { echo "skipped: no $tool"; exit 77; }
done
failed=0
fail() { echo "FAILED: $*" >&2; failed=1; }

# ---- data and configuration: enough rows and weights that leaves, forwards and threads all cut them ------------------
ids() { # SEED LOW HIGH: LOW to HIGH ids from 2 to 47
    awk -v seed="$1" -v low="$2" -v high="$3" 'BEGIN { srand(seed); n = low + int(rand() * (high - low + 1));
        for (i = 0; i < n; i++) printf "%s%d", i ? ", " : "", 2 + int(rand() * 46) }'
}
for i in $(seq 1 30); do
    echo "{\"ids\": [$(ids $i 3 30)]}" >> text.jsonl
    echo "{\"prompt_ids\": [$(ids $((100 + i)) 1 8)], \"completion_ids\": [$(ids $((200 + i)) 1 12), 1]}" >> demos.jsonl
    echo "{\"prompt_ids\": [$(ids $((300 + i)) 1 8)], \"chosen_ids\": [$(ids $((400 + i)) 1 12), 1]," \
         "\"rejected_ids\": [$(ids $((500 + i)) 1 12)]}" >> pairs.jsonl
    echo "{\"prompt_ids\": [$(ids $((600 + i)) 1 8)]}" >> prompts.jsonl
done
cat > base.yaml <<'YAML'
run: {name: base, dir: base}
algorithm: pretrain
rl_module: {policy: {new: {architecture: llama, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4,
                           num_key_value_heads: 2, vocab_size: 48, max_position_embeddings: 40,
                           initializer_range: 0.1}}}
data: {train: text.jsonl, max_tokens: 24}
training: {batch_size: 1, lr: 0.0}
stop: {steps: 1}
YAML
"$phalanx" train base.yaml > base.out 2>&1 || { cat base.out; exit 1; }
sed -i 's/"eos_token_id": null/"eos_token_id": 1/' base/policy/config.json
grep -q '"eos_token_id": 1' base/policy/config.json || fail "no stop token in the base model"
cat > recipe.yaml <<'YAML'
defaults:
  run: {name: recipe, seed: 11, dir: runs}
  data: {max_tokens: 24}
  learners: {gradient_leaf_tokens: 48}
stages:
  pretrain:
    algorithm: pretrain
    rl_module: {policy: {path: base/policy}}
    data: {train: text.jsonl, validation: text.jsonl}
    training: {batch_tokens: 300, lr: 1.0e-3}
    evaluation: {evaluation_interval: 2}
    stop: {steps: 4}
  sft:
    algorithm: sft
    rl_module: {policy: {stage: pretrain}}
    data: {train: demos.jsonl}
    training: {batch_size: 13, lr: 1.0e-3}
    stop: {steps: 3}
  reward:
    algorithm: reward
    rl_module: {reward: {stage: sft}}
    data: {train: pairs.jsonl, validation: pairs.jsonl}
    training: {batch_size: 11, lr: 1.0e-3}
    stop: {steps: 3}
  ppo:
    algorithm: ppo
    rl_module: {policy: {stage: sft}, reference: {same_as: policy}, reward: {stage: reward}, critic: {same_as: reward}}
    environment: {prompts: prompts.jsonl, max_prompt_tokens: 8, max_completion_tokens: 16,
                  rewards: [{kind: model}, {kind: length, target: 5}]}
    env_runners: {samples_per_prompt: 2}
    training: {prompts_per_iteration: 14, num_epochs: 2, minibatch_size: 10, lr: 1.0e-3, critic_lr: 1.0e-3}
    reporting: {samples: {iterations_per_file: 1}}
    stop: {iterations: 2}
YAML

# ---- runs and what differs between two of them -----------------------------------------------------------------------
run() { # DIR RANKS THREADS MICRO [options]: MICRO is learners.micro_batch_tokens
    local dir=$1 ranks=$2 threads=$3 micro=$4; shift 4
    local launch=
    [ "$ranks" = 1 ] || launch="$mpi -n $ranks"
    OMP_NUM_THREADS=$threads $launch "$phalanx" train recipe.yaml --run-dir "$dir" \
        --set run.threads_per_rank="$threads" --set learners.micro_batch_tokens="$micro" "$@" \
        > "$dir.out" 2>&1 < /dev/null ||
        fail "$dir: exit $?: $(grep '^phalanx: ' "$dir.out" | tail -n 1)"
}
timeless() { # drops the columns that tell time, machine and place
    awk -F, 'NR == 1 { for (i = 1; i <= NF; i++)
                 keep[i] = $i !~ /^(run|timestamp|segment|rank|eps|core_hours|memory_peak|num_healthy_workers)$/ &&
                           $i !~ /^(time_|timers\/)|(per_s|roof_share)$/ }
             { line = ""; for (i = 1; i <= NF; i++) if (keep[i]) line = line "," $i; print line }'
}
show() { "$phalanx" inspect "$1/$2" "$3" --csv 2> inspect.err | timeless; }
same_show() { # DIR DIR STAGE metrics|samples
    show "$1" "$3" "$4" > one.csv
    show "$2" "$3" "$4" > two.csv
    [ -s one.csv ] && cmp -s one.csv two.csv
}
same_tables() { # FILE FILE TABLE...
    local one=$1 two=$2 table; shift 2
    for table; do h5diff -q "$one" "$two" "$table" "$table" > h5diff.out 2>&1 || return 1; done
}
results="pretrain/policy sft/policy reward/reward ppo/policy ppo/critic"
differing() { # DIR DIR: which samples, metrics and weights do not have the same bits
    local file stage
    same_show "$1" "$2" ppo samples || echo "samples"
    for file in "$1"/ppo/samples-*.h5; do
        same_tables "$file" "$2/ppo/${file##*/}" /prompt_tokens /tokens /updates /order || echo "ppo/${file##*/}"
    done
    for stage in pretrain sft reward ppo; do
        same_show "$1" "$2" $stage metrics || echo "metrics of $stage"
    done
    for stage in pretrain reward; do
        same_tables "$1/$stage/run.h5" "$2/$stage/run.h5" /evaluation/loss || echo "evaluation of $stage"
    done
    for file in $results; do
        cmp -s "$1/$file/model.safetensors" "$2/$file/model.safetensors" || echo "weights of $file"
    done
}
same_bits() { # DIR DIR WHAT
    local differ
    differ=$(differing "$1" "$2" | paste -sd, -)
    [ -z "$differ" ] || fail "$3: other bits in $differ"
}
farthest() { # FILE FILE: largest difference of two files of float32 weights with equal headers
    local header
    header=$(($(od -An -tu8 -N8 "$1") + 8))
    paste <(od -An -v -tf4 -w4 -j $header "$1") <(od -An -v -tf4 -w4 -j $header "$2") |
        awk '{ d = $1 - $2; d = d < 0 ? -d : d; if (!(d <= most)) most = d } END { printf "%.1e", most }'
}

# ---- deterministic: the same bits everywhere -------------------------------------------------------------------------
settings="1:2:24 2:1:100 2:2:auto 4:1:24"
[ -z "$long" ] || settings=$(echo {1,2,4}:{1,2}:{auto,24,100})
[ -n "$mpi" ] || settings=$(printf '%s\n' $settings | grep '^1:')
every_setting() { # NAME [options]: all settings against one rank, one thread
    local name=$1 n t m; shift
    run "$name" 1 1 auto "$@"
    for setting in $settings; do
        IFS=: read -r n t m <<< "$setting"
        run "$name-$n-$t-$m" "$n" "$t" "$m" "$@"
        same_bits "$name" "$name-$n-$t-$m" "$name, $n ranks, $t threads, micro_batch_tokens $m"
    done
}
every_setting deterministic --set debugging.deterministic=true
[ "$failed" = 0 ] || { tail -n 3 deterministic.out; exit 1; }
echo "deterministic: samples, metrics and weights of 4 stages have the same bits in: 1:1:auto $(echo $settings)" \
     "(ranks:threads:micro_batch_tokens)"
cp -r deterministic changed
printf '\x01' | dd of=changed/sft/policy/model.safetensors bs=1 seek=5000 conv=notrunc 2> dd.err
[ "$(differing deterministic changed)" = "weights of sft/policy" ] || fail "a changed bit is not seen"

# ---- not deterministic: what is sampled before the first step is the same, the rest by tolerance ---------------------
# The same start for all: the stages before are copied.
start_ppo() { # DIR: a run whose stages before ppo are those of the deterministic one
    cp -r deterministic "$1"
    rm -rf "$1/ppo" "$1/status.json" "$1/log.txt"
}
loose() { # DIR RANKS THREADS MICRO
    start_ppo "$1"
    run "$1" "$2" "$3" "$4" --set debugging.deterministic=false
}
loose loose 1 1 auto
furthest=0
for setting in 1:2:24 2:1:100 4:1:auto; do
    IFS=: read -r n t m <<< "$setting"
    [ "$n" = 1 ] || [ -n "$mpi" ] || continue
    loose "loose-$n" "$n" "$t" "$m"
    for run in loose "loose-$n"; do show $run ppo samples | awk -F, 'NR == 1 || $3 == 1' > $run.csv; done
    cmp -s loose.csv "loose-$n.csv" && same_tables {loose,loose-$n}/ppo/samples-000001.h5 /prompt_tokens /tokens ||
        fail "not deterministic, $setting: the first iteration's samples have other bits"
    for part in policy critic; do
        d=$(farthest loose/ppo/$part/model.safetensors "loose-$n/ppo/$part/model.safetensors")
        furthest=$(printf '%s\n%s\n' "$d" "$furthest" | sort -g | tail -n 1)
    done
done
echo "not deterministic: the first iteration's samples have the same bits, the last weights differ by $furthest at most"
awk -v d="$furthest" 'BEGIN { exit !(d <= 1e-4) }' || fail "not deterministic: weights differ by $furthest"

# ---- instruction sets and OpenBLAS -----------------------------------------------------------------------------------
said() { "$phalanx" version | sed -n "s/^$1  *//p"; }
variant() { # NAME: with what stands in the environment, ranks and threads against one another and against the default
    local name=$1 differ other invariant
    invariant=$(said batch_invariant)
    run "$name" 1 1 auto
    run "$name-1-2" 1 2 24
    [ -z "$mpi" ] || run "$name-2-1" 2 1 auto
    differ=$({ differing "$name" "$name-1-2"; [ -z "$mpi" ] || differing "$name" "$name-2-1"; } | sort -u |
        paste -sd, -)
    other=$(differing deterministic "$name" | paste -sd, -)
    echo "$name ($(said isa), $(said blas)): batch-invariant: $invariant;" \
         "on other ranks and threads: ${differ:+other bits in }${differ:-the same bits};" \
         "against this machine's default: $([ -z "$other" ] && echo "the same bits" || echo "other bits")"
    [ "$invariant" != yes ] || [ -z "$differ" ] || fail "$name: other bits in $differ"
}
for isa in avx2 generic; do
    PHALANX_ISA=$isa variant $isa
done
export PHALANX_GEMM=openblas
case $(said blas) in
OpenBLAS*)
    [ -z "$long" ] || variant openblas
    [ "$(uname -m)" != x86_64 ] || OPENBLAS_CORETYPE=Haswell variant openblas-haswell ;;
*) echo "no libopenblas.so.0: products through OpenBLAS are not tried" ;;
esac

[ "$failed" = 0 ] && echo "all passed"
exit "$failed"
