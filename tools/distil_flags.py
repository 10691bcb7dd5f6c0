"""Which command-line flags each release of vLLM knows, and what its model classes can do: read from the sources of the wheels, written as facts.

    python tools/distil_flags.py FOLDER_WITH_UNPACKED_WHEELS vllm_tuner/data/vllm_flags.json

The folder holds one directory per release (`0.33.0/vllm/...`). Nothing is imported: the files are only parsed. A flag's kind is 'b' (a switch),
'l' (takes several values) or 'v' (takes one); beside it stands one bit per release, oldest first. A model class is listed when it lacks
pipeline parallelism or LoRA, by the interfaces that it or its bases implement.
"""
from __future__ import annotations
import ast, json, re, sys
from pathlib import Path


def members(note:ast.AST)->list[str]:
    "Names of the types that an annotation allows: `str | list[str] | None` is str, list, None"
    if isinstance(note, ast.Constant) and isinstance(note.value, str): return members(ast.parse(note.value, mode='eval').body)
    if isinstance(note, ast.BinOp): return members(note.left)+members(note.right)
    if isinstance(note, ast.Subscript):
        name,inner = ast.unparse(note.value).split('.')[-1],note.slice.elts if isinstance(note.slice, ast.Tuple) else [note.slice]
        return [m for x in inner for m in members(x)] if name in ('Optional','Union') else members(inner[0]) if name in ('Annotated','InitVar') else [name.lower()]
    return [ast.unparse(note).split('.')[-1]]


def kind_of(note:ast.AST)->str:
    "What vLLM's parser makes of a field, in the order in which it asks (`_compute_kwargs` of engine/arg_utils.py): a switch, a choice, several values, one value"
    found = members(note)
    return 'b' if 'bool' in found else 'v' if 'literal' in found else 'l' if {'list','tuple','set'} & set(found) else 'v'


def fields_of(tree:ast.AST)->dict[str,str]:
    "Annotated class fields: name -> kind"
    out = {}
    for cls in (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)):
        for f in (f for f in cls.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)):
            out.setdefault(f.target.id, kind_of(f.annotation))
    return out


def explicit(tree:ast.AST)->dict[str,str|None]:
    "Flags that appear in an `add_argument` call: flag -> kind where the call itself says it"
    out = {}
    for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func,'attr','')=='add_argument'):
        action = next((ast.unparse(k.value) for k in call.keywords if k.arg=='action'), '')
        nargs = any(k.arg=='nargs' for k in call.keywords)
        for a in call.args:
            if isinstance(a, ast.Constant) and str(a.value).startswith('-'):
                out[a.value] = 'b' if 'store_' in action or 'Boolean' in action else 'l' if nargs else None
    return out


def flags_of(root:Path)->dict[str,str]:
    "Every flag of `vllm serve` in one release"
    trees = [ast.parse(p.read_text(encoding='utf-8')) for d in ('config','engine') for p in sorted((root/d).rglob('*.py'))] if (root/'config').is_dir() else [
        ast.parse((root/'config.py').read_text(encoding='utf-8'))]
    trees += [ast.parse(p.read_text(encoding='utf-8')) for p in sorted((root/'engine').glob('*.py'))]
    front = [p for p in sorted((root/'entrypoints').rglob('*.py')) if 'add_argument' in (t:=p.read_text(encoding='utf-8')) or 'FrontendArgs' in t]
    front_trees = [ast.parse(p.read_text(encoding='utf-8')) for p in front if 'cli/benchmark' not in str(p) and 'run_batch' not in str(p)]
    kinds = {}
    for t in trees+front_trees: kinds = {**fields_of(t), **kinds}
    out = {}
    for t in trees+front_trees:
        for f,k in explicit(t).items(): out[f] = k or out.get(f) or kinds.get(f.lstrip('-').replace('-','_'), 'v')
        for cls in (n for n in ast.walk(t) if isinstance(n, ast.ClassDef) and n.name.endswith('FrontendArgs')):
            for name,k in fields_of(ast.Module([cls],[])).items(): out.setdefault('--'+name.replace('_','-'), k)
    return {f:k for f,k in out.items() if re.fullmatch(r'--?[a-z][a-z0-9-]*', f)}


def classes_of(root:Path)->dict[str,tuple[str,...]]:
    "Model classes: name -> names of all their bases, over files"
    direct = {}
    for p in [*sorted((root/'models').rglob('nvidia/*.py')), *sorted((root/'model_executor'/'models').rglob('*.py')), *sorted((root/'models').rglob('*.py'))]:
        for c in ast.parse(p.read_text(encoding='utf-8')).body:
            if isinstance(c, ast.ClassDef) and p.name!='config.py': direct.setdefault(c.name, [ast.unparse(b).split('[')[0].split('.')[-1] for b in c.bases])
    def up(name, seen=()):
        return [b for base in direct.get(name,[]) if base not in seen for b in [base,*up(base,(*seen,name))]]
    return {n: tuple(up(n)) for n in direct}


def architectures(root:Path)->dict[str,str]:
    "Registered architectures: name -> class"
    src = (root/'model_executor'/'models'/'registry.py').read_text(encoding='utf-8')
    return {m[1]:m[2] for m in re.finditer(r'"(\w+)":\s*\(\s*"[\w.]+",\s*"(\w+)"', src)}


def unreplicated(root:Path)->list[str]:
    "Architectures whose class divides its KV heads among the ranks and never copies them"
    src = (root/'model_executor'/'models'/'registry.py').read_text(encoding='utf-8')
    bare = re.compile(r'(?m)^\s*self\.\w*(?:key_value|kv)_heads = [\w.]*num_\w*(?:key_value|kv)_heads // (?:self\.)?tp_size$')
    homes = {m[1]:m[2] for m in re.finditer(r'"(\w+)":\s*\(\s*"([\w.]+)",', src)}
    path = lambda m: root.parent/(m.replace('.','/')+'.py') if m.startswith('vllm.') else root/'model_executor'/'models'/(m.replace('.','/')+'.py')
    return sorted(a for a,m in homes.items() if path(m).is_file() and bare.search(path(m).read_text(encoding='utf-8')))


def uncached(root:Path)->list[str]:
    "Architectures whose class never tells its attention layers the cache's settings: they keep the model's type whatever `--kv-cache-dtype` says"
    out = set()
    for p in (root/'model_executor'/'models').glob('*.py'):
        calls = [n for n in ast.walk(ast.parse(p.read_text(encoding='utf-8'))) if isinstance(n, ast.Call) and getattr(n.func,'id','')=='Attention']
        given = [{k.arg for k in n.keywords} for n in calls if len(n.args)<6]
        if any('num_kv_heads' in g and 'cache_config' not in g and None not in g for g in given): out.add(p.stem)
    src = (root/'model_executor'/'models'/'registry.py').read_text(encoding='utf-8')
    return sorted(m[1] for m in re.finditer(r'"(\w+)":\s*\(\s*"([\w.]+)",', src) if m[2] in out)


def retired(root:Path)->dict[str,str]:
    "Architectures that left vLLM: name -> last release with them"
    src = (root/'model_executor'/'models'/'registry.py').read_text(encoding='utf-8')
    table = re.search(r'_PREVIOUSLY_SUPPORTED_MODELS = \{(.*?)\n\}', src, re.S)
    return dict(re.findall(r'"(\w+)":\s*"([\d.]+)"', table[1])) if table else {}


def in_transformers(names:list[str])->list[str]:
    "Those that the Transformers library can run inside vLLM all the same"
    import transformers
    classes = {n: getattr(transformers, n, None) for n in names}
    return sorted(n for n,c in classes.items() if c is not None and hasattr(c,'is_backend_compatible') and c.is_backend_compatible())


def literals(path:Path, name:str)->list[str]:
    "The strings of a `Literal[...]` or a list that a module binds to a name, nested literals included"
    if not path.exists(): return []
    for n in ast.parse(path.read_text(encoding='utf-8')).body:
        target = n.targets[0] if isinstance(n, ast.Assign) else n.target if isinstance(n, ast.AnnAssign) else None
        if target is not None and getattr(target,'id','')==name: return [c.value for c in ast.walk(n.value) if isinstance(c, ast.Constant) and isinstance(c.value,str)]
    return []


def cache_dtypes(root:Path)->list[str]:
    "What `--kv-cache-dtype` accepts"
    found = literals(root/'config'/'cache.py', 'CacheDType')
    if found: return found
    src = (root/'engine'/'arg_utils.py').read_text(encoding='utf-8') + (root/'config.py').read_text(encoding='utf-8')
    return ['auto', *sorted(set(re.findall(r"'(fp8\w*)'|\"(fp8\w*)\"", src) and {a or b for a,b in re.findall(r"'(fp8\w*)'|\"(fp8\w*)\"", src)} & {'fp8','fp8_e4m3','fp8_e5m2'}))]


def quantizations(root:Path)->dict[str,list]:
    "Quantisation methods: name -> [least compute capability or null, activation dtypes]"
    folder = root/'model_executor'/'layers'/'quantization'
    gates = {}
    for p in sorted(folder.rglob('*.py')):
        for c in ast.parse(p.read_text(encoding='utf-8')).body:
            if not isinstance(c, ast.ClassDef): continue
            said = {m.name: m.body[-1].value for m in c.body if isinstance(m, ast.FunctionDef) and isinstance(m.body[-1], ast.Return)}
            name = said.get('get_name')
            if isinstance(name, ast.Constant):
                cap,dts = said.get('get_min_capability'),said.get('get_supported_act_dtypes')
                gates[name.value] = [cap.value if isinstance(cap, ast.Constant) else None, sorted({'half':'float16'}.get(d,d) for d in re.findall(r'torch\.(\w+)', ast.unparse(dts)))] if dts is not None else [None,[]]
    same = {'awq':'auto_awq','awq_marlin':'auto_awq','gptq':'auto_gptq','gptq_marlin':'auto_gptq','gpt_oss_mxfp4':'mxfp4'}
    names = literals(folder/'__init__.py', 'QuantizationMethods') or literals(folder/'__init__.py', 'QUANTIZATION_METHODS')
    return {n: gates.get(n) or gates.get(same.get(n,''), [None,[]]) for n in names}


def main(folder:str, out:str):
    key = lambda p: tuple(int(x) for x in p.name.split('.'))
    roots = sorted((p for p in Path(folder).iterdir() if re.fullmatch(r'\d+\.\d+\.\d+', p.name)), key=key)
    per = [flags_of(r/'vllm') for r in roots]
    names = sorted({f for p in per for f in p})
    flags = {f: [next(p[f] for p in reversed(per) if f in p), sum(1<<i for i,p in enumerate(per) if f in p)] for f in names}
    newest = roots[-1]/'vllm'
    classes,archs = classes_of(newest),architectures(newest)
    era = [set(architectures(r/'vllm')) for r in roots]
    gone = retired(newest)
    known = {a:classes[c] for a,c in archs.items() if classes.get(c)}  # a class made at run time is not judged
    doc = {'source': 'read from the Python sources of the vLLM wheels named in `releases` by tools/distil_flags.py',
           'releases': [r.name for r in roots], 'flags': flags, 'architectures': {a: sum(1<<i for i,e in enumerate(era) if a in e) for a in sorted(set().union(*era))},
           'retired': gone, 'no_kv_copies': unreplicated(newest), 'no_cache_config': uncached(newest), 'retired_in_transformers': in_transformers(list(gone)),
           'deprecated_quantization': literals(newest/'model_executor'/'layers'/'quantization'/'__init__.py', 'DEPRECATED_QUANTIZATION_METHODS'),
           'kv_cache_dtypes': {r.name: cache_dtypes(r/'vllm') for r in roots}, 'quantization': {r.name: quantizations(r/'vllm') for r in roots},
           'no_pipeline': sorted(a for a,b in known.items() if 'SupportsPP' not in b), 'no_lora': sorted(a for a,b in known.items() if 'SupportsLoRA' not in b)}
    text = '{\n' + ',\n'.join(f' {json.dumps(k)}: {json.dumps(v, separators=(",",":"))}' for k,v in doc.items()) + '\n}\n'
    Path(out).write_text(text, encoding='utf-8')
    print(len(names), 'flags,', len(known), 'architectures,', len(doc['no_pipeline']), 'without pipeline parallelism,', len(doc['no_lora']), 'without LoRA,', len(text), 'bytes')


if __name__=='__main__': main(*sys.argv[1:])
