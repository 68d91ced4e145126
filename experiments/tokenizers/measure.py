"""Tokenizing and tokenizer training beside the tokenizers library, both on one thread, by CPU time.
Run: python measure.py PHALANX MAKE_DATA [--work DIR] [--megabytes 100] [--vocabulary 8000] [--rounds 3]
MAKE_DATA: the quickstart's generator (build/release/quickstart/quickstart_make_data). Ids and merges have to be equal."""
import argparse
import gzip
import json
import os
import random
import resource
import subprocess
import tempfile
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402: after the thread count

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(os.environ.get("PHALANX_SHARED", os.path.join(HERE, "../../../shared")), "data")
TOKENIZERS = ["gpt2", "llama2-phi3", "llama3", "qwen3", "gpt-neox-20b"]
TEXTS = ["text/tinyshakespeare.txt", "text/wikitext2-valid.txt", "text/tinystories-sample.txt", "zh/tatoeba-cmn-eng.txt",
         "math/gsm8k-test.jsonl", "zh/poetry_corpus_simplified.json"]


def child(command, **kwargs):
    """CPU seconds and peak MiB of a program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, **kwargs).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_maxrss / 1024, out


def encode(phalanx, name, text, rounds):
    """Line by line, as both do it; ours without the time to load, which an empty input takes."""
    path = f"{DATA}/tokenizers/{name}/tokenizer.json"
    with (open(path, "rb") if os.path.exists(path) else gzip.open(path + ".gz")) as f:
        library = Tokenizer.from_str(f.read().decode())
    command = [phalanx, "tokens", "--tokenizer", os.path.dirname(path)]
    ours, load, theirs = [], [], []
    for _ in range(rounds):
        load.append(child(command, input=b"")[0])
        seconds, _, out = child(command, input=text.encode())
        ours.append(seconds)
        start = time.process_time()
        ids = [library.encode(line).ids for line in text.splitlines()]
        theirs.append(time.process_time() - start)
    assert [[int(i) for i in line.split()] for line in out.decode().splitlines()] == ids, name
    print(f"| {name} | {min(ours) - min(load):.2f} | {min(load):.2f} | {min(theirs):.2f} | {min(theirs) / min(ours):.1f} |", flush=True)


def generated(make_data, work, size):
    """The quickstart's stories of as many seeds as that takes, and the shared texts once."""
    path = os.path.join(work, "generated.txt")
    with open(path, "w", encoding="utf-8") as out:
        for name in TEXTS:
            with open(os.path.join(DATA, name), encoding="utf-8") as f:
                out.write(f.read())
        seed = 0
        while out.tell() < size:
            seed += 1
            subprocess.run([make_data, os.path.join(work, "data"), str(seed)], check=True, stdout=subprocess.DEVNULL)
            with open(os.path.join(work, "data", "corpus.txt"), encoding="utf-8") as f:
                out.write(f.read())
    return path


def invented(work, size):
    """Words of syllables by Zipf's law, a tenth of them new each time: a vocabulary that never ends."""
    path, rng = os.path.join(work, "invented.txt"), random.Random(1)
    syllables = [a + b + c for a in "bcdfghklmnprstvz" for b in "aeiou" for c in ["", "n", "r", "s"]]
    word = lambda: "".join(rng.choices(syllables, k=rng.choice([1, 2, 2, 3, 3, 4])))
    known = [word() for _ in range(200_000)]
    weights = [1.0 / (i + 2.7) for i in range(len(known))]
    with open(path, "w", encoding="utf-8") as out:
        while out.tell() < size:
            words = rng.choices(known, weights, k=20_000)
            for i in range(0, len(words), 10):
                words[i] = word() + word()
            out.writelines(" ".join(words[i:i + 16]) + ".\n" for i in range(0, len(words), 16))
    return path


def train(phalanx, name, path, size):
    out = os.path.join(os.path.dirname(path), "tokenizer")
    seconds, peak, _ = child([phalanx, "tokenizer", "train", "--data", path, "--vocab-size", str(size), "--out", out])
    library = Tokenizer(models.BPE())
    library.pre_tokenizer, library.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    start = time.process_time()
    with open(path, encoding="utf-8", newline="\n") as f:
        library.train_from_iterator(f, trainers.BpeTrainer(
            vocab_size=size, min_frequency=2, special_tokens=["<|endoftext|>"], show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    theirs = time.process_time() - start
    with open(os.path.join(out, "tokenizer.json"), encoding="utf-8") as f:
        mine = json.load(f)["model"]["merges"]
    other = json.loads(library.to_str())["model"]["merges"]
    pair = lambda m: tuple(m.split(" ")) if isinstance(m, str) else tuple(m)
    same = sum(pair(a) == pair(b) for a, b in zip(mine, other))
    print(f"| {name}, {os.path.getsize(path) / 1e6:.0f} MB | {seconds:.1f} | {peak:.0f} | {theirs:.1f} | {same} of {len(mine)} "
          f"({len(other)}) |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("phalanx")
    parser.add_argument("make_data")
    parser.add_argument("--work")
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--no-encoding", action="store_true")
    parser.add_argument("--rounds", type=int, default=3, help="of encoding, the best counts")
    args = parser.parse_args()
    with open(os.path.join(DATA, "text/tinyshakespeare.txt"), encoding="utf-8") as f:
        text = f.read()
    print("| tokenizer | Phalanx, s | its load, s | library, s | library / (Phalanx with load) |\n|---|---|---|---|---|")
    for name in [] if args.no_encoding else TOKENIZERS:
        encode(args.phalanx, name, text, args.rounds)
    print("\n| corpus | Phalanx, s | peak, MiB | library, s | merges equal |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        size = int(args.megabytes * 1e6)
        train(args.phalanx, "generated", generated(args.make_data, work, size), args.vocabulary)
        train(args.phalanx, "invented", invented(work, size), args.vocabulary)


main()
