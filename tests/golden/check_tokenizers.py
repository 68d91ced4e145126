"""The same ids and the same decoded text as the tokenizers library, on the shared texts and on random strings.
Run: python check_tokenizers.py PHALANX [--data SHARED_DATA] [--strings N] [--only PART_OF_A_NAME]
Tokenizers: those of the shared data, and one of every kind of part built here. Strings are drawn from a fixed seed."""
import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SHARED = ["gpt2", "llama2-phi3", "llama3", "qwen3", "gpt-neox-20b", "minimind-6400", "tiny-bpe-2000"]
TEXTS = ["zh/poetry_corpus_simplified.json", "zh/tang300.json", "zh/tatoeba-cmn-eng.txt", "math/SVAMP.json",
         "math/gsm8k-test.jsonl", "math/simple_arithmetic_withspaces.jsonl", "text/tinyshakespeare.txt", "text/names.txt",
         "text/tinystories-sample.txt", "text/wikitext2-valid.txt", "text/rasbt-instruction-data.json",
         "preference/hh_rlhf_tiny.json", "preference/stack_exchange_paired_tiny.json",
         "preference/llamafactory-dpo_zh_demo.json", "tokenizers/gpt2/merges.txt", "rewards/vader_lexicon.txt"]

# ---- strings

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
GROUPS = [
    LETTERS, LETTERS, LETTERS + "      ", "0123456789", " \t\n\r\v\f", "'\"!?.,;:-_()[]{}<>|/\\@#$%^&*+=~`",
    "\u00a0\u1680\u2000\u2003\u2009\u200b\u2028\u2029\u202f\u205f\u3000\u180e\ufeff\x85\x1c\x1d\x1e\x1f\x01\x7f\xad",
    "éèêëàâäôöûüçñßÉÈÀÇÑİıſŉΣςσΆΌ", "\u0300\u0301\u0303\u0308\u0327\u0345\u05b0\u064b\u0e34\u1ab0\u20d0\u3099\u093c",
    "你好世界中国人民大学天地玄黄宇宙洪荒日月盈昃", "，。！？「」、《》：；", "あいうえおカタカナヷゞー", "한국어조선말\u1100\u1161\u11a8\uac00",
    "अआइक्षत्र१२३", "กขคงำ๑๒", "مرحبا٠١٢", "שלום", "αβγδεΑΒΓ", "абвгдАБВГДёЁ", "½¼²³ⅧⅣ①⑳㊀٣",
    "👍🏽🦙👩\u200d🚀🇨🇳❤\ufe0f🏴", "ﬁﬂﬀ㎏㍿Å\u212b\u2126ﾊﾟＡｂ１", "\u2581\u2581\u2581ĠĊ", "\ue000\uf8ff\U000f0000\U0010fffd", "𝐀𝔸𝟘𐐀𞤀",
]
PHRASES = ["'s", "'LL", "'re", "I'M", "'ſ", "don't", "<0x41>", "<0xE4>", "</s>", "<s>", "<unk>", "[UNK]", "<|endoftext|>", "<|im_start|>",
           "<|im_end|>", "<|eot_id|>", "<think>", "  ", "\n\n", "\r\n", "\t\t", "hello", "Hello world", "the ", " the", "http://a.b/c?d=e",
           "def f(x):\n    return x\n", "1234567", "3.14", "a\u0301", "中文 English 混合"]


def characters():
    """What Python's tables assign, private use, and planes that nobody assigns: characters that are newer than the tables
    of PCRE2 and utf8proc on this machine have no class there yet."""
    def drawn(c):
        few = 0xE000 <= c < 0xF900 or c >= 0x40000 and c % 97 == 0
        return few or c < 0xD800 or 0xF900 <= c < 0x40000
    return [chr(c) for c in range(1, 0x110000) if drawn(c) and (unicodedata.category(chr(c)) != "Cn" or 0x40000 <= c < 0xE0000)]


def draw(rng, pool, extra):
    kind = rng.random()
    out = []
    for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4, 5, 6, 8, 12])):
        if kind < 0.15:
            out.append("".join(rng.choices(pool, k=rng.randint(1, 6))))
        elif rng.random() < 0.25:
            out.append(rng.choice(PHRASES + extra))
        else:
            group = rng.choice(GROUPS)
            out.append("".join(rng.choices(group, k=rng.choice([1, 1, 2, 3, 5, 9]))))
            if rng.random() < 0.5:
                out.append(" ")
    return "".join(out)


def random_strings(count, seed, pool, extra):
    rng = random.Random(seed)
    return [draw(rng, pool, extra) for _ in range(count)]


def shared_texts(data):
    """Whole files where that is quick, and all of their lines."""
    texts = []
    for name in TEXTS:
        with open(os.path.join(data, name), encoding="utf-8") as f:
            text = f.read()
        texts += [text[:200_000]] + text.splitlines(keepends=True)[:20_000]
    return [t for t in texts if "\0" not in t]


# ---- tokenizers built here

def corpus(data):
    lines = []
    for name in ("text/tinyshakespeare.txt", "zh/tatoeba-cmn-eng.txt", "math/gsm8k-test.jsonl"):
        with open(os.path.join(data, name), encoding="utf-8") as f:
            lines += f.read().splitlines()[:3000]
    return lines


def some_normalizer(rng):
    n = normalizers
    pool = [lambda: n.NFC(), lambda: n.NFD(), lambda: n.NFKC(), lambda: n.NFKD(), lambda: n.Lowercase(), lambda: n.StripAccents(),
            lambda: n.Strip(rng.random() < 0.7, rng.random() < 0.7), lambda: n.Prepend("\u2581"), lambda: n.Replace(" ", "\u2581"),
            lambda: n.Replace(Regex(" {2,}"), " "), lambda: n.Replace(Regex("\\s+"), " "), lambda: n.Replace("'", "’"), lambda: n.Nmt(),
            lambda: n.BertNormalizer(clean_text=rng.random() < 0.7, handle_chinese_chars=rng.random() < 0.7,
                                     strip_accents=rng.choice([None, True, False]), lowercase=rng.random() < 0.7)]
    steps = [rng.choice(pool)() for _ in range(rng.choice([0, 1, 1, 2, 3]))]
    return n.Sequence(steps) if steps else None


def some_splits(rng):
    p = pre_tokenizers
    behavior = lambda: rng.choice(["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"])
    pool = [lambda: p.Whitespace(), lambda: p.WhitespaceSplit(), lambda: p.BertPreTokenizer(), lambda: p.Digits(rng.random() < 0.5),
            lambda: p.Punctuation(behavior()), lambda: p.Metaspace(prepend_scheme=rng.choice(["always", "first", "never"]), split=rng.random() < 0.7),
            lambda: p.CharDelimiterSplit(rng.choice([" ", "a", "。"])), lambda: p.FixedLength(length=rng.randint(1, 7)),
            lambda: p.Split(rng.choice([" ", "\n", "ab"]), behavior(), rng.random() < 0.5),
            lambda: p.Split(Regex(rng.choice(["\\s+", "\\w+", "[^\\s\\p{L}]+", "\\d{1,3}", "\\p{L}+|\\p{N}", "\\W", "(?=\\d)", "[\\u4e00-\\u9fff]",
                                              "(?i:the|'s)", "\\b", "[[:alpha:]]+", "(?<=a)b|^x", ".*\\n", "\\h+", "[^\\p{Han}]+", "\\p{Greek}"])), behavior(), rng.random() < 0.4)]
    steps = [rng.choice(pool)() for _ in range(rng.choice([1, 1, 2, 3]))]
    return p.Sequence(steps) if len(steps) > 1 else steps[0]


def add_tokens(rng, t):
    contents = ["<a>", "<|x|>", "the", "Hello", "ab c", "<mask>", "é", "世界", " the", "<a><b>", "[SEP]", "1", "Σ", "\u2581b"]
    for content in rng.sample(contents, rng.randint(1, 6)):
        token = AddedToken(content, lstrip=rng.random() < 0.3, rstrip=rng.random() < 0.3, single_word=rng.random() < 0.3,
                           normalized=rng.random() < 0.5, special=False)
        (t.add_special_tokens if rng.random() < 0.3 else t.add_tokens)([token])


def add_processor(rng, t, unk):
    kind = rng.randint(0, 4)
    p = processors
    pair = lambda s: (s, t.token_to_id(s) if t.token_to_id(s) is not None else 0)
    if kind == 0:
        t.post_processor = p.TemplateProcessing(single=f"{unk} $A <z>", special_tokens=[(unk, t.token_to_id(unk)), ("<z>", 1)])
    elif kind == 1:
        t.post_processor = p.BertProcessing(pair(unk), pair(unk))
    elif kind == 2:
        t.post_processor = p.RobertaProcessing(pair(unk), ("<z>", 1))
    elif kind == 3:
        t.post_processor = p.Sequence([p.ByteLevel(), p.TemplateProcessing(single="$0 <z>", special_tokens=[("<z>", 1)])])


def some_decoder(rng, model):
    d = decoders
    if model == "bytes":
        return d.ByteLevel()
    if model == "wordpiece":
        return rng.choice([d.WordPiece(), d.WordPiece(prefix="##", cleanup=False)])
    return rng.choice([None, d.Metaspace(prepend_scheme=rng.choice(["always", "first", "never"])), d.BPEDecoder(), d.WordPiece(),
                       d.Sequence([d.Replace("\u2581", " "), d.ByteFallback(), d.Fuse(), d.Strip(" ", 1, 0)]),
                       d.Sequence([d.Replace(Regex("a+"), "A"), d.Strip("e", 1, 0)])])


BYTES = [f"<0x{b:02X}>" for b in range(256)]


def some_model(rng, kind, lines):
    """A trained model: (tokenizer, unk)."""
    size = rng.choice([300, 600, 1500])
    if kind == "bytes":
        t = Tokenizer(models.BPE(ignore_merges=rng.random() < 0.4))
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=rng.random() < 0.4, use_regex=rng.random() < 0.8)
        t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=size + 300, special_tokens=["<unk>"], show_progress=False,
                                                         initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        return t, "<unk>"
    if kind in ("bpe", "bpe fallback"):
        fallback = kind == "bpe fallback"
        affixes = {"continuing_subword_prefix": "##", "end_of_word_suffix": "</w>"} if not fallback and rng.random() < 0.4 else {}
        trained = Tokenizer(models.BPE(unk_token="<unk>", **affixes))
        trained.pre_tokenizer = pre_tokenizers.Whitespace()
        trained.train_from_iterator(lines, trainers.BpeTrainer(
            vocab_size=size + 256, special_tokens=["<unk>"] + (BYTES if fallback else []), show_progress=False, limit_alphabet=rng.choice([40, 400]),
            **affixes))
        tree = json.loads(trained.to_str())
        tree["model"].update(byte_fallback=fallback, fuse_unk=rng.random() < 0.5, unk_token=rng.choice(["<unk>", "<unk>", None]),
                             ignore_merges=rng.random() < 0.3)
        return Tokenizer.from_str(json.dumps(tree)), "<unk>"
    if kind == "wordlevel":
        t = Tokenizer(models.WordLevel(unk_token="[UNK]"))
        t.pre_tokenizer = pre_tokenizers.Whitespace()
        t.train_from_iterator(lines, trainers.WordLevelTrainer(vocab_size=size, special_tokens=["[UNK]"], show_progress=False))
        return t, "[UNK]"
    if kind == "wordpiece":
        t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=rng.choice([10, 100])))
        t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        t.train_from_iterator(lines, trainers.WordPieceTrainer(vocab_size=size + 600, special_tokens=["[UNK]"], show_progress=False))
        return t, "[UNK]"
    fallback = kind == "unigram fallback"
    t = Tokenizer(models.Unigram())
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(lines[::4], trainers.UnigramTrainer(vocab_size=size + 700, special_tokens=["<unk>"] + (BYTES if fallback else []),
                                                              unk_token="<unk>", show_progress=False))
    tree = json.loads(t.to_str())
    tree["model"]["byte_fallback"] = fallback
    return Tokenizer.from_str(json.dumps(tree)), "<unk>"


KINDS = ["bytes", "bpe", "bpe fallback", "wordlevel", "wordpiece", "unigram", "unigram fallback"]


def built(data, count, seed):
    lines = corpus(data)
    rng = random.Random(seed)
    trained = {kind: [some_model(rng, kind, lines)[0:2] for _ in range(2)] for kind in KINDS}
    for i in range(count):
        kind = KINDS[i % len(KINDS)]
        base, unk = rng.choice(trained[kind])
        t = Tokenizer.from_str(base.to_str())
        norm = some_normalizer(rng)
        if norm is not None:
            t.normalizer = norm
        if kind == "bytes":
            level = pre_tokenizers.ByteLevel(add_prefix_space=rng.random() < 0.4, use_regex=rng.random() < 0.7)
            t.pre_tokenizer = pre_tokenizers.Sequence([some_splits(rng), level]) if rng.random() < 0.5 else level
        else:
            t.pre_tokenizer = some_splits(rng)
        add_tokens(rng, t)
        add_processor(rng, t, unk)
        decoder = some_decoder(rng, kind)
        if decoder is not None:
            t.decoder = decoder
        yield f"built {i} {kind}", t.to_str()


# ---- comparison

def run(command, path):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        return None, done.stderr.decode(errors="replace").strip()
    return done.stdout.decode("utf-8").split("\n")[:-1], None


def write_records(path, key, values):
    with open(path, "w", encoding="utf-8") as f:
        for value in values:
            f.write(json.dumps({key: value}) + "\n")


def compare(program, name, text, strings, work):
    """Number of strings that differ; the first few are shown."""
    file = os.path.join(work, "tokenizer.json")
    with open(file, "w", encoding="utf-8") as f:
        f.write(text)
    theirs = Tokenizer.from_str(text)
    base = [program, "tokens", "--tokenizer", file]
    records = os.path.join(work, "records.jsonl")
    write_records(records, "text", strings)
    want = [e.ids for e in theirs.encode_batch_fast(strings)]
    ours, error = run(base + ["--data", records], records)
    if error:
        print(f"{name}: {error}")
        return len(strings)
    bad = 0
    got = [[int(n) for n in line.split()] for line in ours]
    if len(got) != len(want):
        print(f"{name}: {len(got)} lines for {len(want)} strings")
        return len(strings)
    for s, a, b in zip(strings, got, want):
        if a != b:
            bad += 1
            if bad <= 3:
                print(f"{name}: {s[:120]!r}: ours {a[:60]}, the library's {b[:60]}")
    write_records(records, "ids", want)
    decoded, error = run(base + ["--data", records, "--decode", "--keep-special", "--json"], records)
    if error:
        print(f"{name}: decoding: {error}")
        return len(strings)
    shown = bad
    for s, ids, line, b in zip(strings, want, decoded, theirs.decode_batch(want, skip_special_tokens=False)):
        a = json.loads(line)["text"]
        if a != b:
            bad += 1
            if bad - shown <= 3:
                print(f"{name}: decode {ids[:30]} of {s[:80]!r}: ours {a[:120]!r}, the library's {b[:120]!r}")
    return bad


def shared_json(data, name):
    path = os.path.join(data, "tokenizers", name, "tokenizer.json")
    opened = gzip.open(path + ".gz") if os.path.exists(path + ".gz") else open(path, "rb")
    with opened as f:
        return f.read().decode()


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--data", default=os.path.join(here, "../../../shared/data"))
    parser.add_argument("--strings", type=int, default=2000)
    parser.add_argument("--built", type=int, default=42)
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    pool = characters()
    texts = shared_texts(a.data)
    failed = tried = 0
    named = [(name, shared_json(a.data, name), texts) for name in SHARED]
    named += [(name, text, texts[:: max(1, len(texts) // 300)]) for name, text in built(a.data, a.built, a.seed)] if a.built else []
    with tempfile.TemporaryDirectory() as work:
        for number, (name, text, more) in enumerate(named):
            if a.only and not any(part in name for part in a.only.split(",")):
                continue
            extra = [t["content"] for t in json.loads(text)["added_tokens"]][:40]
            strings = more + random_strings(a.strings, a.seed + number, pool, extra)
            bad = compare(a.program, name, text, strings, work)
            print(f"{name}: {len(strings)} strings, {bad} differ", flush=True)
            failed += bad > 0
            tried += 1
    print(f"{tried} tokenizers, {failed} with differences")
    return 1 if failed or not tried else 0


if __name__ == "__main__":
    sys.exit(main())
