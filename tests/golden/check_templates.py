"""The same text, ids and learned tokens as transformers' apply_chat_template, for every named renderer.
Run: python check_templates.py PHALANX [--conversations N] [--only RENDERER]
Conversations are drawn from a fixed seed: several turns, system messages, odd spaces, think blocks, and where the template
writes them tools, calls, their results and reasoning. A learned token is one that ends inside an answer, and an answer is
what stands between the header of its turn and the end of its end-of-turn token."""
import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile

from templates import ANSWERS, BOS_EOS, CHATML_ANSWER, DATA, EOS, PLAIN, TEMPLATES, TOKENIZER_OF, WRITES_REASONING, WRITES_TOOLS
from transformers import PreTrainedTokenizerFast

WORDS = ["Hello", "there", " ", "  ", "\n", "\n\n", "你好", "，世界", "é", "🦙", "2+2=4", "don't", "\t", "x", "{\"a\": 1}", "<b>", "<think>"]
THOUGHTS = ["<think>\n\n</think>\n\n", "<think>\nwhy\n</think>\n\n", "a</think>\n", "<think>b\n</think>c</think>\n\n"]
VALUES = ["text", "北京", "a\"b\\c\n\u0001\u007f/", 0, -7, 2.5, 0.1, 1e-7, 1e16, 1e22, 123456789.0, 5e-324, 1.7976931348623157e308, True, None,
          [], {}, [1, "x"], {"k": [{"z": False}]}]


def text(rng, most=5):
    return "".join(rng.choice(WORDS) for _ in range(rng.randint(0, most)))


def call(rng):
    arguments = {rng.choice("abcdé") + str(i): rng.choice(VALUES) for i in range(rng.randint(0, 4))}
    function = {"name": rng.choice(["f", "get_weather", "天气"]),
                "arguments": arguments if rng.random() < 0.7 else json.dumps(arguments)}
    return {"type": "function", "function": function} if rng.random() < 0.6 else function


def answer(rng, name):
    message = {"role": "assistant", "content": text(rng)}
    if rng.random() < 0.3:
        message["content"] = rng.choice(THOUGHTS) + message["content"]
    if name in WRITES_REASONING and rng.random() < 0.3:
        message["reasoning_content"] = text(rng)
    if name in WRITES_TOOLS and rng.random() < 0.3:
        message["tool_calls"] = [call(rng) for _ in range(rng.randint(1, 3))]
    return message


def conversation(rng, name):
    """Turns in order, now and then not: what a template refuses has to be refused. Where headers are no hard tokens, white
    space beside an answer would be one token with theirs, and whose it is a matter of definition."""
    messages = [{"role": "system", "content": text(rng)}] if rng.random() < 0.4 else []
    for i in range(rng.randint(1, 6)):
        if rng.random() < 0.05:
            i += 1
        messages.append({"role": "user", "content": text(rng)} if i % 2 == 0 else answer(rng, name))
        while name in WRITES_TOOLS and "tool_calls" in messages[-1] or name in WRITES_TOOLS and rng.random() < 0.1:
            messages.append({"role": "tool", "content": text(rng)})
    if name in ("plain", "hh", "zephyr"):
        messages = [dict(m, content=m["content"].strip()) for m in messages]
    record = {"messages": messages}
    if name in WRITES_TOOLS and rng.random() < 0.4:
        record["tools"] = [{"type": "function", "function": {"name": f"f{i}", "parameters": {"x": rng.choice(VALUES)}}}
                           for i in range(rng.randint(1, 2))]
    return record


def tokenizer_of(name, folder):
    """A directory with the shared tokenizer and the template, for both programs."""
    file = TOKENIZER_OF.get(name, "qwen3/tokenizer.json.gz")
    bos, eos = BOS_EOS[file.split("/")[0]]
    path = os.path.join(DATA, "tokenizers", file)
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as f, \
            open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as out:
        out.write(f.read())
    template = TEMPLATES[name][0] if name in TEMPLATES else PLAIN
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos, "chat_template": template, "add_bos_token": False}
    if bos:
        settings["bos_token"] = bos
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump(settings, f)
    return PreTrainedTokenizerFast.from_pretrained(folder), eos


def learned_spans(rendered, name, eos):
    """Where the answers are in the text."""
    if name in ("plain", "hh"):
        header, spans, at = "\n\nAssistant:", [], 0
        while (at := rendered.find(header, at)) >= 0:
            at += len(header)
            ends = [e for e in (rendered.find("\n\nHuman:", at), rendered.find(header, at)) if e >= 0]
            spans.append((at, min(ends, default=len(rendered))))
        return spans
    header, end = ANSWERS.get(name, CHATML_ANSWER)
    end = eos if end is EOS else end
    spans, at = [], 0
    while (at := rendered.find(header, at)) >= 0:
        at += len(header)
        stop = rendered.find(end, at)
        if stop >= 0:
            spans.append((at, stop + len(end)))
    return spans


def expected(tokenizer, record, name, eos, prompt):
    try:
        rendered = tokenizer.apply_chat_template(record["messages"], tools=record.get("tools"), tokenize=False,
                                                 add_generation_prompt=prompt)
    except Exception: # noqa: BLE001: jinja2's, of the template's own raise_exception
        return None
    encoded = tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
    spans = learned_spans(rendered, name, eos)
    special = set(tokenizer.all_special_ids)  # one may take the white space behind it along
    mask = [int(any(a < end <= b or a <= start < b and i in special for a, b in spans))
            for i, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"])]
    return {"text": rendered, "ids": encoded["input_ids"], "mask": mask}


def program(phalanx, folder, name, records, prompt):
    """What the program makes of the records; None: it refuses one of them."""
    path = os.path.join(folder, "records.jsonl")
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(record) + "\n" for record in records)
    command = [phalanx, "tokens", "--tokenizer", folder, "--chat", "--json", "--data", path, "--template", name]
    ran = subprocess.run(command + (["--generation-prompt"] if prompt else []), capture_output=True, text=True)
    if ran.returncode not in (0, 65):
        sys.exit(ran.stderr)
    return [json.loads(line) for line in ran.stdout.splitlines()] if ran.returncode == 0 else None


def check(phalanx, name, count):
    """How many conversations are rendered alike; how many are refused by both; what differs."""
    rng, same, refused, wrong = random.Random(name), 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        tokenizer, eos = tokenizer_of(name, folder)
        for prompt in (False, True):
            pairs = [(r, expected(tokenizer, r, name, eos, prompt)) for r in (conversation(rng, name) for _ in range(count // 2))]
            accepted = [(r, want) for r, want in pairs if want is not None]
            for record in (r for r, want in pairs if want is None):
                refused += 1
                if program(phalanx, folder, name, [record], prompt) is not None:
                    wrong.append(("accepted", record, None, "a text"))
            answers = program(phalanx, folder, name, [r for r, _ in accepted], prompt)
            if answers is None:
                wrong.append(("refused", [r for r, _ in accepted][:1], "texts", None))
                continue
            for (record, want), got in zip(accepted, answers):
                key = next((k for k in want if want[k] != got[k]), None)
                same += key is None
                if key:
                    wrong.append((key, record, want[key], got[key]))
    return same, refused, wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("phalanx")
    parser.add_argument("--conversations", type=int, default=60)
    parser.add_argument("--only")
    args = parser.parse_args()
    failed = False
    for name in [*TEMPLATES, "plain", "hh"]:
        if args.only not in (None, name):
            continue
        same, refused, wrong = check(args.phalanx, name, args.conversations)
        print(f"{name:13} {same} the same, {refused} refused by both, {len(wrong)} differ")
        failed = failed or bool(wrong) or same == 0
        for key, record, want, got in wrong[:3]:
            print(f"  {key}: {json.dumps(record, ensure_ascii=False)}\n    want {want!r}\n    got  {got!r}")
    sys.exit(failed)


main()
