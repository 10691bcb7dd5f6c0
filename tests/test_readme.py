"Every block of README.md runs"
import os, re, shlex, shutil, subprocess, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r'^```(python|bash)\n(.*?)^```', (ROOT/'README.md').read_text(encoding='utf-8'), re.M|re.S)


def test_there_are_blocks(): assert len(BLOCKS)>=3


def test_python_blocks_run_in_one_session(tmp_path):
    code = '\n'.join(text for kind,text in BLOCKS if kind=='python')
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, 'MPLBACKEND': 'agg'})
    assert run.returncode==0, run.stderr


COMMANDS = sorted({part.strip() for kind,text in BLOCKS if kind=='bash' for line in text.splitlines() for part in line.split('&&') if part.strip().startswith('vllm-tuner ')})


@pytest.mark.parametrize('line', COMMANDS)
def test_commands_run(line, tmp_path):
    "Yes or no is an answer, nonsense is not"
    assert shutil.which('vllm-tuner') or Path(sys.executable).with_name('vllm-tuner').exists()
    run = subprocess.run([sys.executable, '-m', 'vllm_tuner', *shlex.split(line, comments=True)[1:]], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode in (0, 1) and run.stdout and not run.stderr, run.stderr


def test_the_main_job_answers_yes():
    line = next(c for c in COMMANDS if c.startswith('vllm-tuner plan'))
    assert subprocess.run([sys.executable, '-m', 'vllm_tuner', *shlex.split(line)[1:]], capture_output=True).returncode==0


def test_every_figure_has_words():
    "Alternative text, and the file is there"
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    found = re.findall(r'!\[([^\]]*)\]\(([^)]+)\)', text)
    assert found and all(len(alt)>40 and (ROOT/path).exists() for alt,path in found)


def test_the_two_commands_are_there():
    text = '\n'.join(t for k,t in BLOCKS if k=='bash')
    assert 'vllm-tuner plan' in text and 'bash test.sh' in text and (ROOT/'test.sh').exists()


def test_continuous_integration_calls_the_same_script(): assert re.search(r'^bash test\.sh', (ROOT/'.ci'/'run').read_text(), re.M)
