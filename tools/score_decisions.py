#!/usr/bin/env python
"""Would the choice have been right? Measured configurations of one model on one GPU under one workload, chosen among by prediction.

    python tools/score_decisions.py DATA nbs/accuracy/decisions.json

Every source is predicted with coefficients fitted without it (`fit_performance`). The file keeps one row per measured point: its
group, what was measured and predicted of time per token and throughput per GPU, and the spread that the product would state.
`nbs/accuracy/decisions.ipynb` draws its figures from these rows alone.
"""
import json, math, sys, warnings
from collections import Counter, defaultdict
from pathlib import Path
import numpy as np
from fit_performance import Bench, Fit, freeze, read
from vllm_tuner.serving import spreads
from vllm_tuner.step_time import PUBLIC

TPOT = ('tpot_mean','tpot_p50','itl_mean','itl_p50')  # the first that was measured stands for time per token

def left_out(cases):
    "Case id -> statistic -> (measured, predicted without its source)"
    frozen = []
    for c in cases:
        try: frozen.append(freeze(c, PUBLIC))
        except Exception as ex: print('left aside:', c.id, type(ex).__name__, ex)
    bench = Bench(frozen, PUBLIC.table())
    fit = Fit(bench)
    table = PUBLIC.table()
    x = np.array([math.log(table.get(k,1.)) for k in fit.keys])-fit.prior
    x = fit.solve(x, rounds=3)
    out,runs = defaultdict(dict),{f.case.id:f for f in frozen}
    for s in sorted(set(fit.source)):
        mask = fit.source==s
        pred = bench.predict(fit.table(fit.without(x, mask)))
        for j in np.flatnonzero(mask):
            f,_,st,v = bench.items[j]
            out[f.case.id][st] = (v, float(pred[j]))
    return out,runs

def point(f, got):
    "Time per token and throughput per GPU, measured and predicted; a throughput that was not printed follows from users and latencies"
    r,st = f.case.record,next((s for s in TPOT if s in got), None)
    if st is None: return None
    gpus,users,O = r['gpu_count'] or (r['tp'] or 1)*(r['pp'] or 1), r['max_concurrency'], r['workload']['output_len']
    ttft = next((got[s] for s in ('ttft_mean','ttft_p50') if s in got), None)
    if 'out' in got: thr = got['out']
    elif users and ttft: thr = tuple(users*O/((a+(O-1)*t)/1e3) for a,t in zip(ttft,got[st]))
    else: return None
    return got[st], tuple(x/gpus for x in thr), gpus

def rows(cases):
    "One row per point of a group that has several configurations"
    out,frozen = left_out(cases)
    groups = defaultdict(dict)
    for i,got in out.items():
        f = frozen[i]; r,c = f.case.record,f.case
        if (p:=point(f,got)) is None: continue
        w = r['workload']
        key = (r['model'], r['quant'] or '', r['gpu'], c.lab, w['dataset'], w['input_len'], w['output_len'], r['vllm_version'] or '')
        cfg = {k:v for k,v in dict(tp=r['tp'], pp=r['pp'], dp=r['dp'], ep=r['ep'] or None, users=r['max_concurrency'], rate=None if r['request_rate']=='inf' else r['request_rate'], max_num_seqs=r['max_num_seqs'],
                                   max_num_batched_tokens=r['max_num_batched_tokens'], kv_cache_dtype=r['kv_cache_dtype'], enforce_eager=r['enforce_eager'] or None, gpus=p[2]).items() if v is not None}
        sd = dict(spreads(c.device, f.run, PUBLIC))['tpot_ms']
        groups[key].setdefault(json.dumps(cfg), dict(config=cfg, tpot=[round(float(x),3) for x in p[0]], throughput=[round(float(x),2) for x in p[1]], spread=round(float(sd),3)))
    return [dict(model=k[0], quant=k[1], gpu=k[2], source=k[3], workload=f'{k[4][:40]} {k[5]:g}/{k[6]:g}', version=k[7], points=list(v.values())) for k,v in sorted(groups.items(), key=lambda kv: tuple(map(str,kv[0]))) if len(v)>1]

def main(data, path):
    warnings.simplefilter('ignore')
    cases,_ = read(data)
    table = rows(cases)
    head = json.dumps({'about':'Measured serving points in groups of one model, GPU and workload, and what the model predicts for each when fitted without its source. tpot: ms, [measured, predicted]; throughput: output tokens per second and GPU, [measured, predicted]; spread: standard deviation of the log that a prediction states for its time per token.', 'made_by':'tools/score_decisions.py'}, indent=1)
    Path(path).write_text(head[:-2]+',\n "groups": [\n'+',\n'.join('  '+json.dumps(g) for g in table)+'\n ]\n}\n')
    print(len(table), 'groups', sum(len(g['points']) for g in table), 'points', Counter(g['source'] for g in table))

if __name__=='__main__': main(*sys.argv[1:])
