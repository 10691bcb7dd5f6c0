"""vLLM's own answers, distilled into the compact fixture that `nbs/accuracy/exact.ipynb` scores against.

    python tools/distil_oracle.py nbs/accuracy/oracle.json.gz --shared DATA --answers answers-0.33.0.jsonl:jobs.jsonl:0.33.0:H100 ...

DATA is a folder with `vllm_oracle.json`, `vllm_oracle_033.json`, `vllm_refusals.json` and `vllm_defaults_by_gpu.json`; every `--answers` is a file that
`tools/vllm_oracle/build.py` wrote, with the jobs it answered, the release and the card it pretended to have (`:flashinfer` may follow where that library was there).
Only facts are kept: what was asked, what was resolved, bytes per worker, the cache plan, the verdict. An answer in which the tool itself failed (a
library that the machine lacks) is dropped and counted.
"""
from __future__ import annotations
import argparse, gzip, json, re
from pathlib import Path

KEPT = ('dtype','quantization','max_model_len','max_num_batched_tokens','max_num_seqs','async_scheduling','enable_chunked_prefill','enable_prefix_caching','cache_dtype','gpu_memory_utilization',
        'cudagraph_mode','cudagraph_capture_sizes','mamba_cache_mode','mamba_block_size','mamba_ssm_cache_dtype','distributed_executor_backend','disable_hybrid_kv_cache_manager')
OURS = re.compile(r"^No module named|requires the \w+ library|is not installed|WorkspaceManager|Can't load|Invalid type of HuggingFace config|Validation error for field|object has no attribute|^'\w+'$|Cannot resolve attention scaling|requires FlashInfer|empty\(\) takes|not subscriptable|unsupported operand|Meta tensors|Torch not compiled|operator .* does not exist")  # what this machine or a shortened config lacks, not what vLLM says


def resolved(d:dict)->dict:
    "The defaults that a planner must know, without what follows from the model alone"
    out = {k:d.get(k) for k in KEPT}
    out['dtype'] = str(out['dtype']).removeprefix('torch.')
    if not d.get('is_hybrid') and out['mamba_cache_mode']=='none': out = {k:v for k,v in out.items() if not k.startswith('mamba')}
    return out


def groups(gs:list)->list:
    "[how many such groups, layers, bytes of a page, tokens of a block, kind of spec], neighbours that are equal together"
    out = []
    for g in gs:
        row = [g['n_layers'], g['spec']['page_size_bytes'], g['spec']['block_size'], g['spec']['type'].removesuffix('Spec')]
        if out and out[-1][1:]==row: out[-1][0] += 1
        else: out.append([1,*row])
    return out


def plan(kv:dict)->dict:
    "A cache plan without what can be computed from the rest"
    return {'block_size':kv['block_size'], 'num_blocks':kv['num_blocks'], 'kv_tokens':kv['kv_tokens'], 'max_concurrency':kv['max_concurrency'], 'max_model_len':kv['max_model_len'],
            'block_bytes':kv['bytes_per_block_per_worker'], 'groups':groups(kv['groups'])}


def message(error:dict|None)->str:
    "What vLLM said, without pydantic's wrapping"
    said = (error or {}).get('message','')
    said = re.sub(r'^\d+ validation errors? for \w+ (Value error, )?', '', said)
    return re.sub(r'(Supported architectures:) .*', r'\1', re.split(r' \[type=|, input_type=| For further information', said)[0])[:1300]


class Table:
    "Values that occur often, each written once"
    def __init__(self): self.rows,self.at = [],{}
    def __call__(self, value)->int:
        key = json.dumps(value, sort_keys=True)
        if key not in self.at: self.at[key] = len(self.rows); self.rows.append(value)
        return self.at[key]


def answer(c:dict, defaults:Table)->dict|None:
    "One answer in the fixture's shape, `None` if the tool failed"
    refused,said = c.get('refused_at'),message(c.get('error'))
    if refused=='oracle' or refused and OURS.search(said): return None
    out = {'case':{k:v for k,v in c['case'].items() if not (k in ('tp','pp') and v==1)}}
    if c.get('defaults'): out['defaults'] = defaults(resolved(c['defaults']))
    if c.get('workers'): out['weights'] = [[w['parameters'], sum(w['as_loaded_bytes'].values()), sum(w['after_postprocess_bytes'].values()) if not w['postprocess_error'] else None] for w in c['workers']]
    if c.get('kv'): out['kv'] = plan(c['kv'])
    if refused: out |= {'refused':refused, 'said':said}
    return out


def shared(folder:Path):
    "(set, release, card, FlashInfer, model, config, cases) of the given data folder"
    configs = {}
    for name,version in (('vllm_oracle.json','0.32.0'),('vllm_oracle_033.json','0.33.0')):
        doc = json.loads((folder/name).read_text())
        for model,m in doc['models'].items():
            configs.setdefault(model, m.get('config_json'))
            yield 'given', version, 'H100', False, model, configs[model], m['cases']
    catalogue = {r['id']:r['config'] for r in map(json.loads, open(folder/'model_catalogue.jsonl'))}
    configs |= {'Gemma-3-1b':catalogue['google/gemma-3-1b-it'], 'Qwen3-30B-A3B-FP8':catalogue['Qwen/Qwen3-30B-A3B-FP8']}
    for x in json.loads((folder/'vllm_refusals.json').read_text()):
        at = x['verdict'].partition(': ')[2] if x['verdict']!='accepted' else None
        yield 'refusals', '0.32.0', 'H100', False, x['model'], configs[x['model']], [{'case':x['case'], 'refused_at':at, 'error':x.get('error')}]
    for gpu,cases in json.loads((folder/'vllm_defaults_by_gpu.json').read_text()).items():
        for key,c in cases.items(): yield 'by card', '0.32.0', gpu, False, key.partition('/')[0], configs[key.partition('/')[0]], [c]


def asked(spec:str):
    "The same of one file of answers"
    answers,jobs,version,gpu,*more = spec.split(':')
    configs = {j['model']:j['config_json'] for j in map(json.loads, open(jobs))}
    for d in map(json.loads, open(answers)): yield 'asked', version, gpu, 'flashinfer' in more, d['model'], configs[d['model']], [d]


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('out'); p.add_argument('--shared', type=Path); p.add_argument('--answers', nargs='*', default=[]); p.add_argument('--without', nargs='*', default=[], help='models whose configuration class is not at hand, so that a stand-in answered')
    a = p.parse_args(argv)
    configs,defaults,answers,dropped = {},Table(),{},{}
    for source in [*([shared(a.shared)] if a.shared else []), *map(asked, a.answers)]:
        for kind,version,gpu,fi,model,config,cases in source:
            if model in a.without: continue
            for c in cases:
                row = answer(c, defaults)
                if row is None: dropped[model] = dropped.get(model,0)+1; continue
                configs[model] = config
                mine = answers.setdefault(json.dumps([kind,version,gpu,fi]), {}).setdefault(model, [])
                mine[:] = [x for x in mine if x['case']!=row['case']] + [row]   # a later answer replaces an earlier one
    doc = {'about':{'engine':"vLLM's own Python from the CUDA wheels of the releases named, unmodified, on a machine without GPU (tools/vllm_oracle); a platform that answers for the card named",
                    'available_bytes':'10 GiB per worker for the cache unless the case says otherwise', 'weights':'per pipeline stage, first tensor-parallel rank: parameters, bytes as loaded, bytes after post-processing (null where that needs a GPU)',
                    'groups':'[equal groups, layers of each on the first stage, bytes of a page, tokens of a block, kind of spec]', 'dropped':dropped,
                    'sets':{'given':'answers that came with the project', 'refusals':'verdicts that came with the project', 'by card':'defaults on six cards that came with the project', 'asked':'answers that this project obtained itself with tools/vllm_oracle'}},
           'configs':configs, 'defaults':defaults.rows, 'answers':[dict(zip(('set','version','gpu','flashinfer'), json.loads(k)), models=v) for k,v in answers.items()]}
    text = json.dumps(doc, separators=(',',':'), sort_keys=True)
    with open(a.out,'wb') as raw, gzip.GzipFile(filename='', mode='wb', fileobj=raw, mtime=0, compresslevel=9) as fh: fh.write(text.encode())
    print(f'{len(configs)} models, {sum(len(x) for v in answers.values() for x in v.values())} answers, {sum(dropped.values())} dropped, {Path(a.out).stat().st_size:,} bytes')


if __name__=='__main__': main()
