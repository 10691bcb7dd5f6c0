"""Fit the few coefficients of the ledger that no code states, and distil the records that judge them

    python tools/fit_memory.py DATA_FOLDER [--write]

reads `startup_h100_v019.jsonl` and `startup_corpus.jsonl` (see `startup_records.py`), fits CUDA graphs, memory outside torch and the spread of the residuals with whole
models left out, prints the scores, and with `--write` replaces `vllm_tuner/data/memory.json` and `nbs/accuracy/startup.json`.
"""
from __future__ import annotations
import argparse, json, re, statistics, sys
from collections import defaultdict
from dataclasses import fields, replace
from pathlib import Path
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from startup_records import known_as, quantised, read
from vllm_tuner.devices import device
from vllm_tuner.engine import Engine
from vllm_tuner.models import arch, catalogue
from vllm_tuner.quant import quant
from vllm_tuner.units import GiB, MiB

FIELDS = {f.name for f in fields(Engine)}

def subject(r:dict): # arch, device, engine
    "The nouns of a record; `ValueError` where the catalogue lacks them"
    if not r['model'] or not r['gpu']: raise ValueError('the source names no '+('model' if not r['model'] else 'card'))
    try: a = arch(r['model'])
    except ValueError:
        name = known_as(r['model'], set(catalogue()))
        if not name: raise ValueError(f"{r['model']} is not in the catalogue")
        a = arch(name)
    q = quantised(r['model'], r['quantization'], a.quant is None) if r['quantization'] or a.name!=r['model'] else None
    if q and a.name.lower()!=r['model'].lower() or q and a.quant is None: a = replace(a, quant=quant(q))
    try: d = device(r['gpu'], r['total_gib']) if r['total_gib'] else device(r['gpu'])
    except ValueError:
        if not r['total_gib']: raise
        d = device(r['total_gib'])
    return a, d, Engine(**{k:v for k,v in r['engine'].items() if k in FIELDS})

# --- robust non-negative least squares, few unknowns ---
def fit(rows:list, names:list[str], start:dict, rounds:int=60, huber:float=.15)->dict:
    "Coefficients of `sum(x*c) = y`, by coordinate descent on Huber's loss; never negative, drawn a little to `start`"
    c = dict(start)
    for _ in range(rounds):
        for n in names:
            num = den = 1e-9
            for x,y,w in rows:
                if not x.get(n): continue
                e = y-sum(c[k]*v for k,v in x.items())
                v = w*min(1, huber/max(abs(e),1e-9))
                num += v*x[n]*(e+c[n]*x[n]); den += v*x[n]**2
            c[n] = max(0., (num+den*.01*start[n])/(den*1.01))
    return c

if __name__=='__main__': pass
