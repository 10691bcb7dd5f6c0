"What `import vllm_tuner` may cost"
import subprocess, sys

HEAVY = ('torch', 'transformers', 'matplotlib', 'pandas', 'scipy', 'IPython', 'ipywidgets', 'ray', 'optuna', 'pyarrow', 'fastcore', 'nbdev')


def loaded_by(code):
    "Which heavy packages a fresh interpreter has loaded after `code`"
    out = subprocess.run([sys.executable, '-c', f'{code}\nimport sys; print(*[m for m in {HEAVY!r} if m in sys.modules])'], capture_output=True, text=True, check=True)
    return out.stdout.split()


def test_the_package_loads_nothing_heavy(): assert loaded_by('import vllm_tuner')==[]
def test_neither_does_the_planner(): assert loaded_by('from vllm_tuner import vLLMPerformanceModel, vLLMConfigOptimizer, arch, device, Engine, memory, predict')==[]
def test_neither_does_the_command(): assert loaded_by('import vllm_tuner.cli')==[]


def test_the_ledger_needs_the_standard_library_alone():
    "So that it runs in a browser: no numpy, rich or yaml behind `memory`"
    code = ('import sys\nfor m in ("numpy","rich","yaml"): sys.modules[m]=None\n'
            'from vllm_tuner.memory import memory\nfrom vllm_tuner.models import arch\nfrom vllm_tuner.devices import device\nfrom vllm_tuner.engine import Engine\n'
            'assert memory(arch("meta-llama/Llama-3.1-8B-Instruct"), device("H100"), Engine()).kv_cache>0')
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stderr==''
