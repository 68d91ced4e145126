"""One step of a pretrain, sft or reward run recomputed: its rows, loss and metrics, and the next checkpoint."""
import math
import os

import h5py
import numpy as np

import recompute
import rows

STORED, STEP = 1e-6, 2e-5


def stage_name(stage_dir):
    """Empty where the run is one stage: its directory is the run's own."""
    alone = os.path.exists(os.path.join(stage_dir, "status.json"))
    return "" if alone else os.path.basename(os.path.abspath(stage_dir))


def state(checkpoint, name):
    with h5py.File(os.path.join(checkpoint, "state.h5"), "r") as f:
        return f.attrs[name].item()


def metrics(stage_dir, number):
    with h5py.File(os.path.join(stage_dir, "run.h5"), "r") as f:
        row = int(np.flatnonzero(f["metrics/iteration"][:] == number)[0])
        return {k: float(f["metrics"][k][row]) for k in f["metrics"].attrs["columns"]}


def limit_of(c, model):
    return min(c("data.max_tokens"), model.config.max_position_embeddings)


def order_of(c, stage, algorithm, model, directory):
    """The order of rows (of pieces, in pretraining)."""
    eos, limit = model.config.eos_token_id, limit_of(c, model)
    tokenizer = rows.Tokenizer(c("rl_module.tokenizer") or directory, eos[0] if isinstance(eos, list) else eos)
    files = rows.read_files(c, tokenizer, 0 if algorithm == "pretrain" else limit)
    if algorithm == "pretrain":
        files = [(rows.pieces(kept, limit), weight) for kept, weight in files]
    key = rows.key_of(c("run.seed"), stage, rows.ORDER)
    return rows.Order(files, bool(c("data.shuffle")), key)


def end_of(c, order):
    """Rows that all passes visit: the last step takes what is left of them."""
    return math.inf if c("stop.steps") else math.ceil(c("stop.epochs") * order.length - 1e-9)


def total_steps(c, order, stage):
    if c("stop.steps"):
        return c("stop.steps")
    if c("data.packing") and not c("training.batch_size"):
        return math.ceil(c("stop.epochs") * len(packed(c, order, 0, "")) - 1e-9)
    steps, cursor = 0, 0
    while cursor < end_of(c, order):
        cursor += len(next_batch(c, order, cursor, stage))
        steps += 1
    return steps


def best_fit(sizes, capacity):
    """Best fit decreasing: the rows of each bin."""
    bins, free = [], []
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        fitting = [b for b in range(len(bins)) if free[b] >= sizes[i]]
        if not fitting:
            bins.append([])
            free.append(capacity)
        best = min(fitting, key=lambda b: (free[b], b), default=len(bins) - 1)
        bins[best].append(i)
        free[best] -= sizes[i]
    return bins


def packed(c, order, epoch, stage):
    """The steps of an epoch that is one window: as few as hold its rows, of nearly equal numbers of tokens."""
    kept, capacity = [order(epoch * order.length + i) for i in range(order.length)], c("training.batch_tokens")
    sizes = [min(len(row[0]), capacity) for row in kept]
    assert sum(sizes) / capacity < 96, "several windows"
    high = min(capacity, sum(sizes))
    count = len(best_fit(sizes, high))
    low = max(-(-sum(sizes) // count), max(sizes))
    while low < high:
        middle = low + (high - low) // 2
        if len(best_fit(sizes, middle)) <= count:
            high = middle
        else:
            low = middle + 1
    bins = sorted(map(sorted, best_fit(sizes, high)))
    places = range(len(bins))
    if c("data.shuffle"):
        places = rows.permutation(rows.key_of(c("run.seed"), stage, rows.PERMUTE), epoch * order.length, len(bins))
    return [[kept[i] for i in one] for _, one in sorted(zip(places, bins))]


def next_batch(c, order, cursor, stage):
    """batch_size rows, or as many as fit into batch_tokens: packed, or one after another."""
    if c("training.batch_size"):
        return [order(cursor + i) for i in range(min(c("training.batch_size"), end_of(c, order) - cursor))]
    if c("data.packing"):
        epoch, place = divmod(cursor, order.length)
        for step in packed(c, order, epoch, stage):
            if place == 0:
                return step
            place -= len(step)
        raise AssertionError("the cursor is inside a step")
    batch, tokens = [], 0
    while True:
        row = order(cursor + len(batch))
        if batch and (tokens + len(row[0]) > c("training.batch_tokens") or cursor + len(batch) == end_of(c, order)):
            return batch
        batch.append(row)
        tokens += len(row[0])


def lm_step(learner, batch):
    loss = recompute.lm_loss(learner.model, [(ids, [t >= prompt for t in range(len(ids))])
                                             for ids, prompt, _, _ in batch])
    return loss, {"loss": loss.item(), "perplexity": math.exp(loss.item())}


def pair_step(c, learner, batch):
    center = c("training.center_rewards_coefficient") or 0.0
    pairs = [(ids, other, margin) for ids, _, other, margin in batch]
    loss, chosen, rejected = recompute.pair_loss(learner.model, pairs, center)
    both = np.concatenate([chosen, rejected])
    return loss, {"loss": loss.item(), "accuracy": (chosen > rejected).mean(), "margin": (chosen - rejected).mean(),
                  "mean_reward": both.mean(), "min_reward": both.min(), "max_reward": both.max()}


def audit(report, c, stage_dir, number, before, after, audit_learner):
    algorithm = c("algorithm")
    name = "reward" if algorithm == "reward" else "policy"
    directory = os.path.join(before, name)
    model = (recompute.load_scorer if name == "reward" else recompute.load_policy)(directory)
    if name == "reward":
        model.config.reward_mean = 0.0  # of those who read the checkpoint: training goes on without
    order = order_of(c, stage_name(stage_dir), algorithm, model, directory)
    cursor = int(state(before, "cursor"))
    batch = next_batch(c, order, cursor, stage_name(stage_dir))
    learner = recompute.Learner(c, name, model, c("training.lr"), total_steps(c, order, stage_name(stage_dir))).resume(before)
    loss, want = pair_step(c, learner, batch) if name == "reward" else lm_step(learner, batch)
    norm, lr = learner.step(loss)
    tokens = sum(len(ids) + len(other or []) for ids, _, other, _ in batch)
    got = metrics(stage_dir, number)
    report.compare("metrics: num_tokens", got["num_tokens"], state(before, "num_tokens") + tokens, STORED)
    report.compare("metrics: epoch", got["epoch"], (cursor + len(batch)) / order.length, STORED)
    report.compare("metrics: lr", got["lr"], lr, 1e-12)
    for metric, value in (want | {"grad_norm": norm}).items():
        report.compare(f"metrics: {metric}", got[metric], value, STEP, floor=0.1)
    report.note("next cursor", abs(state(after, "cursor") - cursor - len(batch)), 0)
    audit_learner(report, learner, before, after)
    return f"{len(batch)} rows, {tokens} tokens"
