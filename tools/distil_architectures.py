"""Hold every class of vLLM's registry against its own size: a config per class, the parameters that transformers builds, the bytes that vLLM builds.

    python tools/distil_architectures.py ask WHEEL jobs.jsonl          # default configs as jobs for tools/vllm_oracle; transformers' counts beside them
    python -m vllm_oracle.build ... --jobs jobs.jsonl --out answers.jsonl
    python tools/distil_architectures.py keep WHEEL jobs.jsonl[,more.jsonl] answers.jsonl[,more.jsonl]   # writes nbs/accuracy/architectures.json.gz

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


def bare(v): return {k: bare(x) for k,x in v.items() if k not in DULL and x is not None} if isinstance(v, dict) else v


def keep(wheel, jobs, answers):
    said = {}
    for a in (json.loads(l) for f in answers.split(',') for l in open(f)):
        if a.get('workers'): said[a['model'], a['case']['tp']] = sum(a['workers'][0]['as_loaded_bytes'].values())
    rows = []
    for j in (json.loads(l) for f in jobs.split(',') for l in open(f)):
        config = {**bare(j.get('short') or j['config_json']), 'architectures': j['config_json']['architectures']}
        row = dict(name=j['model'], config=config, source=j.get('source', ''), params=j.get('params'), vllm={tp: said[j['model'],tp] for tp in (1,2) if (j['model'],tp) in said})
        if row['params'] or row['vllm']: rows.append(row)
    out = ROOT/'nbs/accuracy/architectures.json.gz'
    about = 'Default configurations of transformers and configs of public checkpoints; parameters by transformers on the meta device, bytes of one rank as vLLM 0.33 builds its class (tools/vllm_oracle); written by tools/distil_architectures.py'
    out.write_bytes(gzip.compress(json.dumps(dict(about=about, registry=registry(wheel), rows=rows), separators=(',',':')).encode(), mtime=0))
    print(len(rows), 'rows,', out.stat().st_size, 'bytes')


if __name__=='__main__': {'ask': ask, 'keep': keep}[sys.argv[1]](*sys.argv[2:])
