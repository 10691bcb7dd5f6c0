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


LINK = re.compile(r'\[([^\]\n]+)\]\(([^)\s#]+)(?:#[^)\s]*)?\)')   # [label](target), without the anchor
NAME = re.compile(r'\b\d{2,3}[a-z]?_[a-z][a-z_]+\b')                  # what looks like the name of a notebook


def stale(page, folder, prose):
    "Links of a page that lead nowhere, numbers in labels that are not the target's, and names of notebooks that are not there"
    links = [(label,target) for label,target in LINK.findall(prose) if not target.startswith(('http','mailto:'))]
    lost = [target for _,target in links if not (folder/target).exists()]
    wrong = [label for label,target in links if re.match(r'\d', label) and target.endswith('.ipynb') and label not in (Path(target).stem, Path(target).stem[:3])]
    unknown = [name for name in NAME.findall(prose) if not list(NBS.glob(name+'.ipynb'))]
    return [f'{page}: {what}' for what in lost+wrong+unknown]


PROSE = {p: '\n'.join(cells(p, 'markdown')) for p in EVERY if p!=NBS/'index.ipynb'} | {p: p.read_text(encoding='utf-8') for p in (ROOT/'README.md', ROOT/'CONTRIBUTING.md', ROOT/'CHANGELOG.md', NBS/'README.md')}  # README.md is written from the index


@pytest.mark.parametrize('path', EVERY, ids=lambda p: p.relative_to(NBS).as_posix())
def test_no_state_of_widgets_is_kept(path):
    "What sliders held is a quarter of a megabyte that nobody reads; the pages show their HTML"
    assert 'widgets' not in json.loads(path.read_text(encoding='utf-8'))['metadata']


@pytest.mark.parametrize('path', PROSE, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    assert stale(path.name, path.parent, PROSE[path])==[]


def test_a_planted_stale_link_is_found():
    page = 'The passes ([23a](230_passes.ipynb), [230](230_passes.ipynb)), [a page](nowhere.md), and the rules of `12_rules`.'
    assert stale('page', NBS, page)==['page: nowhere.md', 'page: 23a', 'page: 12_rules']


def test_the_change_log_says_each_thing_once():
    for section in (ROOT/'CHANGELOG.md').read_text(encoding='utf-8').split('\n## ')[1:]:
        heads = re.findall(r'^- \*\*(.+?)\*\*', section, re.M)
        assert heads and len(heads)==len(set(heads)), heads


@pytest.mark.parametrize('path', EVERY, ids=lambda p: p.relative_to(NBS).as_posix())
def test_reads_as_a_page(path):
    "A title with a one-line summary, sections, and no star import from our own modules"
    prose, code = cells(path, 'markdown'), '\n'.join(cells(path, 'code'))
    title = next((t for t in prose if t.startswith('# ')), '')
    assert re.match(r'# [^\n]+\n+> [^\n]+', title), 'the first Markdown cell is "# Title", then "> summary"'
    assert any(re.search(r'^## ', t, re.M) for t in prose), 'it has sections'
    assert not re.search(r'^from vllm_tuner\S* import \*', code, re.M)
    assert not [s for s in cells(path, 'code') if re.fullmatch(r'\s*(#\s*\|\s*(exports?|hide)\s*)?', s)], 'no cell is empty'


@pytest.mark.parametrize('path', NUMBERED, ids=lambda p: p.name)
def test_module_stays_readable(path):
    "Functions and exported cells stay short, and exported code depends on no development tool"
    exported = [s for s in cells(path, 'code') if re.search(r'#\s*\|\s*exports?\b', s)]
    functions = [n for s in exported for n in ast.walk(ast.parse(s)) if isinstance(n, ast.FunctionDef)]
    assert not [s for s in exported if re.search(r'^\s*(from|import) (nbdev|fastcore)', s, re.M)]
    assert not [n.name for n in functions if n.end_lineno-n.lineno>45]
    assert not [s.splitlines()[1] for s in exported if s.count('\n')>110]
