"""What one log is worth: every public start-up corrected by one other of the same source and card

    python tools/score_one_log.py DATA_FOLDER

fits each start of `startup_corpus.jsonl` alone, predicts the cache of the others of its group with the correction, and prints the error before and after; a group weighs by its starts, not by its pairs.
"""
from __future__ import annotations
import re, sys
from collections import defaultdict
from startup_records import read, subject
from vllm_tuner.calibration import fit, kv_error
from vllm_tuner.observed import Observed
from vllm_tuner.observations import REFERENCE, Observation

PRINTED = {'weights_gib':'weights_gib', 'activation_gib':'activation_peak_gib', 'non_torch_gib':'non_torch_gib', 'consumed_gib':'consumed_gib', 'cuda_graph_estimate_gib':'cudagraph_estimate_gib', 'cuda_graph_gib':'cudagraph_gib',
           'kv_cache_gib':'available_kv_gib', 'kv_tokens':'kv_tokens'}  # field of `Observed` -> key of a record

def place(source:str)->str: # what one author ran in one place
    "A thread, or else the repository or page"
    page = re.sub(r'\s*\(.*', '', source)
    return page if re.search(r'/(issues|pull)/', page) else re.sub(r'(github.com/[^/]+/[^/]+).*', r'\1', page)

def groups(folder)->list[list[Observation]]:
    "Starts of one place and card, two or more"
    out = defaultdict(list)
    for r in read(folder):
        m = r['measured']
        if not r['id'].startswith('vllmlog') or 'tp_unknown' in r['marks'] or not r['engine'].get('gpu_memory_utilization') or m.get('available_kv_gib',0)<=0: continue
        try: a,d,e = subject(r)
        except ValueError: continue
        if d.vendor=='NVIDIA' and not d.unified: out[place(r['source']),d.name].append(Observation(a, d, e, Observed(version=e.vllm_version, **{k:m.get(v) for k,v in PRINTED.items()}), r['id']))
    return [xs for xs in out.values() if len(xs)>1]

def corrected(x):
    try: return fit(x)
    except ValueError: return REFERENCE   # another checkpoint, or nothing to learn from

def quantile(rows, q):
    "Weighted quantile of (value, weight)"
    rows,seen = sorted(rows),0.
    for v,w in rows:
        seen += w
        if seen>=q*sum(w for _,w in rows): return v

def main(folder):
    gs = groups(folder)
    pairs = [(y, corrected(x), 1/(len(g)-1)) for g in gs for x in g for y in g if x is not y]
    for name,params in (('reference', lambda c: REFERENCE), ('one other start fitted', lambda c: c)):
        rows = [(abs(kv_error(y,params(c))),w) for y,c,w in pairs]
        print(f'{name:24} KV cache error: median {quantile(rows,.5):.2%}, 75th {quantile(rows,.75):.1%}, 90th {quantile(rows,.9):.1%}')
    print(f'{sum(map(len,gs))} starts in {len(gs)} groups')

if __name__=='__main__': main(sys.argv[1])
