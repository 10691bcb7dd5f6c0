"""Make the CUDA libraries that vLLM's compiled extensions want to find, so that they load on a machine without a GPU.

The extensions bind lazily: a missing library or symbol matters at load time, never at call time, because the oracle calls no kernel.
libcudart is real (it needs no driver); the others are built here from the list of symbols the extensions leave undefined.
Symbols whose name starts with `cu` answer 100 (CUDA_ERROR_NO_DEVICE); everything else aborts if it is ever called.
"""
import argparse, subprocess
from pathlib import Path

STUBS = ('libtorch_cuda.so', 'libc10_cuda.so', 'libcuda.so.1', 'libnvrtc.so.13')   # all symbols live in the first

def _symbols(lib, which):
    "Dynamic symbols of `lib`, `which` is defined or undefined."
    out = subprocess.run(['nm', '-D', f'--{which}-only', str(lib)], capture_output=True, text=True).stdout
    rows = [o.split() for o in out.splitlines()]
    return {r[-1].split('@')[0]: r[-2] for r in rows if len(r) >= 2}

def _provided(torch_lib, cudart):
    "What torch's CPU libraries, libcudart and the system already define."
    libs = [*Path(torch_lib).glob('lib*.so*'), Path(cudart)]
    for name in ('libc.so.6', 'libm.so.6', 'libstdc++.so.6', 'libgcc_s.so.1'):
        path = subprocess.run(['gcc', f'-print-file-name={name}'], capture_output=True, text=True).stdout.strip()
        libs.append(Path(path))
    return {s for lib in libs if lib.exists() for s in _symbols(lib, 'defined')}

def missing_symbols(extensions, torch_lib, cudart):
    "Undefined symbols of `extensions` that nothing provides; the interpreter's own (Py*) are left out."
    have, need = _provided(torch_lib, cudart), set()
    for ext in extensions:
        need |= {s for s, kind in _symbols(ext, 'undefined').items() if kind not in 'wv'}
    return sorted(s for s in need - have if not s.startswith(('Py', '_Py', '_ITM_', '__')))

def write_stubs(symbols, out):
    "Compile the stub libraries into `out`."
    out = Path(out); out.mkdir(parents=True, exist_ok=True)
    body = ['#include <stdlib.h>']
    for s in symbols:
        body.append(f'int {s}() {{ return 100; }}' if s.startswith('cu') else f'void {s}() {{ abort(); }}')
    src, empty = out/'stubs.c', out/'empty.c'
    src.write_text('\n'.join(body) + '\n'); empty.write_text('')
    for name in STUBS:
        code = src if name == STUBS[0] else empty
        subprocess.run(['gcc', '-shared', '-fPIC', '-w', f'-Wl,-soname,{name}', '-o', str(out/name), str(code)], check=True)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--trees', nargs='+', required=True, help='unpacked wheels (vllm, torchvision) whose *.so files must load')
    p.add_argument('--torch-lib', required=True, help='the lib folder of the installed CPU torch')
    p.add_argument('--cudart', required=True, help='path of a real libcudart.so.13')
    p.add_argument('--out', required=True)
    a = p.parse_args()
    exts = [f for t in a.trees for f in Path(t).rglob('*.so') if '.libs' not in str(f) and f.name != 'image.so']
    syms = missing_symbols(exts, a.torch_lib, a.cudart)
    write_stubs(syms, a.out)
    print(f'{len(exts)} extensions, {len(syms)} stub symbols -> {a.out}')

if __name__ == '__main__': main()
