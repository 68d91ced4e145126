#!/usr/bin/env python3
"""Writes tests/fuzz/corpus/gguf: small files that a fuzzer can start from (no packages needed).

Usage: make_gguf.py [OUT]. One model without weights to speak of, one tensor of every type, tokenizers of each kind.
"""
import pathlib
import struct
import sys

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "corpus/gguf")
U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
TYPES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 12: (256, 144), 13: (256, 176),
         14: (256, 210), 30: (1, 2)}  # number: elements and bytes of a block


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, v):
    if kind == STRING:
        return string(v)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], v)


def pair(key, kind, v):
    if isinstance(v, list):
        return string(key) + struct.pack("<IIQ", ARRAY, kind, len(v)) + b"".join(value(kind, x) for x in v)
    return string(key) + struct.pack("<I", kind) + value(kind, v)


def write(name, pairs, tensors, version=3):
    """tensors: (name, innermost dimension first, number of the type)"""
    head, data = b"", b""
    for t, shape, kind in tensors:
        elements, size = TYPES[kind]
        count = 1
        for n in shape:
            count *= n
        head += string(t) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += bytes((i * 37 + kind) % 251 for i in range(count // elements * size))
        data += b"\0" * (-len(data) % 32)
    file = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pair(*p) for p in pairs) + head
    (OUT / name).write_bytes(file + b"\0" * (-len(file) % 32) + data)


def model(arch):
    return [("general.architecture", STRING, arch), (f"{arch}.context_length", U32, 8), (f"{arch}.embedding_length", U32, 4),
            (f"{arch}.block_count", U32, 1), (f"{arch}.feed_forward_length", U32, 4), (f"{arch}.attention.head_count", U32, 2)]


def tokenizer(kind, tokens, merges=(), scores=()):
    pairs = [("tokenizer.ggml.model", STRING, kind), ("tokenizer.ggml.tokens", STRING, tokens),
             ("tokenizer.ggml.token_type", I32, [3] + [1] * (len(tokens) - 1)), ("tokenizer.ggml.bos_token_id", U32, 0),
             ("tokenizer.ggml.eos_token_id", U32, 0), ("tokenizer.ggml.add_bos_token", BOOL, True)]
    if merges:
        pairs += [("tokenizer.ggml.pre", STRING, "gpt-2"), ("tokenizer.ggml.merges", STRING, list(merges))]
    if scores:
        pairs += [("tokenizer.ggml.scores", F32, list(scores))]
    return pairs


OUT.mkdir(parents=True, exist_ok=True)
llama = model("llama") + [("llama.attention.layer_norm_rms_epsilon", F32, 1e-5), ("llama.attention.head_count_kv", U32, 1)]
write("llama", llama + tokenizer("llama", ["<unk>", "a", "b", "ab"], scores=[0, -1, -2, -3]),
      [("token_embd.weight", (4, 4), 0), ("blk.0.attn_q.weight", (4, 4), 1), ("blk.0.attn_k.weight", (4, 2), 30)])
write("gpt2", model("gpt2") + [("gpt2.attention.layer_norm_epsilon", F32, 1e-5)] +
      tokenizer("gpt2", ["<|e|>", "a", "b", "ab"], merges=["a b"]),
      [("token_embd.weight", (4, 4), 0), ("position_embd.weight", (4, 8), 0), ("blk.0.attn_qkv.weight", (4, 12), 0)])
write("gptneox", model("gptneox") + [("gptneox.attention.layer_norm_epsilon", F32, 1e-5), ("gptneox.rope.dimension_count", U32, 2),
                                     ("gptneox.use_parallel_residual", BOOL, True)],
      [("token_embd.weight", (4, 4), 0), ("blk.0.attn_qkv.weight", (4, 12), 0), ("blk.0.attn_qkv.bias", (12,), 0)])
for arch in ("qwen2", "qwen3", "gemma"):
    pairs = [(k.replace("llama.", f"{arch}."), t, arch if k == "general.architecture" else v) for k, t, v in llama]
    write(arch, pairs + [(f"{arch}.attention.key_length", U32, 2), (f"{arch}.rope.scaling.type", STRING, "yarn"),
                         (f"{arch}.rope.scaling.factor", F32, 2.0)],
          [("token_embd.weight", (4, 4), 0), ("blk.0.attn_q_norm.weight", (2,), 0), ("output_norm.weight", (4,), 0)])
for kind, (elements, _) in TYPES.items():
    write(f"type{kind}", [("general.alignment", U32, 64)] * (kind == 0), [("blk.0.ffn_up.weight", (elements, 1), kind)], 2)
