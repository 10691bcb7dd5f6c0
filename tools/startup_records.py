"""Read published start-ups into (model, device, engine, what vLLM printed): one schema for fitting and scoring

A record keeps what its source states and nothing else. What the flags of the run were is read from the fields, then from the flags and notes
that the source quotes; what remains open stays open, so that `Engine.resolve` fills it as that version of vLLM would.
"""
from __future__ import annotations
import json, re, sys
from dataclasses import fields, replace
from pathlib import Path
sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]
from vllm_tuner.devices import device
from vllm_tuner.engine import Engine
from vllm_tuner.inference import implied
from vllm_tuner.observed import Observed
from vllm_tuner.models import arch
from vllm_tuner.checkpoints import PRECISIONS, catalogue
from vllm_tuner.quant import quant

FIELDS = {f.name for f in fields(Engine)}

RELEASED = (('2024-06','0.5.1'),('2024-09','0.6.1'),('2024-10','0.6.3'),('2024-11','0.6.4'),('2024-12','0.6.5'),('2025-01','0.7.0'),('2025-02','0.7.3'),('2025-03','0.8.2'),('2025-04','0.8.5'),
            ('2025-05','0.9.0'),('2025-06','0.9.1'),('2025-07','0.10.0'),('2025-08','0.10.1'),('2025-09','0.10.2'),('2025-10','0.11.0'),('2025-11','0.11.2'),('2025-12','0.13.0'),('2026-01','0.14.1'),
            ('2026-02','0.16.0'),('2026-03','0.18.0'),('2026-04','0.19.1'),('2026-05','0.21.0'),('2026-06','0.22.1'),('2026-07','0.24.0'),('2026-08','0.27.0'),('2026-09','0.28.0'),('2026-10','0.31.0'),('2026-11','0.33.0'))  # month -> newest release

V0_SAYS = r'activation peak memory takes|peak_torch_memory=|# CPU blocks'   # worker.py of engine V0
# templates of the start-up log -> releases that print it so
PRINTED = ((r'tokens, Maximum concurrency', ('0.28.0','0.99')), (r'consumed memory', ('0.27.0','0.99')), (r'CUDA graph pool memory', ('0.18.0','0.99')), (r'Estimated CUDA graph memory|Profiling CUDA graph', ('0.18.0','0.99')),
           (r'Setting attention block size', ('0.10.2','0.99')), (r'Model loading took [\d.]+ GiB memory', ('0.11.1','0.99')), (r'Model loading took \d+\.\d{4} GiB', ('0.8.3','0.14.0')), (r'took [\d.]+ GB', ('0.1.0','0.8.2')),
           (V0_SAYS, ('0.6.3','0.10.2')), (r'peak_torch_memory=', ('0.6.3','0.6.4')), (r'PIECEWISE \d+/\d+[,;] FULL', ('0.11.0','0.99')), (r'PIECEWISE \d+', ('0.10.2','0.99')), (r'Available KV cache memory', ('0.9.0','0.99')))

def _number(v): return tuple(int(x) for x in (v.split('.')+['0','0'])[:3])

def printed_between(text:str)->tuple: # first and last release
    "The releases whose templates a log's lines follow"
    fits = [tuple(map(_number,span)) for pattern,span in PRINTED if re.search(pattern, text)]
    return max((a for a,_ in fits), default=(0,1,0)), min((b for _,b in fits), default=(0,99,0))

def stated(r:dict)->str|None: # release
    "The release that a source names"
    if said := elsewhere(r).get('vllm_version'): return said
    m = re.search(r'0\.\d{1,2}(?:\.\d{1,2})?', r['vllm_version'] or '')
    if m and not re.match(r'0\.1\.dev', r['vllm_version']): return m[0] if m[0].count('.')==2 else m[0]+'.0'
    m = re.search(r'\babout v?(0\.\d{1,2}\.\d{1,2})', r['notes'] or '')
    return m and m[1]

def version(r:dict)->tuple[str,str]: # release, how it is known: 'stated', 'printed', 'dated', 'engine'
    "The release that a record ran"
    text = f"{r['evidence'] or ''} {r['error_text'] or ''}"
    low,high = printed_between(text)
    if said := stated(r): return ('.'.join(map(str,low)) if 'consumed memory' in text and _number(said)<low else said), 'stated'   # a build of the main branch after the release it names
    v0 = r['engine']=='v0' or re.search(V0_SAYS, text)
    if v0: high = min(high,(0,10,2))
    when = (r['date_if_known'] or '')[:7]
    dated = next((v for d,v in reversed(RELEASED) if d<=when), None)
    if re.search(r'\bmain\b|nightly|0\.1\.dev', r['vllm_version'] or '') and not dated: dated = '0.29.0'
    if dated: return '.'.join(map(str, min(max(_number(dated),low),high))) if low<=high else dated, 'dated'
    if v0: return '.'.join(map(str,min((0,7,3),high) if r['engine']=='v0' else high)), 'engine'
    if low>=(0,27,0): return '0.29.0', 'printed'
    if low>=(0,18,0): return '0.19.1' if 'is equivalent' not in text else '0.21.0', 'printed'
    if 'for non-torch memory' in text and high>=(0,17,1): return '0.17.1', 'printed'   # the long line, without an estimate beside it
    if high<(0,99,0): return '0.10.2', 'printed'
    return '0.19.1', 'printed'

_FLAG = re.compile(r'--([a-z][a-z-]+)(?:[ =]([^\s-][^\s,;]*))?')
_INTS = dict.fromkeys(('max-num-seqs','max-num-batched-tokens','tensor-parallel-size','pipeline-parallel-size','data-parallel-size','decode-context-parallel-size','num-gpu-blocks-override','block-size','mamba-block-size'))

def flags(text:str)->dict: # Engine fields
    "Flags that a source quotes"
    out = {}
    for k,v in _FLAG.findall(text or ''):
        name = k.replace('-','_')
        if k in _INTS and v: out[name] = int(v)
        elif k in ('language-model-only','enforce-eager','enable-expert-parallel','skip-mm-profiling','enable-lora'): out[name] = True
        elif k=='enable-prefix-caching': out[name] = True
        elif k=='no-enable-prefix-caching': out['enable_prefix_caching'] = False
        elif k in ('performance-mode','mm-encoder-tp-mode','mamba-cache-mode','mamba-ssm-cache-dtype','attention-backend','kv-cache-dtype','distributed-executor-backend'): out[name] = v
        elif k=='cpu-offload-gb': out[name] = float(v)
        elif k in ('kv-cache-memory','kv-cache-memory-bytes'): out['kv_cache_memory_bytes'] = int(v)
    return out

def _words(r):
    "Flags that a source says in words"
    x,notes,out = r['extra_flags'] or '', f"{r['notes'] or ''} {r['evidence'] or ''}", {}
    if re.search(r'language_model_only|language model only', x): out['language_model_only'] = True
    if 'enable_prefix_caching=False' in x: out['enable_prefix_caching'] = False
    if m:=re.search(r'DCP ?(\d+)', x): out['decode_context_parallel_size'] = int(m[1])
    if m:=re.search(r'mamba_ssm_cache_dtype (\w+)', x): out['mamba_ssm_cache_dtype'] = m[1]
    if m:=re.search(r'max cudagraph capture (\d+)', x): out['max_cudagraph_capture_size'] = int(m[1])
    if m:=re.search(r'limit-mm-per-prompt image=(\d+) audio=(\d+)', x): out['limit_mm_per_prompt'] = {'image':int(m[1]),'audio':int(m[2])}
    if re.search(r'Skipping memory profiling for multimodal', notes): out['skip_mm_profiling'] = True
    if re.search(r'\bLoRA (enabled|adapter)', x): out['enable_lora'] = True
    if re.search(r'\bRay\b', x): out['distributed_executor_backend'] = 'ray'
    if re.search(r'LLM\(\)|offline LLM', notes): out['usage'] = 'llm'
    env = dict(re.findall(r'(VLLM_[A-Z0-9_]+)=(\S+?)(?=[\s;,(]|$)', f'{x} {r["notes"] or ""}'))
    if 'reserve (disabled' in notes: env['VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS'] = '0'
    v0 = r['engine']=='v0' or re.search(V0_SAYS, r['evidence'] or '')
    if v0: env.setdefault('VLLM_USE_V1','0')
    elif r['engine']=='v1': env.setdefault('VLLM_USE_V1','1')
    if env: out['env'] = env
    return out

def _speculative(s):
    if not s: return {}
    kind = next((k for k in ('dflash','dspark','mtp','eagle3','eagle','ngram') if k in s.lower()), 'mtp')
    m = re.search(r'(\d+)\s*(?:token)?s?$', s)
    return {'speculative_config': {'method':kind, 'num_speculative_tokens':int(m[1]) if m and 'profile' not in s else 1}}

def _sizes(s):
    "A capture list that a source prints in full"
    if not s or '...' in s or 'step' in s: return {}
    m = re.match(r'\[([\d,\s]+)\]', s)
    return {'cudagraph_capture_sizes': sorted(int(x) for x in m[1].split(','))} if m else {}

ELSEWHERE = (  # what a source says beside the quoted lines: where, which records, field, value
    (r'kaitakuai/experiments.*kimi_k26_int4_4xb200_q-int4-k2', r'', 'vllm_version', '0.20.0'),                    # the name of the image
    (r'kaitakuai/experiments.*kimi_k26_int4_4xb200_q-int4-k2', r'', 'env', {'VLLM_USE_FLASHINFER_MOE_INT4':'1'}), # its configuration
    (r'kaitakuai/experiments', r'', 'max_num_batched_tokens', 32768),   # the image compiles for 1 to 32,768 tokens without being asked (2026-04/kimi-k25-int4-8xh200/README.md)
    (r'dennislee22/vLLM-benchmarking', r'A100 80GB', 'env', {'VLLM_USE_FLASHINFER_SAMPLER':'1'}),   # the logs: "Using FlashInfer for top-p & top-k sampling."
    (r'dennislee22/vLLM-benchmarking', r'A100 40GB', 'env', {'VLLM_USE_FLASHINFER_SAMPLER':'0'}),   # the log: "FlashInfer is not available."
    (r'vllm/issues/44376', r'', 'usage', 'llm'),                        # the command quoted there: `LLM(...)`
    (r'index-file:68490333318', r'', 'vllm_version', '0.26.0'),         # its table of the environment
    (r'index-file:69451098589', r'', 'vllm_version', '0.28.0'),         # its "serving stack, pinned"
    (r'index-file:49136042149', r'', 'vllm_version', '0.9.2'))          # the log: v0.9.3.dev6, before 0.10

DOUBTFUL = (  # sources that print a pool which the start they describe cannot have had
    r'kimi_k26_4xb200_b200-k5-kimi-1',)   # with the tokens stated the profiling pass failed, so its pools are of starts with fewer; how many is not said

def elsewhere(r:dict)->dict: # Engine fields
    "What a source says beside the quoted lines"
    out = {}
    for source,card,field,value in ELSEWHERE:
        if not (re.search(source, r['source_url']) and re.search(card, r['gpu_name'] or '')): continue
        out[field] = {**out.get(field,{}), **value} if isinstance(value,dict) else out.get(field, value)
    return out

WARM = {'vllmlog-0238','vllmlog-0184'}                                  # restarts of a command whose first start the same source shows with a smaller pool (0239, 0185)
COLD = {'vllmlog-0185','vllmlog-0239','vllmlog-0241','vllmlog-0242'}   # those first starts

def compiled(r:dict)->dict: # Engine fields
    "Whether the compile cache was warm, where a source tells"
    if r['id'] in WARM|COLD: return {'compile_cache':'warm' if r['id'] in WARM else 'cold'}
    notes,text = r['notes'] or '', r['evidence'] or ''
    if re.search(r'Directly load|warm (?:start|restart|boot)', f'{text} {notes}'): return {'compile_cache':'warm'}
    if re.search(r'Compiling a graph|\bcold\b (?:versus|compile|start)|cold cache', f'{text} {notes}'): return {'compile_cache':'cold'}
    return {}

def engine(r:dict)->dict: # Engine fields
    "The engine of a record, as far as its source states it"
    e = {'vllm_version':version(r)[0], 'tensor_parallel_size':r['tp'] or 1}
    for k,f in (('pp','pipeline_parallel_size'),('dp','data_parallel_size'),('gpu_memory_utilization',)*2,('max_model_len',)*2,('max_num_seqs',)*2,('max_num_batched_tokens',)*2,('dtype',)*2):
        if r.get(k) is not None: e[f] = r[k]
    if r.get('ep'): e['enable_expert_parallel'] = True
    kv = (r.get('kv_cache_dtype') or '').split()
    if kv and kv[0] not in ('auto',): e['kv_cache_dtype'] = kv[0]
    if r.get('enforce_eager'): e['enforce_eager'] = True
    if r.get('chunked_prefill') is not None: e['enable_chunked_prefill'] = r['chunked_prefill']
    mode = re.match(r'[A-Z_]+', r.get('cudagraph_mode') or '')
    if mode: e['cudagraph_mode'] = mode[0]
    e |= _sizes(r.get('cudagraph_capture_sizes')) | _speculative(r.get('speculative')) | flags(r['extra_flags']) | _words(r)
    said = elsewhere(r)
    if 'env' in said: said['env'] = said['env']|e.get('env',{})
    return said | e | ({'env':said['env']} if 'env' in said else {}) | compiled(r)

UNNAMED = re.compile(r'not named|\bclass\b|^\d+ GB card')
CLASS = re.compile(r'(\d{1,3}) ?GB[ -](?:class|card)\b(?! by (?:arithmetic|the sum))')

def gpu(r:dict)->tuple[str|float|None,float|None]: # name for `device`, GiB that the driver reports where logged
    "The card of a record; a class of memory that the source got by adding up the cache is no card"
    name,total = r['gpu_name'],r['gpu_total_gib_if_logged']
    if name and not UNNAMED.search(name):
        if name=='A100': name = 'A100-80GB'
        return re.sub(r'\s*\(.*\)', '', name).strip(), total
    said = CLASS.search(name or '') or CLASS.search(r['notes'] or '')
    maker = 'AMD ' if re.search(r'\bAMD\b|Radeon|ROCm', f"{name} {r['notes']}") else ''
    return total or (f'{maker}{said[1]} GB' if said else None), total

def graphs(r:dict)->list: # (mode, graphs, largest batch or 0)
    "Graphs of each kind as a source prints them"
    text = r['evidence'] or ''
    big = re.findall(r'\b(PIECEWISE|FULL)=(\d+) \(largest=(\d+)\)', text)
    if big: return [[m,int(n),int(top)] for m,n,top in big]
    done = dict(re.findall(r'\b(PIECEWISE|FULL)(?: decode)?[ =](\d+)(?:/\2)?\b', text)) or dict(zip(('PIECEWISE','FULL'), next(iter(re.findall(r'(\d+) (?:piecewise|\(mixed\))(?: \+ | / )(\d+) (?:full|\(decode\))', text)), ())))
    return [[m,int(n),0] for m,n in done.items()]

def from_corpus(r:dict)->dict: # our schema
    "A record of the public corpus"
    card,total = gpu(r)
    v,how = version(r)
    text = ' '.join(str(r[k] or '') for k in ('notes','evidence','vllm_version','extra_flags'))
    marks = [m for m,p in (('wsl',r'WSL'),('shared',r'another process|other containers|shared with other|another embed|desktop'),('rounded',r'approximate|rounded|\(~|~15|~21'),('fork',r'fork\)|patched|REAP|patches?\b'),
                           ('failed',r'^$'),('override',r'num-gpu-blocks-override'),('dummy',r'load-format dummy'),('cold',r'cold')) if p!='^$' and re.search(p, text)]
    if r['tp'] is None: marks.append('tp_unknown')
    if r['gpu_memory_utilization'] is None: marks.append('util_default')
    if not r['gpu_name'] or UNNAMED.search(r['gpu_name']): marks.append('gpu_unnamed')
    if re.search(r'still releasing VRAM', r['notes'] or ''): marks.append('shared')
    if re.search(r'\butil\w* [\d.]+ or [\d.]+ not certain', r['notes'] or ''): marks.append('util_unknown')
    if 'max_num_batched_tokens' not in engine(r): marks.append('T_default')
    if r['max_num_seqs'] is None: marks.append('S_default')
    measured = {k:x for k,x in r['measured'].items() if x is not None and k.endswith(('_gib','_tokens','_blocks','_graphs','_concurrency'))}
    if re.search(r'GiB[^.;]{0,60} does not agree|so the other rank binds|GiB per GPU is the author reading', r['notes'] or '') or any(re.search(p, r['source_url']) for p in DOUBTFUL): measured['doubted_kv_gib'] = measured.pop('available_kv_gib',None); marks.append('doubtful')  # the record itself says that the figure is not the pool: its tokens are kept
    if m:=re.search(r'consumed_gib=([\d.]+)', r['notes'] or ''): measured['consumed_gib'] = float(m[1])
    if m:=re.search(r'([\d.]+) GiB for consumed', r['evidence'] or ''): measured['consumed_gib'] = float(m[1])
    return {'id':r['id'], 'source':r['source_url'], 'model':r['model'], 'quantization':r['quantization'], 'gpu':card, 'total_gib':total, 'engine':engine(r), 'version_from':how, 'marks':marks, 'graphs':graphs(r), 'measured':measured}

def from_h100(r:dict)->dict: # our schema
    "A record of the uniform H100 set"
    e = {'vllm_version':r['vllm_version'], **{k:r[k] for k in ('gpu_memory_utilization','max_model_len','max_num_batched_tokens','max_num_seqs','dtype')}, 'tensor_parallel_size':r['tp'], 'pipeline_parallel_size':r['pp'], 'usage':'llm'}
    if r['kv_cache_dtype']!='auto': e['kv_cache_dtype'] = r['kv_cache_dtype']
    return {'id':r['id'], 'source':r['source'], 'model':r['model'], 'quantization':r['quantization'], 'gpu':'H100', 'total_gib':r['gpu_total_gib'], 'engine':e, 'version_from':'stated', 'marks':[], 'measured':dict(r['measured'], num_graphs=sum(x['count'] for x in r['cudagraphs'].values()), free_gib=r['gpu_free_at_start_gib'])}

_ALIASES = (('meta-llama-3.1','llama-3.1'),('granite-3.3','granite-3.1'),('-chat-hf','-hf'))  # releases of one shape
_TAIL = re.compile(r'[-_. ](?:fp8(?:-dynamic)?|nvfp4|awq(?:-int4|-4bit)?|gptq(?:-int4|-4bit)?|autoround(?:-gptq-4bit)?|int4|int8|4bit|8bit|bnb-4bit|quantized\.w\d+a\d+|w\d+a\d+|mxfp4|qat-w4a16-ct|int4-int8mix|mtp|instruct|0731|resharded|bf16|fp16)$', re.I)

def known_as(name:str, catalogue)->str|None: # catalogue id
    "The checkpoint of the catalogue whose shape a name has: itself, or itself without the words for precision"
    bare = lambda n: re.sub(r'^meta(?=llama)|[^a-z0-9]', '', re.sub(r'^meta-', '', n))   # llama3-8b is Llama-3-8B
    tails,squeezed = {},{}
    for i in sorted(catalogue): tails.setdefault(i.lower().split('/')[-1], i); squeezed.setdefault(bare(i.lower().split('/')[-1]), i)
    if name in catalogue: return name
    for part in [re.sub(r'\s*\(.*', '', name), *re.findall(r'\(([^(),]*/[^(),]*)[,)]', name), *re.findall(r'\b((?:Qwen|Llama|DeepSeek|GLM|InternVL|Gemma)[\w.-]+)', name)]:
        key = part.split(' ')[0].lower().split('/')[-1]
        for a,b in (('',''),)+_ALIASES:
            k = key.replace(a,b) if a else key
            while k:
                for x in (k, k+'-instruct', k+'-it'):
                    if x in tails or bare(x) in squeezed: return tails.get(x) or squeezed[bare(x)]
                cut = _TAIL.sub('', k)
                if cut==k: break
                k = cut
    return None

KINDS = (  # words of a name or a source -> what `PRECISIONS` calls it
    (r'nvfp4', 'nvfp4'), (r'awq', 'awq'), (r'gptq|auto-?_?round', 'gptq-int4'), (r'bitsandbytes|bnb', 'bnb-4bit'), (r'w8a8', 'w8a8'), (r'w8a16|wna16 int8', 'w8a16'), (r'qat.*(?:w4a16|int4)', 'w4a16-g32'), (r'w4a16|int4|wna16', 'w4a16'),
    (r'fp8.*dynamic|dynamic.*fp8|redhat.*fp8|online.*fp8|fp8.*online', 'fp8-dynamic'), (r'modelopt.*fp8|nvidia/.*fp8', 'fp8-modelopt'), (r'fp8', 'fp8-block'), (r'mxfp4', 'mxfp4'))

def quantised(name:str, stated:str|None, plain:bool)->dict|None: # a `quantization_config`, `None` for the catalogue's own
    "How a re-release is quantised, as its name and its source say"
    t = f'{name} {stated or ""}'.lower()
    if 'gguf' in t: return {'quant_method':'gguf', 'type':next(iter(re.findall(r'q\d_\w{1,3}|iq\d_\w{1,3}|f16', t)), 'q4_k_m').upper()}
    kind = next((k for words,k in KINDS if re.search(words, t)), None)
    if kind is None or not plain and 'fp8' in kind: return None
    return PRECISIONS[kind]

def shape(r:dict)->tuple[str,dict|None]: # catalogue id, a `quantization_config` that replaces its own
    "Which checkpoint of the catalogue a record ran"
    try: a = arch(r['model'])
    except ValueError:
        name = known_as(r['model'], set(catalogue()))
        if not name: raise ValueError(f"{r['model']} is not in the catalogue") from None
        return name, quantised(r['model'], r['quantization'], arch(name).quant is None)
    return a.name, quantised(r['model'], r['quantization'], True) if r['quantization'] and a.quant is None else None

def subject(r:dict): # arch, device, engine
    "The nouns of a record with what its printed weights and graphs imply; `ValueError` where the catalogue lacks them"
    if not r['model'] or not r['gpu']: raise ValueError('the source names no '+('model' if not r['model'] else 'card'))
    name,q = shape(r)
    a = replace(arch(name), quant=quant(q)) if q else arch(name)
    try: d = device(r['gpu'], r['total_gib']) if r['total_gib'] else device(r['gpu'])
    except ValueError:
        if not r['total_gib']: raise
        d = device(r['total_gib'])  # a card that the catalogue lacks, by its memory
    x = implied(a, d, Engine(**{k:v for k,v in r['engine'].items() if k in FIELDS}), Observed(weights_gib=r['measured'].get('weights_gib'), cuda_graph_estimate_gib=r['measured'].get('cudagraph_estimate_gib'), graphs=tuple(map(tuple,r.get('graphs',())))))
    return x.arch, d, x.engine

def read(folder)->list[dict]:
    "All records of a data folder"
    lines = lambda f: [json.loads(l) for l in (Path(folder)/f).read_text(encoding='utf-8').splitlines() if l.strip()]
    return [from_h100(r) for r in lines('startup_h100_v019.jsonl')] + [from_corpus(r) for r in lines('startup_corpus.jsonl')]

if __name__=='__main__':
    for r in read(sys.argv[1]): print(json.dumps(r))
