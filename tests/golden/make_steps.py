#!/usr/bin/env python3
"""Writes the committed fixtures of test_steps.c with PyTorch (run by hand; the test needs none).

    make_steps.py PROGRAM

steps/ALGORITHM.yaml makes ten full-batch steps on a model of GPT-2 or Llama type from models/. The same steps by torch's
AdamW, clipping and schedules, in float64, give steps/ALGORITHM_KIND_MODULE.safetensors. Of a PPO run only the sampled
ids are taken: log-probabilities, values, rewards and advantages are torch's own.
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import numpy as np
from safetensors.torch import save_file

import recompute

HERE = pathlib.Path(__file__).resolve().parent
STEPS = HERE / "steps"
KINDS = {"gpt2": ("gpt2_tied", "gpt2_score"), "llama": ("llama_untied_bias", "llama_score")}
TOTAL = 10


def write_data():
    """Rows of ids that both vocabularies have; 2 is the stop token of both."""
    draw = random.Random(4)

    def ids(low, high):
        return [draw.randrange(3, 29) for _ in range(draw.randint(low, high))]

    rows = {"demos": lambda: {"prompt_ids": ids(1, 6), "completion_ids": ids(1, 8) + [2]},
            "pairs": lambda: {"prompt_ids": ids(1, 6), "chosen_ids": ids(1, 8) + [2], "rejected_ids": ids(1, 8) + [2]},
            "prompts": lambda: {"prompt_ids": ids(1, 6)}}
    for name, row in rows.items():
        (STEPS / f"{name}.jsonl").write_text("".join(json.dumps(row()) + "\n" for _ in range(8)))


def run(program, algorithm, kind, directory):
    policy, score = (str(HERE / "models" / name) for name in KINDS[kind])
    subprocess.run([program, "train", str(STEPS / f"{algorithm}.yaml"), "--run-dir", directory], check=True,
                   env=os.environ | {"STEPS_POLICY": policy, "STEPS_SCORE": score}, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    return recompute.Config(os.path.join(directory, "run.h5"))


def read(name):
    return [json.loads(line) for line in (STEPS / name).read_text().splitlines()]


def sft(c, kind, directory):
    model = recompute.load_policy(HERE / "models" / KINDS[kind][0])
    rows = [(r["prompt_ids"] + r["completion_ids"], [0] * len(r["prompt_ids"]) + [1] * len(r["completion_ids"]))
            for r in read("demos.jsonl")]
    learner = recompute.Learner(c, "policy", model, c("training.lr"), TOTAL)
    return [learner], [learner.step(recompute.lm_loss(model, rows))[0] for _ in range(TOTAL)]


def reward(c, kind, directory):
    model = recompute.load_scorer(HERE / "models" / KINDS[kind][1])
    pairs = [(r["prompt_ids"] + r["chosen_ids"], r["prompt_ids"] + r["rejected_ids"], 0.0) for r in read("pairs.jsonl")]
    learner = recompute.Learner(c, "reward", model, c("training.lr"), TOTAL)
    return [learner], [learner.step(recompute.pair_loss(model, pairs, 0.0)[0])[0] for _ in range(TOTAL)]


def ppo(c, kind, directory):
    it = recompute.Iteration(os.path.join(directory, "samples-000001.h5"), 1)
    assert len(it.order) == TOTAL and all(len(batch) == it.count for batch in it.order)
    policy = recompute.load_policy(HERE / "models" / KINDS[kind][0])
    critic = recompute.load_scorer(HERE / "models" / KINDS[kind][1])
    everything, coeff = list(range(it.count)), c("training.kl.coeff")
    old, _ = recompute.logprobs(policy, it, everything, 1.0)
    value, last = recompute.values_of(critic, it, everything)
    it.tokens["old_logprob"] = it.tokens["ref_logprob"] = old.detach().numpy()
    it.tokens["value"] = value.detach().numpy()
    score, _ = recompute.shaped_scores(c, it, {"length": recompute.length_reward(it, c.rewards()[0]["target"])})
    it.tokens["reward"] = recompute.token_rewards(c, it, score, coeff)
    it.tokens["advantage"], it.tokens["returns"] = recompute.advantages(c, it, last.detach().numpy())
    learners = [recompute.Learner(c, "policy", policy, c("training.lr"), TOTAL),
                recompute.Learner(c, "critic", critic, c("training.critic_lr"), TOTAL)]
    sums = recompute.ppo_updates(c, it, learners, coeff)
    print("  clipped:", [round(x, 2) for x in sums["policy/clipfrac_avg"]])
    return learners, sums["grad_norm/actor"]


def main():
    program = sys.argv[1]
    STEPS.mkdir(exist_ok=True)
    write_data()
    for algorithm in (sft, reward, ppo):
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as parent:
                directory = os.path.join(parent, "run")
                learners, norms = algorithm(run(program, algorithm.__name__, kind, directory), kind, directory)
            print(algorithm.__name__, kind, "gradient norms", np.round(norms, 2))
            for one in learners:
                tensors = {n: p.detach().float().contiguous().clone() for n, p in one.named.items()}
                save_file(tensors, STEPS / f"{algorithm.__name__}_{kind}_{one.name}.safetensors")


if __name__ == "__main__":
    main()
