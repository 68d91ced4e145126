#!/usr/bin/env python3
"""Writes the committed fixtures of test_golden.c with PyTorch and transformers (run by hand; the test needs neither).

Each folder of tests/golden/models/ is a tiny random model as transformers saves it, and what transformers makes of it
in float64, every sequence of the ragged batch on its own, so that no padding is involved:
  expected.json          ids, starts, loss, the losses and gradient norms of ten optimizer steps, the optimizer's
                         settings, greedy: a prompt and what follows, the two best logits never closer than `margin`
  expected.safetensors   logits [tokens, V], grad.NAME, after.NAME (weights after ten AdamW steps)
Classifiers: scores of the sequences from one padded batch, and the gradient of the sum of score * weight.
"""
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import (AutoModelForCausalLM, AutoModelForSequenceClassification, GemmaConfig, GPT2Config,
                          GPTNeoXConfig, LlamaConfig, MistralConfig, OPTConfig, Qwen2Config, Qwen3Config)

HERE = pathlib.Path(__file__).resolve().parent / "models"
OPTIMIZER = {"lr": 2e-3, "betas": [0.9, 0.95], "eps": 1e-5, "weight_decay": 0.1, "clip": 1.0, "steps": 10}
LENGTHS = [7, 12, 1, 5, 16]
PAD = 0  # never in a sequence


def gpt2(**more):
    return GPT2Config(vocab_size=29, n_positions=24, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
                      attn_pdrop=0.0, bos_token_id=1, eos_token_id=2, **more)


def llama(kind=LlamaConfig, **more):
    return kind(vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=32, bos_token_id=1, eos_token_id=2, **more)


def neox(**more):
    return GPTNeoXConfig(vocab_size=30, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                         num_attention_heads=2, max_position_embeddings=32, bos_token_id=1, eos_token_id=2, **more)


def opt(**more):
    return OPTConfig(vocab_size=33, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=4,
                     max_position_embeddings=24, word_embed_proj_dim=16, dropout=0.0, bos_token_id=1, eos_token_id=2,
                     pad_token_id=PAD, **more)


LLAMA3 = {"rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}
YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 2.0, "original_max_position_embeddings": 16}
HALF = {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5}
QUARTER = HALF | {"partial_rotary_factor": 0.25}
MODELS = {  # new ones at the end: the place is the seed
    "gpt2_tied": lambda: gpt2(),
    "gpt2_untied": lambda: gpt2(tie_word_embeddings=False, n_inner=40, activation_function="gelu"),
    "llama_tied_llama3": lambda: llama(tie_word_embeddings=True, rope_parameters=LLAMA3),
    "llama_untied_bias": lambda: llama(head_dim=6, attention_bias=True, mlp_bias=True, rope_parameters=LINEAR),
    "qwen2_yarn": lambda: llama(Qwen2Config, tie_word_embeddings=True, rope_parameters=YARN),
    "gpt2_score": lambda: gpt2(num_labels=1, pad_token_id=PAD),
    "llama_score": lambda: llama(num_labels=1, pad_token_id=PAD),
    "mistral_window": lambda: llama(MistralConfig, sliding_window=5),
    "qwen3_tied": lambda: llama(Qwen3Config, head_dim=6, tie_word_embeddings=True),
    "gemma_tied": lambda: llama(GemmaConfig, head_dim=6),
    "neox_parallel": lambda: neox(rope_parameters=QUARTER),
    "neox_sequential": lambda: neox(rope_parameters=HALF, use_parallel_residual=False, attention_bias=False),
    "opt_tied": lambda: opt(),
    "mistral_score": lambda: llama(MistralConfig, sliding_window=5, num_labels=1, pad_token_id=PAD),
    "qwen2_score": lambda: llama(Qwen2Config, num_labels=1, pad_token_id=PAD),
    "qwen3_score": lambda: llama(Qwen3Config, head_dim=6, num_labels=1, pad_token_id=PAD),
    "gemma_score": lambda: llama(GemmaConfig, head_dim=6, num_labels=1, pad_token_id=PAD),
    "neox_score": lambda: neox(rope_parameters=QUARTER, num_labels=1, pad_token_id=PAD),
    "opt_score": lambda: opt(num_labels=1),
}


def randomize(model, generator):
    """Weights large enough that attention is far from uniform, and biases and norms that are not 0 and 1."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim >= 2:
                p.copy_(0.35 * noise)
            elif name.endswith("bias"):
                p.copy_(0.1 * noise)
            else:  # Gemma's norms multiply by 1 + weight
                p.copy_(0.1 * noise + (model.config.model_type != "gemma"))


def loss_of(model, sequences):
    total, count, logits = 0.0, 0, []
    for ids in sequences:
        z = model(torch.tensor([ids])).logits[0]
        logits.append(z)
        if len(ids) > 1:
            total = total + torch.nn.functional.cross_entropy(z[:-1], torch.tensor(ids[1:]), reduction="sum")
            count += len(ids) - 1
    return total / count, torch.cat(logits)


def greedy(model, prompt, count):
    """What follows the prompt, and the smallest lead of a chosen token's logit."""
    ids, margin = list(prompt), float("inf")
    with torch.no_grad():
        for _ in range(count):
            best = model(torch.tensor([ids])).logits[0, -1].topk(2)
            margin = min(margin, float(best.values[0] - best.values[1]))
            ids.append(int(best.indices[0]))
    assert margin > 1e-3, "another seed: greedy text hangs on rounding"
    return {"prompt": list(prompt), "ids": ids[len(prompt):], "margin": margin}


def named(model, prefix, pick):
    if model.config.model_type == "gpt_neox":  # the name in files
        return {prefix + name.replace("lm_head", "embed_out"): pick(p).detach().float().contiguous().clone()
                for name, p in model.named_parameters()}
    return {prefix + name: pick(p).detach().float().contiguous().clone() for name, p in model.named_parameters()}


def train(model, sequences):
    decay = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": OPTIMIZER["weight_decay"]},
                                   {"params": rest, "weight_decay": 0.0}], lr=OPTIMIZER["lr"],
                                  betas=tuple(OPTIMIZER["betas"]), eps=OPTIMIZER["eps"])
    losses, norms = [], []
    for _ in range(OPTIMIZER["steps"]):
        optimizer.zero_grad()
        loss, _ = loss_of(model, sequences)
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER["clip"])))
        optimizer.step()
        losses.append(loss.item())
    return losses, norms


def expect_lm(model, sequences):
    loss, logits = loss_of(model, sequences)
    loss.backward()
    text = greedy(model, sequences[-1][:4], 16)
    tensors = {"logits": logits.detach().float()} | named(model, "grad.", lambda p: p.grad)
    losses, norms = train(model, sequences)
    tensors |= named(model, "after.", lambda p: p)
    return tensors, {"loss": loss.item(), "losses": losses, "grad_norms": norms, "optimizer": OPTIMIZER,
                     "greedy": text}


def expect_scores(model, sequences):
    longest = max(map(len, sequences))
    ids = torch.tensor([s + [PAD] * (longest - len(s)) for s in sequences])
    mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sequences])
    scores = model(ids, attention_mask=mask).logits[:, 0]
    weights = [0.5, -1.0, 2.0, 1.5, -0.25]
    (scores * torch.tensor(weights, dtype=scores.dtype)).sum().backward()
    return named(model, "grad.", lambda p: p.grad), {"scores": scores.tolist(), "weights": weights}


def make(name, seed):
    generator = torch.Generator().manual_seed(seed)
    score = name.endswith("score")
    model = (AutoModelForSequenceClassification if score else AutoModelForCausalLM).from_config(MODELS[name]()).eval()
    randomize(model, generator)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    sequences = [torch.randint(1, model.config.vocab_size, (n,), generator=generator).tolist() for n in LENGTHS]
    model = model.double()
    tensors, numbers = (expect_scores if score else expect_lm)(model, sequences)
    save_file(tensors, folder / "expected.safetensors")
    starts = [sum(LENGTHS[:i]) for i in range(len(LENGTHS) + 1)]
    numbers |= {"ids": sum(sequences, []), "starts": starts}
    (folder / "expected.json").write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for place, key in enumerate(MODELS):
        make(key, 1000 + place)
        print(key)
