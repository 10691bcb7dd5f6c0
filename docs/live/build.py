"""Put the live explorer into a built site: Python as WebAssembly (npm's pyodide), the modules that the views import, and the script that binds them.

    python docs/live/build.py _docs
"""
import json, shutil, subprocess, sys, tempfile, zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PYODIDE = '314.0.7'  # npm release; CPython 3.14 as WebAssembly
RUNTIME = ('pyodide.mjs', 'pyodide.asm.mjs', 'pyodide.asm.wasm', 'python_stdlib.zip', 'pyodide-lock.json')

PROBE = '''
import sys, json
for m in ("numpy","rich","yaml"): sys.modules[m] = None
from importlib.resources import files
seen = []
sys.addaudithook(lambda event, args: event=="open" and seen.append(str(args[0])))
from vllm_tuner import views
for name in views.VIEWS: views.render(name, "{}")
here = str(files("vllm_tuner"))
print(json.dumps(sorted({m.__file__ for n,m in sys.modules.items() if n.split(".")[0]=="vllm_tuner" and m} | {p for p in seen if p.startswith(here) and "/data/" in p})))
'''


def runtime(out):
    "The files of the Python runtime, from npm; kept beside the sources for the next build"
    if not all((HERE/'pyodide'/f).exists() for f in RUNTIME):
        with tempfile.TemporaryDirectory() as tmp:
            subprocess.run(['npm', 'pack', '--silent', f'pyodide@{PYODIDE}'], cwd=tmp, check=True, capture_output=True)
            subprocess.run(['tar', 'xzf', next(Path(tmp).glob('*.tgz')).name], cwd=tmp, check=True)
            (HERE/'pyodide').mkdir(exist_ok=True)
            for f in RUNTIME: shutil.copy(Path(tmp)/'package'/f, HERE/'pyodide'/f)
    shutil.copytree(HERE/'pyodide', out/'pyodide', dirs_exist_ok=True)


def package(out):
    "Just the modules and data that the views touch, found by running them with the standard library alone"
    run = subprocess.run([sys.executable, '-c', PROBE], capture_output=True, text=True, cwd=ROOT)
    if run.returncode: sys.exit(f'the views do not run on the standard library alone:\n{run.stderr}')
    with zipfile.ZipFile(out/'vllm_tuner.zip', 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as z:
        for f in map(Path, json.loads(run.stdout)): z.write(f, f.relative_to(ROOT))


def main():
    out = Path(sys.argv[1] if len(sys.argv)>1 else ROOT/'_docs')/'_static'/'live'
    out.mkdir(parents=True, exist_ok=True)
    try: runtime(out)
    except (OSError, subprocess.CalledProcessError): return print('npm is not at hand: the live explorer is left out')
    package(out)
    print(f'live explorer: {sum(f.stat().st_size for f in out.rglob("*") if f.is_file())/1e6:.1f} MB')


if __name__=='__main__': main()
