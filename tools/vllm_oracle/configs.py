"""Make a config.json that lacks trifles usable: unknown model types, shortened lists, values every real checkpoint of the family carries."""
import copy

def text(config):
    "The part of a config.json that describes the language model."
    for k in ('text_config', 'llm_config', 'language_config', 'thinker_config'):
        if isinstance(config.get(k), dict): return text(config[k])
    return config

def n_layers(config):
    t = text(config)
    return next((t[k] for k in ('num_hidden_layers', 'n_layer', 'n_layers', 'num_layers') if isinstance(t.get(k), int)), 0)

# what the family's published config.json files carry and a shortened one may lack; keys that are present win
USUAL = dict(
    MiniMaxM2ForCausalLM=dict(scoring_func='sigmoid', use_routing_bias=True, use_qk_norm=True, qk_norm_type='per_layer', rotary_dim=64, attn_type_list=None),
    MiMoV2FlashForCausalLM=dict(layernorm_epsilon=1e-5, attention_chunk_size=None),
    VoxtralForConditionalGeneration={},
    GraniteForCausalLM=dict(max_position_embeddings=4096),
)
AWQ = dict(group_size=128, zero_point=True, version='gemm', modules_to_not_convert=None)

def _expand(value, layers):
    "A list shortened to {'_patterns': {...}} written out again, one entry per layer."
    pats = value['_patterns']
    out = []
    for p, n in (pats.items() if isinstance(pats, dict) else [(x['module'], x['count']) for x in pats]):
        if '{i}' not in p: out.append(p); continue
        span = range(layers if n > 3 else n)
        out += [p.replace('{i}', str(i), 1).replace('{i}', '1') for i in span]
    return out

def _walk(x, layers):
    if isinstance(x, dict):
        if isinstance(x.get('_patterns'), list) and x['_patterns'] and 'value' in x['_patterns'][0]:
            return {name: v['value'] for v in x['_patterns'] for name in _expand({'_patterns': [v]}, layers)}
        if '_patterns' in x: return _expand(x, layers)
        return {k: _walk(v, layers) for k, v in x.items()}
    return [_walk(v, layers) for v in x] if isinstance(x, list) else x

def complete(config):
    "The config with shortened lists written out and the family's usual values filled in."
    c = _walk(copy.deepcopy(config), n_layers(config))
    t = text(c)
    for arch in c.get('architectures') or []:
        for k, v in USUAL.get(arch, {}).items(): t.setdefault(k, v)
    q = c.get('quantization_config')
    if q and q.get('quant_method') == 'awq':
        for k, v in AWQ.items(): q.setdefault(k, v)
    if (t.get('rope_scaling') or {}).get('rope_type') == 'gptj': t.pop('rope_scaling')
    return c

def register(config):
    "Teach transformers a model type it does not know, as the checkpoint's own configuration code would: attributes straight from the file, Llama's where the file is silent."
    from transformers import AutoConfig, LlamaConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from vllm.transformers_utils.config import _CONFIG_REGISTRY
    kind = config.get('model_type')
    if not isinstance(kind, str) or kind in CONFIG_MAPPING or kind in _CONFIG_REGISTRY: return
    attrs = {'hidden_size': 'n_embd', 'num_attention_heads': 'n_head', 'num_hidden_layers': 'n_layer'}
    AutoConfig.register(kind, type('GenericConfig', (LlamaConfig,), dict(model_type=kind, attribute_map={k: v for k, v in attrs.items() if k not in config and v in config})), exist_ok=True)
