#!/usr/bin/env python3
"""Recomputes one iteration of a PPO run with PyTorch and transformers, in float64, from what the run left on disk.

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
Adam divides by sqrt(v) where gradients vanish; no wrong formula comes so close. A token whose ratio stands within
rounding of the clip range could fall on the other side here; with the seeds of audit.sh none does.
"""
import argparse
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")
import h5py
import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

torch.set_num_threads(1)
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


class Config:
    """/config of a run file: dotted keys; "" is null."""

    def __init__(self, path):
        with h5py.File(path, "r") as f:
            self.values = {k: v.item() if hasattr(v, "item") else v for k, v in f["config"].attrs.items()}

    def __call__(self, key, otherwise=None):
        value = self.values.get(key, "")
        return otherwise if isinstance(value, str) and value == "" else value

    def rewards(self):
        n, out = 0, []
        while f"environment.rewards.{n}.name" in self.values:
            front = f"environment.rewards.{n}."
            out.append({k[len(front):]: v for k, v in self.values.items() if k.startswith(front)})
            n += 1
        return out

    def module(self, name, stage_dir, start):
        """Directory of a module as rl_module names it; `start`: of modules as they started."""
        while self(f"rl_module.{name}.same_as"):
            name = self(f"rl_module.{name}.same_as")
        if self(f"rl_module.{name}.path"):
            return self(f"rl_module.{name}.path")
        stage = self(f"rl_module.{name}.stage")
        if stage:
            earlier = os.path.join(os.path.dirname(os.path.abspath(stage_dir)), stage)
            return next(d for d in (os.path.join(earlier, m) for m in ("reward", "policy")) if os.path.isdir(d))
        return os.path.join(start, name)


def table(group, rows=slice(None)):
    return {name: group[name][rows] for name in group.attrs["columns"]}


class Iteration:
    """Samples of one iteration as the sample file has them."""

    def __init__(self, path, number):
        with h5py.File(path, "r") as f:
            rows = np.flatnonzero(f["samples/iteration"][:] == number)
            self.samples = table(f["samples"], rows)
            tokens, prompts, order = table(f["tokens"]), table(f["prompt_tokens"]), f["order/sample"][:]
            self.updates = table(f["updates"], np.flatnonzero(f["updates/iteration"][:] == number))
        s = self.samples
        self.count = len(rows)
        pick = [slice(a, a + n) for a, n in zip(s["completion_start"], s["completion_length"])]
        self.slices = [slice(e - n, e) for n, e in zip(s["completion_length"], np.cumsum(s["completion_length"]))]
        self.tokens = {k: np.concatenate([v[p] for p in pick]).astype(np.float64) for k, v in tokens.items()}
        self.prompts = [prompts["id"][a:a + n] for a, n in zip(s["prompt_start"], s["prompt_length"])]
        self.completions = [tokens["id"][p] for p in pick]
        self.sequences = [torch.tensor(np.concatenate(pair), dtype=torch.long)
                          for pair in zip(self.prompts, self.completions)]
        place = {sample: i for i, sample in enumerate(s["sample"])}
        self.order = [[place[x] for x in order[a:b + 1]] for a, b in zip(self.updates["first"], self.updates["last"])]
        self.valid = np.array([not np.isnan(self.tokens["reward"][p]).any() for p in self.slices])


def load(kind, directory):
    model = kind.from_pretrained(directory, dtype=torch.float64, attn_implementation="eager").eval()
    model.get_input_embeddings().padding_idx = None  # torch would give this id, which may be sampled, no gradient
    return model


def padded(it, indices):
    """Right-padded ids: causal attention keeps real tokens from seeing the padding."""
    longest = max(len(it.sequences[i]) for i in indices)
    ids = torch.zeros(len(indices), longest, dtype=torch.long)
    for row, i in enumerate(indices):
        ids[row, :len(it.sequences[i])] = it.sequences[i]
    return ids


def completion_rows(it, indices, x):
    """x[row][position] at the states before each completion token, flat over samples."""
    return torch.cat([x[row, len(it.prompts[i]) - 1:len(it.sequences[i]) - 1] for row, i in enumerate(indices)])


def logprobs(model, it, indices, temperature):
    """Log-probabilities of the completion tokens and entropies of the distributions they come from."""
    logits = completion_rows(it, indices, model(padded(it, indices), use_cache=False).logits) / temperature
    log = torch.log_softmax(logits, dim=-1)
    targets = torch.cat([torch.as_tensor(it.completions[i], dtype=torch.long) for i in indices])
    return log.gather(1, targets[:, None])[:, 0], -(log.exp() * log).sum(-1)


def scalars(model, it, indices):
    """The scalar head at every position, [row][position]."""
    hidden = model.base_model(padded(it, indices), use_cache=False).last_hidden_state
    return model.score(hidden)[..., 0]


def audit_models(report, c, it, policy, critic, stage_dir, start):
    """Log-probabilities, values and reward model scores. Returns the values after the last tokens."""
    everything, temperature = list(range(it.count)), c("env_runners.temperature") or 1.0
    with torch.no_grad():
        old = logprobs(policy, it, everything, temperature)[0].numpy()
        report.compare("sampler_logprob", it.tokens["sampler_logprob"], old, LOGPROB, 1.0)
        report.compare("old_logprob", it.tokens["old_logprob"], old, LOGPROB, 1.0)
        reference = load(AutoModelForCausalLM, c.module("reference", stage_dir, start))
        report.compare("ref_logprob", it.tokens["ref_logprob"],
                       logprobs(reference, it, everything, temperature)[0].numpy(), LOGPROB, 1.0)
        values = scalars(critic, it, everything)
        report.compare("value", it.tokens["value"], completion_rows(it, everything, values).numpy(), LOGPROB)
        last = np.array([values[i, len(it.sequences[i]) - 1].item() for i in everything])
        for reward in c.rewards():
            column = it.samples[f"reward_{reward['name']}"]
            if reward["kind"] == "model":
                directory = c.module("reward", stage_dir, start)
                with open(os.path.join(directory, "config.json")) as f:
                    mean = json.load(f).get("reward_mean", 0.0)
                scores = scalars(load(AutoModelForSequenceClassification, directory), it, everything)
                want = [scores[i, len(it.sequences[i]) - 1].item() - mean for i in everything]
                report.compare(f"reward_{reward['name']}", column, want, LOGPROB)
            elif reward["kind"] == "length":
                want = [-abs(len(ids) - reward["target"]) / reward["target"] for ids in it.completions]
                report.compare("reward_" + reward["name"], column, want, STORED)
    return last


def audit_samples(report, c, it, stops):
    """What each sample says of itself."""
    wrong = 0
    for i in range(it.count):
        ids, stopped = it.completions[i], it.samples["finish"][i] == 0
        wrong += stopped != (ids[-1] in stops) or any(x in stops for x in ids[:-1])
        wrong += not stopped and len(ids) != c("environment.max_completion_tokens")
        mate = i - it.samples["sample_index"][i]
        wrong += it.samples["group"][mate] != it.samples["group"][i] or list(it.prompts[mate]) != list(it.prompts[i])
    wrong += (it.tokens["position"] != np.concatenate([np.arange(len(x)) for x in it.completions])).sum()
    report.note("stops, groups, positions", wrong, 0, "count of samples that contradict themselves")


def penalty(kind, d):
    return {"k1": d, "k2": 0.5 * d * d, "k3": np.exp(-d) - 1.0 + d}[kind]


def audit_rewards(report, c, it, kl_coeff):
    """Scores from the raw rewards, then rewards per token."""
    score = sum(r["weight"] * it.samples[f"reward_{r['name']}"].astype(np.float64) for r in c.rewards())
    cut, mode = it.samples["finish"] == 1, c("environment.missing_eos.mode")
    if mode == "subtract":
        score = np.where(cut, score - c("environment.missing_eos.value"), score)
    elif mode == "set":
        score = np.where(cut, c("environment.missing_eos.value"), score)
    if c("environment.reward_clip"):
        score = np.clip(score, -c("environment.reward_clip"), c("environment.reward_clip"))
    report.compare("score", it.samples["score"], score, STORED)
    want_valid = np.isfinite(score) & ~(cut & (mode == "mask"))
    report.note("samples that leave the batch", (want_valid != it.valid).sum(), 0)

    d = it.tokens["old_logprob"] - it.tokens["ref_logprob"]
    in_reward = c("training.kl.where") == "reward"
    reward = -kl_coeff * penalty(c("training.kl.estimator"), d) if in_reward else np.zeros_like(d)
    for i, p in enumerate(it.slices):
        reward[p.stop - 1] += it.samples["score"][i]
        if not it.valid[i]:
            reward[p] = np.nan
    report.compare("reward", it.tokens["reward"], reward, STORED)
    report.compare("kl", it.samples["kl"], [d[p].sum() for p in it.slices], STORED, 1.0)


def audit_advantages(report, c, it, last):
    gamma, lam = c("training.gamma"), c("training.lambda_")
    advantage, returns = (np.full(len(it.tokens["value"]), np.nan) for _ in range(2))
    for i, p in enumerate(it.slices):
        bootstrap = c("training.bootstrap_truncated") and it.samples["finish"][i] == 1
        value, after = last[i] if bootstrap else 0.0, 0.0
        for t in range(p.stop - 1, p.start - 1, -1):
            delta = it.tokens["reward"][t] + gamma * value - it.tokens["value"][t]
            after, value = delta + gamma * lam * after, it.tokens["value"][t]
            advantage[t], returns[t] = after, after + value
    report.compare("returns", it.tokens["returns"], returns, STORED)
    if c("training.whiten_advantages"):
        used = advantage[~np.isnan(advantage)]
        advantage = (advantage - used.mean()) / np.sqrt(used.var() + 1e-8)
    report.compare("advantage", it.tokens["advantage"], advantage, STORED)


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


def schedule(c, step, total):
    warmup, floor, kind = c("training.warmup_steps"), c("training.lr_floor"), c("training.lr_schedule")
    if step < warmup:
        return step / warmup
    if kind == "constant":
        return 1.0
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    shape = 1.0 - done if kind == "linear" else 0.5 * (1.0 + np.cos(np.pi * done))
    return floor + (1.0 - floor) * shape


class Learner:
    """One model under torch's AdamW, its state taken from state.h5."""

    def __init__(self, c, name, model, checkpoint, lr, total):
        self.c, self.name, self.model, self.total = c, name, model, total
        self.base_lr, self.named = lr, dict(model.named_parameters())
        decayed = [p for n, p in self.named.items() if p.dim() >= 2 and n != "score.weight"]
        others = [p for n, p in self.named.items() if p.dim() < 2 or n == "score.weight"]
        betas = (c("training.optimizer.betas.0"), c("training.optimizer.betas.1"))
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": c("training.optimizer.weight_decay")},
             {"params": others, "weight_decay": 0.0}], betas=betas, eps=c("training.optimizer.eps"))
        with h5py.File(os.path.join(checkpoint, "state.h5"), "r") as f:
            self.steps = int(f.attrs[f"{name}_optimizer_steps"])
            for tensor, p in self.named.items():
                m, v = (torch.tensor(self.moment(f, kind, tensor), dtype=torch.float64) for kind in "mv")
                self.optimizer.state[p] = {"step": torch.tensor(float(self.steps)), "exp_avg": m, "exp_avg_sq": v}

    def moment(self, f, kind, tensor):
        x = f[f"{self.name}/{kind}/{tensor}"][:]
        turned = self.model.config.model_type == "gpt2" and ".c_" in tensor and x.ndim == 2
        return np.ascontiguousarray(x.T) if turned else x

    def step(self, loss):
        """Returns gradient norm before clipping and learning rate."""
        self.optimizer.zero_grad()
        loss.backward()
        limit, lr = self.c("training.grad_clip"), self.base_lr * schedule(self.c, self.steps, self.total)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit if limit else float("inf"))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.steps += 1
        return norm.item(), lr

    def audit(self, report, before, after):
        """Weights and moments against the next checkpoint, each difference as a part of its tensor's change."""
        old, new = (load_file(os.path.join(d, self.name, "model.safetensors")) for d in (before, after))
        with h5py.File(os.path.join(before, "state.h5"), "r") as was, \
                h5py.File(os.path.join(after, "state.h5"), "r") as now:
            report.note(f"{self.name}: steps", abs(int(now.attrs[f"{self.name}_optimizer_steps"]) - self.steps), 0)
            for tensor, p in self.named.items():
                state = self.optimizer.state[p]
                triples = [("weights", old[tensor].numpy(), new[tensor].numpy(), p.detach().numpy()),
                           ("first moments", self.moment(was, "m", tensor), self.moment(now, "m", tensor),
                            state["exp_avg"].numpy()),
                           ("second moments", self.moment(was, "v", tensor), self.moment(now, "v", tensor),
                            state["exp_avg_sq"].numpy())]
                for what, a, b, want in triples:
                    change = np.linalg.norm(want - a.astype(np.float64))
                    difference = np.linalg.norm(want - b.astype(np.float64))
                    tolerance = WEIGHTS if what == "weights" else MOMENTS
                    report.note(f"{self.name}: {what}", difference / max(change, 1e-12), tolerance, tensor)


def token_weights(c, it, batch):
    """Weight of each completion token of a minibatch in its loss."""
    n = np.array([len(it.completions[i]) for i in batch])
    per_sample = {"token-mean": np.full(len(n), 1.0 / n.sum()),
                  "seq-mean-token-mean": 1.0 / (len(n) * n),
                  "seq-mean-token-sum": np.full(len(n), 1.0 / len(n)),
                  "seq-mean-token-sum-norm": np.full(len(n), 1.0 / (len(n) * c("environment.max_completion_tokens")))}
    return torch.tensor(np.repeat(per_sample[c("training.loss_aggregation")], n))


def stored(it, name, batch):
    return torch.tensor(np.concatenate([it.tokens[name][it.slices[i]] for i in batch]))


def policy_loss(c, it, model, batch, kl_coeff, sums):
    lp, entropy = logprobs(model, it, batch, c("env_runners.temperature") or 1.0)
    old, ref, a = (stored(it, k, batch) for k in ("old_logprob", "ref_logprob", "advantage"))
    low = c("training.clip_param")
    ratio = torch.exp(torch.clamp(lp - old, -20, 20))
    plain, held = -a * ratio, -a * torch.clamp(ratio, 1 - low, 1 + c("training.clip_param_high", low))
    loss = torch.where(held > plain, held, plain)
    dual = c("training.dual_clip")
    if dual:
        loss = torch.where(a < 0, torch.minimum(loss, -dual * a), loss)
    loss = loss - c("training.entropy_coeff") * entropy
    if c("training.kl.where") == "loss":
        d = lp - ref
        loss = loss + kl_coeff * {"k1": d, "k2": 0.5 * d * d, "k3": torch.exp(-d) - 1 + d}[c("training.kl.estimator")]
    with torch.no_grad():
        sums["policy/clipfrac_avg"].append((held > plain).double().mean().item())
        sums["policy/approxkl_avg"].append((0.5 * (lp - old) ** 2).mean().item())
        sums["policy/entropy_avg"].append(entropy.mean().item())
        sums["val/ratio"].append(ratio.mean().item())
    return (token_weights(c, it, batch) * loss).sum()


def value_loss(c, it, model, batch, sums):
    v = completion_rows(it, batch, scalars(model, it, batch))
    old, returns = stored(it, "value", batch), stored(it, "returns", batch)
    plain, limit = (v - returns) ** 2, c("training.vf_clip_param")
    held = (old + torch.clamp(v - old, -limit, limit) - returns) ** 2 if limit else plain
    sums["val/clipfrac_avg"].append((held > plain).double().mean().item())
    return c("training.vf_loss_coeff") * (token_weights(c, it, batch) * 0.5 * torch.maximum(plain, held)).sum()


def audit_updates(report, c, it, learners, kl_coeff):
    """Every optimizer step of the iteration. Returns lists by metric."""
    sums = {k: [] for k in ("policy/clipfrac_avg", "policy/approxkl_avg", "policy/entropy_avg", "val/ratio",
                            "val/clipfrac_avg", "loss/policy_avg", "loss/value_avg", "grad_norm/actor",
                            "grad_norm/critic", "lr", "critic_lr")}
    for batch in it.order:
        losses = (policy_loss(c, it, learners[0].model, batch, kl_coeff, sums),
                  value_loss(c, it, learners[1].model, batch, sums))
        for which, (learner, loss) in enumerate(zip(learners, losses)):
            norm, lr = learner.step(loss)
            sums[("loss/policy_avg", "loss/value_avg")[which]].append(loss.item())
            sums[("grad_norm/actor", "grad_norm/critic")[which]].append(norm)
            sums[("lr", "critic_lr")[which]].append(lr)
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
    shaped = kl_coeff * penalty(c("training.kl.estimator"), d).sum() / n if c("training.kl.where") == "reward" else 0.0
    want = {"objective/kl": d.sum() / n, "objective/kl_per_token": d.mean(),
            "objective/kl_k3": penalty("k3", d).sum() / n, "objective/entropy": -it.tokens["old_logprob"].sum() / n,
            "objective/non_score_reward": -shaped, "objective/scores": score.mean(),
            "objective/scores_std": score.std(), "objective/rlhf_reward": score.mean() - shaped,
            "val/var_explained": 1 - np.var(returns - value) / (np.var(returns) + 1e-5),
            "val/returns_mean": returns.mean(), "val/returns_var": returns.var(), "val/value_mean": value.mean(),
            "val/advantage_std": advantage.std(), "val/num_eos_tokens": (it.samples["finish"] == 0).sum(),
            "kl_coef": kl_coeff, "response_length/mean": lengths.mean(), "response_length/min": lengths.min(),
            "response_length/max": lengths.max(), "response_length/clip_ratio": (it.samples["finish"] == 1).mean(),
            "prompt_length/mean": it.samples["prompt_length"].mean(), "frac_invalid": 1 - it.valid.mean(),
            "num_env_steps_sampled": lengths.sum()}
    for reward in c.rewards():
        column = it.samples[f"reward_{reward['name']}"].astype(np.float64)
        want[f"rewards/{reward['name']}/mean"] = np.nanmean(column)
        want[f"rewards/{reward['name']}/std"] = np.nanstd(column)
    for name, x in want.items():
        report.compare(f"metrics: {name}", got[name], x, STORED)
    for name, values in sums.items():
        last = name in ("lr", "critic_lr")
        report.compare(f"metrics: {name}", got[name], values[-1] if last else np.mean(values), STEP,
                       floor=1e-12 if last else 0.1)
    mean = np.array(sums["val/ratio"])
    report.compare("metrics: val/ratio_var", got["val/ratio_var"], mean.var(), STEP, max(mean.var(), 1e-6))
    report.note("metrics: rollout/logprob_diff_max", got["rollout/logprob_diff_max"], LOGPROB)


def next_coefficient(c, it, kl_coeff):
    target = c("training.kl.target")
    if not target:
        return kl_coeff
    kl = it.samples["kl"].mean()
    return kl_coeff * (1 + np.clip(kl / target - 1, -0.2, 0.2) * it.count / c("training.kl.horizon"))


def audit(stage_dir, number):
    report, c = Report(), Config(os.path.join(stage_dir, "run.h5"))
    start, before, after = (os.path.join(stage_dir, f"checkpoint_{n:06d}") for n in (0, number - 1, number))
    per_file = c("reporting.samples.iterations_per_file")
    it = Iteration(os.path.join(stage_dir, f"samples-{(number - 1) // per_file * per_file + 1:06d}.h5"), number)
    policy = load(AutoModelForCausalLM, os.path.join(before, "policy"))
    critic = load(AutoModelForSequenceClassification, os.path.join(before, "critic"))
    eos = policy.config.eos_token_id
    with h5py.File(os.path.join(before, "state.h5"), "r") as f:
        kl_coeff = float(f.attrs["kl_coeff"])
    with h5py.File(os.path.join(after, "state.h5"), "r") as f:
        next_kl_coeff = float(f.attrs["kl_coeff"])

    audit_samples(report, c, it, eos if isinstance(eos, list) else [eos])
    last = audit_models(report, c, it, policy, critic, stage_dir, start)
    audit_rewards(report, c, it, kl_coeff)
    audit_advantages(report, c, it, last)
    total = audit_order(report, c, it) * c("stop.iterations")
    learners = [Learner(c, "policy", policy, before, c("training.lr"), total),
                Learner(c, "critic", critic, before, c("training.critic_lr"), total)]
    sums = audit_updates(report, c, it, learners, kl_coeff)
    for learner in learners:
        learner.audit(report, before, after)
    report.compare("next kl_coeff", next_kl_coeff, next_coefficient(c, it, kl_coeff), STORED)
    audit_metrics(report, c, it, sums, os.path.join(stage_dir, "run.h5"), number, kl_coeff)
    print(f"{stage_dir}, iteration {number}: {it.count} samples, {len(it.order)} updates; differences from the files")
    return report.print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stage_dirs", nargs="+", metavar="STAGE_DIR", help="stage directory of a PPO run")
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
