"""Run vLLM's model code with every tensor on torch's meta device.

`MetaCuda` is a torch function mode: a request for a CUDA tensor gives a meta tensor, and reading a value of a meta tensor
(which has none) answers one. `shape_functions` gives a few compiled operators the shapes of their results.
"""
import torch
import torch.fx.experimental._config
from torch.overrides import TorchFunctionMode

def _is_cuda(d):
    if isinstance(d, torch.device): return d.type == 'cuda'
    if type(d) is int: return True          # a bare index means the current accelerator
    return isinstance(d, str) and d.startswith('cuda')

_VALUE = {torch.Tensor.item: lambda t: True if t.dtype == torch.bool else 1.0 if t.is_floating_point() else 1,
    torch.Tensor.__bool__: lambda t: True, torch.Tensor.__int__: lambda t: 1, torch.Tensor.__float__: lambda t: 1.0, torch.Tensor.__index__: lambda t: 1,
    torch.Tensor.tolist: lambda t: torch.ones(t.shape, dtype=torch.int64 if not t.is_floating_point() else torch.float32, device='cpu').tolist()}
_NEVER = {torch.isnan, torch.isinf, torch.Tensor.isnan, torch.Tensor.isinf}
_META = torch.device('meta')
NAMESPACES = ('_C', '_moe_C', '_C_cache_ops', 'deep_gemm', '_flashmla_C', '_flashkda_C', '_qutlass_C')

class MetaCuda(TorchFunctionMode):
    "CUDA means meta, and a meta tensor's value reads as one."
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in _VALUE and args and isinstance(args[0], torch.Tensor) and args[0].is_meta: return _VALUE[func](args[0])
        if func in _NEVER and args[0].is_meta: return torch.zeros((), dtype=torch.bool, device='cpu')
        if func in (torch.unique, torch.Tensor.unique) and args[0].is_meta: return args[0].reshape(-1)[:1]
        if func is torch.Tensor.cuda: return args[0].to(_META)
        if func in (torch.equal, torch.allclose, torch.Tensor.equal, torch.Tensor.allclose) and any(isinstance(a, torch.Tensor) and a.is_meta for a in args): return True
        if func in (torch.Tensor.cpu, torch.Tensor.numpy) and args[0].is_meta: return self.on_cpu(func, args[0])
        if func in (torch.Tensor.pin_memory, torch.Tensor.is_pinned): return args[0] if func is torch.Tensor.pin_memory else True
        if _is_cuda(kwargs.get('device')): kwargs['device'] = _META
        if kwargs.get('pin_memory'): kwargs['pin_memory'] = False
        if func is torch.Tensor.to: args = tuple(_META if _is_cuda(a) else a for a in args)
        if func is torch.Tensor.to and args[0].is_meta and any(a == 'cpu' or (isinstance(a, torch.device) and a.type == 'cpu') for a in [*args[1:], kwargs.get('device')] if isinstance(a, (str, torch.device))):
            return args[0]
        if func is torch.Tensor.copy_ and args[0].is_meta != getattr(args[1], 'is_meta', True): return args[0]
        return func(*args, **kwargs)

    def on_cpu(self, func, t):
        return t if func is torch.Tensor.cpu else torch.ones(t.shape, dtype=t.dtype if t.dtype != torch.bfloat16 else torch.float32, device='cpu').numpy()

def _round_up(x, m): return -(-x//m)*m

def shape_functions(gpu_major):
    "Register the shapes of results for compiled operators that have none for meta tensors."
    def transform_sf_into_required_layout(sf, mn, k, recipe, *rest, num_groups=None, **kw):
        # DeepGEMM: float32 scales stay as they are on sm90; on sm100 they become int32 words of four UE8M0 bytes, one row each, rows aligned to 16 bytes
        if sf.dtype != torch.float32: return sf
        if gpu_major != 10:
            if recipe[1] != 1: return sf
            rows = _round_up(mn, 4)
            return torch.empty_strided(sf.shape, (*(rows*sf.shape[-1],)*(sf.dim()-2), 1, rows), dtype=torch.float32, device='meta')
        words, rows = -(-sf.shape[-1]//4), _round_up(mn, 4)
        lead = tuple(sf.shape[:-2])
        return torch.empty_strided((*lead, mn, words), (*(rows*words,)*len(lead), 1, rows), dtype=torch.int32, device='meta')
    torch.fx.experimental._config.meta_nonzero_assume_all_nonzero = True
    libs = {}
    def impl(ns, name, f):
        libs.setdefault(ns, torch.library.Library(ns, 'IMPL')).impl(name, f, 'Meta')
    for schema in torch._C._jit_get_all_schemas():
        ns, name = schema.name.split('::')
        if ns not in NAMESPACES: continue
        full = schema.name + (f'.{schema.overload_name}' if schema.overload_name else '')
        if torch._C._dispatch_has_kernel_for_dispatch_key(full, 'Meta') or torch._library.simple_registry.singleton.find(schema.name).fake_impl.kernel is not None: continue
        if name == 'transform_sf_into_required_layout': impl(ns, name, transform_sf_into_required_layout)
        elif not schema.returns and any(a.type.str() == 'Tensor' for a in schema.arguments): impl(ns, full.split('::')[1], lambda *a, **k: None)   # results are written into arguments
    return libs
