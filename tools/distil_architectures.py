"""Hold every class of vLLM's registry against its own size: a config per class, the parameters that transformers builds, the bytes that vLLM builds.

    python tools/distil_architectures.py ask WHEEL jobs.jsonl          # default configs as jobs for tools/vllm_oracle; transformers' counts beside them
    python -m vllm_oracle.build ... --jobs jobs.jsonl --out answers.jsonl
    python tools/distil_architectures.py vary WHEEL varied.jsonl [K N]  # every key of every class changed, one at a time, and counted by transformers; every N-th class from the K-th on
    python tools/distil_architectures.py keep WHEEL jobs.jsonl[,more.jsonl] answers.jsonl[,more.jsonl] [varied.jsonl[,more.jsonl]]   # writes nbs/accuracy/architectures.json.gz

WHEEL is an unpacked vLLM wheel. Further jobs may be written by hand: `{"model": name, "config_json": {...}, "cases": [{"tp": 1, "pp": 1, "max_model_len": 512}, ...], "source": "..."}`.
"""
from __future__ import annotations
import gzip, json, logging, os, re, sys
from pathlib import Path

os.environ['HF_HUB_OFFLINE'] = '1'
logging.disable(logging.CRITICAL)
ROOT = Path(__file__).parent.parent
SERVED = ('_TEXT_GENERATION_MODELS','_EMBEDDING_MODELS','_MULTIMODAL_MODELS','_TRANSFORMERS_SUPPORTED_MODELS')
CASES = [dict(tp=tp, pp=1, max_model_len=512) for tp in (1,2)]
DULL = {'architectures','transformers_version','id2label','label2id','output_hidden_states','return_dict','chunk_size_feed_forward','is_encoder_decoder','problem_type','output_attentions','_name_or_path'}


def registry(wheel):
    "The classes that vLLM serves, by the tables of its registry"
    text = (Path(wheel)/'vllm/model_executor/models/registry.py').read_text()
    tables = {n: body for n,body in re.findall(r'^(_[A-Z_]+)[^=\n]*= \{(.*?)^\}', text, re.M|re.S)}
    return sorted({k for n in SERVED for k in re.findall(r'^\s+"(\w+)":', tables[n], re.M)})


def counted(cls):
    "Default config of a class of transformers, in full and as it would be saved, and its parameters on the meta device"
    import torch
    c = cls.config_class()
    with torch.device('meta'): m = cls(c)
    try: m.tie_weights()
    except Exception: pass
    return c.to_dict(), c.to_diff_dict(), sum(p.numel() for p in {id(p): p for p in m.parameters()}.values())


def ask(wheel, out):
    import transformers
    with open(out, 'w') as f:
        for name in registry(wheel):
            try: full,short,n = counted(getattr(transformers, name))
            except Exception: continue
            add = dict(architectures=[name], model_type=full['model_type'])
            job = dict(model=name, config_json={**full, **add, 'dtype': full.get('dtype') or 'bfloat16'}, cases=CASES, short={**short, **add}, params=n, source=f'transformers {transformers.__version__}, default configuration')
            f.write(json.dumps(job, default=str)+'\n')


def other(key, v):
    "Values that a key might have instead"
    if isinstance(v,bool): return [not v]
    if isinstance(v,int): return [v+1] if v in (0,1) else [2*v,v//2] if v<10**5 else []
    if v is None: return [2,64,True]
    return [2*v] if isinstance(v,float) and re.search('mult|ratio|expand', key) else []


NO_SHAPE = re.compile(r'token|eps$|dropout|init|return_|output_|use_cache|theta|is_decoder|is_encoder|pruned|torchscript|id2|label|_coef|temperature|clamp|prefix|dtype|model_type|version|vocab_size|_name|max_pos|cross_att|gradient|attn_impl|scaling_factor|soft_?cap|loss|bos|eos|pad_|logit|architectures')


def uneven(c):
    "Query heads that cannot share their key/value heads: transformers builds them, nobody can run them"
    n,kv = c.get('num_attention_heads'),c.get('num_key_value_heads')
    return isinstance(n,int) and isinstance(kv,int) and kv and n%kv


def vary(wheel, out, k=0, n=1):
    import signal, torch, transformers
    def stop(*_): raise TimeoutError
    signal.signal(signal.SIGALRM, stop)
    def built(cls, config):
        signal.alarm(25)
        try:
            c = cls.config_class(**{k:v for k,v in config.items() if k not in ('model_type','transformers_version','architectures')})
            with torch.device('meta'): m = cls(c)
            try: m.tie_weights()
            except Exception: pass
            return c, sum(p.numel() for p in {id(p): p for p in m.parameters()}.values())
        finally: signal.alarm(0)
    with open(out, 'w') as f:
        for name in registry(wheel)[int(k)::int(n)]:
            cls,rows = getattr(transformers, name, None),[]
            try: base = cls.config_class().to_dict(); c,params = built(cls, base); short = bare(json.loads(json.dumps(c.to_diff_dict(), default=str)))
            except Exception: continue
            parts = [('',base)]+[(s,base[s]) for s in getattr(cls.config_class, 'sub_configs', None) or {} if isinstance(base.get(s),dict)]
            for part,keys in parts:
                for key,v in keys.items():
                    for new in () if NO_SHAPE.search(key) else other(key, v):
                        changed = {**keys, key:new}
                        if uneven(changed): continue
                        try: c,count = built(cls, changed if not part else {**base, part:changed})
                        except Exception: continue
                        if count==params: continue
                        d = bare(json.loads(json.dumps(c.to_diff_dict(), default=str)))
                        rows.append([part+'/'*bool(part)+key, new, {k:d.get(k,'-') for k in {**d,**short} if d.get(k)!=short.get(k)}, count])
            f.write(json.dumps(dict(name=name, model_type=base['model_type'], config=short, params=params, varied=rows))+'\n'); f.flush()


def bare(v): return {k: bare(x) for k,x in v.items() if k not in DULL and x is not None} if isinstance(v, dict) else v


def keep(wheel, jobs, answers, varied=''):
    said = {}
    for a in (json.loads(l) for f in answers.split(',') for l in open(f)):
        if a.get('workers'): said[a['model'], a['case']['tp']] = sum(a['workers'][0]['as_loaded_bytes'].values())
    rows = []
    for j in (json.loads(l) for f in jobs.split(',') for l in open(f)):
        config = {**bare(j.get('short') or j['config_json']), 'architectures': j['config_json']['architectures']}
        row = dict(name=j['model'], config=config, source=j.get('source', ''), params=j.get('params'), vllm={tp: said[j['model'],tp] for tp in (1,2) if (j['model'],tp) in said})
        if row['params'] or row['vllm']: rows.append(row)
    out = ROOT/'nbs/accuracy/architectures.json.gz'
    about = 'Default configurations of transformers and configs of public checkpoints; parameters by transformers on the meta device, bytes of one rank as vLLM 0.33 builds its class (tools/vllm_oracle); varied: one key changed at a time, counted by transformers; written by tools/distil_architectures.py'
    out.write_bytes(gzip.compress(json.dumps(dict(about=about, registry=registry(wheel), rows=rows, varied=[json.loads(l) for f in varied.split(',') if f for l in open(f)]), separators=(',',':')).encode(), mtime=0))
    print(len(rows), 'rows,', out.stat().st_size, 'bytes')


if __name__=='__main__': {'ask': ask, 'vary': vary, 'keep': keep}[sys.argv[1]](*sys.argv[2:])
