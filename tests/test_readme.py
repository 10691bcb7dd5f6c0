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


@pytest.mark.parametrize('line', [line for kind,text in BLOCKS if kind=='bash' for line in text.splitlines() if line.startswith('vllm-tuner ') and ' explore' not in line])
def test_commands_run(line, tmp_path):
    assert shutil.which('vllm-tuner') or Path(sys.executable).with_name('vllm-tuner').exists()
    args = shlex.split(line, comments=True)[1:]
    run = subprocess.run([sys.executable, '-m', 'vllm_tuner.cli', *args], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode==0, run.stderr


def test_the_two_commands_are_there():
    text = '\n'.join(t for k,t in BLOCKS if k=='bash')
    assert 'vllm-tuner plan' in text and 'bash test.sh' in text and (ROOT/'test.sh').exists()


def test_continuous_integration_calls_the_same_script(): assert re.search(r'^bash test\.sh', (ROOT/'.ci'/'run').read_text(), re.M)
