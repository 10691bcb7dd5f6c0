"""Ask the configuration classes of transformers for the defaults of the keys that `vllm_tuner` reads.

    python tools/distil_defaults.py path/to/unpacked/vllm/wheel [--count]

writes `vllm_tuner/data/families.json`. Needs transformers; nothing at run time does. A default that follows from another key (`ffn_hidden_size = 4*hidden_size`) is no default: each class is built
again with other sizes, and what moved is left out. Kept are the families that vLLM's registry can serve, and the parts (text, vision, audio) that their configs are made of.
With `--count` it also builds each text family at its default size on torch's meta device and writes its class and parameter count to `nbs/accuracy/families.json`.
"""
import json, logging, os, re, sys
from pathlib import Path

os.environ['HF_HUB_OFFLINE'] = '1'
logging.disable(logging.CRITICAL)
ROOT = Path(__file__).parent.parent
PLAIN = {'rope_parameters', 'rope_scaling', 'dtype', 'torch_dtype', 'model_type', 'architectures', 'quantization_config', 'layer_types', 'rope_theta', 'layers_block_type', 'hybrid_override_pattern'}


def keys_read():
    "Every word in quotes of the notebooks that read configs: a superset of the keys"
    text = ''.join(''.join(c['source']) for n in ('030_config_keys', '110_encoder_blocks', '115_image_encoders', '120_checkpoint_encoders', '125_audio_encoders', '130_towers', '135_habits', '140_mixers', '145_layer_rules', '150_configs') for c in json.loads((ROOT/f'nbs/{n}.ipynb').read_text())['cells'] if c['cell_type']=='code')
    return set(re.findall(r"'([A-Za-z_][A-Za-z_0-9]*)'", text))-PLAIN


def small(v):
    if isinstance(v, (bool, int, float, str)): return v is not False and v!=''
    if isinstance(v, dict): return bool(v) and len(v)<12 and all(isinstance(x, (bool, int, float, str, type(None))) for x in v.values())
    return isinstance(v, list) and 0<len(v)<40 and all(isinstance(x, (int, float)) for x in v)


def stable(cls, d):
    "Keys whose default does not follow from another key"
    moved = set()
    for names in (('hidden_size','n_embd','d_model','dim'), ('num_hidden_layers','n_layer','num_layers'), ('num_attention_heads','n_head','n_heads')):
        k = next((n for n in names if isinstance(d.get(n), int) and d[n]), None)
        if k is None: continue
        try: other = cls(**{k: 2*d[k]}).to_dict()
        except Exception: continue
        moved |= {x for x in d if x!=k and other.get(x)!=d[x]}
    return moved


def patterns(d):
    "The default pattern of layer types, where it has a period; how many layers stay dense"
    t, m, out = d.get('layer_types'), d.get('mlp_layer_types'), {}
    if isinstance(t, list) and len(set(t))>1:
        p = next((p for p in range(2, 13) if all(x==t[i%p] for i,x in enumerate(t[:-1]))), None)
        if p: out['layer_period'] = t[:p]
    if isinstance(m, list) and 'dense' in m:
        k = m.index(next((x for x in m if x!='dense'), m[0]))
        if 0<k and 'dense' not in m[k:]: out['first_k_dense_replace'] = k
    return out


def counts(known):
    "Parameters of each text family at its default size"
    import torch, transformers
    from transformers.models.auto import modeling_auto as auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    out = {}
    for t,c in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        c = c if isinstance(c, str) else c[0]
        if t not in CONFIG_MAPPING or c not in known: continue
        try:
            cfg = CONFIG_MAPPING[t]()
            if any(isinstance(v, dict) and 'model_type' in v for v in cfg.to_dict().values()): continue
            with torch.device('meta'): m = getattr(transformers, c)(cfg)
            m.tie_weights()
            out[t] = [c, sum(p.numel() for p in m.parameters())]
        except Exception: continue
    return out


def served(wheel):
    "Class names in vLLM's registry"
    return set(re.findall(r'^\s+"(\w+)": ?\(?', (Path(wheel)/'vllm/model_executor/models/registry.py').read_text(), re.M))


def main(wheel, count=False):
    from transformers import __version__ as version
    from transformers.models.auto import modeling_auto as auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    known, read, out, todo = served(wheel), keys_read(), {}, []
    for maps in (v for k,v in vars(auto).items() if k.endswith('_MAPPING_NAMES')):
        for t,c in maps.items():
            if any(x in known for x in ([c] if isinstance(c, str) else c)): todo.append(t)
    while todo:
        t = todo.pop()
        if t in out or t not in CONFIG_MAPPING: continue
        try: d = CONFIG_MAPPING[t]().to_dict()
        except Exception: continue
        todo += [v['model_type'] for v in d.values() if isinstance(v, dict) and v.get('model_type')]
        todo += [t+part for part in ('_text','_vision','_audio','_encoder')]  # parts that the default leaves out
        todo += [x['model_type'] for v in d.values() if isinstance(v, dict) for x in v.values() if isinstance(x, dict) and x.get('model_type')]
        moved = stable(CONFIG_MAPPING[t], d)
        out[t] = {k: v for k,v in d.items() if k in read and k not in moved and small(v)}
        out[t].update({k: v for k,v in patterns(d).items() if k not in out[t]})
    out = {k: v for k,v in sorted(out.items()) if v}
    (ROOT/'vllm_tuner/data/families.json').write_text(json.dumps({'source': f'defaults of the configuration classes of transformers {version}, tools/distil_defaults.py', 'defaults': out}, separators=(',', ':')))
    if count: (ROOT/'nbs/accuracy/families.json').write_text(json.dumps(dict(source=f'transformers {version}: default configuration of each class that vLLM 0.33 serves, built on the meta device', families=counts(known)), separators=(',', ':')))
    print(len(out), 'families,', (ROOT/'vllm_tuner/data/families.json').stat().st_size, 'bytes')


if __name__=='__main__': main(sys.argv[1], '--count' in sys.argv)
