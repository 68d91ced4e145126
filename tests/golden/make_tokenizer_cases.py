"""Writes tokenizer_cases.json and chat_cases.json: what the tokenizers library and the published chat templates give.
Needs: tokenizers, jinja2, and the shared data beside the checkout. Run: python make_tokenizer_cases.py
With --hashes it prints the table of known templates for src/text/chat_templates.c instead."""
import gzip
import json
import os
import sys

from jinja2.sandbox import ImmutableSandboxedEnvironment
from templates import BOS_EOS, DATA, TEMPLATES, TOKENIZER_OF, WRITES_REASONING, WRITES_TOOLS, template_hash
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

HERE = os.path.dirname(os.path.abspath(__file__))

U, A, S = (lambda c: {"role": "user", "content": c}), (lambda c: {"role": "assistant", "content": c}), \
    (lambda c: {"role": "system", "content": c})
CONVERSATIONS = [
    [U("Hello there"), A("Hi! How are you?"), U(" Fine.\n\nAnd  you? "), A("\nGood, thanks \n")],
    [S("Be brief."), U("What is 2+2?"), A("<think>\nadd them\n</think>\n\n4"), U("Sure?")],
    [U("你好，世界"), A("<think>\n\n</think>\n\n  你好！🦙 "), U("x"), A("<think>\nwhy\n</think>\n\nbecause")],
    [U("Only a question <|im_end|> with a token")],
    [S("s"), U(""), A("")],
]
# Beside role and content, where the template writes it: an answer's reasoning, calls of tools, and their results.
WEATHER = {"name": "weather", "arguments": {"city": "北京", "days": [1, 2.5, 1e-7, 1e16, 123456789.0], "x": {}, "q": "\"\\\n\u0001/é", "n": None}}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": {"type": "object", "properties": {}}}}]
TOOL_CONVERSATIONS = [
    [U("Weather?"), {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": WEATHER}]},
     {"role": "tool", "content": "sunny"}, {"role": "tool", "content": "22"}, A("Sunny."), U("Sure?"), A("Yes")],
    [S("Be kind."), U("Both"), {"role": "assistant", "content": "I look.", "tool_calls": [WEATHER, {"name": "f", "arguments": "{\"a\": 1}"}]},
     {"role": "tool", "content": ""}],
]
REASONING_CONVERSATIONS = [
    [U("1+1?"), dict(A("2"), reasoning_content="\nadd\n"), U("2+2?"), dict(A("\n4"), reasoning_content="twice </think> as much")],
    [U("Go"), dict(A(""), reasoning_content="I must call", tool_calls=[{"function": WEATHER}]), {"role": "tool", "content": "ok"}, A("Done")],
]


def load(path):
    opened = gzip.open(path) if path.endswith(".gz") else open(path, "rb")
    return Tokenizer.from_str(opened.read().decode())


def raise_exception(message):
    raise ValueError(message)


def chat_cases():
    cases, loaded = [], {}
    for name, templates in TEMPLATES.items():
        file = TOKENIZER_OF[name]
        loaded.setdefault(file, load(f"{DATA}/tokenizers/{file}"))
        bos, eos = BOS_EOS[file.split("/")[0]]
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = raise_exception
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        template = environment.from_string(templates[0])
        conversations = [(c, None) for c in CONVERSATIONS]
        if name in WRITES_TOOLS:
            conversations += [(c, tools) for c in TOOL_CONVERSATIONS for tools in (None, TOOLS)]
        if name in WRITES_REASONING:
            conversations += [(c, None) for c in REASONING_CONVERSATIONS]
        for messages, tools in conversations:
            for prompt in (False, True):
                try:
                    text = template.render(messages=messages, tools=tools, add_generation_prompt=prompt, bos_token=bos, eos_token=eos)
                except ValueError:
                    text = None
                ids = loaded[file].encode(text, add_special_tokens=False).ids if text is not None else None
                case = {"renderer": name, "tokenizer": file, "bos": bos, "eos": eos, "messages": messages, "prompt": prompt,
                        "text": text, "ids": ids}
                cases.append(case if tools is None else {**case, "tools": tools})
    return cases


HARD = ["", " ", "  \n\n  x", "it's I'LL we'Re 'ſ", "a\u0301e\u0301 \u212b \u0344", "123456 ½ Ⅷ २३", "\u00a0\u3000\u180e\u0085y",
        "日本語 한국어 中文，。", "👍🏽🦙👩\u200d🚀", "<|endoftext|><s> </s>  after<|im_end|>\n", "\t\tif x:\r\n\r\n    return\n\n\n",
        "<0x41>\u2581\u2581a", "مرحبا بالعالم", "\u0000\u0001\ufeff"]
SHARED = ["gpt2/tokenizer.json", "llama2-phi3/tokenizer.json", "llama3/tokenizer.json.gz", "qwen3/tokenizer.json.gz",
          "gpt-neox-20b/tokenizer.json.gz", "minimind-6400/tokenizer.json", "tiny-bpe-2000/tokenizer.json"]


def small(model, normalizer=None, pre_tokenizer=None, decoder=None):
    tokenizer = Tokenizer(model)
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    if decoder:
        tokenizer.decoder = decoder
    return tokenizer


def small_tokenizers():
    """Parts that the shared tokenizers do not have, on tiny vocabularies."""
    from tokenizers import Regex
    words = {w: i for i, w in enumerate(["[UNK]", "hello", "world", "ete", "1", "2", "12", ",", "!", "a", "b", "-", "世", "界", "a-b"])}
    level = lambda: models.WordLevel(words, unk_token="[UNK]")
    pieces = [("<unk>", 0.0), ("\u2581", -2.0), ("\u2581hello", -3.0), ("\u2581wor", -4.0), ("ld", -3.5), ("l", -5.0), ("d", -5.0),
              ("h", -6.0), ("e", -6.0), ("o", -6.0), ("w", -7.0), ("r", -7.0), ("\u2581he", -4.5), ("llo", -4.5), ("世", -8.0)]
    yield "wordlevel whitespace", small(level(), None, pre_tokenizers.Whitespace())
    yield "wordlevel lower nfd strip", small(level(), normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(),
          normalizers.Lowercase(), normalizers.Strip()]), pre_tokenizers.WhitespaceSplit())
    yield "wordlevel bert", small(level(), normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer())
    yield "wordlevel digits", small(level(), None, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(),
          pre_tokenizers.Digits(individual_digits=True)]))
    yield "wordlevel digits together", small(level(), None, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(),
          pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Punctuation()]))
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        for invert in (False, True):
            yield f"split {behavior} {invert}", small(level(), None, pre_tokenizers.Split(Regex("[-, ]"), behavior, invert))
    yield "replace regex", small(level(), normalizers.Replace(Regex("\\s+"), "-"), pre_tokenizers.Split("-", "isolated"))
    for scheme in ("always", "first", "never"):
        yield f"unigram metaspace {scheme}", small(models.Unigram(pieces, 0, False), normalizers.NFKC(),
              pre_tokenizers.Metaspace(prepend_scheme=scheme), decoders.Metaspace(prepend_scheme=scheme))
    chars = {c: i for i, c in enumerate(["<unk>", "a", "b", "##b", "ab", "c</w>", "##c</w>", "abc</w>", "##a"])}
    yield "bpe prefix suffix", small(models.BPE(chars, [("a", "##b"), ("ab", "##c</w>")], unk_token="<unk>", fuse_unk=True,
          continuing_subword_prefix="##", end_of_word_suffix="</w>"), None, pre_tokenizers.WhitespaceSplit())
    pieces = {w: i for i, w in enumerate(["[UNK]", "[CLS]", "[SEP]", "hel", "##lo", "##l", "##o", "world", "wor", "##ld", ",", "!", "a", "##b", "世", "ete", "n't"])}
    piece = small(models.WordPiece(pieces, unk_token="[UNK]", max_input_chars_per_word=6), normalizers.BertNormalizer(),
                  pre_tokenizers.BertPreTokenizer(), decoders.WordPiece())
    piece.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    yield "wordpiece bert", piece
    yield "fixed length nmt", small(level(), normalizers.Nmt(), pre_tokenizers.FixedLength(length=3))
    for regex in ("\\b", "\\p{Han}", "[[:punct:]]+", "(?=\\d)", "\\W"):
        for behavior in ("merged_with_previous", "contiguous"):
            yield f"split {regex} {behavior}", small(level(), None, pre_tokenizers.Split(Regex(regex), behavior))
    added = small(level(), normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]), pre_tokenizers.Whitespace(),
                  decoders.BPEDecoder(suffix="o"))
    added.add_tokens([AddedToken("hello", single_word=True), AddedToken("Été", lstrip=True, normalized=True),
                      AddedToken("a-b", rstrip=True, normalized=False), AddedToken("1", lstrip=True, rstrip=True)])
    added.add_special_tokens([AddedToken("xyz", normalized=False)])
    added.post_processor = processors.TemplateProcessing(single="[UNK] $0 xyz", special_tokens=[("[UNK]", 0), ("xyz", added.token_to_id("xyz"))])
    yield "added tokens", added
    yield "bpe unk apart", small(models.BPE({"<unk>": 0, "a": 1, "b": 2, "ab": 3}, [("a", "b")], unk_token="<unk>"))


SMALL_TEXTS = ["hello world", "Hello,  WORLD! a-b 12 1", "  été ETE 世界 a--b,, ", "hello world world", "abc ab ac xyzab", "ﬁ½ hello", "hellohello helloxyz ,hello", "Hel²lo\u200bwor\u1b7dld 。，3", "don't a1 2! n't ꯍ\u0eba"]


def tokenizer_cases():
    shared = []
    for file in SHARED:
        tokenizer = load(f"{DATA}/tokenizers/{file}")
        shared.append({"tokenizer": file, "cases": [
            {"text": t, "ids": (e := tokenizer.encode(t)).ids, "plain": tokenizer.encode(t, add_special_tokens=False).ids,
             "decoded": tokenizer.decode(e.ids, skip_special_tokens=False)} for t in HARD if "\0" not in t]})
    own = []
    for name, tokenizer in small_tokenizers():
        own.append({"name": name, "json": tokenizer.to_str(), "cases": [
            {"text": t, "ids": (e := tokenizer.encode(t)).ids, "decoded": tokenizer.decode(e.ids)} for t in SMALL_TEXTS]})
    return {"shared": shared, "small": own}


def write(name, text):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as f:
        f.write(text + "\n")


if "--hashes" in sys.argv:
    for name, templates in TEMPLATES.items():
        for text in templates:
            print(f'    {{0x{template_hash(text):016x}u, "{name}"}},')
else:
    write("tokenizer_cases.json", json.dumps(tokenizer_cases(), ensure_ascii=False, indent=0))
    write("chat_cases.json", "[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in chat_cases()) + "\n]")
