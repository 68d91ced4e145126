#!/bin/bash
# Runs small stages of every algorithm on two ranks, on rows of ids and on text, with models of GPT-2 and of Llama type,
# and has audit.py recompute all their numbers with PyTorch. $1: the program.
set -u
program=${1:?usage: audit.sh PROGRAM}
here=$(cd "$(dirname "$0")" && pwd)

python=
for candidate in "${PHALANX_PYTHON:-}" /tmp/phx/torch/bin/python python3; do
    if [ -n "$candidate" ] && "$candidate" -c 'import torch, transformers, h5py, safetensors' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "skipped: no Python with torch, transformers, h5py and safetensors (PHALANX_PYTHON names one)"
    exit 77
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/phalanx-audit-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

# Models with wide weights, so that distributions are far from flat, and with a stop token; rows of token ids.
"$python" - "$here/../../LICENSE" >make.log 2>&1 <<'MAKE' || { cat make.log; exit 1; }
import json, random, sys
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
torch.manual_seed(1)
random.seed(2)
common = dict(vocab_size=48, bos_token_id=0, eos_token_id=1, initializer_range=0.3)
text = common | {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 0}
GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=32, **common)).save_pretrained("gpt2")
LlamaForCausalLM(LlamaConfig(hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
                             num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=False,
                             **common)).save_pretrained("llama")
for name, model in {"gpt2": GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, **text)),
                    "llama": LlamaForCausalLM(LlamaConfig(hidden_size=16, intermediate_size=40, num_hidden_layers=2,
                                                          num_attention_heads=4, num_key_value_heads=2,
                                                          max_position_embeddings=64, **text))}.items():
    model.save_pretrained("text-" + name)
sentences = [line.strip() for line in open(sys.argv[1]) if 20 < len(line.strip()) < 120]
sentence = lambda: random.choice(sentences)
with open("texts.jsonl", "w") as f, open("demos.jsonl", "w") as g, open("answers.jsonl", "w") as h:
    for _ in range(15):
        cut = lambda: " " + sentence()[:random.randint(4, 20)]
        f.write(json.dumps({"text": sentence()}) + "\n")
        g.write(json.dumps({"prompt": sentence()[:12], "completion": cut()}) + "\n")
        h.write(json.dumps({"prompt": sentence()[:12], "chosen": cut(), "rejected": cut(), "margin": 0.25}) + "\n")
ids = lambda low, high: [random.randrange(2, 48) for _ in range(random.randint(low, high))]
with open("prompts.jsonl", "w") as f:
    for _ in range(11):
        f.write(json.dumps({"prompt_ids": ids(1, 7)}) + "\n")
with open("pairs.jsonl", "w") as f:
    for _ in range(24):
        pair = {"prompt_ids": ids(2, 6), "chosen_ids": ids(2, 8) + [1], "rejected_ids": ids(2, 8) + [1]}
        f.write(json.dumps(pair) + "\n")
MAKE

cat >audit.yaml <<'YAML'
defaults:
  run: {name: audit, seed: 5, dir: runs}
  rl_module: {reward: {stage: reward}}
  environment: {prompts: prompts.jsonl, max_prompt_tokens: 8, max_completion_tokens: 12}
  env_runners: {samples_per_prompt: 2}
  training: {optimizer: {eps: 1.0e-5}}
  checkpointing: {interval: 1, initial: true, keep: null}
stages:
  reward:
    algorithm: reward
    rl_module: {reward: {path: gpt2}}
    data: {train: pairs.jsonl, max_tokens: 32}
    training: {batch_size: 8, lr: 1.0e-2}
    stop: {epochs: 2}
  gpt2:                             # the defaults of PPO, a reward model beside a rule, more than one epoch
    algorithm: ppo
    rl_module: {policy: {path: gpt2}, reference: {same_as: policy}, critic: {same_as: reward}}
    environment: {rewards: [{kind: model, weight: 0.7}, {kind: length, target: 6, weight: 0.3}]}
    env_runners: {temperature: 0.8}
    training: {prompts_per_iteration: 6, num_epochs: 3, minibatch_size: 5, lr: 1.0e-3, critic_lr: 3.0e-3,
               entropy_coeff: 0.01, kl: {coeff: 0.1}}
    stop: {iterations: 3}
  llama:                            # everything that is off by default
    algorithm: ppo
    rl_module: {policy: {path: llama}, reference: {same_as: policy}, critic: {same_as: policy}}
    environment:
      rewards: [{kind: length, target: 5}, {kind: model, weight: -0.5}]
      missing_eos: {mode: set, value: -0.7}
      reward_clip: 0.9
    training: {prompts_per_iteration: 5, num_epochs: 2, minibatch_size: 4, lr: 2.0e-3, critic_lr: 2.0e-3,
               lr_schedule: cosine, warmup_steps: 4, lr_floor: 0.1, grad_clip: 0.3,
               optimizer: {weight_decay: 0.1, betas: [0.8, 0.99]}, gamma: 0.97, lambda_: 0.9, bootstrap_truncated: true,
               whiten_advantages: false, clip_param: 0.1, clip_param_high: 0.15, dual_clip: 1.2, vf_clip_param: null,
               vf_loss_coeff: 0.5, entropy_coeff: 0.02, loss_aggregation: seq-mean-token-mean,
               kl: {coeff: 0.2, estimator: k3, target: 1.5, horizon: 40}}
    reporting: {samples: {iterations_per_file: 2}}
    stop: {iterations: 3}
  masked:                           # truncated samples leave the batch; the penalty stands in the loss
    algorithm: ppo
    rl_module: {policy: {path: gpt2}, reference: {path: gpt2}, critic: {path: llama}}
    environment: {rewards: [{kind: length, target: 4}], missing_eos: {mode: mask}, max_completion_tokens: 20}
    training: {prompts_per_iteration: 8, num_epochs: 2, minibatch_size: 3, lr: 1.0e-3, critic_lr: 1.0e-3,
               grad_clip: 0.0, loss_aggregation: seq-mean-token-sum-norm, kl: {coeff: 0.3, estimator: k2, where: loss}}
    stop: {iterations: 2}
  new:                              # random models without a stop token
    algorithm: ppo
    rl_module:
      policy: {new: {architecture: llama, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, vocab_size: 48,
                     max_position_embeddings: 32, initializer_range: 0.2}}
      reference: {same_as: policy}
      critic: {new: {architecture: gpt2, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, vocab_size: 48,
                     max_position_embeddings: 32, initializer_range: 0.2}}
    environment: {rewards: [{kind: model}], missing_eos: {mode: none}, max_completion_tokens: 6}
    training: {prompts_per_iteration: 7, num_epochs: 1, minibatch_size: 14, lr: 3.0e-3, critic_lr: 3.0e-3,
               loss_aggregation: seq-mean-token-sum, kl: {coeff: 0.05, estimator: k3, where: loss}}
    stop: {iterations: 2}
YAML

"$program" tokenizer train --data "$here/../../LICENSE" --vocab-size 300 --out tokenizer >make.log 2>&1 ||
    { cat make.log; exit 1; }
cp tokenizer/* text-gpt2 && cp tokenizer/* text-llama

cat >text.yaml <<'YAML'
defaults:
  run: {name: text, seed: 8, dir: "text-${TEXT_KIND}-run"}
  data: {max_tokens: 40}
  checkpointing: {interval: 1, initial: true, keep: null}
stages:
  pretrain:                         # texts are cut into pieces; the second file every other epoch
    algorithm: pretrain
    rl_module: {policy: {path: "text-${TEXT_KIND}"}}
    data: {train: [{file: texts.jsonl}, {file: demos-texts.jsonl, weight: 0.5}], max_tokens: 16}
    training: {batch_tokens: 150, lr: 1.0e-2, lr_schedule: cosine, warmup_steps: 1, optimizer: {weight_decay: 0.1}}
    stop: {steps: 7}
  sft:
    algorithm: sft
    rl_module: {policy: {stage: pretrain}}
    data: {train: demos.jsonl}
    training: {batch_size: 4, lr: 1.0e-2, grad_clip: 0.5}
    stop: {epochs: 1.2}
  reward:
    algorithm: reward
    rl_module: {reward: {stage: sft}}
    data: {train: answers.jsonl}
    training: {batch_size: 5, lr: 1.0e-2, center_rewards_coefficient: 0.01}
    stop: {epochs: 1}
  ppo:
    algorithm: ppo
    rl_module: {policy: {stage: sft}, reference: {same_as: policy}, reward: {stage: reward}, critic: {same_as: reward}}
    environment: {prompts: demos.jsonl, max_prompt_tokens: 14, max_completion_tokens: 12, rewards: [{kind: model}],
                  stop_strings: ["e", "<|endoftext|>"]}
    training: {prompts_per_iteration: 6, num_epochs: 2, minibatch_size: 4, lr: 1.0e-3, critic_lr: 1.0e-3}
    stop: {iterations: 2}
YAML
# What leaves nothing to divide by, or nothing at all; on one rank, as there is one sample.
cat >edge.yaml <<'YAML'
defaults:
  run: {name: edge, seed: 5, dir: edge}
  rl_module:
    policy: {new: {architecture: llama, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, vocab_size: 48,
                   max_position_embeddings: 32, initializer_range: 0.2}}
    reference: {same_as: policy}
    critic: {same_as: policy}
  environment: {prompts: prompts.jsonl, max_prompt_tokens: 8, max_completion_tokens: 6,
                rewards: [{kind: length, target: 3}], missing_eos: {mode: none}}
  training: {prompts_per_iteration: 3, num_epochs: 2, minibatch_size: 2, lr: 1.0e-3, critic_lr: 1.0e-3}
  checkpointing: {interval: 1, initial: true, keep: null}
  stop: {iterations: 2}
stages:
  same:                             # all scores, values and advantages are equal
    algorithm: ppo
    environment: {max_completion_tokens: 1, rewards: [{kind: length, target: 7}]}
    env_runners: {samples_per_prompt: 7}
    training: {prompts_per_iteration: 1, minibatch_size: 3, kl: {coeff: 0.0}}
  single:                           # one sample of one token: no spread of advantages
    algorithm: ppo
    environment: {max_completion_tokens: 1}
    training: {prompts_per_iteration: 1, minibatch_size: 1}
  none:                             # all samples leave the batch
    algorithm: ppo
    environment: {missing_eos: {mode: mask}}
  failed:                           # all scores are NaN
    algorithm: ppo
    environment: {rewards: [{kind: exec, command: [sh, no-score.sh]}]}
YAML
cat >no-score.sh <<'SH'
while read -r line; do
    line=${line#*\"id\":}
    echo "{\"id\": ${line%%,*}, \"score\": null}"
done
SH
sed 's/"completion".*/"x": 0}/; s/"prompt"/"text"/; s/, "x": 0//' demos.jsonl >demos-texts.jsonl

export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1 \
       OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
launch="mpirun -n 2"
command -v mpirun >/dev/null || launch=
train() {
    $launch "$program" train "$@" >train.log 2>&1 || { tail -n 20 train.log; exit 1; }
}
train audit.yaml
for kind in gpt2 llama; do
    TEXT_KIND=$kind train text.yaml
done
launch=
train edge.yaml
"$python" "$here/audit.py" runs/{reward,gpt2,llama,masked,new} edge/{same,single,none,failed} text-{gpt2,llama}-run/{pretrain,sft,reward,ppo}
