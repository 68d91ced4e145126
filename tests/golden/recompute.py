"""What a run's numbers are by PyTorch and transformers, in float64: models, losses and optimizer steps of every
algorithm. audit.py compares runs with it, make_steps.py makes fixtures from it."""
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")
import h5py
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

torch.set_num_threads(1)


class Config:
    """/config of a run file: dotted keys; "" is null."""

    def __init__(self, path):
        with h5py.File(path, "r") as f:
            self.values = {k: v.item() if hasattr(v, "item") else v for k, v in f["config"].attrs.items()}

    def __call__(self, key, otherwise=None):
        value = self.values.get(key, "")
        return otherwise if isinstance(value, str) and value == "" else value

    def entries(self, name, field):
        """Dicts of a list's entries, each of which has `field`."""
        n, out = 0, []
        while f"{name}.{n}.{field}" in self.values:
            front = f"{name}.{n}."
            out.append({k[len(front):]: v for k, v in self.values.items() if k.startswith(front)})
            n += 1
        return out

    def texts(self, name):
        """A list of texts."""
        n, out = 0, []
        while f"{name}.{n}" in self.values:
            out.append(self.values[f"{name}.{n}"])
            n += 1
        return out

    def rewards(self):
        return self.entries("environment.rewards", "name")

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
    """Samples of one PPO iteration as the sample file has them."""

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
        self.sequences = [np.concatenate(pair) for pair in zip(self.prompts, self.completions)]
        place = {sample: i for i, sample in enumerate(s["sample"])}
        self.order = [[place[x] for x in order[a:b + 1]] for a, b in zip(self.updates["first"], self.updates["last"])]
        self.valid = np.array([not np.isnan(self.tokens["reward"][p]).any() for p in self.slices])


# ---- models ----------------------------------------------------------------------------------------------------------


def load(kind, directory):
    model = kind.from_pretrained(directory, dtype=torch.float64, attn_implementation="eager").eval()
    model.get_input_embeddings().padding_idx = None  # torch would give this id, which may be sampled, no gradient
    return model


def load_policy(directory):
    return load(AutoModelForCausalLM, directory)


def load_scorer(directory):
    return load(AutoModelForSequenceClassification, directory)


def padded(sequences):
    """Right-padded ids: causal attention keeps real tokens from seeing the padding."""
    ids = torch.zeros(len(sequences), max(map(len, sequences)), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, :len(sequence)] = torch.as_tensor(np.asarray(sequence), dtype=torch.long)
    return ids


def scalars(model, sequences):
    """The scalar head at every position, [row][position], less the mean that a reward model was given."""
    raw = model.score(model.base_model(padded(sequences), use_cache=False).last_hidden_state)[..., 0]
    return raw - getattr(model.config, "reward_mean", 0.0)


def last_scores(model, sequences):
    values = scalars(model, sequences)
    return torch.stack([values[row, len(sequence) - 1] for row, sequence in enumerate(sequences)])


def completion_rows(it, indices, x):
    """x[row][position] at the states before each completion token, flat over samples."""
    return torch.cat([x[row, len(it.prompts[i]) - 1:len(it.sequences[i]) - 1] for row, i in enumerate(indices)])


def logprobs(model, it, indices, temperature):
    """Log-probabilities of the completion tokens and entropies of the distributions they come from."""
    logits = model(padded([it.sequences[i] for i in indices]), use_cache=False).logits
    log = torch.log_softmax(completion_rows(it, indices, logits) / temperature, dim=-1)
    targets = torch.as_tensor(np.concatenate([it.completions[i] for i in indices]), dtype=torch.long)
    return log.gather(1, targets[:, None])[:, 0], -(log.exp() * log).sum(-1)


def values_of(model, it, indices):
    """Values of the states before each completion token, and of those after the last."""
    everything = scalars(model, [it.sequences[i] for i in indices])
    last = torch.stack([everything[row, len(it.sequences[i]) - 1] for row, i in enumerate(indices)])
    return completion_rows(it, indices, everything), last


# ---- rewards and advantages ------------------------------------------------------------------------------------------


def penalty(kind, d):
    exp = torch.exp if torch.is_tensor(d) else np.exp
    return {"k1": lambda: d, "k2": lambda: 0.5 * d * d, "k3": lambda: exp(-d) - 1.0 + d}[kind]()


def length_reward(it, target):
    return np.array([-abs(len(ids) - target) / target for ids in it.completions])


def shaped_scores(c, it, raw):
    """raw: array of each reward source by name. Also which samples the shaping leaves in the batch."""
    score = sum(r["weight"] * raw[r["name"]] for r in c.rewards())
    cut, mode = it.samples["finish"] == 1, c("environment.missing_eos.mode")
    if mode == "subtract":
        score = np.where(cut, score - c("environment.missing_eos.value"), score)
    elif mode == "set":
        score = np.where(cut, c("environment.missing_eos.value"), score)
    if c("environment.reward_clip"):
        score = np.clip(score, -c("environment.reward_clip"), c("environment.reward_clip"))
    return score, np.isfinite(score) & ~(cut & (mode == "mask"))


def token_rewards(c, it, score, kl_coeff):
    """The penalty at every token (where it belongs there), the score at the last one; NaN outside the batch."""
    d = it.tokens["old_logprob"] - it.tokens["ref_logprob"]
    in_reward = c("training.kl.where") == "reward"
    reward = -kl_coeff * penalty(c("training.kl.estimator"), d) if in_reward else np.zeros_like(d)
    for i, p in enumerate(it.slices):
        reward[p.stop - 1] += score[i]
        if not it.valid[i]:
            reward[p] = np.nan
    return reward


def advantages(c, it, last):
    """Advantages (whitened where the run does so) and returns from it.tokens' rewards and values."""
    gamma, lam = c("training.gamma"), c("training.lambda_")
    advantage, returns = (np.full(len(it.tokens["value"]), np.nan) for _ in range(2))
    for i, p in enumerate(it.slices):
        bootstrap = c("training.bootstrap_truncated") and it.samples["finish"][i] == 1
        value, after = last[i] if bootstrap else 0.0, 0.0
        for t in range(p.stop - 1, p.start - 1, -1):
            delta = it.tokens["reward"][t] + gamma * value - it.tokens["value"][t]
            after, value = delta + gamma * lam * after, it.tokens["value"][t]
            advantage[t], returns[t] = after, after + value
    if c("training.whiten_advantages"):
        used = advantage[~np.isnan(advantage)]
        if not used.size:
            return advantage, returns
        advantage = (advantage - used.mean()) / np.sqrt(used.var() + 1e-8)
    return advantage, returns


# ---- optimizer -------------------------------------------------------------------------------------------------------


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
    """One model under torch's AdamW."""

    def __init__(self, c, name, model, lr, total):
        self.c, self.name, self.model, self.total = c, name, model, total
        self.base_lr, self.steps, self.named = lr, 0, dict(model.named_parameters())
        decayed = [p for n, p in self.named.items() if p.dim() >= 2 and n != "score.weight"]
        others = [p for n, p in self.named.items() if p.dim() < 2 or n == "score.weight"]
        betas = (c("training.optimizer.betas.0"), c("training.optimizer.betas.1"))
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": c("training.optimizer.weight_decay")},
             {"params": others, "weight_decay": 0.0}], betas=betas, eps=c("training.optimizer.eps"))

    def resume(self, checkpoint):
        """Moments and step count from a checkpoint's state.h5."""
        with h5py.File(os.path.join(checkpoint, "state.h5"), "r") as f:
            self.steps = int(f.attrs[f"{self.name}_optimizer_steps"])
            for tensor, p in self.named.items():
                m, v = (torch.tensor(self.moment(f, kind, tensor), dtype=torch.float64) for kind in "mv")
                self.optimizer.state[p] = {"step": torch.tensor(float(self.steps)), "exp_avg": m, "exp_avg_sq": v}
        return self

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


# ---- losses ----------------------------------------------------------------------------------------------------------


def lm_loss(model, rows):
    """rows: ids, and which of them are targets. Mean negative log-likelihood of all targets."""
    ids = padded([row for row, _ in rows])
    log = torch.log_softmax(model(ids, use_cache=False).logits, dim=-1)
    picked = log[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    targets = torch.zeros_like(picked, dtype=torch.bool)
    for k, (row, target) in enumerate(rows):
        targets[k, :len(row) - 1] = torch.as_tensor(np.asarray(target[1:], dtype=bool))
    return -picked[targets].mean()


def pair_loss(model, pairs, center):
    """pairs: chosen ids, rejected ids, margin. Bradley-Terry with the centring term; also both sides' scores."""
    chosen, rejected = (last_scores(model, [pair[side] for pair in pairs]) for side in (0, 1))
    margin = torch.tensor([pair[2] for pair in pairs], dtype=torch.float64)
    loss = -torch.nn.functional.logsigmoid(chosen - rejected - margin) + center * (chosen + rejected) ** 2
    return loss.mean(), chosen.detach().numpy(), rejected.detach().numpy()


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
    weights = token_weights(c, it, batch)
    sums["loss/policy_avg"].append((weights * loss).sum().item())
    loss = loss - c("training.entropy_coeff") * entropy
    if c("training.kl.where") == "loss":
        loss = loss + kl_coeff * penalty(c("training.kl.estimator"), lp - ref)
    with torch.no_grad():
        sums["policy/clipfrac_avg"].append((held > plain).double().mean().item())
        sums["policy/approxkl_avg"].append((0.5 * (lp - old) ** 2).mean().item())
        sums["policy/entropy_avg"].append(entropy.mean().item())
        sums["val/ratio"].append(ratio.mean().item())
    return (weights * loss).sum()


def value_loss(c, it, model, batch, sums):
    v, _ = values_of(model, it, batch)
    old, returns = stored(it, "value", batch), stored(it, "returns", batch)
    plain, limit = (v - returns) ** 2, c("training.vf_clip_param")
    held = plain
    if limit:  # old + (v - old) is not v to the last bit: where nothing is held, nothing may differ
        bounded = (old + torch.clamp(v - old, -limit, limit) - returns) ** 2
        held = torch.where((v - old).abs() <= limit, plain, bounded)
    sums["val/clipfrac_avg"].append((held > plain).double().mean().item())
    loss = (token_weights(c, it, batch) * 0.5 * torch.maximum(plain, held)).sum()
    sums["loss/value_avg"].append(loss.item())
    return c("training.vf_loss_coeff") * loss


PPO_SUMS = ("policy/clipfrac_avg", "policy/approxkl_avg", "policy/entropy_avg", "val/ratio", "val/clipfrac_avg",
            "loss/policy_avg", "loss/value_avg", "grad_norm/actor", "grad_norm/critic", "lr", "critic_lr")


def ppo_updates(c, it, learners, kl_coeff):
    """Every optimizer step of the iteration, by policy and critic. Returns lists by metric."""
    sums = {k: [] for k in PPO_SUMS}
    for batch in it.order:
        losses = (policy_loss(c, it, learners[0].model, batch, kl_coeff, sums),
                  value_loss(c, it, learners[1].model, batch, sums))
        for which, (learner, loss) in enumerate(zip(learners, losses)):
            norm, lr = learner.step(loss)
            sums[("grad_norm/actor", "grad_norm/critic")[which]].append(norm)
            sums[("lr", "critic_lr")[which]].append(lr)
    return sums
