#!/usr/bin/env bash
# What a reward model with a tokenizer of its own reads in PPO: the scores are those that evaluate gives to the same
# conversations, and its mean is theirs. $1: the program.
set -u
phalanx=$(realpath "$1")
licence=$(realpath "$(dirname "$0")/../../LICENSE")
. "$(dirname "$0")/../support/scratch.bash"
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export OMP_NUM_THREADS=1
failed=0 step=start
mpi=$(command -v mpirun || true)
fail() { echo "FAILED: $step: $*" >&2; failed=1; }
python=/usr/bin/python3
"$python" -c 'import json' 2> /dev/null || { echo "skipped: no $python"; exit 77; }

# ---- two tokenizers with ChatML, conversations of several turns, texts ----
tokenizer() { # DIR SIZE
    "$phalanx" tokenizer train --data "$licence" --vocab-size "$2" --special '<|im_start|>' --special '<|im_end|>' --out "$1" \
        > tokenizer.out 2>&1 || fail "tokenizer train: $(cat tokenizer.out)"
}
tokenizer policy-tokenizer 300
tokenizer reward-tokenizer 340
"$python" - "$licence" << 'END'
import json, random, sys
random.seed(3)
words = open(sys.argv[1]).read().split()
text = lambda: " ".join(random.choice(words) for _ in range(random.randint(1, 4)))
turn = lambda role: {"role": role, "content": text()}
lines = lambda name, rows: open(name, "w").writelines(json.dumps(row) + "\n" for row in rows)
chats = [([turn("system")] if i % 2 else []) + [turn("user"), turn("assistant"), turn("user")][2 * (i % 3 > 0):] for i in range(12)]
lines("chat-pairs.jsonl", [{"prompt": p, "chosen": [turn("assistant")], "rejected": [turn("assistant")]} for p in chats])
lines("chat-demos.jsonl", [{"prompt": p, "completion": [turn("assistant")]} for p in chats])
lines("chat-prompts.jsonl", [{"prompt": p} for p in chats])
texts = [text() for _ in range(12)]
lines("text-pairs.jsonl", [{"prompt": p, "chosen": " " + text(), "rejected": " " + text()} for p in texts])
lines("text-demos.jsonl", [{"prompt": p, "completion": " " + text()} for p in texts])
lines("text-prompts.jsonl", [{"prompt": p} for p in texts])
END
cat > scores.yaml <<'Y'
defaults:
  run: {name: scores, seed: 3, threads_per_rank: 1, dir: "${KIND}"}
stages:
  reward:
    algorithm: reward
    rl_module:
      tokenizer: reward-tokenizer
      reward: {new: {architecture: llama, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2,
                     max_position_embeddings: 256, initializer_range: 0.3}}
    data: {train: "${KIND}-pairs.jsonl", demonstrations: "${KIND}-demos.jsonl", max_tokens: 256}
    training: {batch_size: 4, lr: 1.0e-2}
    stop: {steps: 3}
  ppo:
    algorithm: ppo
    rl_module:
      tokenizer: policy-tokenizer
      policy: {new: {architecture: llama, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2,
                     max_position_embeddings: 256}}
      reward: {stage: reward}
      critic: {same_as: policy}
    environment: {prompts: "${KIND}-prompts.jsonl", max_prompt_tokens: 200, max_completion_tokens: 9}
    training: {prompts_per_iteration: 12}
    stop: {iterations: 1}
Y
train() { # RANKS KIND [options]
    local ranks=$1 kind=$2; shift 2
    KIND=$kind $([ "$ranks" = 1 ] || echo "$mpi -n $ranks") "$phalanx" train scores.yaml "$@" > "$kind.out" 2> "$kind.err" ||
        fail "exit $?: $(tail -3 "$kind.err")"
}
# Scores of the samples against those of pairs of the same texts; special tokens are not text, and of a completion that has
# one inside, the text around it is not what was decoded.
compare() { # RUN REWARD_MODEL KIND
    "$phalanx" inspect "$1" samples --json > samples.json || fail "inspect: exit $?"
    "$python" - "$3" << 'END' || fail "no pairs"
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1] + "-prompts.jsonl")]
samples = json.load(open("samples.json"))
for s in samples:
    s["completion"] = s["completion"].removesuffix("<|im_end|>")
samples = [s for s in samples if "<|im_" not in s["completion"]]
json.dump([s["reward_model"] for s in samples], open("scores.json", "w"))
with open("again.jsonl", "w") as f:
    for s in samples:
        prompt = rows[s["prompt_id"]]["prompt"]
        f.write(json.dumps({"prompt": prompt, "chosen": s["completion"], "rejected": "none of it"}) + "\n")
END
    "$phalanx" evaluate --model "$2" --data again.jsonl --per-record again.out > evaluate.out 2>&1 || fail "evaluate: $(cat evaluate.out)"
    "$python" - << 'END' || fail "$1: other scores than evaluate's"
import json, sys
want = [json.loads(line)["chosen"] for line in open("again.out")]
got = json.load(open("scores.json"))
bad = [(a, b) for a, b in zip(got, want) if abs(a - b) > 1e-5]
print(*bad, sep="\n", file=sys.stderr)
sys.exit(len(got) != len(want) or len(got) < 6 or bool(bad))
END
}
centred() { # REWARD_MODEL KIND: evaluate takes the mean off
    "$python" - "$2" << 'END'
import json, sys
with open("demos.jsonl", "w") as f:
    for row in map(json.loads, open(sys.argv[1] + "-demos.jsonl")):
        f.write(json.dumps({"prompt": row["prompt"], "chosen": row["completion"], "rejected": "none of it"}) + "\n")
END
    "$phalanx" evaluate --model "$1" --data demos.jsonl --per-record demos.out > evaluate.out 2>&1 || fail "evaluate: $(cat evaluate.out)"
    "$python" -c 'import json, sys
scores = [json.loads(line)["chosen"] for line in open("demos.out")]
sys.exit(abs(sum(scores) / len(scores)) > 1e-5)' || fail "the mean is not that of the demonstrations: $(head -2 demos.out)"
}

for kind in chat text; do
    step="$kind"
    train 1 "$kind"
    compare "$kind/ppo" "$kind/reward/reward" "$kind"
    centred "$kind/reward/reward" "$kind"
done

# ---- the policy's tokenizer, written again by another program: the critic may be the reward model, which reads ids ----
step="the same tokenizer"
cp -r chat/reward/reward again
"$python" -c 'import json
with open("reward-tokenizer/tokenizer.json") as f, open("again/tokenizer.json", "w") as g:
    json.dump(json.load(f), g, indent=2, sort_keys=True)'
cmp -s reward-tokenizer/tokenizer.json again/tokenizer.json && fail "nothing was written otherwise"
scores() { "$phalanx" inspect "$1/ppo" samples --json | grep -o '"reward_model":[^,]*'; }
for model in chat/reward/reward again; do
    train 1 chat --stage ppo --run-dir "same-${model%%/*}" --set "ppo.rl_module.reward={path: $model}" \
        --set 'ppo.rl_module.critic={same_as: reward}' --set ppo.rl_module.tokenizer=reward-tokenizer
done
scores same-chat > same-chat.scores
scores same-again > same-again.scores
[ -s same-chat.scores ] && cmp -s same-chat.scores same-again.scores || fail "other scores: $(paste same-*.scores)"

# ---- a reward model with fewer positions than there are tokens ----
step="too few positions"
cp -r text/reward/reward short
sed -i 's/"max_position_embeddings": [0-9]*/"max_position_embeddings": 14/' short/config.json
short() { # RANKS DIR [options]: how many samples the event counts, how many it should
    local ranks=$1 dir=$2; shift 2
    train "$ranks" text --stage ppo --run-dir "$dir" --set 'ppo.rl_module.reward={path: short}' \
        --set ppo.rl_module.tokenizer=reward-tokenizer "$@"
    "$phalanx" inspect "$dir/ppo" samples --json > samples.json || fail "inspect: exit $?"
    want=$("$python" -c 'import json
print(sum(s["prompt_length"] + s["completion_length"] > 14 for s in json.load(open("samples.json"))))')
    got=$("$phalanx" inspect "$dir/ppo" events --csv | sed -n 's/.*reward_cut,\([0-9]*\) of 12 samples.*/\1/p')
    [ "$want" -gt 0 ] && [ "$got" = "$want" ] || fail "$ranks ranks: '$got' of the samples are cut, want $want"
    [ "$(grep -c reward_cut text.err)" = 1 ] || fail "$ranks ranks: not one line in the log: $(grep reward_cut text.err)"
}
short 1 short-one
if [ -n "$mpi" ]; then
    short 2 short-two
    short 3 short-scorer --set placement.num_scorers=1 --set env_runners.num_env_runners=1
fi

[ $failed = 0 ] && echo "scores: all passed"
exit $failed
