"""Writes tokenizer_cases.json and chat_cases.json: what the tokenizers library and the published chat templates give.
Needs: tokenizers, jinja2, and the shared data beside the checkout. Run: python make_tokenizer_cases.py [SHARED_DATA]
With --hashes it prints the table of known templates for src/text/chat_templates.c instead."""
import gzip
import json
import os
import sys

from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = next((a for a in sys.argv[1:] if not a.startswith("--")), os.path.join(HERE, "../../../shared/data"))

# The templates as their families publish them.
TEMPLATES = {
    "chatml": [
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}",
    ],
    "qwen2.5": ["""{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\nYou are provided with function signatures within <tools></tools> XML tags:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""],
    "llama2": ["{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"],
    "llama3": ["{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"],
    "gemma": ["{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"],
    "mistral": ["{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"],
    "zephyr": ["{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"],
    "smollm2": ["{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"],
}
for name, folder in (("qwen3", "qwen3"), ("llama3", "llama3"), ("minimind", "minimind-6400")):
    with open(f"{DATA}/tokenizers/{folder}/tokenizer_config.json", encoding="utf-8") as f:
        TEMPLATES.setdefault(name, []).append(json.load(f)["chat_template"])


def template_hash(text):
    """As px_template_hash."""
    value = 0xCBF29CE484222325
    for byte in text.rstrip(" \t\r\n").replace("\n", "\\n").replace("\r", "").encode():
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return value


TOKENIZER_OF = {"qwen2.5": "qwen3/tokenizer.json.gz", "qwen3": "qwen3/tokenizer.json.gz", "chatml": "qwen3/tokenizer.json.gz",
                "llama2": "llama2-phi3/tokenizer.json", "mistral": "llama2-phi3/tokenizer.json",
                "zephyr": "llama2-phi3/tokenizer.json", "gemma": "llama2-phi3/tokenizer.json",
                "llama3": "llama3/tokenizer.json.gz", "minimind": "minimind-6400/tokenizer.json",
                "smollm2": "minimind-6400/tokenizer.json"}
BOS_EOS = {"qwen3": ("", "<|im_end|>"), "llama2-phi3": ("<s>", "</s>"), "llama3": ("<|begin_of_text|>", "<|end_of_text|>"),
           "minimind-6400": ("<|im_start|>", "<|im_end|>")}
U, A, S = (lambda c: {"role": "user", "content": c}), (lambda c: {"role": "assistant", "content": c}), \
    (lambda c: {"role": "system", "content": c})
CONVERSATIONS = [
    [U("Hello there"), A("Hi! How are you?"), U(" Fine.\n\nAnd  you? "), A("\nGood, thanks \n")],
    [S("Be brief."), U("What is 2+2?"), A("<think>\nadd them\n</think>\n\n4"), U("Sure?")],
    [U("你好，世界"), A("<think>\n\n</think>\n\n  你好！🦙 "), U("x"), A("<think>\nwhy\n</think>\n\nbecause")],
    [U("Only a question <|im_end|> with a token")],
    [S("s"), U(""), A("")],
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
        template = environment.from_string(templates[0])
        for messages in CONVERSATIONS:
            for prompt in (False, True):
                try:
                    text = template.render(messages=messages, add_generation_prompt=prompt, bos_token=bos, eos_token=eos)
                except ValueError:
                    text = None
                ids = loaded[file].encode(text, add_special_tokens=False).ids if text is not None else None
                cases.append({"renderer": name, "tokenizer": file, "bos": bos, "eos": eos, "messages": messages,
                              "prompt": prompt, "text": text, "ids": ids})
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


def write(name, value):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=0)
        f.write("\n")


if "--hashes" in sys.argv:
    for name, templates in TEMPLATES.items():
        for text in templates:
            print(f'    {{0x{template_hash(text):016x}u, "{name}"}},')
else:
    write("tokenizer_cases.json", tokenizer_cases())
    write("chat_cases.json", chat_cases())
