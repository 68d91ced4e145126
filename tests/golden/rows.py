"""Which rows each step of a run learns from: data files through the run's own tokenizer by the transformers library,
cut and ordered as the run says. Rows of ids, and plain shapes of text: text; prompt and completion; prompt, chosen and
rejected."""
import ctypes
import ctypes.util
import json
import os
import struct

import numpy as np
from transformers import AutoTokenizer

ORDER, PERMUTE = 3, 4  # purposes of the random numbers


class Tokenizer:
    """Ids of texts; None where the run has no tokenizer."""

    def __init__(self, directory, eos):
        self.eos = eos if eos is not None else -1
        self.library = None
        if os.path.exists(os.path.join(directory, "tokenizer.json")):
            self.library = AutoTokenizer.from_pretrained(directory)
            if self.library.eos_token_id is not None:
                self.eos = self.library.eos_token_id

    def start(self, text):
        ids = self.library.encode(text, add_special_tokens=False)
        bos = self.library.bos_token_id
        adds = bos is not None and bos in self.library.encode("")
        return [bos] + ids if adds and ids[:1] != [bos] else ids

    def answer(self, text):
        return self.ended(self.library.encode(text, add_special_tokens=False))

    def ended(self, ids):
        return ids if self.eos < 0 or ids[-1:] == [self.eos] else ids + [self.eos]


def make_row(record, tokenizer):
    """ids, length of the prompt, ids of the rejected side or None."""
    if "ids" in record:
        return record["ids"], 0, None
    if "text" in record:
        return tokenizer.ended(tokenizer.start(record["text"])), 0, None
    if "prompt_ids" in record:
        prompt = record["prompt_ids"]
        answers = [record[k] for k in ("completion_ids", "chosen_ids", "rejected_ids") if k in record]
    else:
        prompt = tokenizer.start(record["prompt"])
        answers = [tokenizer.answer(record[k]) for k in ("completion", "chosen", "rejected") if k in record]
    return prompt + answers[0], len(prompt), prompt + answers[1] if len(answers) > 1 else None


def read_files(c, tokenizer, limit):
    """Rows that the run keeps, file by file. limit 0: none."""
    files = []
    for entry in c.entries("data.train", "file"):
        rows = []
        with open(entry["file"], encoding="utf-8") as f:
            for line in f:
                record = json.loads(line)
                ids, prompt, rejected = make_row(record, tokenizer)
                if rejected is not None and (max(len(ids), len(rejected)) > limit or ids == rejected):
                    continue
                ids = ids[:limit] if limit and rejected is None else ids
                if rejected is None and len(ids) <= max(prompt, 1):
                    continue
                rows.append((ids, prompt, rejected, float(record.get("margin", 0.0))))
        files.append((rows, entry["weight"]))
    return files


def pieces(rows, limit):
    """Texts of pretraining are cut; a last piece of one token has nothing to predict."""
    out = []
    for ids, prompt, _, _ in rows:
        for at in range(0, len(ids), limit):
            piece = ids[at:at + limit]
            if len(piece) >= 2 and at + len(piece) > prompt:
                out.append((piece, max(0, prompt - at), None, 0.0))
    return out


# ---- random numbers --------------------------------------------------------------------------------------------------


def key_of(seed, stage, purpose):
    """As px_rng_make: XXH3 of seed and purpose, then of the stage's name."""
    xxh = ctypes.CDLL(ctypes.util.find_library("xxhash") or "libxxhash.so.0")
    xxh.XXH3_64bits_withSeed.restype = ctypes.c_uint64
    xxh.XXH3_64bits_withSeed.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64)
    h = xxh.XXH3_64bits_withSeed(struct.pack("<QQ", seed, purpose), 16, 0)
    return xxh.XXH3_64bits_withSeed(stage.encode(), len(stage.encode()), h)


def philox(key, a, b, c, d):
    """Philox4x32-10 (Salmon et al. 2011); any counter may be an array."""
    mask = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(x, dtype=np.uint64) for x in (a, b, c, d)))
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = ((p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0), p1 & mask,
                          (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1), p0 & mask)
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def permutation(key, epoch, n):
    """Fisher and Yates from the back, place i by the uniform number of counter (epoch, i)."""
    high, low, _, _ = philox(key, epoch & 0xFFFFFFFF, epoch >> 32, np.arange(n), 0)
    uniform = ((high << np.uint64(32) | low) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    out = list(range(n))
    for i in range(n - 1, 0, -1):
        j = int(uniform[i] * (i + 1))
        out[i], out[j] = out[j], out[i]
    return out


class Order:
    """The row at each position, over epochs without end."""

    def __init__(self, files, shuffle, key):
        self.files, self.shuffle, self.key = files, shuffle, key
        self.places = [max(1, int(np.floor(weight * len(rows) + 0.5))) if rows else 0 for rows, weight in files]
        self.length = sum(self.places)
        self.cached = (-1, None)

    def __call__(self, position):
        epoch, place = divmod(position, self.length)
        if self.shuffle:
            if self.cached[0] != epoch:
                self.cached = (epoch, permutation(self.key, epoch, self.length))
            place = self.cached[1][place]
        for (rows, _), places in zip(self.files, self.places):
            if place < places:
                at, n = (epoch * places + place) % len(rows), len(rows)
                return rows[at * stride(n) % n if self.shuffle and places % n else at]
            place -= places
        raise AssertionError("a place beyond the epoch")


def stride(n):
    out = int(n * 0.6180339887498949)
    while out < 1 or np.gcd(n, out) != 1:
        out += 1
    return out
