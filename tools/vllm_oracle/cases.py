"""Which questions to ask about a model: the parallel layouts, cache formats and switches that its architecture makes interesting."""
from .configs import n_layers as layers, text

def context(config):
    "The context length that a config.json promises, or None."
    t = text(config)
    seen = [t[k] for k in ('max_position_embeddings', 'n_positions', 'max_seq_len', 'seq_length', 'model_max_length', 'max_target_positions', 'max_sequence_length', 'seq_len') if isinstance(t.get(k), int)]
    return min(seen) if seen else None

def experts(config):
    t = text(config)
    for k in ('num_experts', 'n_routed_experts', 'num_local_experts', 'moe_num_experts', 'num_moe_experts', 'n_experts', 'ffn_config'):
        v = t.get(k)
        if isinstance(v, dict): v = v.get('moe_num_experts')
        if isinstance(v, int) and v > 1: return v
    return 0

def is_hybrid(config):
    "Keeps a recurrent state in some layers."
    t = text(config)
    keys = ('mamba_d_state', 'ssm_state_size', 'mamba_n_heads', 'linear_num_key_heads', 'linear_attn_config', 'conv_L_cache', 'attn_type_list', 'state_size', 'mamba_num_heads', 'mamba_d_ssm')
    return any(t.get(k) is not None for k in keys) or any('linear' in str(x) or 'mamba' in str(x) for x in t.get('layer_types') or [])

def is_windowed(config):
    t = text(config)
    return bool(t.get('sliding_window') or t.get('attention_chunk_size')) and t.get('use_sliding_window', True)

def is_mla(config): return bool(text(config).get('kv_lora_rank'))

def size(config):
    "A rough parameter count, good enough to choose layouts."
    t = text(config)
    h = t.get('hidden_size') or t.get('d_model') or t.get('n_embd') or 1024
    ffn = t.get('intermediate_size') or t.get('ffn_dim') or 4*h
    ffn = ffn if isinstance(ffn, int) else 4*h
    moe = experts(config)*3*h*(t.get('moe_intermediate_size') or ffn)
    return layers(config)*(4*h*h + (moe or 3*h*ffn))

def cases_for(config, rich=True):
    "Cases for one config.json; `rich` adds the switches to the parallel layouts."
    n = context(config)
    mml = {} if n is not None and n < 8192 else dict(max_model_len=8192)
    big = size(config) > 60e9
    at = lambda tp=1, pp=1, **kw: dict(tp=tp, pp=pp, **mml, **kw)
    full = lambda tp: dict(tp=tp, pp=1)
    main = 8 if big else 1
    out = [at(1), at(4), at(8), full(8), at(16), at(4, 2), at(8, kv_dtype='fp8')] if big else [at(1), full(1), at(2), at(4), at(8), at(1, 2), at(2, 2), at(1, kv_dtype='fp8')]
    if experts(config):
        out.append(at(8 if big else 2, enable_expert_parallel=True))
        out.append(at(4 if big else 1, enable_expert_parallel=True, data_parallel_size=2))
    if is_windowed(config): out.append(at(main, disable_hybrid_kv_cache_manager=True))
    if is_hybrid(config): out += [at(1, enable_prefix_caching=True), at(1, enable_prefix_caching=False), at(1, mamba_ssm_cache_dtype='float32')]
    if not rich: return _unique(out)
    if layers(config) >= 6: out.append(at(1, 3))
    out += [at(main, block_size=64), at(main, max_num_seqs=64), at(main, max_num_batched_tokens=16384), at(main, num_gpu_blocks_override=1000), dict(tp=main, pp=1, max_model_len=-1),
        at(main, kv_dtype='fp8_e5m2'), at(main, available_bytes=30 << 30), at(main, max_num_seqs=16, enforce_eager=True), at(main, usage='llm'),
        at(main, enable_lora=True, max_loras=2, max_lora_rank=32), at(main, cpu_offload_gb=2), at(main, kv_dtype='turboquant_4bit_nc'), at(main, kv_dtype='fp8_per_token_head'),
        at(main, kv_dtype='int8_per_token_head'), at(main, kv_dtype='int4_per_token_head'), at(main, kv_dtype='turboquant_k8v4'), at(main, kv_dtype='nvfp4'),
        at(main, speculative_config=dict(method='ngram', num_speculative_tokens=3, prompt_lookup_max=4)), at(8, decode_context_parallel_size=2)]
    return _unique(out)

def _unique(cases):
    out = []
    for c in cases:
        if c not in out: out.append(c)
    return out
