"What is built is what is installed: data files, scripts, light requirements"
import configparser, json, subprocess, sys, tarfile, zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DATA = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT/'vllm_tuner'/'data').rglob('*') if p.is_file())


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "sdist and wheel, made from a copy without the network"
    import shutil
    pytest.importorskip('setuptools')
    src, out = tmp_path_factory.mktemp('src')/'p', tmp_path_factory.mktemp('dist')
    shutil.copytree(ROOT, src, ignore=shutil.ignore_patterns('.git', '.venv', '_docs', 'build', 'dist', '*.egg-info', 'node_modules', '.hypothesis', 'docs', 'nbs'))
    code = f'import setuptools.build_meta as b; print(b.build_sdist({str(out)!r})); print(b.build_wheel({str(out)!r}))'
    run = subprocess.run([sys.executable, '-c', code], cwd=src, capture_output=True, text=True)
    assert run.returncode==0, run.stderr[-2000:]
    return next(out.glob('*.tar.gz')), next(out.glob('*.whl'))


def test_the_wheel_holds_every_data_file(built):
    names = set(zipfile.ZipFile(built[1]).namelist())
    assert DATA and not [d for d in DATA if d not in names]
    assert {p.relative_to(ROOT).as_posix() for p in (ROOT/'vllm_tuner').glob('*.py')} <= names
    assert not [n for n in names if n.startswith(('nbs/', 'tests/', 'docs/'))]


def test_the_sdist_can_be_built_again(built):
    names = {n.split('/', 1)[1] for n in tarfile.open(built[0]).getnames() if '/' in n}
    assert {'settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE'} <= names and set(DATA) <= names


def test_the_wheel_works_from_another_folder(built, tmp_path):
    "Imported from the archive's own unpacked folder, with nothing of the repository in sight"
    zipfile.ZipFile(built[1]).extractall(tmp_path/'site')
    run = subprocess.run([sys.executable, '-m', 'vllm_tuner', 'plan', 'meta-llama/Llama-3.1-8B-Instruct', '--gpu', 'H100', '--json'], cwd=tmp_path/'site', capture_output=True, text=True)
    assert run.returncode==0 and json.loads(run.stdout)['fits'], run.stderr
    where = subprocess.run([sys.executable, '-c', 'import vllm_tuner; print(vllm_tuner.__file__)'], cwd=tmp_path/'site', capture_output=True, text=True).stdout
    assert str(tmp_path) in where


def test_the_base_is_light():
    ini = configparser.ConfigParser(delimiters=['='])
    ini.read(ROOT/'settings.ini', encoding='utf-8')
    base = ini['DEFAULT']['requirements'].split()
    assert {r.split('>')[0].split('<')[0] for r in base}=={'numpy', 'rich', 'pyyaml'}
    assert ini['DEFAULT']['console_scripts']=='vllm-tuner=vllm_tuner.cli:main'
    assert sum((ROOT/d).stat().st_size for d in DATA) < 3*2**20


def test_versions_agree():
    import vllm_tuner
    ini = configparser.ConfigParser(delimiters=['='])
    ini.read(ROOT/'settings.ini', encoding='utf-8')
    assert vllm_tuner.__version__==ini['DEFAULT']['version'] and f"## {vllm_tuner.__version__}" in (ROOT/'CHANGELOG.md').read_text(encoding='utf-8')


def test_the_example_runs(tmp_path):
    run = subprocess.run([sys.executable, ROOT/'examples'/'vllm_config_optimization.py', 'Qwen/Qwen3-0.6B', 'L4'], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode==0 and not run.stderr, run.stderr
    for part in ('model_memory', 'chatbot', 'batch_inference', 'interactive', 'does not start', 'refused'): assert part in run.stdout, part


def test_the_benchmarks_are_a_table():
    sys.path.insert(0, str(ROOT/'benchmarks'))
    import run
    assert next(run.rows())[0].startswith('`from vllm_tuner import')
