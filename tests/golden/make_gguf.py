#!/usr/bin/env python3
"""Writes the committed fixtures of test_gguf.c (run by hand with the gguf, numpy, safetensors packages; the test needs none).

  tests/golden/gguf/NAME.gguf    the model tests/golden/models/NAME as ggml's converter lays it out, float32
  tests/golden/gguf/types.gguf   an embedding of each quantised type with random blocks, as tensors blk.I.ffn_up.weight
  tests/golden/gguf/types.bin    what gguf.quants makes of them, float32, in the order of TYPES, 512 values each
"""
import json
import pathlib

import gguf
import numpy as np
from safetensors.numpy import load_file

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "gguf"
TYPES = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
MODELS = {"llama_untied_bias": "llama", "qwen2_yarn": "qwen2", "qwen3_tied": "qwen3", "gemma_tied": "gemma",
          "gpt2_tied": "gpt2", "neox_parallel": "gptneox"}
STEMS = [("model.embed_tokens", "token_embd"), ("transformer.wte", "token_embd"), ("gpt_neox.embed_in", "token_embd"),
         ("transformer.wpe", "position_embd"), ("model.norm", "output_norm"), ("transformer.ln_f", "output_norm"),
         ("gpt_neox.final_layer_norm", "output_norm"), ("lm_head", "output"), ("embed_out", "output")]
BLOCK = {"input_layernorm": "attn_norm", "ln_1": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "attn.c_attn": "attn_qkv",
         "attn.c_proj": "attn_output", "attention.query_key_value": "attn_qkv", "attention.dense": "attn_output",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm",
         "ln_2": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down", "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down"}


def gguf_name(name):
    stem, kind = name.rsplit(".", 1)
    for hf, gg in STEMS:
        if stem == hf:
            return f"{gg}.{kind}"
    parts = stem.split(".")
    at = next(i for i, p in enumerate(parts) if p.isdigit())
    return f"blk.{parts[at]}.{BLOCK['.'.join(parts[at + 1:])]}.{kind}"


def laid_out(arch, name, w, c):
    if arch == "llama" and (".attn_q." in name or ".attn_k." in name):
        heads = c["num_attention_heads"] if ".attn_q." in name else c["num_key_value_heads"]
        w = w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)
    if arch == "gpt2" and w.ndim == 2 and name.startswith("blk."):
        w = w.T
    if arch == "gptneox" and ".attn_qkv." in name:
        heads = c["num_attention_heads"]
        w = w.reshape(heads, 3, -1, *w.shape[1:]).swapaxes(0, 1).reshape(w.shape)
    if arch == "gemma" and name.endswith("norm.weight"):
        w = w + np.float32(1)
    return np.ascontiguousarray(w, dtype=np.float32)


def model(name, arch):
    source = HERE / "models" / name
    c = json.load(open(source / "config.json"))
    w = gguf.GGUFWriter(str(OUT / f"{name}.gguf"), arch)
    width = c.get("hidden_size") or c["n_embd"]
    heads = c.get("num_attention_heads") or c["n_head"]
    w.add_context_length(c.get("max_position_embeddings") or c["n_positions"])
    w.add_embedding_length(width)
    w.add_block_count(c.get("num_hidden_layers") or c["n_layer"])
    w.add_feed_forward_length(c.get("intermediate_size") or c.get("n_inner") or 4 * width)
    w.add_head_count(heads)
    rope = c.get("rope_parameters") or {}
    if arch in ("gpt2", "gptneox"):
        w.add_layer_norm_eps(c.get("layer_norm_eps") or c["layer_norm_epsilon"])
    else:
        w.add_head_count_kv(c["num_key_value_heads"])
        w.add_layer_norm_rms_eps(c["rms_norm_eps"])
        w.add_key_length(c.get("head_dim") or width // heads)
        w.add_value_length(c.get("head_dim") or width // heads)
    if arch == "gptneox":
        w.add_parallel_residual(c["use_parallel_residual"])
        w.add_rope_dimension_count(int(rope["partial_rotary_factor"] * width // heads))
    if rope:
        w.add_rope_freq_base(rope["rope_theta"])
        if rope["rope_type"] != "default":
            w.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
            w.add_rope_scaling_factor(rope["factor"])
            if "original_max_position_embeddings" in rope:
                w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    w.add_uint32("tokenizer.ggml.bos_token_id", c["bos_token_id"])
    w.add_uint32("tokenizer.ggml.eos_token_id", c["eos_token_id"])
    for key, value in load_file(source / "model.safetensors").items():
        w.add_tensor(gguf_name(key), laid_out(arch, gguf_name(key), value.astype(np.float32), c))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def random_blocks(rng, kind):
    """512 values: random bits, but scales that are small finite numbers."""
    size, width = gguf.GGML_QUANT_SIZES[kind]
    if size == 1:
        return rng.standard_normal(512).astype(np.float16).view(np.uint8) if kind.name == "F16" else \
            (rng.standard_normal(512).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    blocks = rng.integers(0, 256, (512 // size, width), dtype=np.uint8)
    scale = lambda n: (rng.standard_normal((len(blocks), n)) * 0.02).astype(np.float16).view(np.uint8)
    if kind.name == "Q6_K":
        blocks[:, -2:] = scale(1)
    else:
        n = 2 if kind.name in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else 1
        blocks[:, :2 * n] = scale(n)
    return blocks.reshape(-1)


def types():
    rng = np.random.default_rng(7)
    w = gguf.GGUFWriter(str(OUT / "types.gguf"), "llama")
    values = []
    for i, name in enumerate(TYPES):
        kind = gguf.GGMLQuantizationType[name]
        data = random_blocks(rng, kind).reshape(2, -1)
        values.append(gguf.quants.dequantize(data, kind).astype(np.float32).reshape(-1))
        w.add_tensor(f"blk.{i}.ffn_up.weight", data, raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    np.concatenate(values).tofile(OUT / "types.bin")


OUT.mkdir(exist_ok=True)
for each, arch in MODELS.items():
    model(each, arch)
types()
