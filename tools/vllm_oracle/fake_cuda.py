"""A CUDA platform that exists only on paper: vLLM's own `CudaPlatformBase` answering for a GPU named in a table.

Nothing of vLLM's source is changed. `install(gpu)` must run before the first use of `vllm.platforms.current_platform`.
"""
import ctypes, os, types
from pathlib import Path

# name as NVML reports it, compute capability, total bytes as NVML reports them (MiB of nvidia-smi), streaming multiprocessors
GPUS = {
    'V100': ('Tesla V100-SXM2-32GB', (7, 0), 32768, 80),
    'T4': ('Tesla T4', (7, 5), 15360, 40),
    'A100-40': ('NVIDIA A100-SXM4-40GB', (8, 0), 40960, 108),
    'A100': ('NVIDIA A100-SXM4-80GB', (8, 0), 81920, 108),
    'A10': ('NVIDIA A10G', (8, 6), 23028, 80),
    'RTX3090': ('NVIDIA GeForce RTX 3090', (8, 6), 24576, 82),
    'L4': ('NVIDIA L4', (8, 9), 23034, 58),
    'L40S': ('NVIDIA L40S', (8, 9), 46068, 142),
    'RTX4090': ('NVIDIA GeForce RTX 4090', (8, 9), 24564, 128),
    'H100': ('NVIDIA H100 80GB HBM3', (9, 0), 81559, 132),
    'H200': ('NVIDIA H200', (9, 0), 143771, 132),
    'H20': ('NVIDIA H20', (9, 0), 97871, 78),
    'B200': ('NVIDIA B200', (10, 0), 183359, 148),
    'B300': ('NVIDIA B300 SXM6 AC', (10, 3), 275040, 148),
    'RTX5090': ('NVIDIA GeForce RTX 5090', (12, 0), 32607, 170),
    'PRO6000': ('NVIDIA RTX PRO 6000 Blackwell Server Edition', (12, 0), 97887, 188),
    'GB10': ('NVIDIA GB10', (12, 1), 122572, 48),
}
DEVICE_COUNT = 1024      # enough for any world size: a refusal for want of GPUs is the case's own matter

def total_bytes(gpu): return GPUS[gpu][2] << 20

def load_libraries(home):
    "Put the real libcudart and the stub libraries into the process, so that vLLM's extensions find them."
    home = Path(home)
    for lib in [next(home.glob('cudart/**/libcudart.so.13')), *(home/'stubs'/n for n in ('libtorch_cuda.so', 'libc10_cuda.so', 'libcuda.so.1', 'libnvrtc.so.13'))]:
        ctypes.CDLL(str(lib), mode=ctypes.RTLD_GLOBAL)

def environment(home, gpu):
    "The environment variables that the run needs, all set before torch or vLLM is imported."
    home = Path(home)
    os.environ.update(CUDA_VISIBLE_DEVICES='',       # empty, not absent: vLLM then keeps Triton although no driver is active
        TORCHDYNAMO_DISABLE='1', HF_HUB_OFFLINE='1', TRANSFORMERS_OFFLINE='1', VLLM_NO_USAGE_STATS='1', DO_NOT_TRACK='1', VLLM_LOGGING_LEVEL='ERROR',
        VLLM_CACHE_ROOT=str(home/'cache'), HF_HOME=str(home/'hf'), FLASHINFER_WORKSPACE_BASE=str(home/'cache'), XDG_CACHE_HOME=str(home/'cache'),
        TRITON_CACHE_DIR=str(home/'cache'/'triton'), VLLM_HAS_FLASHINFER_CUBIN='1', VLLM_PLUGINS='', TOKENIZERS_PARALLELISM='false', OMP_NUM_THREADS='1',
        FLASHINFER_CUDA_ARCH_LIST='{}.{}a'.format(*GPUS[gpu][1]), VLLM_HOST_IP='127.0.0.1')

def properties(gpu):
    "What `torch.cuda.get_device_properties` would answer."
    name, (major, minor), _, sms = GPUS[gpu]
    return types.SimpleNamespace(name=name, major=major, minor=minor, total_memory=total_bytes(gpu), multi_processor_count=sms, is_integrated=gpu == 'GB10',
        warp_size=32, max_threads_per_multi_processor=2048, regs_per_multiprocessor=65536, shared_memory_per_block=49152, shared_memory_per_block_optin=232448 if major in (9, 10) else 101376,
        shared_memory_per_multiprocessor=233472 if major in (9, 10) else 102400, L2_cache_size=50 << 20, gcnArchName='', uuid='GPU-0')

def patch_torch(gpu):
    "Let `torch.cuda` and `torch.accelerator` answer questions about the pretended GPU."
    import contextlib, torch
    name, cc, _, _ = GPUS[gpu]
    props = properties(gpu)
    torch.version.cuda = '13.0'
    class Stream:
        cuda_stream, device_index, stream_id = 0, 0, 0
        def __init__(self, *a, **k): self.device = torch.device('cuda:0')
        def __getattr__(self, item): return (lambda *a, **k: None) if not item.startswith('__') else self.__getattribute__(item)
        def __enter__(self): return self
        def __exit__(self, *a): return None
    def const(v): return lambda *a, **k: v            # a fresh function each time: torch's tracer refuses one object under two names
    for attr, val in dict(Stream=Stream, Event=Stream, ExternalStream=Stream, current_stream=lambda *a: Stream(), default_stream=lambda *a: Stream(), stream=lambda *a, **k: contextlib.nullcontext(), set_stream=const(None),
            get_device_properties=lambda *a, **k: props, get_device_capability=lambda *a, **k: cc, get_device_name=lambda *a, **k: name, current_device=const(0), device_count=lambda: DEVICE_COUNT,
            set_device=const(None), empty_cache=const(None), synchronize=const(None), reset_peak_memory_stats=const(None), max_memory_allocated=const(0), memory_allocated=const(0), memory_reserved=const(0), mem_get_info=const((props.total_memory, props.total_memory)),
            is_current_stream_capturing=lambda: False, can_device_access_peer=lambda *a: True, manual_seed_all=const(None), manual_seed=const(None), is_initialized=lambda: False, init=const(None), _lazy_init=const(None),
            get_arch_list=lambda: ['sm_{}{}'.format(*cc)]).items(): setattr(torch.cuda, attr, val)
    for attr, val in dict(current_device_index=const(0), set_device_index=const(None), device_index=lambda *a: contextlib.nullcontext(), empty_cache=const(None), synchronize=const(None), current_stream=lambda *a: Stream(), set_stream=const(None),
            get_memory_info=const((props.total_memory, props.total_memory)), memory_reserved=const(0), memory_allocated=const(0), max_memory_allocated=const(0), reset_peak_memory_stats=const(None), memory_stats=lambda *a: {}, device_count=lambda: DEVICE_COUNT,
            is_available=lambda: True, current_accelerator=lambda *a, **k: torch.device('cuda')).items(): setattr(torch.accelerator, attr, val)

def install(gpu):
    "Make vLLM's current platform the pretended GPU."
    import vllm.platforms as platforms
    from vllm.platforms.cuda import CudaPlatformBase
    from vllm.platforms.interface import DeviceCapability
    name, cc, _, _ = GPUS[gpu]
    props = properties(gpu)
    class FakeCudaPlatform(CudaPlatformBase):
        @classmethod
        def get_device_capability(cls, device_id=0): return DeviceCapability(*cc)
        @classmethod
        def get_device_name(cls, device_id=0): return name
        @classmethod
        def get_device_uuid(cls, device_id=0): return 'GPU-0'
        @classmethod
        def get_device_total_memory(cls, device_id=0): return props.total_memory
        @classmethod
        def is_fully_connected(cls, physical_device_ids): return True
        @classmethod
        def device_count(cls): return DEVICE_COUNT
        @classmethod
        def is_integrated_gpu(cls, device_id=0): return props.is_integrated
        @classmethod
        def num_compute_units(cls, device_id=0): return props.multi_processor_count
        @classmethod
        def get_current_memory_usage(cls, device=None): return 0
        @classmethod
        def log_warnings(cls): pass
        @classmethod
        def device_id_to_physical_device_id(cls, device_id): return device_id
    platforms._current_platform = FakeCudaPlatform()
    return platforms._current_platform
