"The site and the explorers as a visitor meets them, in a real headless browser with every other server out of reach"
import os, re, shutil, socket, subprocess, sys, time, urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SITE = ROOT/'_docs'
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason='no chromium on this machine')
needs_site = pytest.mark.skipif(not (SITE/'index.html').exists(), reason='no site: run python docs/build.py')
SHOTS = os.environ.get('SHOTS')  # a folder for screenshots, if wanted


def free_port():
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); return s.getsockname()[1]


def serve(args, url, cwd=ROOT, env=None, seconds=90):
    "Start a server and wait until it answers"
    process = subprocess.Popen(args, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **(env or {})})
    end = time.monotonic()+seconds
    while time.monotonic()<end:
        try: urllib.request.urlopen(url, timeout=2).read(1); return process
        except OSError:
            if process.poll() is not None: break
            time.sleep(.2)
    process.terminate()
    raise RuntimeError(f'{args[0]} did not answer at {url}')


def stop(process):
    process.terminate()
    try: process.wait(10)
    except subprocess.TimeoutExpired: process.kill()


@pytest.fixture(scope='module')
def browser():
    sync = pytest.importorskip('playwright.sync_api')
    with sync.sync_playwright() as p:
        b = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield b
        b.close()


@pytest.fixture(scope='module')
def site():
    port = free_port()
    process = serve([sys.executable, '-m', 'http.server', str(port), '--bind', '127.0.0.1', '--directory', str(SITE)], f'http://127.0.0.1:{port}/index.html')
    yield f'http://127.0.0.1:{port}'
    stop(process)


@pytest.fixture
def page(browser):
    "A page that reaches this machine alone; errors that scripts raise fail the test"
    context = browser.new_context(viewport={'width': 1280, 'height': 900})
    context.route('**/*', lambda r: r.continue_() if re.match(r'(https?://127\.0\.0\.1|data:|blob:)', r.request.url) else r.abort())
    page = context.new_page()
    page.trouble = []
    page.on('pageerror', lambda e: page.trouble.append(str(e)))
    yield page
    context.close()


def shot(page, name):
    if SHOTS: page.screenshot(path=f'{SHOTS}/{name}.png', full_page=True)


@pytest.fixture(scope='session')
def axe(tmp_path_factory):
    "axe-core's script, from npm"
    folder = tmp_path_factory.mktemp('axe')
    try: subprocess.run(['npm', 'pack', '--silent', 'axe-core@4.14.1'], cwd=folder, check=True, capture_output=True, timeout=120)
    except (OSError, subprocess.SubprocessError): pytest.skip('axe-core is not at hand')
    subprocess.run(['tar', 'xzf', next(folder.glob('*.tgz')).name, 'package/axe.min.js'], cwd=folder, check=True)
    return (folder/'package'/'axe.min.js').read_text(encoding='utf-8')


def serious(page, axe):
    "Serious and critical accessibility findings of a page"
    page.evaluate(axe)
    found = page.evaluate('axe.run(document, {resultTypes: ["violations"]})')['violations']
    return [(v['id'], [n['html'][:120] for n in v['nodes']][:3]) for v in found if v['impact'] in ('serious', 'critical')]


def start_live(page, site, path='live.html'):
    page.goto(f'{site}/{path}')
    began = time.monotonic()
    page.locator('[data-live="memory"] button.live-start').click()
    page.wait_for_selector('[data-live="memory"][data-ready]', timeout=60_000)
    return time.monotonic()-began


def headline(page): return page.locator('.live-view p strong').first.inner_text()


@needs_browser
@needs_site
def test_the_live_explorer_answers_without_a_network(page, site):
    seconds = start_live(page, site)
    first = headline(page)
    assert 'tokens of KV cache' in first
    shot(page, 'live')
    page.locator('#live-memory-max_num_seqs').focus()
    page.keyboard.press('End')
    page.wait_for_function('old => document.querySelector(".live-view p strong").innerText !== old', arg=first)
    second = headline(page)
    slider = page.locator('#live-memory-gpu_memory_utilization')
    size = slider.bounding_box()
    slider.click(position={'x': size['width']*.3, 'y': size['height']/2})
    page.wait_for_function('old => document.querySelector(".live-view p strong").innerText !== old', arg=second)
    page.fill('#live-memory-model', 'Qwen/Qwen3-32B')
    page.wait_for_function('[...document.querySelectorAll(".live-view code")].pop().innerText.includes("Qwen/Qwen3-32B")')
    assert not page.trouble and seconds<20  # the figure to reach is 6 s on a quiet machine


@needs_browser
@needs_site
def test_the_live_explorer_survives_nonsense(page, site):
    start_live(page, site)
    page.fill('#live-memory-model', '<img src=x onerror="document.title=1">')
    page.wait_for_selector('.live-view [role=alert]')
    assert page.title()!='1' and not page.trouble
    page.fill('#live-memory-model', 'Qwen/Qwen3-8B')
    page.wait_for_function('!document.querySelector(".live-view [role=alert]")')


@needs_browser
@needs_site
def test_the_page_of_the_explorer_is_light(site):
    live = SITE/'_static'/'live'
    assert sum(f.stat().st_size for f in live.rglob('*') if f.is_file()) < 15e6


@needs_browser
@needs_site
def test_every_page_is_accessible(page, site, axe):
    trouble = {}
    for f in sorted(SITE.rglob('*.html')):
        if f.name in ('genindex.html', 'search.html') or '_static' in f.parts: continue
        page.goto(f'{site}/{f.relative_to(SITE).as_posix()}')
        if found := serious(page, axe): trouble[f.relative_to(SITE).as_posix()] = found
    assert not trouble


def answer(page): return page.locator('.widget-html p strong').first.inner_text()


def changed(page, old):
    "The headline once it differs"
    page.wait_for_function('old => { const e = document.querySelector(".widget-html p strong"); return e && e.innerText !== old }', arg=old, timeout=30_000)
    return answer(page)


def turn_knobs(page):
    "Move sliders by keyboard and mouse and change the model; each changes the answer"
    first = answer(page)
    assert 'tokens of KV cache' in first
    handles = page.locator('.widget-slider .noUi-handle')
    handles.nth(0).focus()
    page.keyboard.press('ArrowRight')                                          # tensor parallel 1 -> 2
    second = changed(page, first)
    rail = page.locator('.widget-slider .noUi-base').nth(4).bounding_box()     # requests per step
    page.mouse.click(rail['x']+rail['width']*.35, rail['y']+rail['height']/2)
    third = changed(page, second)
    model = page.locator('input[list]').first
    model.fill('Qwen/Qwen3-32B')
    model.press('Enter')
    changed(page, third)
    assert 'Qwen/Qwen3-32B --tensor-parallel-size 2' in page.locator('.widget-html code').first.inner_text()


@needs_browser
def test_the_app_in_voila(page):
    pytest.importorskip('voila')
    port = free_port()
    process = serve([sys.executable, '-m', 'voila', 'vllm_tuner/data/explore.ipynb', '--no-browser', f'--port={port}', '--Voila.ip=127.0.0.1'], f'http://127.0.0.1:{port}/')
    try:
        page.goto(f'http://127.0.0.1:{port}/')
        page.wait_for_selector('.widget-html p strong', timeout=60_000)
        turn_knobs(page)
        shot(page, 'voila-memory')
        for title in ('Graphs', 'Load', 'Cluster', 'Log'):
            page.get_by_role('tab', name=title).click()
            page.wait_for_function('t => [...document.querySelectorAll(".widget-html svg")].some(s => s.getBoundingClientRect().width && s.getAttribute("aria-label").includes(t))', arg={'Graphs': 'decode batches', 'Load': 'time to first token', 'Cluster': 'layouts', 'Log': 'observed'}[title], timeout=60_000)
            shot(page, f'voila-{title.lower()}')
    finally: stop(process)


@needs_browser
def test_the_same_app_in_jupyterlab(page, tmp_path):
    pytest.importorskip('jupyterlab')
    port = free_port()
    shutil.copy(ROOT/'vllm_tuner'/'data'/'explore.ipynb', tmp_path/'explore.ipynb')
    args = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--ip=127.0.0.1', f'--port={port}', '--allow-root', '--IdentityProvider.token=', '--LabApp.expose_app_in_browser=True', f'--ServerApp.root_dir={tmp_path}', '--LabApp.news_url=None']
    process = serve(args, f'http://127.0.0.1:{port}/lab', env={'JUPYTER_CONFIG_DIR': str(tmp_path/'config'), 'PYTHONPATH': str(ROOT)})
    try:
        page.goto(f'http://127.0.0.1:{port}/lab/tree/explore.ipynb')
        page.wait_for_function('window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === "idle"', timeout=90_000)
        page.evaluate('jupyterapp.commands.execute("notebook:run-all-cells")')
        page.wait_for_selector('.widget-html p strong', timeout=60_000)
        turn_knobs(page)
        shot(page, 'lab')
    finally: stop(process)
