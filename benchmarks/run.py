#!/usr/bin/env python
"""The figures of the package on this machine, as a table.

    python benchmarks/run.py              # seconds: import, ledger, plan, screen, simulation
    python benchmarks/run.py --install    # a minute more: the base install into a fresh environment

Each row says what was measured, the figure aimed at, and what came out (the best of several runs, since other work on the machine only adds).
"""
import argparse, json, os, random, resource, statistics, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLAN = ['plan', 'meta-llama/Llama-3.1-8B-Instruct', '--gpu', 'H100', '--workload', 'chatbot']


def child(args, runs=3):
    "Wall and processor time in s and peak memory in MB of a fresh interpreter, the best of some runs"
    best = []
    for _ in range(runs):
        start = time.perf_counter()
        p = subprocess.Popen([sys.executable, *args], stdout=subprocess.DEVNULL, cwd=tempfile.gettempdir(), env={**os.environ, 'PYTHONPATH': str(ROOT)})
        _, status, used = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
        assert p.returncode==0, args
        best.append((time.perf_counter()-start, used.ru_utime+used.ru_stime, used.ru_maxrss/(1024 if sys.platform!='darwin' else 2**20)))
    return tuple(map(min, zip(*best)))


def shown(args):
    wall, cpu, mb = child(args)
    return f'{wall:.2f} s ({cpu:.2f} s of one core), {mb:.0f} MB'


def warm(f, seconds=1.):
    "Median time of a call, s"
    f()
    times, stop = [], time.perf_counter()+seconds
    while time.perf_counter()<stop or len(times)<5:
        start = time.perf_counter(); f(); times.append(time.perf_counter()-start)
    return statistics.median(times)


def ledger():
    "One `memory()` call on a configuration never asked about before, and one asked again"
    from vllm_tuner import Engine, arch, device
    from vllm_tuner.memory import memory
    a, d, draw = arch('meta-llama/Llama-3.1-8B-Instruct'), device('H100'), random.Random(0)
    new = lambda: memory(a, d, Engine(gpu_memory_utilization=draw.uniform(.5, .95), max_num_seqs=draw.randint(1, 1024)))
    return warm(new), warm(lambda: memory(a, d, Engine()))


def cache_plan(name, **flags):
    "One `kv_plan` call"
    from vllm_tuner import Engine, arch, device
    from vllm_tuner.kv_cache import kv_plan
    a, d = arch(name), device('H100')
    e = Engine(**flags).resolve(a, d)
    return warm(lambda: kv_plan(a, d, e, 20*2**30), .3)


def whole_search():
    "One search with simulation, warm, no run played before"
    from vllm_tuner import WorkloadProfile, arch, device, search
    from vllm_tuner.shared_runs import forget
    a, d, w = arch('meta-llama/Llama-3.1-8B-Instruct'), device('H100'), WorkloadProfile.create_synthetic('chatbot')
    found = search(a, d, w)
    return warm(lambda: forget() or search(a, d, w), 2.), found.screened


def simulation(n):
    "`n` requests through the scheduler, not played before"
    from vllm_tuner import Engine, WorkloadProfile, arch, device, simulate
    from vllm_tuner.shared_runs import forget
    a, d = arch('meta-llama/Llama-3.1-8B-Instruct'), device('H100')
    w = WorkloadProfile.create_synthetic('chatbot', num_requests=n)
    return warm(lambda: forget() or simulate(a, d, Engine(), w), .5)


def parameters():
    "Catalogue entries whose parameter count equals that of the transformers class to 0.1 %, of how many"
    from vllm_tuner import arch, params
    board = ROOT/'nbs'/'accuracy'/'parameters.json'
    if not board.exists(): return None
    truth = json.loads(board.read_text(encoding='utf-8'))['params']
    truth = {k: n for k, n in truth.items() if n}
    return sum(abs(params(arch(k))-n)<=.001*n for k, n in truth.items()), len(truth)


def install():
    "The base install into a fresh environment, s and MB"
    with tempfile.TemporaryDirectory() as tmp:
        subprocess.run([sys.executable, '-m', 'venv', tmp], check=True)
        size = lambda: sum(f.stat().st_size for f in Path(tmp).rglob('*') if f.is_file())/2**20
        before, start = size(), time.perf_counter()
        subprocess.run([f'{tmp}/bin/python', '-m', 'pip', 'install', '-q', str(ROOT)], check=True, cwd=tmp)
        took = time.perf_counter()-start
        out = subprocess.run([f'{tmp}/bin/vllm-tuner', *PLAN, '--json'], cwd=tmp, capture_output=True, text=True, check=True).stdout
        assert json.loads(out)['fits']
        return took, size()-before


def rows(with_install=False):
    "(what, aim, measured)"
    yield '`from vllm_tuner import vLLMPerformanceModel`', 'under 0.3 s and 60 MB', shown(['-c', 'from vllm_tuner import vLLMPerformanceModel'])
    yield '`vllm-tuner plan`, the whole command', 'under 1.0 s and 100 MB', shown(['-m', 'vllm_tuner', *PLAN])
    yield '`vllm-tuner memory`, the whole command', '', shown(['-m', 'vllm_tuner', 'memory', *PLAN[1:4]])
    fresh, again = ledger()
    yield 'one `memory()` call, warm', 'under 1 ms', f'{1e3*fresh:.2f} ms ({1e6*again:.1f} µs when asked again)'
    yield 'one `kv_plan()` call, dense', 'under 1 ms', f'{1e3*cache_plan("meta-llama/Llama-3.1-8B-Instruct"):.2f} ms'
    yield 'one `kv_plan()` call, hybrid', 'under 5 ms', f'{1e3*cache_plan("Qwen/Qwen3-Next-80B-A3B-Instruct", tensor_parallel_size=4):.2f} ms'
    s, n = whole_search()
    yield f'a search with simulation ({n:,} configurations)', 'under 2 s', f'{s:.2f} s'
    yield '1,000 requests simulated', 'under 60 ms', f'{1e3*simulation(1000):.0f} ms'
    yield '10,000 requests simulated', 'under 1 s', f'{simulation(10000):.2f} s'
    if (p := parameters()): yield 'parameter counts equal to 0.1 %', 'at least 380 of 393', f'{p[0]} of {p[1]}'
    if with_install:
        s, mb = install()
        yield '`pip install .` in a fresh environment', 'under 30 s', f'{s:.0f} s, {mb:.0f} MB'


def main():
    ask = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ask.add_argument('--install', action='store_true', help='measure the base install too')
    print('| what | aim | measured |\n|---|---|---|')
    for row in rows(ask.parse_args().install): print('| '+' | '.join(row)+' |', flush=True)
    print(f'\nPython {sys.version.split()[0]}, {os.cpu_count()} cores, peak of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024:.0f} MB')


if __name__=='__main__': main()
