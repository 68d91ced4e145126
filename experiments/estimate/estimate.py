#!/usr/bin/env python3
"""Does a run take as long as its plan says?

usage: estimate.py PROGRAM [--small] [--within 0.25] [--only NAME]

Plans, runs and plans again one configuration of each kind, all made here, and prints a row for each: seconds planned before and
after, taken, and, as a sign of a machine that is not quiet, waited for a core by the rank that waited longest (schedstat).
Exits 1 where the mean of the planned times is further than --within from the taken time (from 1 on: a factor): of a machine
whose speed changes meanwhile, the mean of what it was before and after is the fair guess. --small: two tiny ones, planned once,
for a smoke test."""
import argparse, json, os, random, subprocess, sys, tempfile, time

SHAPE = "{hidden_size: %d, num_hidden_layers: %d, num_attention_heads: 4, vocab_size: 1024, max_position_embeddings: 128}"
HEAD = "run: {name: x}\nalgorithm: %s\nrl_module: {%s: {new: %s}%s}\n"
PROMPTS = "environment: {prompts: prompts.jsonl, max_prompt_tokens: 40, max_completion_tokens: 60, rewards: [%s]}\n"
LENGTH, PROGRAM = "{kind: length, target: 8}", "{kind: exec, command: [bash, pace.sh]}"
CASES = [  # name, algorithm, reward, evaluation, ranks, cores of a rank, settings
    ("sft", "sft", None, "{evaluation_interval: 10}", 2, 1, []),
    ("reward", "reward", None, None, 2, 1, []),
    ("ppo colocated", "ppo", LENGTH, "{prompts: prompts.jsonl, num_prompts: 16, evaluation_interval: 2}", 2, 1, []),
    ("ppo two threads", "ppo", LENGTH, None, 1, 2, []),
    ("ppo program", "ppo", PROGRAM, None, 2, 1, []),
    ("ppo split", "ppo", LENGTH, None, 2, 1, ["env_runners.num_env_runners=1"]),
    ("ppo ahead", "ppo", LENGTH, None, 2, 1, ["env_runners.num_env_runners=1", "env_runners.max_staleness=1"]),
]
SMALL = ("reward", "ppo split")


def write_data():
    random.seed(1)
    def ids(low, high):
        return [random.randrange(3, 1024) for _ in range(random.randint(low, high))]
    for name, keys in (("sft", ("completion_ids",)), ("pairs", ("chosen_ids", "rejected_ids")), ("prompts", ())):
        with open(name + ".jsonl", "w") as f:
            for _ in range(200):
                f.write(json.dumps({"prompt_ids": ids(8, 40), **{k: ids(20, 60) for k in keys}}) + "\n")
    with open("pace.sh", "w") as f:
        f.write('while read -r line; do [[ $line =~ \\"id\\":\\ *\\"?([^,\\"}]*) ]] && sleep 0.02 && '
                'echo "{\\"id\\": ${BASH_REMATCH[1]}, \\"score\\": 1}"; done\n')


def write_config(algorithm, reward, evaluation, small):
    shape = SHAPE % ((32, 2) if small else (160, 5))
    text = HEAD % (algorithm, "reward" if algorithm == "reward" else "policy", shape,
                   ", critic: {same_as: policy}" if algorithm == "ppo" else "")
    if algorithm == "ppo":
        prompts = 8 if small else 32
        text += PROMPTS % reward
        text += "training: {prompts_per_iteration: %d, minibatch_size: %d, num_epochs: 2}\n" % (prompts, prompts // 2)
        text += "stop: {iterations: %d}\n" % (3 if small else 6)
    else:
        text += "data: {train: %s}\n" % ("sft.jsonl, validation: sft.jsonl" if algorithm == "sft" else "pairs.jsonl")
        text += "training: {batch_size: 16}\nstop: {steps: %d}\n" % (10 if small else 40)
    if evaluation:
        text += "evaluation: %s\n" % evaluation
    with open("run.yaml", "w") as f:
        f.write(text)


def waits(program, into):
    """Seconds that each of the run's processes has waited for a core so far."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                words = f.read().split(b"\0")
            if words[0].decode() in (program, "/proc/self/exe") and b"train" in words and os.readlink("/proc/%s/cwd" % pid) == os.getcwd():
                with open("/proc/%s/schedstat" % pid) as f:
                    into[pid] = int(f.read().split()[1]) / 1e9
        except (OSError, IndexError):
            pass


def run(program, ranks, options):
    """Seconds taken, and waited for a core by the rank that waited longest."""
    seen, start = {}, time.time()
    with open("train.log", "w") as log:
        job = subprocess.Popen(["mpirun", "--bind-to", "none", "--oversubscribe", "-n", str(ranks), program, "train", "run.yaml",
                                "--fresh"] + options, stdout=log, stderr=log)
        while job.poll() is None:
            waits(program, seen)
            time.sleep(0.1)
    if job.returncode != 0:
        sys.exit("train: exit %d: %s" % (job.returncode, open("train.log").read()[-2000:]))
    return time.time() - start, max(seen.values(), default=0.0)


def plan(program, ranks, cores, options):
    """Seconds of the whole run."""
    done = subprocess.run([program, "plan", "run.yaml", "--ntasks-per-node", str(ranks), "--cpus-per-task", str(cores), "--json"] +
                          options, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit("plan: exit %d: %s" % (done.returncode, done.stderr))
    return json.loads(done.stdout)["seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--within", type=float, default=0.25)
    parser.add_argument("--only")
    arguments = parser.parse_args()
    within = arguments.within
    low, high = (1 - within, 1 + within) if within < 1 else (1 / within, within)
    program, worst = os.path.realpath(arguments.program), False
    os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", PHALANX_SITE="site.yaml")
    print("| case | ranks x cores | planned s | took s | waited s | ratio |\n|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        write_data()
        open("site.yaml", "w").write("{}\n")
        for name, algorithm, reward, evaluation, ranks, cores, sets in CASES:
            if (arguments.small and name not in SMALL) or (arguments.only and name != arguments.only):
                continue
            write_config(algorithm, reward, evaluation, arguments.small)
            options = [w for s in sets for w in ("--set", s)]
            planned = [plan(program, ranks, cores, options)]
            took, waited = run(program, ranks, options)
            if not arguments.small:
                planned.append(plan(program, ranks, cores, options))
            ratio = sum(planned) / len(planned) / took
            worst |= not low <= ratio <= high
            print("| %s | %d x %d | %s | %.1f | %.1f | %.2f |" % (name, ranks, cores, ", ".join("%.1f" % s for s in planned),
                                                               took, waited, ratio), flush=True)
        os.chdir("/")
    sys.exit(1 if worst else 0)


main()
