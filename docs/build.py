"""Build the documentation site and README.md from the notebooks.

    python docs/build.py            # README.md and the site in _docs/
    python docs/build.py --readme   # README.md alone

nbdev's own processors render the notebooks (documentation of exported symbols from their docments, links between symbols), this script translates what they leave for
Quarto into what Sphinx understands, and Sphinx (myst-nb, furo) builds the pages with warnings as errors. Nothing is executed: the outputs are the ones committed with the notebooks.
"""
import argparse, json, os, re, shutil, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS, SRC, OUT = ROOT/'nbs', ROOT/'docs'/'_src', ROOT/'_docs'
GENERATED = '<!-- Written by docs/build.py from nbs/index.ipynb: edit the notebook. -->\n\n'
DIRECTIVE = re.compile(r'^\s*#\s*\|.*\n?', re.M)


def source(cell):
    "The text of a cell, whichever way it is stored"
    return ''.join(cell['source'])


def processed():
    "Run nbdev's processors; the result lies in `_proc/`"
    from nbdev.serve import proc_nbs
    shutil.rmtree(ROOT/'_proc', ignore_errors=True)
    os.chdir(ROOT)
    proc_nbs(str(NBS), n_workers=2, force=True)
    return ROOT/'_proc'


def plain_links(text):
    "Quarto's link attributes away, published addresses back to pages of this site"
    text = re.sub(r'(\]\([^)\s]+\))\{[^}]*\}', r'\1', text)
    text = re.sub(r'https?://[^/\s)"]+/vllm_tuner/([\w/]+)\.html', r'\1.html', text)
    return re.sub(r'\[`([^`\]]+)`\]\(([\w./-]+\.html(?:#[\w.-]+)?)\)', r'<a href="\2"><code>\1</code></a>', text)


def markdown(text):
    return {'cell_type': 'markdown', 'metadata': {}, 'source': text}


def output_text(cell):
    "What a `show_doc` cell displays, as Markdown"
    texts = [''.join(o.get('data', {}).get('text/markdown', o.get('text', ''))) for o in cell.get('outputs', [])]
    return '\n\n'.join(t for t in texts if t)


def anchors(text):
    "An anchor before each documented symbol, so that links to it arrive"
    text = re.sub(r'^(#{2,4}) ?(?:<[^>]*>)*([\w.]+)\s*\{#([\w.]+)[^}]*\}\s*$', r'<span id="\3"></span>\n\n\1 `\2`', text, flags=re.M)
    return re.sub(r'^(#{2,4}) ([\w.]+)$', r'<span id="\2"></span>\n\n\1 `\2`', text, flags=re.M)


def translate(nb, depth):
    "One processed notebook as myst-nb reads it"
    cells = []
    for cell in nb['cells']:
        text = source(cell)
        if cell['cell_type']=='raw':
            import yaml
            front = yaml.safe_load(text.strip().strip('-')) if text.strip().startswith('---') else {}
            cells.append(markdown(f"# {front.get('title','')}\n\n*{front.get('description','')}*" if front.get('title') else ''))
            continue
        if cell['cell_type']=='markdown':
            cells.append(markdown(anchors(plain_links(text))))
            continue
        if 'show_doc(' in text:
            cells.append(markdown(anchors(plain_links(output_text(cell)))))
            continue
        hidden = 'echo: false' in text or 'code-fold: true' in text
        cell = {'cell_type': 'code', 'metadata': {'tags': ['hide-input']} if hidden else {}, 'execution_count': None, 'source': DIRECTIVE.sub('', text), 'outputs': cell.get('outputs', [])}
        for out in cell['outputs']: out.pop('execution_count', None) if out.get('output_type')!='execute_result' else out.update(execution_count=None)
        cells.append(cell)
    cells = [c for c in cells if source(c).strip()]
    for i,c in enumerate(cells): c['id'] = f'cell-{i}'
    return {'cells': cells, 'metadata': {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}}, 'nbformat': 4, 'nbformat_minor': 5}


def pages():
    "Write every processed notebook to `docs/_src` with the tables of contents"
    proc = processed()
    shutil.rmtree(SRC, ignore_errors=True)
    SRC.mkdir(parents=True)
    found = []
    for path in sorted(proc.rglob('*.ipynb')):
        rel = path.relative_to(proc)
        name = Path(str(rel.with_suffix('')).replace(rel.stem, re.sub(r'^\d+[a-z]?_', '', rel.stem)))
        target = (SRC/name).with_suffix('.ipynb')
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(translate(json.loads(path.read_text(encoding='utf-8')), len(rel.parts)-1)), encoding='utf-8')
        found.append((rel, name.as_posix()))
    for extra in sorted((ROOT/'docs'/'pages').glob('**/*.md')) if (ROOT/'docs'/'pages').exists() else []:
        target = SRC/extra.relative_to(ROOT/'docs'/'pages')
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(extra, target)
    return found


PARTS = (('The model, the card, the engine', '01'), ('How vLLM spends your GPU', '2'), ('How fast it serves', '3'), ('What to do', '4'), ('Against reality, and out of the door', '5'), ('Doors', '69'))


def contents(found):
    "Append the table of contents, by the tens of the notebooks' numbers, to the index"
    index = SRC/'index.ipynb'
    nb = json.loads(index.read_text(encoding='utf-8'))
    tree = lambda caption,names: markdown('```{toctree}\n:hidden:\n:caption: ' + caption + '\n\n' + '\n'.join(names) + '\n```')
    extra = sorted(p.relative_to(SRC).with_suffix('').as_posix() for p in SRC.glob('**/*.md'))
    groups = [('Guides', [n for r,n in found if r.parts[0]=='tutorials'] + [n for n in extra if '/' in n]), ('Accuracy', [n for r,n in found if r.parts[0]=='accuracy'])]
    groups += [(title, [n for r,n in found if len(r.parts)==1 and r.name[:1] in digits and r.name!='99_init.ipynb']) for title,digits in PARTS]
    groups += [('Reference', [n for n in extra if '/' not in n] + [n for r,n in found if r.name=='99_init.ipynb'])]
    nb['cells'] += [dict(tree(t,n), id=f'toc-{i}') for i,(t,n) in enumerate(groups) if n]
    index.write_text(json.dumps(nb), encoding='utf-8')


def readme():
    "README.md: the index notebook with its outputs as text"
    parts = [GENERATED.rstrip()]
    (figures := ROOT/'docs'/'_static'/'readme').mkdir(parents=True, exist_ok=True)
    for i,cell in enumerate(json.loads((NBS/'index.ipynb').read_text(encoding='utf-8'))['cells']):
        text = source(cell)
        if re.search(r'#\s*\|\s*(hide|include:\s*false)', text): continue
        if cell['cell_type']=='markdown': parts.append(text.strip()); continue
        if cell['cell_type']!='code' or not text.strip(): continue
        shell = text.lstrip().startswith(('!','%%'))
        parts.append(f"```{'bash' if shell else 'python'}\n{DIRECTIVE.sub('', text).strip().lstrip('!') if shell else DIRECTIVE.sub('', text).strip()}\n```")
        for out in cell['outputs']:
            data = out.get('data', {})
            if 'image/png' in data:
                import base64
                png = figures/f'figure-{i}.png'
                png.write_bytes(base64.b64decode(''.join(data['image/png'])))
                alt = re.search(r'#\s*\|\s*fig-alt:\s*(.+)', text)
                parts.append(f"![{alt[1].strip() if alt else 'figure'}](docs/_static/readme/{png.name})")
            elif 'text/plain' in data or 'text' in out:
                plain = ''.join(data.get('text/plain', out.get('text', '')))
                parts.append('\n'.join('    '+line for line in re.sub(r'\x1b\[[0-9;]*m', '', plain).rstrip().splitlines()))
    (ROOT/'README.md').write_text('\n\n'.join(parts)+'\n', encoding='utf-8')


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


def main():
    ask = argparse.ArgumentParser(description='Build README.md and the site')
    ask.add_argument('--readme', action='store_true', help='README.md alone')
    if (args := ask.parse_args()).readme: return readme()
    readme()
    contents(pages())
    shutil.rmtree(OUT, ignore_errors=True)
    subprocess.run([sys.executable, '-m', 'sphinx', '-b', 'html', '-W', '--keep-going', '-q', '-c', str(ROOT/'docs'), str(SRC), str(OUT)], check=True)
    if (ROOT/'docs'/'live'/'build.py').exists(): subprocess.run([sys.executable, str(ROOT/'docs'/'live'/'build.py'), str(OUT)], check=True)
    links()
    print(f'{len(list(OUT.rglob("*.html")))} pages in {OUT.name}/, every internal link checked')


if __name__=='__main__': main()
