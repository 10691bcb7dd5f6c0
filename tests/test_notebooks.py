"The house keeps its order: notebooks import only lower numbers, and read as a literate package should"
import ast, json, re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NBS = ROOT/'nbs'
NUMBERED = sorted(NBS.glob('[0-9]*.ipynb'))
EVERY = [p for p in sorted(NBS.rglob('*.ipynb')) if '.ipynb_checkpoints' not in p.parts]


def cells(path, kind):
    "Sources of the cells of one kind"
    return [''.join(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type']==kind]


def module(path):
    "The module a notebook exports to, or nothing"
    m = re.search(r'#\s*\|\s*default_exp (\S+)', '\n'.join(cells(path, 'code')))
    return m[1] if m else None


def backward_imports(paths):
    "Top-level imports that point at the same or a later notebook"
    rank = {module(p): i for i,p in enumerate(paths)}
    return [(p.name, name) for i,p in enumerate(paths) if module(p)!='__init__' for src in cells(p, 'code')
            for name in re.findall(r'^from vllm_tuner\.(\w+) import', src, re.M) if rank.get(name, -1)>=i]


def test_imports_point_down(): assert backward_imports(NUMBERED)==[]


def test_a_planted_back_import_is_found(tmp_path):
    write = lambda name,*src: (tmp_path/name).write_text(json.dumps({'cells': [{'cell_type': 'code', 'source': s} for s in src]}))
    write('000_low.ipynb', '#| default_exp low', 'from vllm_tuner.high import x')
    write('010_high.ipynb', '#| default_exp high')
    assert backward_imports(sorted(tmp_path.glob('*.ipynb')))==[('000_low.ipynb', 'high')]


@pytest.mark.parametrize('path', EVERY, ids=lambda p: p.relative_to(NBS).as_posix())
def test_reads_as_a_page(path):
    "A title with a one-line summary, sections, and no star import from our own modules"
    prose, code = cells(path, 'markdown'), '\n'.join(cells(path, 'code'))
    title = next((t for t in prose if t.startswith('# ')), '')
    assert re.match(r'# [^\n]+\n+> [^\n]+', title), 'the first Markdown cell is "# Title", then "> summary"'
    assert any(re.search(r'^## ', t, re.M) for t in prose), 'it has sections'
    assert not re.search(r'^from vllm_tuner\S* import \*', code, re.M)


@pytest.mark.parametrize('path', NUMBERED, ids=lambda p: p.name)
def test_module_stays_readable(path):
    "Functions and exported cells stay short, and exported code depends on no development tool"
    exported = [s for s in cells(path, 'code') if re.search(r'#\s*\|\s*exports?\b', s)]
    functions = [n for s in exported for n in ast.walk(ast.parse(s)) if isinstance(n, ast.FunctionDef)]
    assert not [s for s in exported if re.search(r'^\s*(from|import) (nbdev|fastcore)', s, re.M)]
    assert not [n.name for n in functions if n.end_lineno-n.lineno>45]
    assert not [s.splitlines()[1] for s in exported if s.count('\n')>110]
