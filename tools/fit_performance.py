#!/usr/bin/env python
"""Fit the coefficients of the step model to public measurements, and score them with whole sources left out.

    python tools/fit_performance.py DATA                  # the figures, fitted and left out (five minutes)
    python tools/fit_performance.py DATA --write vllm_tuner/data/performance.json --score nbs/accuracy/performance.json   # the same, and the coefficients and the board
    python tools/fit_performance.py DATA --tails FILE     # 90th and 99th percentiles, with the shipped coefficients -> a distilled scoreboard

DATA holds `performance_corpus.jsonl`: one measured serving point per line (model, GPU, flags, workload, what was measured). The
reader below says how each laboratory measured; what it cannot know (versions, numbers of prompts) it takes from the date or from
the habit of the laboratory, never from the measurement.

How the fit works: every point is simulated once with the present coefficients; the steps that the simulated server took are kept
as a short list of (how often, decodes, tokens in sight, prompt tokens), weighted by how much each contributes to every metric. With
that schedule frozen a metric is a smooth function of the coefficients, so a damped least-squares fit takes seconds. Simulate again,
repeat until nothing moves. Coefficients are logarithms with a normal prior around kernel-level measurements; a robust loss keeps
single odd points from steering. Every source has an offset of its own (its client, its host, its clocks), small and per metric, that
takes up what all its points share: physics is learned from how points differ inside a source and from what sources agree on. A
prediction never uses an offset.

The fit goes downhill until nothing is gained; the fits without a source start there and settle along its slopes, so that figures do not
depend on the coefficients that the last run left behind.
"""
import argparse, json, re, warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
import numpy as np
from vllm_tuner.devices import device
from vllm_tuner.engine import Engine
from vllm_tuner.hardware_rates import PUBLIC, Speed, shipped, architecture
from vllm_tuner.kernels import kernels
from vllm_tuner.models import arch, catalogue
from vllm_tuner.quant import quant
from vllm_tuner.serving import busy, percentiles
from vllm_tuner.simulation import simulate
from vllm_tuner.step_clock import EAGER, FULL, PIECEWISE, Batch, _clock, clock
from vllm_tuner.step_load import expert_kernels, load
from vllm_tuner.versions import release
from vllm_tuner.workloads import Requests

# ---------------------------------------------------------------- reading a record

CONFIGS = {'fp8':{'quant_method':'fp8','activation_scheme':'dynamic'}, 'fp8-block':{'quant_method':'fp8','activation_scheme':'dynamic','weight_block_size':[128,128]},
           'awq':{'quant_method':'awq','bits':4,'group_size':128}, 'int4':{'quant_method':'gptq','bits':4,'group_size':128}, 'nvfp4':{'quant_method':'modelopt','quant_algo':'NVFP4'},
           'int8':{'quant_method':'compressed-tensors','config_groups':{'g':{'targets':['Linear'],'weights':{'num_bits':8,'type':'int','strategy':'channel'},'input_activations':{'num_bits':8,'type':'int','dynamic':True}}}}}
STORED = {'fp8':'fp8','fp8-dynamic':'fp8','fp8-static':'fp8','fp8-block':'fp8-block','awq-int4':'awq','int4-w4a16':'int4','autoround-int4':'int4','gptq-int4':'int4','nvfp4':'nvfp4','int8-w8a8':'int8','fp8/int8-w8a8':'fp8-block','mxfp4':'mxfp4','bf16':'','fp16':'','':''}
ALIASES = {'zai-org/glm-4.6':'zai-org/GLM-4.5', 'stepfun-ai/step-3.5-flash':'stepfun-ai/Step-3.7-Flash', 'huggyllama/llama-7b':'meta-llama/Llama-2-7b-hf', 'deepseek-coder-v2-lite':'deepseek-ai/DeepSeek-V2-Lite', '8b-class model':'meta-llama/Llama-3.1-8B', '7b model':'meta-llama/Llama-2-7b-hf'}
SUFFIX = re.compile(r'[-_](awq|int4|int8|4bit|8bit|fp8|nvfp4|fp4|bf16|dynamic|static|w4a16|w8a8|autoround|gptq|block|quantized|instruct|it|hf|chat)$', re.I)

@lru_cache(1)
def tails():
    "Catalogue ids by the end of their name"
    out = {}
    for i in sorted(catalogue(), key=len): out.setdefault(i.split('/')[-1].lower().removeprefix('meta-'), i)
    return out

@lru_cache(None)
def base(name):
    "The checkpoint behind the name of a re-release"
    low = name.lower()
    for k,v in ALIASES.items():
        if k in low: return arch(v)
    try: return arch(name)
    except ValueError: pass
    tail = low.split('/')[-1].removeprefix('meta-').split(' ')[0]
    while True:
        for t in (tail, 'nvidia-'+tail):
            if t in tails(): return arch(tails()[t])
        hits = [v for k,v in tails().items() if k.startswith(tail+'-')]
        if hits: return arch(hits[0])
        short = SUFFIX.sub('', tail)
        if short==tail: raise ValueError(f'no architecture for {name}')
        tail = short

@lru_cache(None)
def model(name, q):
    "Architecture with the quantisation that the record states"
    a,want = base(name), STORED.get(q or '', '')
    form = lambda x: (x.quant.experts or x.quant.linear).form if x.quant and (x.quant.experts or x.quant.linear) else ''
    have = form(a)
    if q is None or want=='mxfp4' and have=='mxfp4' or want.startswith('fp8') and have=='fp8' or want in ('int4','awq') and have in ('packed','gptq','awq') or want=='nvfp4' and have=='nvfp4' or not want and not have: return a
    if want=='nvfp4':
        tail = a.name.split('/')[-1].lower()+'-nvfp4'
        if tail in tails(): return arch(tails()[tail])
    return replace(a, quant=quant({'quantization_config':CONFIGS[want]}) if want else None)

RELEASES = (('2025-03','0.8.2'),('2025-05','0.8.5'),('2025-07','0.9.2'),('2025-09','0.10.2'),('2025-11','0.11.0'),('2025-12','0.12.0'),('2026-01','0.13.0'),('2026-02','0.15.1'),('2026-03','0.17.0'),('2026-04','0.18.0'),('2026-05','0.19.0'))
HABITS = {'aurotripathy':'0.8.3', 'inferencex-profiling':'0.22.0', 'cloudrift':'0.11.0', 'vllm-perf-CI':'0.7.3', 'databasemart-A40':'0.7.3', 'LLM-Inference-Bench':'0.6.1', 'vllm#15322':'0.8.2', 'vllm#359':'0.2.0', 'e2e-A30-V100':'0.6.6'}  # where only the time of the test is known

def version(r):
    "The version stated, else the newest release at the date of the test, else what the laboratory used"
    m = re.match(r'[~v]*(\d+\.\d+(?:\.\d+)?)', r['vllm_version'] or '')
    if m: return m[1] if m[1].count('.')==2 else m[1]+'.0'
    if r['repo_group'] in HABITS: return HABITS[r['repo_group']]
    d = re.search(r'measured=(\d{4}-\d\d)', r['evidence'] or '')
    if d: return next((v for day,v in RELEASES if d[1]<day), '0.19.0')
    return '0.11.0'

def gpu(r):
    "The device; a power limit lowers the clock of its arithmetic"
    name = re.sub(r'-unspecified', '', r['gpu'])
    if r['repo_group']=='aurotripathy' and name.startswith('H100'): name = 'H100-NVL'  # two of them read 35 GB of weights in a step of 19.6 ms, more than a PCIe card's memory gives; eight of them exchange like PCIe cards
    d = device(re.sub(r'-(\d+)GB(-SXM)?$', r' \1GB\2', name) if name!='H100-NVL' else name)
    watts = re.search(r'power limit (\d+) W', r['notes'] or '')
    return limited(d, float(watts[1]), (r['tp'] or 1)*(r['pp'] or 1)) if watts and d.name=='RTX-3090' else d

LIMITS = (100,150,200,250,300,350),(.14,.26,.6,.853,.943,1.)   # watts; prompt tokens per second of RTX 3090 cards under that limit, relative (llmgarage.ai, six cards, 198,000 tokens)

def limited(d, watts, ranks):
    "An RTX 3090 under a power limit: a rank that waits for others uses its watts on the part of the time it works; reading memory at full speed takes seven eighths of the clock"
    f = float(np.interp(100+(watts-100)*ranks, *LIMITS))
    return replace(d, bandwidth=d.bandwidth*min(1,f/.875), bf16=d.bf16*f, fp16=d.fp16*f, int8=d.int8*f if d.int8 else None, nvlink=None)   # 'PCIe 3090s'

def measured(r):
    "The day of the test, '' where it is not told"
    d = re.search(r'measured=(\d{4}-\d\d-\d\d)', r['evidence'] or '')
    return d[1] if d else ''

def protocol(r):
    "Flags that a laboratory's public launch scripts set and its table leaves out: InferenceX, benchmarks/*.sh as of the version"
    if r['repo_group']=='inferencex-profiling': return dict(gpu_memory_utilization=.9, max_num_seqs=256 if 'sweep' in r['source_url'] else int(r['max_concurrency']), max_cudagraph_capture_size=2048, max_num_batched_tokens=8192, max_model_len=10240)   # nebius/exp_lib.sh
    if r['repo_group']!='InferenceX-silicon': return {}
    name,blackwell,v,users = r['model'].lower(),r['gpu'].startswith('B'),release(version(r)),int(r['max_concurrency'])
    nominal = lambda mean: 1024 if mean<2048 else 8192    # lengths are drawn from 0.8 to 1 of these
    i,o = nominal(r['workload']['input_len']),nominal(r['workload']['output_len'])
    fp8,wide = dict(kv_cache_dtype='fp8'),dict(max_num_batched_tokens=8192, max_model_len=i+o+(20 if i+o==2048 else 200))
    if 'llama' in name: return dict(gpu_memory_utilization=.9, async_scheduling=True, max_num_seqs=users, **({} if 'H100' in r['gpu'] else fp8), **wide)   # on H100 the scripts changed within the sweep: vLLM's default cache, as wherever none is stated
    if 'gpt-oss' in name:
        out = dict(gpu_memory_utilization=.9, max_num_seqs=512 if blackwell else users, max_cudagraph_capture_size=2048, **wide, **(fp8 if blackwell else {}))
        return {**out, 'async_scheduling':True, **({'cudagraph_mode':'PIECEWISE'} if v<(0,13) else {}), **({'env':{'VLLM_MXFP4_USE_MARLIN':'1'}} if v>=(0,13) and not blackwell else {})}
    tuned = dict(max_num_batched_tokens=2*i, max_cudagraph_capture_size=2048, **fp8)   # also --stream-interval 20, which leaves the first token alone
    if 'nightly' in (r['vllm_version'] or ''): tuned = dict(max_num_seqs=users)                                            # the first script for NVFP4
    elif measured(r)>'2026-04-16': tuned = dict(tuned, env={'VLLM_FLOAT32_MATMUL_PRECISION':'high'})
    if 'minimax' in name: return dict(gpu_memory_utilization=.9, max_model_len=i+o+200, **tuned) if blackwell and v>=(0,18) else dict(gpu_memory_utilization=.95, max_model_len=i+o+200, enable_expert_parallel=True)
    return dict(gpu_memory_utilization=.9 if blackwell else .95, max_model_len=i+o+200, max_num_seqs=users)

def engine(r, a, d):
    "The flags: those of the record, then those of its command line"
    kw = dict(vllm_version=version(r), pipeline_parallel_size=r['pp'] or 1, enable_expert_parallel=bool(r['ep']))
    for k in ('max_num_seqs','max_num_batched_tokens','max_model_len'):
        if r[k]: kw[k] = int(r[k])
    kw.update(protocol(r))
    if r['repo_group'] in ('gpustack-perf-lab','cloudrift') and release(kw['vllm_version'])<(0,11,1): kw['env'] = {'VLLM_USE_FLASHINFER_SAMPLER':'1'}   # containers, which bring FlashInfer: its sampler leaves more memory to the cache
    if r['kv_cache_dtype']=='fp8': kw['kv_cache_dtype'] = 'fp8'
    if r['enforce_eager']: kw['enforce_eager'] = True
    if r['prefix_caching'] is not None: kw['enable_prefix_caching'] = r['prefix_caching']
    elif r['repo_group'].startswith('InferenceX'): kw['enable_prefix_caching'] = False
    cmd = r['server_cmd'] or ''
    for flag,key,kind in (('async-scheduling','async_scheduling',bool),('gpu-memory-utilization','gpu_memory_utilization',float),('performance-mode','performance_mode',str),('kv-cache-dtype','kv_cache_dtype',str),('max-num-batched-tokens','max_num_batched_tokens',int),('language-model-only','language_model_only',bool)):
        m = re.search(rf'--{flag}[= ]?([\w.]*)', cmd)
        if m: kw[key] = True if kind is bool else kind(m[1])
    if 'speculative-config' in cmd and 'mtp' in cmd: kw['speculative_config'] = dict(method='mtp', num_speculative_tokens=1)
    n = r['gpu_count'] or r['tp'] or 1
    tp = r['tp'] or 1
    if not r['tp']:
        from vllm_tuner.weights import weight_bytes
        while tp<n and weight_bytes(a, d, Engine(tensor_parallel_size=tp, **kw))>.8*d.memory: tp *= 2
    if r['ep'] and (r['dp'] or 1)>1 and n==tp: tp = max(1,n//r['dp'])   # its 'tp' counts all GPUs: attention is data parallel
    if r['repo_group']=='InferenceX-silicon' and r['ep'] and n>tp==r['dp']: n,r = tp,{**r,'dp':1}   # its dump counts GPUs as tp x ep; the same points without `dp` in other dumps agree within 2 %
    dp = r['dp'] or (max(1, n//(tp*kw['pipeline_parallel_size'])) if not r['tp'] else 1)
    replicas = min(dp, int(r['max_concurrency'] or dp)) if dp>1 and not r['ep'] else 1   # independent servers behind a balancer; as many as have work
    if replicas!=dp and not r['ep']: dp = replicas
    return Engine(tensor_parallel_size=tp, data_parallel_size=dp//replicas, **kw), replicas

def lengths(rng, mean, n, kind):
    "Lengths of `n` prompts or answers"
    if kind=='sharegpt': x = np.clip(rng.exponential(mean, n), 4, 6*mean); return np.maximum(1, np.round(x*mean/x.mean())).astype(int)
    if kind=='even': return np.maximum(1, np.round(mean*rng.uniform(.5,1.5,n))).astype(int)   # a selection of long conversations
    if kind=='ratio': return rng.integers(int(.8*mean), int(mean)+1, n)          # benchmark_serving --random-range-ratio 0.8
    if kind=='narrow': return np.maximum(1, np.round(mean*rng.uniform(.888,1.112,n))).astype(int)
    return np.full(n, max(1,round(mean)))

def workload(r, replicas):
    "The requests of one server, in order of arrival"
    w,lab = r['workload'],r['repo_group']
    name = w['dataset']
    i,o = w['input_len'],w['output_len']
    if 'OpenOrca' in name: i,o = i or 294.,o or 294.                 # means of the MLPerf set
    if 'sharegpt 200' in name: i,o = 215.,200.
    if not i or not o: raise ValueError('lengths unknown')
    users = int(r['max_concurrency']) if r['max_concurrency'] else None
    rate = float(r['request_rate']) if re.fullmatch(r'[\d.]+', str(r['request_rate'])) else None
    n = int(w['num_prompts'] or (min(2000, 60*rate) if rate else users if lab=='4x3090' else (10 if lab=='InferenceX-silicon' else 4)*users if users else 1000))   # 4x3090 asks in waves: slowest answer = users / (requests per second); InferenceX's scripts send 10 prompts per user
    if r['request_rate'] in ('Offline','Server'): n = 2000*replicas
    n = max(1, min(n,5000*replicas)//replicas); users = max(1,users//replicas) if users else None; rate = rate/replicas if rate else None
    rng = np.random.default_rng(0)
    kind = 'even' if lab=='LLMServingSim' else 'sharegpt' if 'sharegpt' in name or 'OpenOrca' in name or 'multi-turn' in name else 'ratio' if name.startswith('random (InferenceX') else 'narrow' if 'ratio 0.8' in name or 'blog' in lab else ''
    inp,out = lengths(rng,i,n,'narrow' if 'multi-turn' in name else kind),lengths(rng,o,n,'narrow' if 'multi-turn' in name else kind)
    arrive = np.cumsum(rng.exponential(1/rate, n)) if rate else np.zeros(n)
    hit = np.zeros(n,int)
    if 'multi-turn' in name: hit = (.85*inp).astype(int)              # later turns find their history
    if name=='sonnet': hit = np.where(np.arange(n)>0, np.minimum(200,inp-1), 0)   # the set's shared prefix
    if 'warm prefix cache' in (r['notes'] or ''): hit = inp            # the run before had the same prompts
    if lab=='4x3090': hit = inp; inp = inp+16                         # one fixed text behind a chat template, cached by the first of several waves
    return Requests(arrive-arrive[0], inp, out, hit, users)

METRICS = {'tpot':(('mean_tpot_ms','tpot_mean'),('median_tpot_ms','tpot_p50'),('mean_itl_ms','itl_mean'),('median_itl_ms','itl_p50')), 'ttft':(('mean_ttft_ms','ttft_mean'),('median_ttft_ms','ttft_p50')),
           'out':(('output_tok_s','out'),), 'e2e':(('mean_e2e_ms','e2e_mean'),('median_e2e_ms','e2e_p50'))}

@dataclass(frozen=True, eq=False)
class Case:
    "One measured point, ready to simulate"
    id:str
    source:str
    lab:str
    record:dict
    arch:object
    device:object
    engine:object
    replicas:int
    requests:Requests
    measured:tuple   # (metric, statistic, value)

def case(r):
    "A record as a case"
    a,d = model(r['model'], r['quant']),gpu(r)
    e,replicas = engine(r, a, d)
    got = tuple((m,s,r['measured'][k]) for m,ks in METRICS.items() for k,s in [next(((k,s) for k,s in ks if r['measured'].get(k)), (None,None))] if k)
    return Case(r['id'], r['source_id'], r['repo_group'], r, a, d, e.resolve(a, d), replicas, workload(r, replicas), got)

def wanted(r):
    "V1 engine, NVIDIA, nothing flagged"
    if r['quality_flags'] or not r['gpu'] or r['gpu'].startswith(('MI','Gaudi','TPU')): return False
    if r['measured'].get('median_itl_ms')==0 or (r['measured'].get('median_tpot_ms') or 9)<.5: return False   # the client saw tokens in clumps: no token times
    return release(version(r))>=(0,8,0)

def read(folder):
    "Cases of the corpus, and why others are none"
    cases,refused = [],[]
    for line in Path(folder,'performance_corpus.jsonl').open():
        r = json.loads(line)
        if not wanted(r): continue
        try: cases.append(case(r))
        except Exception as ex: refused.append((r['id'], f'{type(ex).__name__}: {ex}'))
    return cases,refused

# ---------------------------------------------------------------- a metric as a function of the coefficients

def statistic(run, s, replicas=1):
    "One statistic of a run; ms, or tokens per second"
    if s=='out': return replicas*run.bench_requests_per_second*run.output.mean()
    metric,at = s.split('_')
    return getattr(percentiles(*(run.gaps() if metric=='itl' else ({'tpot':run.tpot,'ttft':run.ttft,'e2e':run.e2e}[metric],))), at)

ROW = ('tokens','decodes','context','prefill','prefill_context')   # of a `Batch`

@dataclass
class Frozen:
    "A simulated case: its steps, and what each weighs in every statistic"
    case:Case
    rows:np.ndarray    # a `Batch` without its launching; one row per kind of step
    launch:np.ndarray  # index into `Launch`
    weights:dict       # statistic -> how often each row counts
    const:dict         # statistic -> what does not depend on steps: (seconds, api, api tokens)
    scale:dict         # statistic -> simulated over linear
    sim:dict           # statistic -> simulated value
    run:object=None

def played(c, speed):
    "Simulate a case"
    shared = 512 if c.lab=='4x3090' else 200 if c.record['workload']['dataset']=='sonnet' else 0
    return simulate(c.arch, c.device, c.engine, c.requests, speed=speed, shared=shared)

def freeze(c, speed):
    "Simulate a case and keep its schedule"
    run = played(c, speed)
    s = run.steps
    k,d,n,ctx,p,pctx,wait,inv,batches = s.repeats,s.seconds,s.decodes,s.context,s.prefill,s.prefill_context,s.waiting,s.weight,s.batches
    one = replace(clock(c.arch, c.device, c.engine, speed).batching, stages=1, launch=(EAGER,PIECEWISE,FULL))   # whole batches, and what is replayed in place of its seconds
    b = Batch(*np.array([one.batch(*row) for row in zip(*(x.tolist() for x in (n,ctx,p,pctx)))]).T)
    m,n,ctx,p,pctx,idx = b.tokens,b.decodes,b.context,b.prefill,b.prefill_context,b.launch
    key = np.stack([p>0, np.round(3*np.log2(n+1)), np.round(2*np.log2(p+1)), np.round(2*np.log2(ctx/np.maximum(n,1)+1)), idx, batches],1)
    _,inv_ix = np.unique(key, axis=0, return_inverse=True); inv_ix = inv_ix.ravel()
    add = lambda x: np.bincount(inv_ix, x)
    K = add(k); avg = lambda x: add(k*x)/K
    S = avg(batches)
    rows = np.stack([np.where(S>1, np.maximum(1,avg(m)/S), avg(m)), avg(n)/S, avg(ctx)/S, avg(p)/S, avg(pctx)/S], 1)
    N,N2 = len(run.arrival), max(1,(run.output>1).sum())
    pure = (p==0)|(n==0)
    n = s.decodes
    raw = {'tpot':k*inv/N2, 'itl':k*n/max(1,(k*n).sum()), 'itlp':np.where(pure,k*n,0)/max(1,(k*n*pure).sum()), 'ttft':k*wait/N, 'out':k, 'e2e':k*(wait+n)/N}
    raw = {a:add(w) for a,w in raw.items()}
    f = Frozen(c, rows, avg(idx).round().astype(int), {}, {}, {}, {}, run)
    N_in = float(run.input.mean())
    for _,st,_v in c.measured:
        kind = 'itlp' if st=='itl_p50' else st.split('_')[0]
        w = raw[kind]
        value = statistic(run, st, c.replicas)
        if not value>0: raise ValueError(f'{st} undefined')
        f.weights[st] = w
        f.const[st] = (1.,N_in) if kind in ('ttft','e2e') else (0.,0.)
        f.sim[st] = value
        if kind=='out': total = c.replicas*run.replicas*run.output.sum(); f.scale[st] = (total, total/value-(w*avg(d/k)).sum())
    return f

class Group(NamedTuple):
    "Frozen cases of one configuration, their rows end to end"
    load:object
    device:object
    engine:object
    cases:list         # `Frozen`
    rows:np.ndarray    # fields of a `Batch` by rows
    launch:np.ndarray  # index into `Launch`

class Bench:
    "All frozen cases, evaluated together"
    def __init__(self, frozen, table):
        self.frozen = frozen
        self.items = [(f,m,st,v) for f in frozen for m,st,v in f.case.measured]
        groups = defaultdict(list)
        for f in frozen: groups[(f.case.arch,f.case.device,f.case.engine)].append(f)
        self.groups = [Group(load(a, d, e), d, e, fs, np.concatenate([f.rows for f in fs]).T, np.concatenate([f.launch for f in fs])) for (a,d,e),fs in groups.items()]
        base = self.times(table)
        for f in frozen:
            for st,w in f.weights.items():
                if st=='out': continue
                a,b = f.const[st]
                lin = (w*base[id(f)]).sum()+a*table['api']+b*table['api_token']
                f.scale[st] = f.sim[st]/max(1e-12,lin)
        self.index = defaultdict(list)
        for j,(f,*_) in enumerate(self.items): self.index[id(f)].append(j)
    def times(self, table, only=None):
        "Seconds of every row of every case, or of those of some groups"
        out = {}
        for l,d,e,fs,rows,launch in (self.groups if only is None else [self.groups[g] for g in only]):
            c = _clock(l, table, d, e)
            t = c.step(Batch(**dict(zip(ROW,rows)), launch=np.array(c.batching.launch)[launch])).total
            i = 0
            for f in fs: out[id(f)] = t[i:i+len(f.rows)]; i += len(f.rows)
        return out
    def predict(self, table, only=None, out=None):
        "Every measured statistic, or again those of some groups"
        t = self.times(table, only)
        todo = range(len(self.items)) if only is None else [j for g in only for f in self.groups[g].cases for j in self.index[id(f)]]
        out = np.empty(len(self.items)) if out is None else out.copy()
        for j in todo:
            f,_,st,_v = self.items[j]
            x = (f.weights[st]*t[id(f)]).sum()
            if st=='out': tot,gap = f.scale[st]; out[j] = tot/(x+gap)
            else: a,b = f.const[st]; out[j] = f.scale[st]*(x+a*table['api']+b*table['api_token'])
        return out

def figures(items, pred):
    "Median and 90th percentile of the absolute error by metric, and the median over laboratories"
    out = {}
    for metric in ('tpot','out','ttft','e2e'):
        rows = [(f.case.lab, abs(p/v-1)) for (f,m,_,v),p in zip(items,pred) if m==metric]
        if not rows: continue
        e = np.array([x for _,x in rows]); labs = defaultdict(list)
        for lab,x in rows: labs[lab].append(x)
        out[metric] = (len(e), float(np.median(e)), float(np.quantile(e,.9)), float(np.median([np.median(v) for v in labs.values()])))
    return out

def show(title, fig):
    print(title, '  '.join(f'{m}: n={n} median {a:.1%} p90 {b:.1%} labs {c:.1%}' for m,(n,a,b,c) in fig.items()), flush=True)

# ---------------------------------------------------------------- fitting

SIGMA = {'tpot':.10, 'out':.15, 'ttft':.30, 'e2e':.15}   # what a metric may be off
OWN = {'tpot':.025, 'out':.035, 'ttft':.08, 'e2e':.035}     # by what all points of a source may be off together
DEVIATIONS = (('read:{f}@{a}',.12),('math:{f}@{a}',.12),('expert_read:{f}@{a}',.3),('expert_math:{f}@{a}',.25),('kv@{a}',.08),('attention@{a}',.25),('layer@{a}',.25),('moe_layer:{k}',.25),('moe_layer:{k}@{a}',.15),('gpu@{g}',.05))
TIMED = {(k.family,architecture(device(k.gpu))) for k in kernels('experts') if k.read>.5}   # experts whose kernel was timed alone: a handful of points must not overrule that. (FlashInfer's CUTLASS for plain fp8 on Hopper reads a sixth of what memory gives, alone; no server here runs it.)
HELD = {'expert_read:{f}@{a}':.1, 'expert_math:{f}@{a}':.15}                                # how tightly they are held

def parameters(bench):
    "Names, prior values and standard deviations: the shipped ones, and the deviations that the data can speak about"
    names = {k:(v['prior'],v['sd'],v['what']) for k,v in shipped()['coefficients'].items() if not v.get('deviation')}
    for l,d,e,*_ in bench.groups:
        a = architecture(d)
        fams = [('dense',m.family,'') for m in l.dense]+[('expert',r.family,expert_kernels(r,d,e)) for r in l.routed]
        for pattern,wide in DEVIATIONS:
            for kind,f,k in fams:
                if kind=='dense' and pattern.startswith(('expert','moe')): continue
                sd = HELD.get(pattern,wide) if (f,a) in TIMED else wide
                names.setdefault(pattern.format(f=f,k=k,a=a,g=d.name), (1.,sd,'deviation'))
    return names

def starved(f):
    "A server that batched far fewer requests than it was sent although its cache should hold them: something unrecorded held it back; scored, not fitted"
    got,c = {m:v for m,_,v in f.case.measured},f.case
    if not c.requests.users or 'tpot' not in got or not {'out','ttft'}&set(got): return False
    users,answer = c.requests.users,f.run.output.mean()
    room = min(users, c.engine.max_num_seqs, f.run.pool.tokens/(f.run.input.mean()+answer))
    running = got['out']/c.replicas*got['tpot']/1e3 if 'out' in got else users*answer*got['tpot']/(got['ttft']+answer*got['tpot'])   # Little's law
    return running < .35*room

def fair(bench):
    "1 for what the fit may learn from: no starved server, and nothing of a source where more than a third is starved, because whatever held it back also acted on the rest"
    odd,all_ = {id(f) for f in bench.frozen if starved(f)},Counter(f.case.source for f in bench.frozen)
    held = Counter(f.case.source for f in bench.frozen if id(f) in odd)
    return np.array([id(f) not in odd and held[f.case.source]<=all_[f.case.source]/3 for f,*_ in bench.items], float)

class Fit:
    "Damped robust least squares over logarithms: coefficients, then the offsets of the sources"
    def __init__(self, bench, names=None):
        self.bench,self.names = bench,names or parameters(bench)
        self.keys = list(self.names)
        self.prior = np.log([self.names[k][0] for k in self.keys])
        self.y = np.log([v for *_,v in bench.items])
        self.fair = fair(bench)
        self.source = np.array([f.case.source for f,*_ in bench.items]); self.lab = np.array([f.case.lab for f,*_ in bench.items])
        self.metric = np.array([m for _,m,_,_ in bench.items])
        self.s = np.array([SIGMA[m] for m in self.metric]); self.again = {}
        own = sorted(set(zip(self.source,self.metric)))
        self.own = np.array([(self.source==g)&(self.metric==m) for g,m in own], float).T
        self.sd = np.array([self.names[k][1] for k in self.keys]+[OWN[m] for _,m in own])
    def table(self, x): return dict(zip(self.keys, np.exp(self.prior+x[:len(self.keys)])))
    def start(self, table): return np.concatenate([[np.log(table.get(k,self.names[k][0]))-p for k,p in zip(self.keys,self.prior)], np.zeros(self.own.shape[1])])
    def model(self, x): return np.log(self.bench.predict(self.table(x)))
    def residual(self, f, x): return f+self.own@x[len(self.keys):]-self.y
    def jacobian(self, x, f0, h=1e-4):
        "By differences; only the groups that a coefficient touches are computed again"
        J,p0 = np.zeros((len(f0),len(self.keys))),np.exp(f0)
        if not hasattr(self,'touch'): self.touch = self.dependencies(x)
        for j in range(len(self.keys)):
            z = x.copy(); z[j] += h; J[:,j] = (np.log(self.bench.predict(self.table(z), self.touch[j], p0))-f0)/h
        return np.concatenate([J,self.own], 1)
    def dependencies(self, x):
        "Which groups each coefficient touches"
        clocks = lambda z: [_clock(l, self.table(z), d, e) for l,d,e,*_ in self.bench.groups]
        base,out = clocks(x),[]
        for j,k in enumerate(self.keys):
            z = x.copy(); z[j] += .5
            out.append(list(range(len(base))) if k.startswith('api') else [g for g,(a,b) in enumerate(zip(base,clocks(z))) if a!=b])
        return out
    def step(self, J, r, x, damp=0.):
        "One Gauss-Newton step with soft weights"
        w = self.fair/(self.s**2*(1+(r/self.s/2)**2))
        A = J.T@(J*w[:,None])+np.diag(1/self.sd**2); A = A+damp*np.diag(np.diag(A))*.1
        return np.linalg.solve(A, -J.T@(w*r)-x/self.sd**2)
    def loss(self, f, x): return (self.fair*4*np.log1p((self.residual(f,x)/self.s/2)**2)).sum()+(x**2/self.sd**2).sum()
    def descend(self, x, rounds=40, tol=3e-5, log=False):
        "Steps downhill, with slopes taken anew at every one, until nothing is gained"
        f = self.model(x); best,damp = self.loss(f,x),.3
        for it in range(rounds):
            J,before = self.jacobian(x,f),best
            for _ in range(8):
                z = x+self.step(J, self.residual(f,x), x, damp)
                f2 = self.model(z); l2 = self.loss(f2,z)
                if l2<best: break
                damp = max(4*damp,.02)
            else: break
            x,f,best,damp = z,f2,l2,damp/4
            if log: print(f'  round {it}: loss {best:.1f} (damping {damp:g})', flush=True)
            if before-best<tol*before: break
        return x
    def settle(self, x, slopes, rounds=2):
        "Where the loss is least along given slopes: on straight lines through the model, whose heights are taken anew every round"
        for _ in range(rounds):
            r,z = self.residual(self.model(x),x),x
            for _ in range(20):
                d = self.step(slopes, r+slopes@(z-x), z); z = z+d
                if np.abs(d).max()<1e-4: break
            x = z
        return x
    def solve(self, x, log=False):
        "The solution and the slopes there"
        x = self.descend(x, log=log); self.J = self.jacobian(x, self.model(x))
        return self.settle(x, self.J)
    def without(self, x, mask, many=40):
        "The solution when the rows in `mask` had not been there: along the slopes of the full solution, and where the rows are many again along slopes of its own"
        key,fair = mask.tobytes(),self.fair
        if key not in self.again:
            self.fair = fair*~mask
            x = self.settle(x, self.J)
            self.again[key] = self.settle(x, self.jacobian(x, self.model(x))) if mask.sum()>=many else x
            self.fair = fair
        return self.again[key]

def rounded(x): return float(f'{x:.4g}')

def write(path, fit, x, spread=None):
    "The coefficients as the product reads them"
    t,out = fit.table(x),{}
    for k in fit.keys:
        prior,sd,what = fit.names[k]
        if what=='deviation' and abs(np.log(t[k]/prior))<.01: continue
        out[k] = {'value':rounded(t[k]), 'prior':prior, 'sd':sd, 'what':what, **({'deviation':True} if what=='deviation' else {})}
    head = {'about':'Coefficients of the step model. value: fitted; prior, sd: where the fit was held, and how tightly (standard deviation of the logarithm); deviations from the product of two factors have prior 1.',
            'script':'tools/fit_performance.py', 'priors':'kernel tables of aiconfigurator_core 0.12 (Apache-2.0) for vLLM 0.24, where they have the kernel; else data sheets and judgement',
            'measurements':{lab:n for lab,n in sorted(Counter(f.case.lab for f in fit.bench.frozen).items())}, 'measured':sorted({architecture(f.case.device) for f in fit.bench.frozen}), 'spread':spread or shipped().get('spread',{})}
    rows = ',\n'.join(f'  {json.dumps(k)}: {json.dumps(v)}' for k,v in out.items())
    Path(path).write_text(json.dumps(head, indent=1)[:-2]+',\n "coefficients": {\n'+rows+'\n }\n}\n')

NAMES = {'tpot':'tpot_ms','ttft':'ttft_ms','out':'output_tokens_per_second','e2e':'e2e_ms'}

def width(errors, labs):
    "Standard deviation of the log error that gives an 80 % interval its name: n points of a laboratory count as its square root, because they err together and whoever asks is another laboratory; bug reports are left aside, written as they were because a figure was odd"
    errors,labs = np.abs(errors),np.asarray(labs)
    here = np.char.find(labs.astype(str), '#')<0
    errors,labs = errors[here],labs[here]
    n,order = Counter(labs),np.argsort(errors)
    weight = np.cumsum([n[labs[i]]**-.5 for i in order])
    return float(errors[order][np.searchsorted(weight, .8*weight[-1])])/1.2816

def spreads(fit, left):
    "The widths of every metric, in calm and in busy servers"
    calm = np.array([not busy(f.run) for f,*_ in fit.bench.items])
    return {k:{NAMES[m]:rounded(width((left-fit.y)[here], fit.lab[here])) for m in NAMES if (here:=mask&(fit.metric==m)).any()} for k,mask in (('calm',calm),('busy',~calm))}

def score(path, fit, x, by_source, by_lab, refused):
    "The distilled scoreboard: one row per point and metric"
    here,points = np.exp(fit.model(x)),{}
    for i,(f,m,st,v) in enumerate(fit.bench.items):
        c = f.case; users = c.requests.users*c.replicas if c.requests.users else 0
        row = points.setdefault(c.id, [c.id.replace('inferencex-silicon','ix'), c.source, c.device.name, c.arch.name.split('/')[-1], c.record['quant'] or '', c.engine.tensor_parallel_size, c.engine.vllm_version, users, int(busy(f.run)), {}])
        row[-1][m] = [st, *map(rounded,(v,here[i],np.exp(by_source[i]),np.exp(by_lab[i])))]
    head = {'about':'Measured serving points and what the step model and the scheduler simulation say: fitted on all, with the whole source left out, with the whole laboratory left out', 'script':'tools/fit_performance.py',
            'columns':['id','source','gpu','model','quant','tp','version','users','busy','metrics'], 'cell':['statistic','measured','fitted','source_out','laboratory_out'], 'laboratories':{f.case.source:f.case.lab for f in fit.bench.frozen}, 'refused':refused, 'points':len(points)+len(refused)}
    Path(path).write_text(json.dumps(head, indent=1)[:-2]+',\n "rows": [\n'+',\n'.join(json.dumps(r, separators=(',',':')) for r in points.values())+'\n]}\n')

TAIL = re.compile(r'p(90|99)_(ttft|tpot|itl|e2e)l?_ms')

def board_of_tails(path, cases):
    "The distilled scoreboard of percentiles: beside each the mean (or median) of the same metric, because how far a tail lies from it is no matter of coefficients"
    rows = []
    for c in cases:
        M = {k:v for k,v in c.record['measured'].items() if v}
        found = [(m[2],'p'+m[1],v) for k,v in M.items() if (m:=TAIL.fullmatch(k))]
        if not found: continue
        try: run = played(c, PUBLIC)
        except ValueError: continue
        for metric,at,v in found:
            mid = next((k for k in ('mean','median') if f'{k}_{metric}_ms' in M), None)
            rows.append([c.id.replace('inferencex-silicon','ix'), c.lab, metric, at, int(busy(run)), rounded(v), rounded(statistic(run, f'{metric}_{at}')),
                         *((rounded(M[f'{mid}_{metric}_ms']), rounded(statistic(run, f'{metric}_'+{'mean':'mean','median':'p50'}[mid]))) if mid else (None,None))])
    head = {'about':'Measured 90th and 99th percentiles, and what the scheduler simulation says with the shipped coefficients; ms', 'script':'tools/fit_performance.py --tails', 'columns':['id','laboratory','metric','percentile','busy','measured','predicted','measured_middle','predicted_middle']}
    Path(path).write_text(json.dumps(head, indent=1)[:-2]+',\n "rows": [\n'+',\n'.join(json.dumps(r, separators=(',',':')) for r in rows)+'\n]}\n')

def simulated(cases, speed):
    "Frozen cases, and why others could not be simulated"
    out,refused = [],[]
    for c in cases:
        try: out.append(freeze(c, speed))
        except ValueError as ex: refused.append((c.id, str(ex)[:120]))
    return out,refused

def relative(table):
    "A table as changes of the shipped one"
    base = PUBLIC.table()
    return Speed(tuple((k,v/base.get(k,1.)) for k,v in table.items()))

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('data'); ap.add_argument('--write', metavar='FILE'); ap.add_argument('--score', metavar='FILE'); ap.add_argument('--tails', metavar='FILE'); ap.add_argument('--rounds', type=int, default=2)
    a = ap.parse_args(); warnings.filterwarnings('ignore')
    cases,unread = read(a.data); table = PUBLIC.table()
    if a.tails: return board_of_tails(a.tails, cases)
    for _ in range(a.rounds):
        frozen,stuck = simulated(cases, relative(table))
        bench = Bench(frozen, table); fit = Fit(bench)
        x = fit.solve(fit.start(table), log=True); table = fit.table(x)
        show(f'fitted on {len(frozen)} points, {len(unread)+len(stuck)} unanswered:', figures(bench.items, bench.predict(table)))
    left = {}
    for name,groups in (('source',fit.source),('laboratory',fit.lab)):
        out = np.empty(len(fit.y))
        for g in sorted(set(groups)): out[groups==g] = fit.model(fit.without(x, groups==g))[groups==g]
        left[name] = out; show(f'{name} left out:', figures(bench.items, np.exp(out)))
    if a.write: write(a.write, fit, x, spreads(fit, left['source']))
    if a.score: score(a.score, fit, x, left['source'], left['laboratory'], unread+stuck)

if __name__=='__main__': main()
