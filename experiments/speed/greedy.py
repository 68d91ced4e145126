#!/usr/bin/env python3
"""Do bf16 products change greedy text? greedy.py PHALANX MODEL [new tokens]

32 prompts are continued greedily in float32 and in bf16 by Phalanx, and in bf16 by transformers. Printed is the share of tokens
before the first difference, and what the float32 logits of the two candidates differ by where a pair of texts parts."""
import json
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = """The capital of France is|Once upon a time there was a|To make bread you need|The largest planet is|In 1969 the first
Water boils at|A triangle has three|My favourite book is|The doctor told her that|def fibonacci(n):|The Roman Empire fell because
If it rains tomorrow we will|Photosynthesis is the process by which|She opened the door and saw|The opposite of hot is
Two plus two equals|Dear Sir or Madam,|The train to London leaves|Shakespeare wrote|An atom consists of|The best way to learn
He could not believe that|The stock market crashed when|A good night's sleep|The recipe calls for two cups of
Mountains are formed when|The president announced that|Music helps people to|In the middle of the forest
The speed of light is|Cats and dogs are|The teacher asked the children to""".replace("\n", "|").split("|")


def phalanx(program, model, prompts, count, precision):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for ids in prompts:
            file.write(json.dumps({"prompt_ids": ids}) + "\n")
        file.flush()
        text = subprocess.run([program, "generate", "--model", model, "--data", file.name, "--temperature", "0", "--json",
                               "--max-new-tokens", str(count), "--precision", precision], check=True, stdout=subprocess.PIPE)
    return [json.loads(line)["ids"] for line in text.stdout.splitlines()]


def transformers_bf16(model, prompts, count):
    peer = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        return [peer.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
                              max_new_tokens=count, pad_token_id=0)[0, len(ids):].tolist() for ids in prompts]


def compare(name, judge, prompts, want, got):
    same = total = whole = 0
    gaps = []
    for prompt, a, b in zip(prompts, want, got):
        parted = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
        same, total, whole = same + parted, total + len(a), whole + (a == b)
        if parted < min(len(a), len(b)):
            with torch.no_grad():
                logits = judge(torch.tensor([prompt + a[:parted]])).logits[0, -1]
            gaps.append(float(logits[a[parted]] - logits[b[parted]]))
    print(f"{name}: {whole} of {len(want)} texts equal, {100 * same / total:.1f} % of {total} tokens before the first difference; "
          f"logit gaps there: {', '.join(f'{gap:.3f}' for gap in sorted(gaps)) or 'none'}")


def main():
    program, model = sys.argv[1:3]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 32
    tokenizer = AutoTokenizer.from_pretrained(model)
    prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in PROMPTS]
    judge = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    want = phalanx(program, model, prompts, count, "f32")
    compare("Phalanx bf16 products", judge, prompts, want, phalanx(program, model, prompts, count, "bf16"))
    compare("transformers bf16", judge, prompts, want, transformers_bf16(model, prompts, count))


if __name__ == "__main__":
    main()
