"""Build the documentation site, README.md and the map of the notebooks from the notebooks.

    python docs/build.py            # README.md, nbs/README.md and the site in _docs/
    python docs/build.py --readme   # the two README.md alone

Each committed notebook becomes a page: hidden cells are left out, every exported symbol gets a reference entry made from its docments, names in backticks link to those entries,
and the source of exported cells is folded. Sphinx (myst-nb, furo) then builds the pages with warnings as errors. No cell is executed: the outputs are the ones committed.
"""
import argparse, ast, json, re, shutil, subprocess, sys, tempfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INI = ConfigParser(delimiters=['='])
INI.read(ROOT/'settings.ini', encoding='utf-8')
REPO, BRANCH = INI['DEFAULT']['git_url'], INI['DEFAULT']['branch']
NBS, SRC, OUT = ROOT/'nbs', ROOT/'docs'/'_src', ROOT/'_docs'
GENERATED = '<!-- Written by docs/build.py from nbs/index.ipynb: edit the notebook. -->\n\n'
DIRECTIVE = re.compile(r'^\s*#\s*\|.*\n?', re.M)


def source(cell):
    "The text of a cell, whichever way it is stored"
    return ''.join(cell['source'])


def markdown(text):
    "A Markdown cell"
    return {'cell_type': 'markdown', 'metadata': {}, 'source': text}


def exported(text):
    "Is this the source of an exported cell?"
    return re.search(r'^\s*#\s*\|\s*exports?\b', text, re.M) is not None


def page_name(path):
    "A notebook's page: its place under nbs/ without the ordering number"
    rel = path.relative_to(NBS)
    return (rel.parent/re.sub(r'^\d+[a-z]?_', '', rel.stem)).as_posix()


def public_names(text):
    "Public functions and classes that a cell defines"
    return [n.name for n in ast.parse(text).body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith('_')]


def cell_text(value):
    "A value inside a Markdown table"
    return re.sub(r'\s+', ' ', str(value)).replace('|', '\\|')


def table(obj):
    "Parameters or fields from docments, as a Markdown table"
    from fastcore.docments import docments
    import inspect
    try: docs = docments(obj, full=True, returns=True)
    except (TypeError, OSError): return ''
    starred = dict(re.findall(r'^\s*\*\*(\w+),\s*# (.*)$', inspect.getsource(obj), re.M))  # docments passes these by
    anno = lambda a: '' if a is None or a is inspect._empty else f'`{cell_text(a if isinstance(a, str) else getattr(a, "__name__", a))}`'
    default = lambda d: '' if d is inspect._empty or str(d).startswith('Field(') else f'`{cell_text(repr(d))[:60]}`'
    rows = [(f'**`{k}`**', anno(d.anno), default(d.default), cell_text(d.docment or starred.get(k) or '')) for k,d in docs.items() if k not in ('return', 'self')]
    if (ret := docs.get('return')) and ret.anno not in (None, inspect._empty) and not inspect.isclass(obj): rows.append(('*returns*', anno(ret.anno), '', cell_text(ret.docment or '')))
    return '\n'.join(['| | type | default | meaning |', '|---|---|---|---|'] + ['| ' + ' | '.join(r) + ' |' for r in rows]) if rows else ''


def reference(module, name):
    "The reference entry of one exported symbol: anchor, docstring, table, public methods"
    import importlib, inspect
    obj = getattr(importlib.import_module('vllm_tuner' if module=='__init__' else f'vllm_tuner.{module}'), name)
    if type(obj).__name__=='Command': obj = obj.run  # the function behind a word of the command line
    methods = [(k, getattr(m, 'fget', None) or getattr(m, '__func__', m)) for k,m in vars(obj).items() if not k.startswith('_') and (callable(m) or isinstance(m, (property, classmethod, staticmethod)))] if inspect.isclass(obj) else []
    listed = [f'- `.{k}` {cell_text(inspect.getdoc(m))}' for k,m in methods if inspect.isfunction(m) and inspect.getdoc(m)]
    return '\n\n'.join(t for t in (f'<span id="{name}"></span>\n\n### `{name}`', inspect.getdoc(obj) or '', table(obj), '\n'.join(listed)) if t)


def quiet(text):
    "A cell whose output alone is of interest: `#| echo: false`"
    return re.search(r'#\s*\|\s*echo:\s*false', text) is not None


def only_imports(text):
    "An exported cell that only imports says nothing to a reader"
    return all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(text).body)


def linked(text, known, here):
    "Names in backticks that the page knows become links to their reference, outside code, headings and the column of a table that names parameters"
    def link(m):
        page = known.get(m[1])
        if page is None: return m[0]
        up = '../'*here.count('/')
        return f'<a href="{"" if page==here else up+page+".html"}#{m[1]}"><code>{m[1]}</code></a>'
    lines, fenced = [], False
    for line in text.split('\n'):
        if line.lstrip().startswith('```'): fenced = not fenced
        lines.append(line if fenced or line.startswith('#') else re.sub(r'(?<![\[`\w*])(?<!^\| )`([A-Za-z_]\w*)`(?![\]`])', link, line))
    return '\n'.join(lines)


def page_links(text):
    "Links from one notebook to another point at its page, links to files of the repository at the repository"
    page = lambda m: f'{m[1]}{m[2]}.ipynb{m[3] or ""}'
    text = re.sub(r'\]\(((?:[A-Z]+|nbs|tools|examples|benchmarks|tests)(?:/[^)\s]*|\.md))\)', lambda m: f']({REPO}/blob/{BRANCH}/{m[1]})', text)
    return re.sub(r'(\]\([^)#\s]*?)(?:\d+[a-z]?_)?([A-Za-z][\w-]*)\.ipynb(#[^)\s]*)?(?=\))', page, text)


def translate(nb, here, known):
    "A committed notebook as myst-nb reads it: hidden cells gone, references before the folded source of exported cells"
    cells, module = [], None
    for cell in nb['cells']:
        text = source(cell)
        if (m := re.search(r'#\s*\|\s*default_exp (\S+)', text)): module = m[1]
        if not text.strip() or re.search(r'^\s*#\s*\|\s*(hide|default_exp)\b', text): continue
        if cell['cell_type']=='markdown':
            text = re.sub(r'\A(# [^\n]+)\n+> ([^\n]+)', r'\1\n\n*\2*', text.strip())
            cells.append(markdown(page_links(linked(text, known, here))))
        elif cell['cell_type']=='code':
            if exported(text) and only_imports(text): continue
            names = public_names(text) if exported(text) else []
            if module: cells += [markdown(linked(reference(module, n), known, here)) for n in names]
            alt = re.search(r'#\s*\|\s*fig-alt:\s*(.+)', text)
            if text.startswith('!'): cells.append(markdown(f'```bash\n{text[1:].strip()}\n```'))
            outputs = [richest(dict(o, execution_count=None) if o['output_type']=='execute_result' else o) for o in joined(cell.get('outputs', []))]
            unseen = quiet(text) or text.startswith('!')  # a shell command is shown as one
            meta = {'tags': ['remove-input' if unseen else 'hide-input']} if exported(text) or unseen or here.startswith('accuracy/') else {}
            if alt: meta['mystnb'] = {'image': {'alt': alt[1].strip()}}
            cells.append({'cell_type': 'code', 'metadata': meta, 'execution_count': None, 'source': DIRECTIVE.sub('', text).strip(), 'outputs': outputs})
    cells = [c for c in cells if source(c).strip()]
    for i,c in enumerate(cells): c['id'] = f'cell-{i}'
    return {'cells': cells, 'metadata': {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}, 'mystnb': {'code_prompt_show': 'Show the source', 'code_prompt_hide': 'Hide the source'}}, 'nbformat': 4, 'nbformat_minor': 5}


def richest(out):
    "An output without the Markdown that says the same as its HTML: a page inside a page would need headings of its own"
    data = out.get('data', {})
    return dict(out, data={k:v for k,v in data.items() if k!='text/markdown'}) if 'text/html' in data and 'text/markdown' in data else out


def joined(outputs):
    "Neighbouring pieces of one stream as one piece"
    out = []
    for o in outputs:
        if out and o['output_type']==out[-1]['output_type']=='stream' and o['name']==out[-1]['name']: out[-1] = dict(out[-1], text=''.join(out[-1]['text'])+''.join(o['text']))
        else: out.append(o)
    return out


def notebooks():
    "Every notebook of the site"
    return [p for p in sorted(NBS.rglob('*.ipynb')) if not any(part.startswith(('.', '_')) for part in p.relative_to(NBS).parts)]


def symbol_pages(paths):
    "Exported symbol -> pages that document one of this name"
    found = {}
    for path in paths:
        for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
            if cell['cell_type']=='code' and exported(source(cell)):
                for n in public_names(source(cell)): found.setdefault(n, []).append(page_name(path))
    return found


def imports(nb):
    "Name -> module of ours that a notebook imports it from, anywhere in its code"
    from vllm_tuner import _WHERE
    code = [source(c) for c in nb['cells'] if c['cell_type']=='code' and not re.match(r'\s*[!%]', source(c))]
    nodes = [n for text in code for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom) and (n.module or '').split('.')[0]=='vllm_tuner']
    return {a.name: n.module.partition('.')[2] or _WHERE.get(a.name, '') for n in nodes for a in n.names if a.asname in (None, a.name)}


def meanings(symbols, here='', imported=()):
    "Name -> page, for what a name in backticks means on a page: what it defines, else what it imports, else the only symbol of this name; but a plain word that is neither defined nor imported there is a word"
    word = re.compile(r'[a-z]+')
    known = {n: pages[0] for n,pages in symbols.items() if len(pages)==1 and not word.fullmatch(n)}
    known |= {n: page for n in imported for page in symbols.get(n, ()) if page==imported[n]}
    return known | {n: here for n,pages in symbols.items() if here in pages}


def pages():
    "Write every notebook as a page to `docs/_src`"
    shutil.rmtree(SRC, ignore_errors=True)
    paths = notebooks()
    symbols = symbol_pages(paths)
    for path in paths:
        here = page_name(path)
        (target := SRC/f'{here}.ipynb').parent.mkdir(parents=True, exist_ok=True)
        nb = json.loads(path.read_text(encoding='utf-8'))
        target.write_text(json.dumps(translate(nb, here, meanings(symbols, here, imports(nb)))), encoding='utf-8')
    for extra in sorted((ROOT/'docs'/'pages').rglob('*.md')):
        (target := SRC/extra.relative_to(ROOT/'docs'/'pages')).parent.mkdir(parents=True, exist_ok=True)
        target.write_text(linked(extra.read_text(encoding='utf-8').replace('{{live}}', LIVE), meanings(symbols), target.relative_to(SRC).with_suffix('').as_posix()), encoding='utf-8')
    return [(p.relative_to(NBS), page_name(p)) for p in paths]


LIVE = """<div data-live="memory">
<p>Choose a model, a card and flags; read how vLLM divides the memory, how many tokens the KV cache holds, what vLLM would object to, and the command.</p>
<p><button type="button" class="live-start">Start the explorer</button> <span class="live-status" role="status"></span></p>
</div>"""


def with_explorer():
    "Put the live explorer on the landing page, before its second section"
    index = SRC/'index.ipynb'
    nb = json.loads(index.read_text(encoding='utf-8'))
    heads = [i for i,c in enumerate(nb['cells']) if c['cell_type']=='markdown' and re.search(r'^## ', source(c), re.M)]
    at = heads[1] if len(heads)>1 else len(nb['cells'])
    nb['cells'].insert(at, dict(markdown('## Turn the knobs\n\nThe ledger, computed in this page by the package itself: Python as WebAssembly, no server behind it. [More explorers](live.md).\n\n'+LIVE), id='live'))
    index.write_text(json.dumps(nb), encoding='utf-8')


PARTS = (('Ground', '0'), ('The model, the card, the engine', '1'), ('How vLLM spends your GPU', '2'), ('How fast it serves', '3'), ('What to do', '4'), ('Against reality, and out of the door', '5'), ('Doors', '6'))


def contents(found):
    "Append the table of contents, by the hundreds of the notebooks' numbers, to the index"
    index = SRC/'index.ipynb'
    nb = json.loads(index.read_text(encoding='utf-8'))
    tree = lambda caption,names: markdown('```{toctree}\n:hidden:\n:caption: ' + caption + '\n\n' + '\n'.join(names) + '\n```')
    extra = sorted(p.relative_to(SRC).with_suffix('').as_posix() for p in SRC.glob('**/*.md'))
    guides = ('live','how_vllm_spends_your_gpu')
    first = ('tutorials/quick_start', 'tutorials/gallery')
    lessons = sorted((n for r,n in found if r.parts[0] in ('tutorials','howto')), key=lambda n: (first.index(n) if n in first else len(first), n.startswith('howto'), n))
    groups = [('Guides', [n for n in guides if n in extra] + lessons + [n for n in extra if '/' in n]), ('Accuracy', [n for r,n in found if r.parts[0]=='accuracy'])]
    groups += [(title, [n for r,n in found if len(r.parts)==1 and r.name[:1] in digits]) for title,digits in PARTS]
    groups += [('Reference', [n for n in extra if '/' not in n and n not in guides])]
    nb['cells'] += [dict(tree(t,n), id=f'toc-{i}') for i,(t,n) in enumerate(groups) if n]
    index.write_text(json.dumps(nb), encoding='utf-8')


def assets():
    "MathJax from npm, so that the site needs no other server"
    if (OUT_MATH := ROOT/'docs'/'_static'/'mathjax'/'tex-svg.js').exists(): return
    with tempfile.TemporaryDirectory() as tmp:
        try: subprocess.run(['npm', 'pack', '--silent', 'mathjax@3.2.2'], cwd=tmp, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError): return print('npm is not at hand: formulas stay as TeX')
        subprocess.run(['tar', 'xzf', next(Path(tmp).glob('*.tgz')).name, 'package/es5/tex-svg.js'], cwd=tmp, check=True)
        OUT_MATH.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(tmp)/'package/es5/tex-svg.js', OUT_MATH)


def readme():
    "README.md: the index notebook with its outputs as text"
    parts,shown = [GENERATED.rstrip()],0
    (figures := ROOT/'docs'/'_static'/'readme').mkdir(parents=True, exist_ok=True)
    for cell in json.loads((NBS/'index.ipynb').read_text(encoding='utf-8'))['cells']:
        text = source(cell)
        if re.search(r'#\s*\|\s*(hide|include:\s*false)', text): continue
        if cell['cell_type']=='markdown': parts.append(re.sub(r'\]\(((?:tutorials|howto|accuracy)/)', r'](nbs/\1', text.strip())); continue
        if cell['cell_type']!='code' or not text.strip(): continue
        shell = text.lstrip().startswith(('!','%%'))
        if not quiet(text): parts.append(f"```{'bash' if shell else 'python'}\n{DIRECTIVE.sub('', text).strip().lstrip('!') if shell else DIRECTIVE.sub('', text).strip()}\n```")
        for out in joined(cell['outputs']):
            data = out.get('data', {})
            if 'image/png' in data:
                import base64
                shown += 1
                png = figures/f'figure-{shown}.png'
                png.write_bytes(base64.b64decode(''.join(data['image/png'])))
                alt = re.search(r'#\s*\|\s*fig-alt:\s*(.+)', text)
                parts.append(f"![{alt[1].strip() if alt else 'figure'}](docs/_static/readme/{png.name})")
            elif 'text/markdown' in data: parts.append(''.join(data['text/markdown']).strip())
            elif 'text/plain' in data or 'text' in out:
                plain = ''.join(data.get('text/plain', out.get('text', '')))
                parts.append('\n'.join(('    '+line).rstrip() for line in re.sub(r'\x1b\[[0-9;]*m', '', plain).rstrip().splitlines()))
    (ROOT/'README.md').write_text('\n\n'.join(parts)+'\n', encoding='utf-8')


FLOORS = """# The house

One notebook is one concept and one module of `vllm_tuner`. A number says where it stands: hundreds are floors, and a notebook imports only from lower numbers. Start with [the index](index.ipynb).
"""


def title(path):
    "Title and one-line summary of a notebook"
    first = next(source(c) for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type']=='markdown')
    return re.match(r'# ([^\n]+)\n+> ([^\n]+)', first).groups()


def house():
    "nbs/README.md: every notebook with its line, floor by floor"
    line = lambda p: '- [{}]({}) {}: {}'.format(p.stem, p.relative_to(NBS).as_posix(), *title(p))
    aside = lambda d: [p for p in notebooks() if p.relative_to(NBS).parts[0]==d]
    parts = [(caption, [p for p in sorted(NBS.glob('[0-9]*.ipynb')) if p.name[0] in digits]) for caption,digits in PARTS]
    parts += [('Scoreboards', aside('accuracy')), ('Guides', aside('tutorials')+aside('howto'))]
    (NBS/'README.md').write_text(GENERATED.replace('nbs/index.ipynb: edit the notebook', 'the titles of the notebooks').strip()+'\n\n'+FLOORS+''.join(f'\n## {c}\n\n'+'\n'.join(map(line, ps))+'\n' for c,ps in parts), encoding='utf-8')


def links():
    "Every link inside the site must arrive"
    broken = []
    pages = {p: p.read_text(encoding='utf-8') for p in OUT.rglob('*.html')}
    ids = {p: set(re.findall(r'\bid="([^"]+)"', text)) for p,text in pages.items()}
    for page,text in pages.items():
        for href in re.findall(r'href="([^"]+)"', text):
            if re.match(r'[a-z]+:|//', href) or href in ('#', ''): continue
            path,_,anchor = href.partition('#')
            target = (page.parent/path.split('?')[0]).resolve() if path else page
            if target.is_dir(): target = target/'index.html'
            if not target.exists(): broken.append(f'{page.relative_to(OUT)}: {href}')
            elif anchor and target in ids and anchor not in ids[target]: broken.append(f'{page.relative_to(OUT)}: {href}')
    if broken: sys.exit(f'{len(broken)} broken links:\n' + '\n'.join(sorted(set(broken))[:40]))


def tables():
    "No table may stand there as text"
    raw = [str(p.relative_to(OUT)) for p in OUT.rglob('*.html') if re.search(r'<p>\|.*\|', p.read_text(encoding='utf-8'))]
    if raw: sys.exit(f'tables that did not become tables, on {", ".join(sorted(raw))}')


def accessible():
    "What Sphinx leaves out for readers without a mouse or a screen: levels of captions, scrollable code that takes the focus"
    for page in OUT.rglob('*.html'):
        text = page.read_text(encoding='utf-8')
        text = text.replace('class="caption" role="heading"', 'class="caption" role="heading" aria-level="2"')
        text = text.replace('<summary aria-label="Toggle hidden content">', '<summary>')
        text = re.sub(r'<pre(?![^>]*tabindex)', '<pre tabindex="0"', text)
        text = re.sub(r'<div class="(table-wrapper[^"]*|cell_output[^"]*|output [^"]*)"(?![^>]*tabindex)', r'<div class="\1" tabindex="0"', text)
        page.write_text(text, encoding='utf-8')


def main():
    ask = argparse.ArgumentParser(description='Build README.md, the map of the notebooks and the site')
    ask.add_argument('--readme', action='store_true', help='the two README.md alone')
    only = ask.parse_args().readme
    readme()
    house()
    if only: return
    assets()
    found = pages()
    with_explorer()
    contents(found)
    shutil.rmtree(OUT, ignore_errors=True)
    subprocess.run([sys.executable, '-m', 'sphinx', '-b', 'html', '-W', '--keep-going', '-q', '-c', str(ROOT/'docs'), str(SRC), str(OUT)], check=True)
    if (ROOT/'docs'/'live'/'build.py').exists(): subprocess.run([sys.executable, str(ROOT/'docs'/'live'/'build.py'), str(OUT)], check=True)
    accessible()
    tables()
    links()
    print(f'{len(list(OUT.rglob("*.html")))} pages in {OUT.name}/, every internal link checked')


if __name__=='__main__': main()
