"""Ask an unmodified vLLM what it would do with one configuration, without a GPU and without an engine.

    ask = Oracle(home, version='0.33.0', gpu='H100'); ask.plan(config_json, dict(tp=2, max_model_len=8192))

One process plays the first tensor-parallel rank of every pipeline stage in turn. The answer holds vLLM's own defaults, the bytes of
its own model class before and after post-processing, and the KV cache plan of its own planner.
"""
import json, re, shutil, sys, tempfile, time, traceback
from pathlib import Path
from . import configs

GIB = 1 << 30
SHORT = dict(tp='tensor_parallel_size', pp='pipeline_parallel_size', kv_dtype='kv_cache_dtype')
NOT_ENGINE = ('available_bytes', 'usage')

class Refused(Exception):
    "vLLM refused in step `at`."
    def __init__(self, at, error): super().__init__(f'{at}: {error}'); self.at, self.error = at, error

def engine_kwargs(case):
    "The case's short keys as vLLM's engine arguments."
    return {SHORT.get(k, k): v for k, v in case.items() if k not in NOT_ENGINE}

def describe(error):
    "An exception as a small dict: type, message, figures of the message, and where in vLLM it was raised."
    out = dict(type=type(error).__name__, message=' '.join(str(error).split())[:1500])
    if m := re.search(r'estimated maximum model length is (\d+)', out['message']): out['estimated_max_model_len'] = int(m[1])
    if m := re.search(r'\(([\d.]+) GiB KV cache is needed', out['message']): out['kv_gib_needed'] = float(m[1])
    frames = [f for f in traceback.extract_tb(error.__traceback__) if '/vllm_oracle/' not in f.filename]
    if frames and type(error).__name__ != 'ValidationError':
        out['at'] = re.sub(r'^.*?(site-packages|wheel-[^/]*/vllm|wheel-[^/]*)/', '', frames[-1].filename) + f':{frames[-1].lineno}'
    return out

class Oracle:
    "One vLLM version on one pretended GPU."
    def __init__(self, home, version, gpu='H100', flashinfer=True):
        from . import fake_cuda
        self.home, self.version, self.gpu = Path(home).resolve(), version, gpu
        fake_cuda.environment(home, gpu)
        tree = self.home/f'wheel-{version}'
        sys.path[:0] = [str(tree), str(self.home/'tv')] + ([str(self.home/f'flashinfer-{version}')] if flashinfer else [])
        fake_cuda.load_libraries(home)
        fake_cuda.patch_torch(gpu)
        import vllm
        assert Path(vllm.__file__).is_relative_to(tree), f'imported {vllm.__file__}, not the wheel under {tree}'
        fake_cuda.install(gpu)
        from . import patches
        patches.apply()
        self.preload()

    def preload(self):
        "Import what every case needs, so that a forked child starts warm."
        import vllm.engine.arg_utils, vllm.model_executor.model_loader.utils, vllm.v1.core.kv_cache_utils, vllm.model_executor.models.llama
        import vllm.v1.worker.gpu.attn_utils, vllm.v1.worker.gpu.model_runner, vllm.v1.engine.core, vllm._custom_ops  # noqa: F401
        import contextlib, logging
        from . import fake_cuda, meta
        from vllm.platforms import current_platform
        from vllm.utils import deep_gemm
        logging.disable(logging.CRITICAL)                     # DeepGEMM complains about the driver
        with contextlib.redirect_stderr(None): deep_gemm._lazy_init()
        logging.disable(logging.NOTSET)
        current_platform.import_kernels()
        self.libraries = meta.shape_functions(fake_cuda.GPUS[self.gpu][1][0])

    def plan(self, config, case, params=False):
        "vLLM's answer for `config` (a config.json as dict) and `case`; with `params` also every tensor of each stage."
        t0, out = time.time(), dict(case=case)
        folder = Path(tempfile.mkdtemp(prefix='oracle-'))
        try:
            self.folder = folder/'model'
            self.folder.mkdir()
            beside = config.get('hf_quant_config')            # ModelOpt's own file, where a config was stored together with it
            if beside: (self.folder/'hf_quant_config.json').write_text(json.dumps({'producer': {'name': 'modelopt'}, **beside}))
            (self.folder/'config.json').write_text(json.dumps({k: v for k, v in config.items() if k != 'hf_quant_config'}))
            configs.register(config)
            self._plan(case, out, params)
        except Refused as r: out.update(refused_at=r.at, error=describe(r.error))
        finally: shutil.rmtree(folder, ignore_errors=True)
        return out | dict(seconds=round(time.time()-t0, 2))

    def _plan(self, case, out, params):
        from .stage import Stage, defaults, plan_kv
        config = self.config(case)
        out['defaults'] = defaults(config)
        stages = []
        out['workers'] = []
        for rank in range(config.parallel_config.pipeline_parallel_size):
            stage = Stage(config if rank == 0 else self.config(case), rank)
            try:
                stage.build()
                out['workers'].append(stage.report(params))
            except Exception as e: raise Refused('model build', e) from e
            try: stage.specs()
            except Exception as e: raise Refused('kv specs', e) from e
            stages.append(stage)
        try: out['kv'] = plan_kv(stages, case.get('available_bytes', 10*GIB))
        except Exception as e: raise Refused('kv cache', e) from e

    def config(self, case):
        "A fresh VllmConfig, made by vLLM's own EngineArgs."
        from vllm.engine.arg_utils import EngineArgs
        from vllm.usage.usage_lib import UsageContext
        kw = engine_kwargs(case)
        usage = dict(server=UsageContext.OPENAI_API_SERVER, llm=UsageContext.LLM_CLASS)[case.get('usage', 'server')]
        try: return EngineArgs(model=str(self.folder), skip_tokenizer_init=True, load_format='dummy', **kw).create_engine_config(usage)
        except Exception as e: raise Refused('config', e) from e
