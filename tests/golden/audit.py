#!/usr/bin/env python3
"""Recomputes iterations of a run of any algorithm with PyTorch and transformers, in float64, from what it left on disk.

    audit.py STAGE_DIR... [--iteration N]

STAGE_DIR holds run.h5, the sample files and checkpoint_{N-1} and checkpoint_N (checkpointing.interval 1,
checkpointing.initial true). Every step takes what the files say of the step before it, so that a difference points at
its own formula. Prints the largest difference of each quantity; exit 1 when one is above its tolerance.

Tolerances: the run computes in float32 (24 bits, 6e-8 relative), this program in float64. A log-probability is a
difference of sums over the vocabulary after a few layers: 1e-5 is some ten roundings of numbers near 10 (seen:
1.5e-6). What is computed from stored float32 numbers (scores, rewards, advantages, metrics) may differ by the
rounding of its inputs and of itself: 1e-6 of the largest (seen: 5e-8). Within an iteration the two programs' weights
drift apart by rounding: losses and norms of later minibatches get 2e-5 of the largest, or of 0.1 where they vanish as
at a ratio of 1 (seen: 5e-6), moments 1e-4 of their tensor's change (seen: 3e-6). Weights get 1e-3 of their tensor's
change, because a step of 1e-3 moves a weight near 1 by some ten thousand roundings only (seen: 2e-4), and because
Adam divides by sqrt(v) where gradients vanish; no wrong formula comes so close. Where the gradient is 0 in exact
arithmetic they get the learning rate, absolutely, for every step. A token whose ratio stands within
rounding of the clip range could fall on the other side here; with the seeds of audit.sh none does. Of pretrain, sft and
reward runs the rows of each step are found again from data files, tokenizer and seed (rows.py).
"""
import argparse
import json
import os
import sys

import h5py
import numpy as np
import torch
from safetensors.torch import load_file

import recompute
import rows
import supervised
from recompute import Config, Iteration, Learner

LOGPROB, STORED, STEP, MOMENTS, WEIGHTS = 1e-5, 1e-6, 2e-5, 1e-4, 1e-3


class Report:
    """The largest difference of each quantity, in the order of first mention."""

    def __init__(self):
        self.rows, self.bad = {}, False

    def note(self, name, difference, tolerance, where=""):
        difference = float(difference)
        worst = self.rows.get(name)
        if worst is None or not difference <= worst[0]:
            self.rows[name] = (difference, tolerance, where)

    def compare(self, name, got, want, tolerance, scale=None, floor=1e-12):
        """got: of the file. Relative to the largest |want|, or floor; scale 1: absolute."""
        got, want = (np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (got, want))
        if got.shape != want.shape or not np.array_equal(np.isnan(got), np.isnan(want)):
            return self.note(name, np.inf, tolerance, f"{got.shape} and {want.shape}, or NaN in one of them")
        finite = want[~np.isnan(want)]
        if not finite.size:
            return self.note(name, 0.0, tolerance)
        size = scale if scale is not None else max(np.abs(finite).max(initial=0.0), floor)
        difference = np.abs(got - want)
        difference[np.isnan(difference)] = 0.0
        worst = difference.argmax() if difference.size else 0
        self.note(name, difference.max(initial=0.0) / size, tolerance, f"place {worst}")

    def print(self):
        for name, (difference, tolerance, where) in self.rows.items():
            good = difference <= tolerance
            self.bad |= not good
            print(f"  {name:34s} {difference:9.2e}  of {tolerance:.0e}{'' if good else '   WRONG  ' + where}")
        return self.bad


def audit_models(report, c, it, policy, critic, stage_dir, start):
    """Log-probabilities, values and reward model scores. Returns the values after the last tokens."""
    everything, temperature = list(range(it.count)), c("env_runners.temperature") or 1.0
    with torch.no_grad():
        old = recompute.logprobs(policy, it, everything, temperature)[0].numpy()
        report.compare("sampler_logprob", it.tokens["sampler_logprob"], old, LOGPROB, 1.0)
        report.compare("old_logprob", it.tokens["old_logprob"], old, LOGPROB, 1.0)
        reference = recompute.load_policy(c.module("reference", stage_dir, start))
        report.compare("ref_logprob", it.tokens["ref_logprob"],
                       recompute.logprobs(reference, it, everything, temperature)[0].numpy(), LOGPROB, 1.0)
        values, last = recompute.values_of(critic, it, everything)
        report.compare("value", it.tokens["value"], values.numpy(), LOGPROB)
        for reward in c.rewards():
            column = it.samples[f"reward_{reward['name']}"]
            if reward["kind"] == "model":
                directory = c.module("reward", stage_dir, start)
                scores = recompute.last_scores(recompute.load_scorer(directory), it.sequences)
                report.compare(f"reward_{reward['name']}", column, scores.numpy(), LOGPROB)
            elif reward["kind"] == "length":
                report.compare(f"reward_{reward['name']}", column, recompute.length_reward(it, reward["target"]),
                               STORED)
    return last.numpy()


class Stops:
    """What ends a completion: ids, and texts that are looked for in what is decoded so far."""

    def __init__(self, c, eos, tokenizer):
        self.ids = set(eos if isinstance(eos, list) else [eos]) | {tokenizer.eos}
        self.library, self.texts = tokenizer.library, []
        for text in c.texts("environment.stop_strings"):
            if text in self.library.all_special_tokens:
                self.ids.add(self.library.convert_tokens_to_ids(text))
            else:
                self.texts.append(text)

    def seen(self, ids):
        text = ""
        if self.texts:
            text = self.library.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return not self.ids.isdisjoint(ids) or any(stop in text for stop in self.texts)


def audit_samples(report, c, it, stops):
    """What each sample says of itself."""
    wrong = 0
    for i in range(it.count):
        ids, stopped = it.completions[i].tolist(), it.samples["finish"][i] == 0
        wrong += stopped != stops.seen(ids) or stops.seen(ids[:-1])
        wrong += not stopped and len(ids) != c("environment.max_completion_tokens")
        mate = i - it.samples["sample_index"][i]
        wrong += it.samples["group"][mate] != it.samples["group"][i] or list(it.prompts[mate]) != list(it.prompts[i])
    wrong += (it.tokens["position"] != np.concatenate([np.arange(len(x)) for x in it.completions])).sum()
    report.note("stops, groups, positions", wrong, 0, "count of samples that contradict themselves")


def audit_text(report, c, it, tokenizer):
    """Prompts as the library cuts them from the file, and the decoded texts, which the file may cut."""
    if tokenizer.library is None:
        return
    with open(c("environment.prompts"), encoding="utf-8") as f:
        records = [json.loads(line) for line in f]
    wrong = 0
    for i, number in enumerate(it.samples["prompt_id"]):
        if "prompt" in records[number]:
            wrong += tokenizer.start(records[number]["prompt"]) != list(it.prompts[i])
        for column, ids in (("prompt", it.prompts[i]), ("completion", it.completions[i])):
            text = it.samples[column][i].decode()
            whole = tokenizer.library.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            whole = whole.split("\0")[0]  # where a text of HDF5 ends
            wrong += not whole.startswith(text) or (text != whole and len(text) < 100)
    report.note("prompts, decoded text", wrong, 0, "count of those that the library makes otherwise")


def audit_rewards(report, c, it, kl_coeff):
    """Scores from the raw rewards, then rewards per token."""
    raw = {r["name"]: it.samples[f"reward_{r['name']}"].astype(np.float64) for r in c.rewards()}
    score, valid = recompute.shaped_scores(c, it, raw)
    report.compare("score", it.samples["score"], score, STORED)
    report.note("samples that leave the batch", (valid != it.valid).sum(), 0)
    report.compare("reward", it.tokens["reward"], recompute.token_rewards(c, it, it.samples["score"], kl_coeff), STORED)
    d = it.tokens["old_logprob"] - it.tokens["ref_logprob"]
    report.compare("kl", it.samples["kl"], [d[p].sum() for p in it.slices], STORED, 1.0)


def audit_advantages(report, c, it, last):
    advantage, returns = recompute.advantages(c, it, last)
    report.compare("returns", it.tokens["returns"], returns, STORED)
    # Whitening divides by the spread, which may be as small as the rounding of what it comes from.
    raw, floor = (returns - it.tokens["value"])[~np.isnan(returns)], 0.0
    if c("training.whiten_advantages") and raw.size:
        floor = np.abs(raw).max() / np.sqrt(raw.var() + 1e-8)
    report.compare("advantage", it.tokens["advantage"], advantage, STORED, floor=max(floor, 1e-12))


def audit_order(report, c, it):
    """Each epoch visits every usable sample once, in minibatches of minibatch_size."""
    size, usable, wrong = c("training.minibatch_size"), sorted(np.flatnonzero(it.valid)), 0
    for epoch in range(c("training.num_epochs")):
        rows = np.flatnonzero(it.updates["epoch"] == epoch)
        visited = [i for r in rows for i in it.order[r]]
        wrong += sorted(visited) != usable
        wrong += any(len(it.order[r]) != size for r in rows[:-1])
        wrong += list(it.updates["minibatch"][rows]) != list(range(len(rows)))
    report.note("order of visiting", wrong, 0)
    return -(-it.count // size) * c("training.num_epochs")


def audit_learner(report, learner, before, after):
    """Weights and moments against the next checkpoint, each difference as a part of its tensor's change."""
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in learner.named.items()}
    largest = max(g.abs().max() for g in gradients.values())
    old, new = (load_file(os.path.join(d, learner.name, "model.safetensors")) for d in (before, after))
    with h5py.File(os.path.join(before, "state.h5"), "r") as was, \
            h5py.File(os.path.join(after, "state.h5"), "r") as now:
        first_step = int(was.attrs[f"{learner.name}_optimizer_steps"])
        report.note(f"{learner.name}: steps", abs(int(now.attrs[f"{learner.name}_optimizer_steps"]) - learner.steps), 0)
        for tensor, p in learner.named.items():
            state = learner.optimizer.state[p]
            triples = [("weights", old[tensor].numpy(), new[tensor].numpy(), p.detach().numpy()),
                       ("first moments", learner.moment(was, "m", tensor), learner.moment(now, "m", tensor),
                        state["exp_avg"].numpy()),
                       ("second moments", learner.moment(was, "v", tensor), learner.moment(now, "v", tensor),
                        state["exp_avg_sq"].numpy())]
            # A bias that all keys share moves all scores of a row alike: the run's gradient is the rounding of 0
            # there, of which Adam makes steps all the same.
            none = (gradients[tensor].abs() <= 1e-12 * largest).numpy()
            away = np.abs(p.detach().numpy() - new[tensor].numpy())[none]
            report.note(f"{learner.name}: weights without gradient", away.max(initial=0.0),
                        learner.base_lr * (learner.steps - first_step), tensor)
            for what, a, b, want in triples:
                kept = ~none if what == "weights" else slice(None)
                change = np.linalg.norm((want - a.astype(np.float64))[kept])
                difference = np.linalg.norm((want - b.astype(np.float64))[kept])
                tolerance = WEIGHTS if what == "weights" else MOMENTS
                report.note(f"{learner.name}: {what}", difference / max(change, 1e-12), tolerance, tensor)


def audit_updates(report, c, it, learners, kl_coeff):
    sums = recompute.ppo_updates(c, it, learners, kl_coeff)
    names = {"loss/policy": "loss/policy_avg", "loss/value": "loss/value_avg", "grad_norm/actor": "grad_norm/actor",
             "grad_norm/critic": "grad_norm/critic"}
    for column, name in names.items():
        report.compare(f"updates: {column}", it.updates[column], sums[name], STEP, floor=0.1)
    for column in ("lr", "critic_lr"):
        report.compare(f"updates: {column}", it.updates[column], sums[column], 1e-12)
    return sums


def audit_metrics(report, c, it, sums, path, number, kl_coeff):
    with h5py.File(path, "r") as f:
        row = int(np.flatnonzero(f["metrics/iteration"][:] == number)[0])
        got = {k: float(f["metrics"][k][row]) for k in f["metrics"].attrs["columns"]}
    d = it.tokens["old_logprob"] - it.tokens["ref_logprob"]
    score, n = it.samples["score"].astype(np.float64)[it.valid], it.count
    used = np.concatenate([np.full(p.stop - p.start, it.valid[i]) for i, p in enumerate(it.slices)])
    returns, value, advantage = (it.tokens[k][used] for k in ("returns", "value", "advantage"))
    lengths = np.array([len(x) for x in it.completions])
    in_reward = c("training.kl.where") == "reward"
    shaped = kl_coeff * recompute.penalty(c("training.kl.estimator"), d).sum() / n if in_reward else 0.0
    want = {"objective/kl": d.sum() / n, "objective/kl_per_token": d.mean(),
            "objective/kl_k3": recompute.penalty("k3", d).sum() / n,
            "objective/entropy": -it.tokens["old_logprob"].sum() / n, "objective/non_score_reward": -shaped,
            "val/num_eos_tokens": (it.samples["finish"] == 0).sum(),
            "kl_coef": kl_coeff, "response_length/mean": lengths.mean(), "response_length/min": lengths.min(),
            "response_length/max": lengths.max(), "response_length/clip_ratio": (it.samples["finish"] == 1).mean(),
            "prompt_length/mean": it.samples["prompt_length"].mean(), "frac_invalid": 1 - it.valid.mean(),
            "num_env_steps_sampled": lengths.sum()}
    if it.valid.any():
        want |= {"objective/scores": score.mean(), "objective/scores_std": score.std(),
                 "objective/rlhf_reward": score.mean() - shaped,
                 "val/var_explained": 1 - np.var(returns - value) / (np.var(returns) + 1e-5),
                 "returns/mean": returns.mean(), "returns/var": returns.var(), "val/value_mean": value.mean(),
                 "val/advantage_std": advantage.std()}
    for reward in c.rewards():
        column = it.samples[f"reward_{reward['name']}"].astype(np.float64)
        column = column[~np.isnan(column)]
        if column.size:
            want[f"rewards/{reward['name']}/mean"], want[f"rewards/{reward['name']}/std"] = column.mean(), column.std()
    for name, x in want.items():  # a spread is a difference of squares: it vanishes to the rounding of the level
        level = want.get(name.replace("/std", "/mean").replace("_std", ""), 0.0)
        report.compare(f"metrics: {name}", got[name], x, STORED, floor=max(0.1 * abs(level), 1e-12))
    for name, values in sums.items():
        last = name in ("lr", "critic_lr")
        value = np.nan if not values else values[-1] if last else np.mean(values)
        report.compare(f"metrics: {name}", got[name], value, STEP, floor=1e-12 if last else 0.1)
    if it.order:
        mean = np.array(sums["val/ratio"])
        report.compare("metrics: val/ratio_var", got["val/ratio_var"], mean.var(), STEP, max(mean.var(), 1e-4))
        report.note("metrics: rollout/logprob_diff_max", got["rollout/logprob_diff_max"], LOGPROB)


def next_coefficient(c, it, kl_coeff):
    target = c("training.kl.target")
    if not target:
        return kl_coeff
    kl = it.samples["kl"].mean()
    return kl_coeff * (1 + np.clip(kl / target - 1, -0.2, 0.2) * it.count / c("training.kl.horizon"))


def audit_ppo(report, c, stage_dir, number, start, before, after):
    per_file = c("reporting.samples.iterations_per_file")
    it = Iteration(os.path.join(stage_dir, f"samples-{(number - 1) // per_file * per_file + 1:06d}.h5"), number)
    policy = recompute.load_policy(os.path.join(before, "policy"))
    critic = recompute.load_scorer(os.path.join(before, "critic"))
    tokenizer = rows.Tokenizer(c("rl_module.tokenizer") or os.path.join(before, "policy"), None)
    with h5py.File(os.path.join(before, "state.h5"), "r") as f:
        kl_coeff = float(f.attrs["kl_coeff"])
    with h5py.File(os.path.join(after, "state.h5"), "r") as f:
        next_kl_coeff = float(f.attrs["kl_coeff"])

    audit_samples(report, c, it, Stops(c, policy.config.eos_token_id, tokenizer))
    audit_text(report, c, it, tokenizer)
    last = audit_models(report, c, it, policy, critic, stage_dir, start)
    audit_rewards(report, c, it, kl_coeff)
    audit_advantages(report, c, it, last)
    total = audit_order(report, c, it) * c("stop.iterations")
    learners = [Learner(c, "policy", policy, c("training.lr"), total).resume(before),
                Learner(c, "critic", critic, c("training.critic_lr"), total).resume(before)]
    sums = audit_updates(report, c, it, learners, kl_coeff)
    for learner in learners:
        audit_learner(report, learner, before, after)
    report.compare("next kl_coeff", next_kl_coeff, next_coefficient(c, it, kl_coeff), STORED)
    audit_metrics(report, c, it, sums, os.path.join(stage_dir, "run.h5"), number, kl_coeff)
    return f"{it.count} samples, {len(it.order)} updates"


def audit(stage_dir, number):
    report, c = Report(), Config(os.path.join(stage_dir, "run.h5"))
    start, before, after = (os.path.join(stage_dir, f"checkpoint_{n:06d}") for n in (0, number - 1, number))
    if c("algorithm") == "ppo":
        what = audit_ppo(report, c, stage_dir, number, start, before, after)
    else:
        what = supervised.audit(report, c, stage_dir, number, before, after, audit_learner)
    print(f"{stage_dir}, iteration {number} ({c('algorithm')}): {what}; differences from the files")
    return report.print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stage_dirs", nargs="+", metavar="STAGE_DIR", help="directory of a stage: it has run.h5")
    parser.add_argument("--iteration", type=int, action="append", help="default: every one that has both checkpoints")
    args, wrong = parser.parse_args(), False
    for stage_dir in args.stage_dirs:
        have = {int(d[11:]) for d in os.listdir(stage_dir) if d.startswith("checkpoint_") and d[11:].isdigit()}
        numbers = args.iteration or sorted(n for n in have if n - 1 in have)
        if not numbers:
            parser.error(f"{stage_dir}: no two checkpoints one iteration apart; valid is a run with "
                         "checkpointing.interval 1 and checkpointing.initial true")
        for number in numbers:
            wrong |= audit(stage_dir, number)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
