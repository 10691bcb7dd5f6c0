"""Distil a catalogue of public configs into `vllm_tuner/data/models.json`.

    python tools/distil_catalogue.py path/to/data

reads `model_catalogue.jsonl` (one config per line with its source) and `model_variants.jsonl` (quantised re-releases), keeps the keys that the notebooks read, and writes each entry as
what differs from an earlier one. Lists of modules that a quantiser left out are shortened to patterns. The counts that transformers gives go into `nbs/accuracy/parameters.json`.
"""
import json, re, sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
ALWAYS = {'model_type','architectures','dtype','torch_dtype','quantization_config','text_config','vision_config','audio_config','layer_types','rope_parameters','rope_scaling','rope_theta','layers_block_type','hybrid_override_pattern',
          'swa_num_attention_heads','swa_num_key_value_heads','swa_head_dim','swa_v_head_dim'}
SILENT = {'hidden_act','max_window_layers','rope_interleave','indexer_rope_interleave'}  # read by nothing that changes a shape, or only together with a switch that is off
RUNS = ('moe_layer_freq','attn_type_list','hybrid_layer_pattern','mlp_layer_types','layers_block_type','compress_ratios','indexer_types','block_configs')
NEUTRAL = re.compile(r'layernorm|norm$|rotary|embed_positions')

COMPLETED = {  # what the source of a config left out, and the count of transformers 5.24 with it
    'google/gemma-4-E2B-it': (dict(audio_config=dict(model_type='gemma4_audio')), 5_104_297_504), 'google/gemma-4-E4B-it': (dict(audio_config=dict(model_type='gemma4_audio')), 7_941_100_832)}


def keys_read():
    "Every word in quotes of the notebooks that read configs"
    text = ''.join(''.join(c['source']) for n in ('030_config_keys','110_encoder_blocks','115_image_encoders','120_checkpoint_encoders','125_audio_encoders','130_towers','135_habits','140_mixers','145_layer_rules','150_configs') for c in json.loads((ROOT/f'nbs/{n}.ipynb').read_text())['cells'] if c['cell_type']=='code')
    return set(re.findall(r"'([A-Za-z_][A-Za-z_0-9]*)'", text))|ALWAYS


def patterns(v, layers, star):
    "A list of module names, or its counted patterns, as a short list of patterns"
    if isinstance(v, dict): items = [(k,n) for k,n in v.get('_patterns', {}).items()] if isinstance(v.get('_patterns'), dict) else []
    else: items = [(k,1) for k in v or ()]
    out = []
    for k,n in items:
        if NEUTRAL.search(k) or '{i}' in k and n<3 and layers>3: continue  # norms are never quantised; a single layer is the one for speculation
        k = k.replace('{i}', '*' if star else r'\d+') if star or '{i}' not in k else 're:'+re.escape(k).replace(r'\{i\}', r'\d+')
        if k not in out: out.append(k)
    return out


def quantization(c, layers):
    "What matters of a quantization_config"
    q = dict(c.get('quantization_config') or (c.get('text_config') or {}).get('quantization_config') or {})
    h = c.get('hf_quant_config')
    if h and (not q or 'quantized_layers' in h.get('quantization', {}) and 'quantized_layers' not in q): q = {**h.get('quantization', {}), 'quant_method': 'modelopt'}
    if not q: return None
    if 'quant_method' not in q: q['quant_method'] = 'modelopt'
    modelopt = q['quant_method']=='modelopt' or 'quant_algo' in q
    for k in ('ignore','exclude_modules','modules_to_not_convert','ignored_layers'):
        if k in q: q[k] = patterns(q[k], layers, modelopt)
    if 'quantized_layers' in q:
        ql = q['quantized_layers']
        rows = [(p['module'],p['value']) for p in ql['_patterns']] if '_patterns' in ql else [(re.sub(r'\.\d+\.', '.*.', m), v) for m,v in ql.items()]
        q['quantized_layers'] = {m.replace('{i}','*'): v for m,v in rows}
    drop = {'producer','version','fmt','quantization_status','global_compression_ratio','true_sequential','sym','format'} if not modelopt else {'producer','fmt','config_groups'}
    if modelopt and q.get('config_groups') and not q.get('quant_algo'): drop -= {'config_groups'}
    return {k: slim(v) for k,v in q.items() if k not in drop and v not in (None,[],{})}


def slim(v):
    if isinstance(v, dict): return {k: slim(x) for k,x in v.items() if x is not None and k not in ('observer','observer_kwargs','output_activations','_note','scale_dtype','zp_dtype')}
    return v


def shape(c, read):
    "The keys of a config that matter here"
    out = {}
    for k,v in c.items():
        if k in SILENT or k in ('quantization_config','hf_quant_config') or k not in read: continue
        if v is None and k in ('quantization_config','rope_scaling','audio_config'): continue
        out[k] = shape(v, read) if isinstance(v, dict) and k.endswith('_config') else v
    if 'rope_scaling' in out and isinstance(out['rope_scaling'], dict):  # of LongRoPE's lists only that they exist matters
        out['rope_scaling'] = {k: v for k,v in out['rope_scaling'].items() if not isinstance(v, list) or k=='mrope_section'}
    if isinstance(out.get('layer_types'), list): out['layer_types'] = runs(out['layer_types'])
    for b in (out.get('block_configs') if isinstance(out.get('block_configs'), list) else ()):  # of a NAS checkpoint what is left of each block
        for part in b.values():
            for k in [k for k,v in part.items() if not v]: del part[k]
    for k in RUNS:
        if isinstance(out.get(k), list): out[k] = runs(out[k])
    if 'sparse_attention_config' in out: out['sparse_attention_config'] = {k: v for k,v in out['sparse_attention_config'].items() if k in ('sparse_num_index_heads','sparse_index_dim','sparse_attention_freq')}
    if isinstance(out.get('sparse_attention_config', {}).get('sparse_attention_freq'), list): out['sparse_attention_config']['sparse_attention_freq'] = runs(out['sparse_attention_config']['sparse_attention_freq'])
    return out


def runs(v):
    "A long list as `[[value, how often], ...]`, or as the period that repeats"
    if len(v)<9: return v
    for p in range(1, 13):
        if all(x==v[i%p] for i,x in enumerate(v)): return {'repeat': v[:p], 'n': len(v)}
    out = []
    for x in v:
        if out and out[-1][0]==x: out[-1][1] += 1
        else: out.append([x,1])
    return {'runs': out} if len(json.dumps(out))<len(json.dumps(v)) else v


def flat(c, at=()):
    "A nested mapping as paths"
    out = {}
    for k,v in c.items():
        if isinstance(v, dict) and v and not set(v)<={'repeat','n','runs'}: out.update(flat(v, at+(k,)))
        else: out['/'.join(at+(k,))] = v
    return out


def delta(a, b):
    "What turns `a` into `b`: new values, and `-` for what goes"
    return {**{k: v for k,v in b.items() if k not in a or a[k]!=v}, **{k: '-' for k in a if k not in b}}


def main(data):
    rows = [json.loads(l) for l in (Path(data)/'model_catalogue.jsonl').read_text().splitlines()]
    variants = [json.loads(l) for l in (Path(data)/'model_variants.jsonl').read_text().splitlines()]
    read, sources, names, entries, kept = keys_read(), {}, {}, [], []
    for r in rows:
        if r['id'] in COMPLETED: r['config'],r['params_computed'] = {**r['config'], **COMPLETED[r['id']][0]},COMPLETED[r['id']][1]
    for r in sorted(rows, key=lambda r: r['id'].lower()):
        c = r['config']
        t = c.get('text_config') or c
        f = flat(shape(c, read))
        q = quantization(c, t.get('num_hidden_layers') or 0)
        if q: f['quantization_config'] = q
        best = min(range(len(kept)), key=lambda i: len(json.dumps(delta(kept[i], f))), default=None)
        d = f if best is None else delta(kept[best], f)
        src = re.sub(r':.*', '', r['source'])
        entries.append([r['id'], -1 if best is None else best, sources.setdefault(src, len(sources)), 'hml'.index(r['confidence'][0]), {names.setdefault(k, len(names)): v for k,v in d.items()}])
        kept.append(f)
    known = {r['id'].lower() for r in rows}
    size = lambda i: sorted(re.findall(r'\d+(?:\.\d+)?[bt](?![a-z])', i.split('/')[-1].lower()))
    re_releases = {v['id']: [v['base'], v['precision']] for v in variants if v['base_in_catalogue'] and v['id'].lower() not in known and size(v['id'])==size(v['base']) and 'multimodal' not in v['id'] and v['id']!='microsoft/Phi-4-reasoning'}
    out = dict(about='Architecture figures of public checkpoints: what differs from an earlier entry. Written by tools/distil_catalogue.py', keys=list(names), sources=list(sources), models=entries, variants=re_releases)
    p = ROOT/'vllm_tuner/data/models.json'
    p.write_text(json.dumps(out, separators=(',',':')))
    fixture = ROOT/'nbs/accuracy/parameters.json'
    fixture.write_text(json.dumps(dict(source='transformers 5.23: parameters of the class built on torch\'s meta device; five by formula where it has no class', params={r['id']: r.get('params_computed') for r in rows}), separators=(',',':')))
    print(len(entries), 'models,', len(re_releases), 'variants,', p.stat().st_size, 'bytes;', fixture.stat().st_size)


if __name__=='__main__': main(sys.argv[1])
