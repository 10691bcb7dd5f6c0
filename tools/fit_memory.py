"""Fit the few coefficients of the ledger that no code states, and distil the records that judge them

    python tools/fit_memory.py DATA_FOLDER [--write]

reads `startup_h100_v019.jsonl` and `startup_corpus.jsonl` (see `startup_records.py`), fits CUDA graphs, memory outside torch and the spread of the residuals with whole
models left out, prints the scores, and with `--write` replaces `vllm_tuner/data/memory.json` and `nbs/accuracy/startup.json`.
"""
from __future__ import annotations
import argparse, json, os, re, statistics, sys
from collections import defaultdict
from pathlib import Path
os.environ['HF_HUB_OFFLINE'] = '1'  # names that the catalogue lacks are skipped, not asked for one by one
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from startup_records import read, shape, subject
from vllm_tuner import cuda_graphs, forward, memory as ledger, non_torch, passes, profiler, weights
from vllm_tuner.devices import device
from vllm_tuner.units import GiB
from vllm_tuner.versions import release

# --- robust non-negative least squares, few unknowns ---
def fit(rows:list, names:list[str], start:dict, rounds:int=60, huber:float=.15)->dict:
    "Coefficients of `sum(x*c) = y`, by coordinate descent on Huber's loss; never negative, drawn a little to `start`"
    c = dict(start)
    for _ in range(rounds):
        for n in names:
            num = den = 0.
            for x,y,w in rows:
                if not x.get(n): continue
                e = y-sum(c[k]*v for k,v in x.items())
                v = w*min(1, huber/max(abs(e),1e-9))
                num += v*x[n]*(e+c[n]*x[n]); den += v*x[n]**2
            pull = 2000/start[n]**2 if start[n] else 0.   # twice as much costs as much as a residual of 45 MiB
            c[n] = max(0., (num+pull*start[n])/(den+pull)) if den+pull else start[n]
    return c


MODULES = (cuda_graphs, non_torch, ledger)
CACHED = (cuda_graphs.graph_bytes, ledger.memory, ledger.spreads, cuda_graphs.captures)
FILE = HERE.parent/'vllm_tuner'/'data'/'memory.json'
BOARD = HERE.parent/'nbs'/'accuracy'/'startup.json'

def use(coefficients:dict):
    "Let the package compute with other coefficients"
    for m in MODULES: m.fitted = lambda: coefficients
    for f in CACHED: f.cache_clear()

def family(r:dict, a, d)->str:
    "What is left out together: all sizes and re-releases of one family"
    return re.sub(r'[-_ ]?(\d+(\.\d+)?[bt]\b.*|v?\d.*)$', '', a.name.split('/')[-1].lower()) or a.model_type

def discrete(d)->bool: return d.vendor=='NVIDIA' and not d.unified

def graph_rows(subjects, what):
    "(features, MiB, weight) by runner"
    out,seen = defaultdict(list), defaultdict(int)
    picked = []
    for r,a,d,e in subjects:
        y = r['measured'].get('cudagraph_gib' if what=='actual' else 'cudagraph_estimate_gib')
        R = e.resolve(a,d)
        c = cuda_graphs.captures(a,d,R)
        n = r['measured'].get('num_graphs')
        if y is None or y<0 or not c.graphs or not discrete(d) or {'shared','fork','wsl'}&set(r['marks']): continue
        if n and n!=c.graphs and not (r['engine'].get('enable_lora') and 2*n==c.graphs): continue
        if not n and e.max_num_seqs!=r['engine'].get('max_num_seqs'): continue   # inferred from the very figure
        key = (cuda_graphs.generation(a,d,R), c, round(y,2))
        seen[key] += 1; picked.append((key, cuda_graphs.features(c, cuda_graphs.slow_link(d,R)), y*1024))
    for key,x,y in picked: out[key[0]].append((x, y, 1/seen[key]**.7))
    return out

_V1 = {'base':300,'piecewise':.12,'full':.2,'experts':.05,'special':.05,'nccl':.06}
_V2 = {'base':120,'piecewise':.03,'full':.05,'experts':.02,'special':.02,'nccl':.06}
START = {'v0':{'base':30,'piecewise':.12,'full':.19,'experts':.02,'special':.03,'nccl':.06}, 'v1 first':_V1, 'v1':_V1, 'v2 first':_V2, 'v2':_V2}

def fit_graphs(subjects)->dict:
    "Coefficients of both graph figures for each runner, MiB"
    out = {k:{} for k in START}
    for what in ('actual','estimate'):
        rows = graph_rows(subjects, what)
        for who in START if what=='actual' else ('v1','v2'):
            start = START[who] if what=='actual' or not who.startswith('v2') else {k:v if k=='nccl' else 2*v for k,v in START[who].items()}
            out[who][what] = {k:round(v,4) for k,v in (fit(rows[who], [n for n in start if n!='nccl'], start, huber=150) if len(rows[who])>=3 else start).items()}
    return out

def fit_non_torch(subjects)->dict:
    "GiB: the constant of each era, and what joins the ranks"
    base,link,early = defaultdict(list),defaultdict(list),[]
    for r,a,d,e in subjects:
        if not discrete(d) or {'shared','fork','wsl'}&set(r['marks']): continue
        R,o = e.resolve(a,d),r['measured']
        when,kind = non_torch.era(a,d,R),non_torch.link_kind(d,R)
        y = o.get('non_torch_gib')
        if y is None and when=='consumed' and o.get('consumed_gib') and (w := o.get('weights_gib') or a.quant is None and weights.resident_bytes(a,d,R)/GiB):
            p = profiler.profile(a,d,R)
            y = o['consumed_gib']-w-(p.workspace+p.tables+passes.pinned_bytes(a,d,R))/GiB
        if y is None or not -.2<y<(5 if kind else 1): continue   # a single rank never took a GiB: what is more is no driver's memory
        if not kind and R.pipeline_parallel_size==1: base[when].append((a.name,y))
        elif kind: (early if when in ('early','v0','v1') and kind=='hopper' else link[kind] if when=='estimated' else []).append(y)
    per_model = lambda rows: statistics.median(statistics.median(y for n,y in rows if n==m) for m in {n for n,_ in rows})
    b = {k:round(per_model(base[k]),3) if base[k] else v for k,v in {'early':.35,'v0':.07,'v1':.04,'estimated':.25,'consumed':.2}.items()}
    hopper = statistics.median(link['hopper'])-b['estimated'] if link['hopper'] else 1.83
    return {'base':b, 'link':{'':0,'slow':.17,'ampere':.4,'hopper':round(hopper,3),'blackwell':1.9}, 'early_link':round(statistics.median(early)/hopper,3) if early else .75}

def subjects_of(records):
    "Records whose nouns are known, and the others with the reason"
    good,bad = [],[]
    for r in records:
        try: good.append((r,*subject(r)))
        except ValueError as err: bad.append((r['id'], r['model'], str(err)))
    return good, bad

def coefficients(subjects, old)->dict:
    return {**old, 'graphs':fit_graphs(subjects), 'non_torch':fit_non_torch(subjects), 'spread':SPREAD}

PROVENANCE = {
    'graphs': 'MiB; Huber fit on 37 uniform start-ups of vLLM 0.19 on H100 and the public start-ups that print graph memory on discrete NVIDIA cards, repeated runs of one model weighing as one; by model runner (v0, v1, v2), and for releases that record nothing before the recording itself (first); nccl is set, not fitted: 0.12 on L40S, 0.02 on RTX PRO 6000',
    'non_torch': 'GiB; base: median over models of what single ranks printed in each era; link.hopper: median of 0.19 on H100 at tp 2 and 4; link.slow: L40S, A100 without peer access; link.ampere and link.blackwell: from totals of few start-ups, no printed figure, so uncertain',
    'baseline': 'GiB; total minus free at the first snapshot in public logs: 0.3 to 0.5 for one GPU, 1.2 to 2.2 for several',
    'spread': 'share of a term and GiB besides by kind of start-up: set so that residuals of families left out divided by the spread look alike across kinds',
    'tails': 'quantiles of |residual| of the cache over its spread, families left out'}

SPREAD = {  # one spread of a term: a share of it and GiB besides, by kind of start-up
    'weights':    {'share':.002, 'gib':{'plain':.015, 'quantised':.15, 'tower':.1, 'unknown':.3, 'drafter':.5}},
    'activation': {'share':.02,  'gib':{'plain':.02, 'card':.08, 'experts':.25, 'tower':.2, 'consumed':.1, 'drafter':.3, 'v0':.02, 'assumed':.1}},
    'non_torch':  {'share':.08,  'gib':{'plain':.02, 'card':.1, 'ranks':.35, 'hopper':.35, 'consumed':.15, 'v0':.08, 'unified':3., 'assumed':.1}},
    'cuda_graph': {'share':.35,  'gib':{'plain':.05}}}
LEVELS = (.25,.5,.68,.8,.9,.95,.99)

def tails(rows)->dict:
    "Quantiles of |residual| of the cache over its spread; a source's repeated runs of a model weigh as one"
    z = []
    for r,a,d,e,m in rows:
        kv = r['measured'].get('available_kv_gib')
        if kv is None or not discrete(d) or {'tp_unknown','fork'}&set(r['marks']): continue
        z.append((abs(m.kv_cache-kv*GiB)/max(1.,m.sigma('kv_cache')), (r['source'],a.name)))
    n = defaultdict(int)
    for _,k in z: n[k] += 1
    z = sorted((v, n[k]**-.5) for v,k in z)
    total,out = sum(w for _,w in z),{}
    for level in LEVELS:
        have = 0.
        for v,w in z:
            have += w
            if have>=level*total: out[str(level)] = round(v,2); break
    return out

def coverage(rows, pick, level=.9)->float:
    "Share of start-ups whose cache lies in the interval"
    hits = [lo<=r['measured']['available_kv_gib']*GiB<=hi for r,a,d,_,m in rows if pick(r,a,d) and r["measured"].get("available_kv_gib") is not None for lo,hi in (m.interval('kv_cache',level),)]
    return sum(hits)/max(1,len(hits))

TERMS = (('weights','weights_gib',lambda m: m.weights), ('activation','activation_peak_gib',lambda m: m.peak_activation), ('non_torch','non_torch_gib',lambda m: m.non_torch),
         ('graph_estimate','cudagraph_estimate_gib',lambda m: m.graphs.estimate), ('graph_actual','cudagraph_gib',lambda m: m.graphs.actual), ('kv','available_kv_gib',lambda m: m.kv_cache), ('kv_given','available_kv_gib',lambda m: m.kv_cache))

def given_weights(r, m)->float: # bytes
    "The cache if the weights had been what was printed: what the other terms are worth"
    return m.kv_cache + m.weights - r['measured']['weights_gib']*GiB

def predictions(subjects, coef)->list: # (record, arch, device, engine, Memory)
    use(coef)
    out = []
    for r,a,d,e in subjects:
        try: out.append((r,a,d,e,ledger.memory(a,d,e)))
        except ValueError as err: print('not predicted', r['id'], err)
    return out

SOURCES_OF_S = ('activation','graph_estimate')   # terms that `max_num_seqs` may have been read from

def guessed(r:dict, e)->bool:
    "Whether the number of requests was read from a printed term, which is then no test of it"
    return not r.get('graphs') and e.max_num_seqs!=r['engine'].get('max_num_seqs')

def score(rows, pick)->dict:
    "Median, 90th percentile and worst of the relative error, and of the absolute one in GiB"
    out = {}
    for name,key,value in TERMS:
        both = [(value(m)/GiB, r['measured'][key]) for r,a,d,e,m in rows if pick(r,a,d) and r['measured'].get(key) is not None and not (name in SOURCES_OF_S and guessed(r,e))]
        if name=='kv_given': both = [(given_weights(r,m)/GiB, r['measured'][key]) for r,a,d,e,m in rows if pick(r,a,d) and r['measured'].get(key) is not None and r['measured'].get('weights_gib')]
        rel,ab = sorted(abs(p/o-1)*100 for p,o in both if o>0.005), sorted(abs(p-o) for p,o in both)
        q = lambda x,f: x[min(len(x)-1,int(f*len(x)))] if x else float('nan')
        out[name] = dict(n=len(both), median=q(rel,.5), p90=q(rel,.9), worst=q(rel,1), gib=q(ab,.5), gib90=q(ab,.9))
    return out

CLOUDED = {'doubtful','fork','rounded','shared','dummy','wsl','override'}
SETS = {'H100, 0.19': lambda r,a,d: not r['id'].startswith('vllmlog'),
        'corpus, named NVIDIA cards': lambda r,a,d: r['id'].startswith('vllmlog') and discrete(d) and not {'gpu_unnamed','tp_unknown','util_unknown'}&set(r['marks']) and bool(r['engine'].get('gpu_memory_utilization'))}
SETS['of them stated in full'] = lambda r,a,d: SETS['corpus, named NVIDIA cards'](r,a,d) and r['version_from']=='stated' and not CLOUDED&set(r['marks'])

def show(title, rows):
    for name,pick in SETS.items():
        print(f'--- {title}: {name}')
        for term,x in score(rows, pick).items(): print(f"{term:15} n={x['n']:3} median {x['median']:6.2f} %  p90 {x['p90']:7.2f} %  worst {x['worst']:8.2f} %   median {x['gib']:.3f} GiB, p90 {x['gib90']:.2f}")

def left_out(subjects, old, key=family)->list:
    "Every record predicted by coefficients fitted without its like: its family, its source, its release or its card"
    out = []
    for f in sorted({key(r,a,d) for r,a,d,_ in subjects}):
        mine = [s for s in subjects if key(*s[:3])==f]
        out += predictions(mine, coefficients([s for s in subjects if key(*s[:3])!=f], old))
    return out

def origin(r:dict, a, d)->str:
    "What is left out together: everything one author published in one place"
    return re.sub(r'(github.com/[^/]+/[^/]+).*', r'\1', re.sub(r'\s*\(.*', '', r['source']))

def series(r:dict, a, d)->str:
    "What is left out together: a minor release with its patches"
    return '.'.join(map(str, release(r['engine']['vllm_version'])[:2]))

def model_of_card(r:dict, a, d)->str:
    "What is left out together: every start on one model of card"
    return d.name

UNSEEN = {'source':origin, 'release':series, 'card':model_of_card}   # what else a user may bring that no record knew

# --- what rests on few records: each constant that no fit moves, cut by half ---
CONSTANTS = (  # name, what is known of it, and where it lies: a path into the coefficients, or a module with a name and perhaps a key
    ('ranks over NVLink, Hopper', 'fitted', ('non_torch','link','hopper')), ('ranks over NVLink, Blackwell', 'set, from totals', ('non_torch','link','blackwell')),
    ('ranks over NVLink, Ampere', 'set, from totals', ('non_torch','link','ampere')), ('ranks over PCIe', 'set, from totals', ('non_torch','link','slow')), ('share of it before 0.18', 'fitted', ('non_torch','early_link')),
    ('sort of the old sampler', 'fitted to V0 logs', (passes,'SORTED')), ('experts by FlashInfer, FP8', 'set, one start', (forward,'MOE_INSIDE','flashinfer fp8')), ('experts by FlashInfer, NVFP4', 'code', (forward,'MOE_INSIDE','flashinfer nvfp4')),
    ('experts by TRT-LLM, FP8', 'set, four starts', (forward,'MOE_INSIDE','trtllm fp8')), ('experts by TRT-LLM, NVFP4', 'code', (forward,'MOE_INSIDE','trtllm nvfp4')), ('experts in INT4', 'code', (forward,'MOE_INSIDE','mxint4')),
    ('copies of a cold compile', 'code and seven starts', (profiler,'compile_bytes')), ('of them kept in 0.27 to 0.30', 'six starts', (non_torch,'pinned_bytes')))

def _half(x): return (lambda *a,**k: x(*a,**k)/2) if callable(x) else x/2

def halved(where, coef):
    "Coefficients with half of a constant, and a function that puts it back"
    if isinstance(where[0],str):
        coef = at = json.loads(json.dumps(coef))
        for k in where[:-1]: at = at[k]
        at[where[-1]] = _half(at[where[-1]])
        return coef, lambda: None
    table,key = (vars(where[0]),where[1]) if len(where)==2 else (getattr(where[0],where[1]),where[2])
    whole,table[key] = table[key],_half(table[key])
    return coef, lambda: table.__setitem__(key, whole)

def sensitivity(subjects, coef)->list[dict]:
    "For each constant: the named starts whose cache half of it would move by half a per cent, and their median error with all of it and with half"
    mine = [s for s in subjects if SETS['corpus, named NVIDIA cards'](*s[:3]) and s[0]['measured'].get('available_kv_gib')]
    def caches(c):
        for m in (forward,passes,profiler,non_torch,*MODULES):
            for f in vars(m).values():
                if hasattr(f,'cache_clear'): f.cache_clear()
        return [(m.kv_cache/GiB, r['measured']['available_kv_gib']) for r,*_,m in predictions(mine, c)]
    off = lambda pairs: statistics.median(abs(p/o-1) for p,o in pairs) if pairs else None
    whole,out = caches(coef),[]
    for name,known,where in CONSTANTS:
        c,back = halved(where, coef)
        both = [(w,h) for w,h in zip(whole,caches(c)) if abs(w[0]-h[0])>.005*abs(w[1])]
        back()
        out.append({'constant':name, 'known':known, 'n':len(both), 'error':off([w for w,_ in both]), 'halved':off([h for _,h in both])})
    caches(coef)
    return out

def card(r:dict)->str|float: # what `device` takes
    "The card by its name, or by its memory where the catalogue cannot place the name"
    try: device(r['gpu'], r['total_gib'])
    except ValueError: return r['total_gib']
    return r['gpu']

def distil(left_out, bad, unseen, constants)->dict:
    "The scoreboard's records: what was run, what was printed, what coefficients fitted without that family predict (GiB)"
    rows,kv = [],{k:{r['id']:round(m.kv_cache/GiB,3) for r,*_,m in out} for k,out in unseen.items()}
    for r,a,d,e,m in left_out:
        name,q = shape(r)
        rows.append({'id':r['id'].removeprefix('v019-'), 'source':r['source'], 'model':r['model'], 'arch':name, **({'quant':q} if q else {}), 'gpu':card(r), 'total_gib':r['total_gib'], 'engine':r['engine'],
                     'marks':r['marks'], **({'graphs':r['graphs']} if r.get('graphs') else {}), 'version_from':r['version_from'], 'family':family(r,a,d), 'measured':r['measured'], 'left_out':{t:round(v(m)/GiB,3) for t,_,v in TERMS[:-1]}, 'kv_unseen':{k:v[r['id']] for k,v in kv.items()}})
    return {'what':'public vLLM start-ups: the flags as far as each source states them, what vLLM printed (GiB, tokens, blocks), the prediction of coefficients fitted without the model family, and that of the cache without its source, release or card; made by tools/fit_memory.py', 'records':rows,
            'constants':constants, 'not_scored':[{'id':i,'model':n,'why':why} for i,n,why in bad]}

def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('folder'); ap.add_argument('--write', action='store_true'); ap.add_argument('--sources', action='store_true', help='leave whole sources, releases and cards out as well')
    args = ap.parse_args()
    old = json.loads(FILE.read_text(encoding='utf-8'))
    subjects,bad = subjects_of(read(args.folder))
    coef = coefficients(subjects, old)
    print(json.dumps(coef['graphs']), json.dumps(coef['non_torch']))
    show('fitted', predictions(subjects, coef))
    out = left_out(subjects, old)
    show('whole families left out', out)
    coef['tails'] = tails(out)
    use(coef)
    print('tails', coef['tails'], {n:{l:round(coverage(out,p,l),3) for l in (.5,.8,.9)} for n,p in SETS.items()})
    unseen = {k:left_out(subjects, old, key) for k,key in UNSEEN.items()} if args.sources or args.write else {}
    for k,rows in unseen.items(): show(f'the {k} left out', rows)
    use(coef)
    print(f'{len(bad)} records without a known model or card')
    coef['provenance'] = PROVENANCE
    if args.write:
        FILE.write_text(json.dumps(coef, indent=1)+'\n', encoding='utf-8')
        BOARD.write_text(json.dumps(distil(out, bad, unseen, sensitivity(subjects, coef)), indent=0)+'\n', encoding='utf-8')

if __name__=='__main__': main()
