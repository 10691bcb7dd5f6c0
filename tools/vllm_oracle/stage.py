"""One pipeline stage of one engine, played on the meta device: build the model class, count its bytes, collect its KV specs."""
import dataclasses
from .meta import MetaCuda
from . import patches

def _str(x): return str(x)

def defaults(c):
    "What vLLM resolved, one flat dict."
    m, s, k, cc, p = c.model_config, c.scheduler_config, c.cache_config, c.compilation_config, c.parallel_config
    def safe(f):
        try: return f()
        except Exception as e: return f'{type(e).__name__}: {e}'[:200]
    out = dict(architecture=m.architecture, dtype=_str(m.dtype), quantization=m.quantization, max_model_len=m.max_model_len, max_num_batched_tokens=s.max_num_batched_tokens,
        max_num_seqs=s.max_num_seqs, async_scheduling=s.async_scheduling, enable_chunked_prefill=s.enable_chunked_prefill, enable_prefix_caching=k.enable_prefix_caching,
        block_size_at_config=k.block_size, cache_dtype=k.cache_dtype, gpu_memory_utilization=k.gpu_memory_utilization, cudagraph_mode=cc.cudagraph_mode.name,
        cudagraph_capture_sizes=list(cc.cudagraph_capture_sizes or []), max_cudagraph_capture_size=cc.max_cudagraph_capture_size, compilation_mode=_str(int(cc.mode)) if cc.mode is not None else None,
        compile_ranges_endpoints=getattr(cc, 'compile_ranges_endpoints', None), custom_ops=cc.custom_ops, use_v2_model_runner=safe(lambda: c.use_v2_model_runner),
        is_hybrid=m.is_hybrid, is_moe=safe(lambda: m.is_moe), use_mla=m.use_mla, mamba_cache_mode=k.mamba_cache_mode, mamba_block_size=k.mamba_block_size,
        mamba_ssm_cache_dtype=k.mamba_ssm_cache_dtype, num_kv_heads_per_gpu=safe(lambda: m.get_num_kv_heads(p)), head_size=safe(m.get_head_size),
        distributed_executor_backend=p.distributed_executor_backend, disable_hybrid_kv_cache_manager=s.disable_hybrid_kv_cache_manager)
    if (spec := c.speculative_config) is not None:
        out['speculative'] = dict(method=spec.method, num_speculative_tokens=spec.num_speculative_tokens)
    return out

def tensors(model):
    "Every distinct tensor that a model keeps: (kind, name, tensor), kind is param, buffer or attr."
    import torch
    seen, stores, out = set(), set(), []
    def add(kind, name, t):
        if id(t) in seen: return
        seen.add(id(t)); out.append((kind, name, t)); stores.add(t.untyped_storage()._cdata)
    for n, p in model.named_parameters():
        if p.untyped_storage()._cdata not in stores: add('param', n, p)           # nor does a second view of one storage
    for n, b in model.named_buffers():
        if b.untyped_storage()._cdata not in stores: add('buffer', n, b)          # a view of a parameter costs nothing
    def walk(name, v, depth):
        if isinstance(v, torch.Tensor):
            if v.untyped_storage()._cdata not in stores and v.device.type == 'meta': add('attr', name, v)
        elif isinstance(v, torch.nn.Module) or depth == 0: return
        elif isinstance(v, (list, tuple)):
            for i, x in enumerate(v): walk(f'{name}.{i}', x, depth-1)
        elif isinstance(v, dict):
            for k, x in v.items(): walk(f'{name}.{k}', x, depth-1)
        elif type(v).__module__.startswith(('triton_kernels', 'vllm.third_party.triton_kernels', 'vllm.model_executor.layers')):
            if id(v) in seen: return
            seen.add(id(v))
            for k, x in getattr(v, '__dict__', {}).items(): walk(f'{name}.{k}', x, depth-1)
    for n, mod in model.named_modules():
        for a, v in vars(mod).items():
            if a not in ('_parameters', '_buffers', '_modules'): walk(f'{n}.{a}', v, 12)
    return out

def byte_sums(model):
    "Bytes of the storages behind a model's tensors, by the kind of the first tensor that shows each."
    out = dict(param=0, buffer=0, attr=0)
    for kind, _, t in tensors(model): out[kind] += t.untyped_storage().nbytes()
    return out

class Stage:
    "First tensor-parallel rank of pipeline stage `pp_rank`."
    def __init__(self, config, pp_rank): self.config, self.pp_rank = config, pp_rank

    def join(self):
        "vLLM's own parallel groups over a fake process group."
        import vllm.distributed.parallel_state as ps
        from vllm.config import set_current_vllm_config
        p = self.config.parallel_config
        rank = self.pp_rank*p.tensor_parallel_size*getattr(p, 'prefill_context_parallel_size', 1)
        p.rank = rank
        patches.join(p.world_size*p.data_parallel_size, rank)
        with set_current_vllm_config(self.config):
            ps.init_distributed_environment(p.world_size, rank, 'env://', 0, 'fake')
            self.workspaces()
            ps.initialize_model_parallel(p.tensor_parallel_size, p.pipeline_parallel_size, getattr(p, 'prefill_context_parallel_size', 1), p.decode_context_parallel_size, backend='fake')

    def workspaces(self):
        "The scratch memory that some attention layers ask for while they are built."
        import torch
        try: from vllm.v1.worker.workspace import init_workspace_manager
        except ImportError: return
        init_workspace_manager(torch.device('meta'))

    def build(self):
        "Build the model class on the meta device and run vLLM's post-processing; an error of the latter is kept, not raised."
        import torch
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.utils import initialize_model, process_weights_after_loading
        from vllm.utils.torch_utils import set_default_torch_dtype
        c = self.config
        with MetaCuda():
            self.join()
            with set_default_torch_dtype(c.model_config.dtype), torch.device('meta'):
                self.model = initialize_model(vllm_config=c)
            self.parameters = sum(p.numel() for p in self.model.parameters())
            self.loaded, self.loaded_tensors, self.error = byte_sums(self.model), self.table(), None
            try:
                with set_default_torch_dtype(c.model_config.dtype), set_current_vllm_config(c), torch.device('meta'):
                    process_weights_after_loading(self.model, c.model_config, torch.device('meta'))
            except Exception as e:
                from .oracle import describe
                d = describe(e); self.error = f'{d["type"]}: {d["message"][:300]} @ {d.get("at")}'
            self.after = byte_sums(self.model)
            self.drafter()

    def drafter(self):
        "The model that drafts, built beside the last stage as vLLM's speculator does; its layers join the cache."
        import torch
        from vllm.model_executor.model_loader.utils import initialize_model
        from vllm.utils.torch_utils import set_default_torch_dtype
        c, self.draft = self.config, None
        s = c.speculative_config
        m = getattr(s, 'draft_model_config', None)
        if m is None or s.method in ('ngram', 'suffix') or self.pp_rank != c.parallel_config.pipeline_parallel_size-1: return
        with set_default_torch_dtype(m.dtype), torch.device('meta'): self.draft = initialize_model(vllm_config=c, model_config=m)

    def table(self): return [(n, list(t.shape), str(t.dtype).removeprefix('torch.'), kind) for kind, n, t in tensors(self.model)]

    def report(self, params=False):
        total = sum(self.after.values())
        out = dict(pp_rank=self.pp_rank, parameters=self.parameters, as_loaded_bytes=self.loaded, after_postprocess_bytes=self.after, postprocess_error=self.error,
            attention_backends=self.backends(), n_kv_layers=None, total_bytes=total, total_gib=round(total/(1 << 30), 4))
        if self.draft is not None: out['draft_bytes'] = byte_sums(self.draft)
        if params: out |= dict(tensors=self.loaded_tensors, tensors_after=self.table())
        self.out = out
        return out

    def backends(self):
        from vllm.config import get_layers_from_vllm_config
        from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
        return sorted({l.get_attn_backend().get_name() for l in get_layers_from_vllm_config(self.config, AttentionLayerBase).values()})

    def specs(self):
        "KV cache specs of this stage, after vLLM has fitted the block size to the attention backends."
        from vllm.config import set_current_vllm_config
        from vllm.platforms import current_platform
        from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec
        from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts
        from vllm.v1.worker.worker_base import get_current_attn_backends
        c = self.config
        with MetaCuda(), set_current_vllm_config(c):
            current_platform.update_block_size_for_backend(c)
            self.kv = get_kv_cache_spec(c)
            self.layouts = [l.name for l in get_supported_kv_cache_layouts(get_current_attn_backends(c))]
        self.out['n_kv_layers'] = len(self.kv)

_ALWAYS = 'num_kv_heads head_size head_size_v dtype kv_quant_mode max_tp_shards cache_dtype_str mamba_cache_mode num_speculative_blocks'.split()

def _spec(s):
    "A KV cache spec as plain data; None, False and defaults that no reader needs are left out."
    out = dict(type=type(s).__name__, block_size=s.block_size, page_size_bytes=s.page_size_bytes)
    for f in dataclasses.fields(s):
        v = getattr(s, f.name)
        if f.name in out or v is None or v is False or (f.name not in _ALWAYS and v == f.default): continue
        if f.name == 'kv_cache_specs': v = sorted({str(_spec(x)) for x in v.values()})
        out[f.name] = v if type(v) in (int, str, float, list, bool) else int(v) if isinstance(v, int) else str(v)
    return out

def plan_kv(stages, available):
    "vLLM's engine core: layout, groups, blocks and the token figure, for `available` bytes on every worker."
    import vllm.v1.core.kv_cache_utils as ku
    from vllm.config import set_current_vllm_config
    from vllm.v1.attention.backends.utils import resolve_kv_cache_layout
    from vllm.v1.core.single_type_kv_cache_manager import register_all_kvcache_specs
    c, specs = stages[0].config, [s.kv for s in stages]
    with MetaCuda(), set_current_vllm_config(c):
        register_all_kvcache_specs(c)
        layout = resolve_kv_cache_layout(c, [s.layouts for s in stages], [x for s in specs for x in s.values()])
        memory = [available if any(specs) else 0]*len(specs)
        try:
            from vllm.v1.core.kv_cache_planning import get_global_kv_cache_groups, get_kv_cache_configs
            groups = get_global_kv_cache_groups(c, specs)
            if hasattr(c, 'adjust_dcp_kv_cache_interleave_size'): c.adjust_dcp_kv_cache_interleave_size(groups)
            configs = get_kv_cache_configs(c, specs, memory, groups)
        except ImportError:
            configs = ku.get_kv_cache_configs(c, specs, memory)
        for k in configs: k.kv_cache_layout = c.cache_config.kv_cache_layout
        sched = ku.generate_scheduler_kv_cache_config(configs)
        tokens, conc = ku.get_kv_cache_capacity(c, sched) if sched.kv_cache_groups else (0, 0.)
        c.cache_config.num_gpu_blocks = sched.num_blocks
    per = [_bytes_per_block(k) for k in configs]
    part = [g.kv_cache_spec.block_size for g in sched.kv_cache_groups if getattr(g.kv_cache_spec, 'prefix_cacheable', True)] or [g.kv_cache_spec.block_size for g in sched.kv_cache_groups] or [c.cache_config.block_size]
    return dict(layout=layout.name, block_size=min(part), num_blocks=sched.num_blocks, kv_tokens=tokens, max_concurrency=conc, bytes_per_block_per_worker=per,
        kv_bytes_used_per_worker=[b*sched.num_blocks for b in per], max_model_len=c.model_config.max_model_len,
        groups=[dict(n_layers=len(g.layer_names), spec=_spec(g.kv_cache_spec)) for g in configs[0].kv_cache_groups], kv_tp_replicas=getattr(configs[0], 'kv_tp_replicas', None))

def _bytes_per_block(k):
    return max((t.size for t in k.kv_cache_tensors), default=0)//k.num_blocks if k.num_blocks else 0      # every tensor names the one shared allocation
