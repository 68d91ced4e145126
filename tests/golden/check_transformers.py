#!/usr/bin/env python3
"""Opens what golden_test_saved wrote with transformers: check_transformers.py GOLDEN_MODELS SAVED.

Every tensor must have the bits of the model it was saved from (rounded where the type is narrower), no tensor may be
missing or unexpected, and logits and scores must agree. Exit 77 without PyTorch or transformers."""
import json
import pathlib
import sys

try:
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
TYPES = {".bf16": torch.bfloat16, ".f16": torch.float16}


def load(kind, folder, **more):
    model, info = kind.from_pretrained(folder, output_loading_info=True, **more)
    problems = {k: v for k, v in info.items() if v}
    assert not problems, f"{folder}: {problems}"
    return model.eval()


def compare(folder, golden):
    suffix = folder.suffix
    original = golden / folder.stem
    expected = json.loads((original / "expected.json").read_text())
    sequences = [expected["ids"][a:b] for a, b in zip(expected["starts"], expected["starts"][1:])]
    if suffix == ".score" or folder.name.endswith("_score"):
        ours = load(AutoModelForSequenceClassification, folder)
        assert ours.config.num_labels == 1 and ours.config.reward_mean == 1.25 and ours.config.reward_std == 1.0
        assert ours.config.pad_token_id is not None and ours.score.weight.abs().sum() > 0
        kind = AutoModelForSequenceClassification if folder.name.endswith("_score") else AutoModelForCausalLM
    else:
        kind = AutoModelForCausalLM
        ours = load(kind, folder)
    theirs = load(kind, original, dtype=TYPES.get(suffix, torch.float32))
    assert ours.dtype == theirs.dtype, f"{folder}: {ours.dtype}"
    a, b = ours.state_dict(), theirs.state_dict()
    if kind is not AutoModelForCausalLM or suffix != ".score":
        assert a.keys() == b.keys(), f"{folder}: {a.keys() ^ b.keys()}"
    for name in a.keys() & b.keys():
        assert torch.equal(a[name], b[name]), f"{folder}: {name} differs"
    ours, theirs, worst = ours.float(), theirs.float(), 0.0
    with torch.no_grad():
        if folder.name.endswith("_score"):
            longest = max(map(len, sequences))
            pad = ours.config.pad_token_id
            ids = torch.tensor([s + [pad] * (longest - len(s)) for s in sequences])
            mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sequences])
            found = ours(ids, attention_mask=mask).logits[:, 0]
            worst = float((found - torch.tensor(expected["scores"])).abs().max())
        elif suffix != ".score":
            for s in sequences:
                ids = torch.tensor([s])
                worst = max(worst, float((ours(ids).logits - theirs(ids).logits).abs().max()))
    assert worst < 1e-5, f"{folder}: outputs differ by {worst}"
    for key in ("eos_token_id", "bos_token_id", "tie_word_embeddings"):
        assert getattr(ours.config, key) == getattr(theirs.config, key), f"{folder}: {key}"
    print(f"{folder.name}: {len(a)} tensors, outputs differ by {worst:.1e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    golden_models, saved = map(pathlib.Path, sys.argv[1:])
    folders = sorted(saved.iterdir())
    assert len(folders) == 52, f"{len(folders)} directories in {saved}"
    for one in folders:
        compare(one, golden_models)
