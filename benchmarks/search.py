#!/usr/bin/env python
"""How long decisions take: `python benchmarks/search.py [--rows 10000] [--json]`

| figure | bar |
|---|---|
| 100,000 configurations screened on one core | under 1 s |
| a full plan, simulations and reasons included | under 2 s |
| a sweep of 10,000 rows on two cores | within 1.2 of twice as fast as on one |

Times are the best of a few repetitions, because a loaded machine only ever makes things slower; a plan is measured in processor time, with the
runs of earlier plans forgotten. The sweep is measured twice: by the clock, and by the processor time that its workers used.
"""
import argparse, json, os, resource, tempfile, time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
from vllm_tuner.devices import device
from vllm_tuner.engine import Engine
from vllm_tuner.models import arch
from vllm_tuner.optimizer import search
from vllm_tuner.screen import families, table
from vllm_tuner.shared_runs import forget
from vllm_tuner.sweep import sweep
from vllm_tuner.sweep_rows import points
from vllm_tuner.workloads import WorkloadProfile

LLAMA = 'meta-llama/Llama-3.1-8B-Instruct'


def best(f, n=5):
    "Shortest of `n` runs, s, and the last result"
    times = []
    for _ in range(n): t = time.perf_counter(); out = f(); times.append(time.perf_counter()-t)
    return min(times), out


def screened():
    "Seconds per 100,000 configurations, over all layouts of a node of eight"
    a, d, w = arch(LLAMA), device('H100'), WorkloadProfile.from_lengths(1000, 200, requests_per_second=20, latency_budget_ms=30)
    fams = [f for f in families(a, d, Engine(), 8, ('layout', 'kv_cache_dtype')) if f.engine.pipeline_parallel_size==1]
    seconds, tables = best(lambda: [table(f, d, w) for f in fams])
    n = sum(map(len, tables))
    return dict(configurations=n, seconds=round(seconds, 3), per_100k=round(seconds*1e5/n, 3))


def planned():
    "Seconds of a full plan: the first of a process, one that has every ledger but plays every run anew, and one that is asked again"
    out, limits = {}, {'ttft_ms.p99': 2000, 'tpot_ms': 40}
    chat, crowd = WorkloadProfile.create_synthetic('chatbot'), WorkloadProfile.from_lengths(1000, 200, max_concurrency=512)
    for name, card, w, objective in (('chat, 8B on H100', 'H100', chat, 'score'), ('512 users and limits that nothing keeps, 8B on L40S', 'L40S', crowd, 'score'), ('the heaviest chat, 8B on H100', 'H100', chat, 'goodput')):
        ask = lambda: search(arch(LLAMA), device(card), w, slo=limits, objective=objective)
        seconds = []
        for n in range(4):
            if n<3: forget()
            t = time.process_time(); plan = ask(); seconds.append(time.process_time()-t)
        out[name] = dict(first=round(seconds[0], 3), warm=round(min(seconds[1:3]), 3), again=round(seconds[3], 3), screened=plan.screened, simulated=len(plan.candidates))
    return out


def cpu():
    "Processor seconds of ended children"
    r = resource.getrusage(resource.RUSAGE_CHILDREN)
    return r.ru_utime+r.ru_stime


def swept(rows):
    "Scaling of a sweep from one worker to two"
    spec = dict(models=[LLAMA, 'Qwen/Qwen3-8B', 'Qwen/Qwen3-30B-A3B', 'mistralai/Mistral-7B-Instruct-v0.3', 'google/gemma-3-12b-it'], gpus=['H100', 'A100', 'L40S', 'H200'],
                workloads=[dict(input_len=i, output_len=o, max_concurrency=c) for i in (256, 1024) for o in (32, 64) for c in (4, 16, 32)], layouts=[{}, {'tp': 2}],
                flags=[dict(max_num_seqs=s) for s in range(8, 8+8*max(1, -(-rows//480)), 8)])
    n, out = len(list(points(spec))), {}
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as d:
            c, t = cpu(), time.perf_counter()
            sweep(spec, Path(d)/'s.csv', workers=workers, progress=False)
            out[workers] = (time.perf_counter()-t, cpu()-c)
    (w1, c1), (w2, c2) = out[1], out[2]
    return dict(rows=n, one_worker_s=round(w1, 1), two_workers_s=round(w2, 1), of_perfect=round(2*w2/w1, 3), cpu_of_perfect=round(c2/c1, 3), rows_per_second=round(n/w2, 1))


if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--rows', type=int, default=10000); p.add_argument('--json', action='store_true')
    a = p.parse_args()
    result = dict(load=os.getloadavg()[0], screen=screened(), plan=planned(), sweep=swept(a.rows) if a.rows else None)
    if a.json: print(json.dumps(result, indent=1)); raise SystemExit
    s, w = result['screen'], result['sweep']
    print(f'load of the machine: {result["load"]:.1f}')
    print(f'screen: {s["configurations"]:,} configurations in {s["seconds"]} s = {s["per_100k"]} s per 100,000 (bar 1 s)')
    for k, v in result['plan'].items(): print(f'plan, {k}: {v["first"]} s the first time, {v["warm"]} s warm, {v["again"]} s asked again, {v["screened"]:,} screened, {v["simulated"]} simulated (bar 2 s)')
    if w: print(f'sweep: {w["rows"]:,} rows, {w["one_worker_s"]} s with one worker, {w["two_workers_s"]} s with two: {w["of_perfect"]} of perfect by the clock, {w["cpu_of_perfect"]} by processor time (bar 1.2)')
