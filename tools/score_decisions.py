#!/usr/bin/env python
"""Would the choice have been right? Measured configurations of one model on one GPU under one workload, chosen among by prediction.

    python tools/score_decisions.py DATA nbs/accuracy/performance.json nbs/accuracy/decisions.json

Every source is predicted with coefficients fitted without it, as the scoreboard of `fit_performance --score` holds it, and the
spread that goes with a prediction is taken from the errors of the other laboratories. The file keeps one row per configuration and
load: what was measured and predicted, without its source and with it, of time per token and throughput per GPU, the median where a
laboratory measured the same thing several times.
`nbs/accuracy/decisions.ipynb` draws its figures from these rows alone.
"""
import json, math, sys, warnings
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median
import numpy as np
from fit_performance import freeze, read, starved, width
from vllm_tuner.hardware_rates import PUBLIC
from vllm_tuner.serving import busy

TPOT = ('tpot_mean','tpot_p50','itl_mean','itl_p50')  # the first that was measured stands for time per token
CONFIG = ('tp','pp','dp','ep','max_num_seqs','max_num_batched_tokens','kv_cache_dtype','enforce_eager')  # what somebody chooses
LOAD = ('max_concurrency','request_rate')                                                              # what arrives

def left_out(cases, board):
    "Case id -> statistic -> (measured, predicted without its source, predicted by the fit on all), from the scoreboard; and the simulated cases"
    rows = {r[0]:r[-1] for r in board['rows']}
    runs = {c.id:f for c in cases if shown(c.id) in rows and (f:=frozen(c))}
    return {i:{st:(v,without,fitted) for st,v,fitted,without,_ in rows[shown(i)].values()} for i in runs}, runs

def shown(i): return i.replace('inferencex-silicon','ix')   # as the scoreboard writes it

def frozen(c):
    "A case that was simulated, `None` where it cannot be"
    try: return freeze(c, PUBLIC)
    except Exception as ex: print('left aside:', c.id, type(ex).__name__, ex)

def statistic(got): return next((s for s in TPOT if s in got), None)

def spread_without(out, runs):
    "Laboratory, busy or not -> standard deviation of the log error that the other laboratories saw"
    rows = [(f.case.lab, busy(f.run), math.log(got[st][0]/got[st][1])) for i,got in out.items() if (st:=statistic(got)) and not starved(f:=runs[i])]
    def others(lab, b):
        labs,errors = zip(*((l,e) for l,k,e in rows if l!=lab and k==b))
        return width(np.array(errors), labs)
    return {(lab,b):others(lab,b) for lab in {r[0] for r in rows} for b in (False,True)}

def point(f, got):
    "Time per token and throughput per GPU, each measured and predicted twice; a throughput that was not printed follows from users and latencies"
    r,st = f.case.record,statistic(got)
    if st is None: return None
    gpus,users,O = r['gpu_count'] or (r['tp'] or 1)*(r['pp'] or 1), r['max_concurrency'], r['workload']['output_len']
    ttft = next((got[s] for s in ('ttft_mean','ttft_p50') if s in got), None)
    if 'out' in got: thr = got['out']
    elif users and ttft: thr = tuple(users*O/((a+(O-1)*t)/1e3) for a,t in zip(ttft,got[st]))
    else: return None
    return got[st], tuple(x/gpus for x in thr), gpus

def rows(cases, board):
    "Groups of one machine, model and lengths with several configurations or loads"
    out,runs = left_out(cases, board)
    spread,groups = spread_without(out,runs),defaultdict(lambda: defaultdict(list))
    for i,got in out.items():
        f = runs[i]; r,c = f.case.record,f.case
        if (p:=point(f,got)) is None: continue
        w = r['workload']
        watts = next((s for s in (r['notes'] or '').split(';') if 'power limit' in s), '').strip()
        key = (r['model'], r['quant'] or '', r['gpu'], watts, c.lab, w['dataset'], w['input_len'], w['output_len'], c.engine.vllm_version, statistic(got))
        cfg = {k:r[k] for k in CONFIG if r[k] not in (None,False)} | {'gpus':p[2]}
        load = {k:r[k] for k in LOAD if r[k] not in (None,'inf')}
        groups[key][json.dumps([cfg,load])].append((*p[:2], spread[c.lab,busy(f.run)]))
    def row(text, ps):
        cfg,load = json.loads(text)
        mid = lambda j,k,d: round(median(x[j][k] for x in ps),d)
        return dict(config=cfg, load=load, times=len(ps), tpot=[mid(0,k,3) for k in range(3)], throughput=[mid(1,k,2) for k in range(3)], spread=round(ps[0][2],3))
    return [dict(model=k[0], quant=k[1], gpu=k[2]+(', '+k[3] if k[3] else ''), source=k[4], workload=f'{k[5][:40]} {k[6]:g}/{k[7]:g}', version=k[8], statistic=k[9], points=[row(*x) for x in v.items()])
            for k,v in sorted(groups.items(), key=lambda kv: tuple(map(str,kv[0]))) if len(v)>1]

def main(data, board, path):
    warnings.simplefilter('ignore')
    cases,_ = read(data)
    table = rows(cases, json.loads(Path(board).read_text()))
    head = json.dumps({'about':'Measured serving points in groups of one machine, model and lengths, and what the model predicts for each. tpot: ms, [measured, predicted by a fit without its source, predicted by the fit on all]; throughput: output tokens per second and GPU, likewise; times: measurements behind the median; spread: standard deviation of the log error of time per token in the other laboratories, for a calm or a busy server.', 'made_by':'tools/score_decisions.py'}, indent=1)
    Path(path).write_text(head[:-2]+',\n "groups": [\n'+',\n'.join('  '+json.dumps(g) for g in table)+'\n ]\n}\n')
    print(len(table), 'groups', sum(len(g['points']) for g in table), 'points', Counter(g['source'] for g in table))

if __name__=='__main__': main(*sys.argv[1:])
