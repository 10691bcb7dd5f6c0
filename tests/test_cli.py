"The command line: every command, its data, its exit codes, and whatever people may type"
import io, json, math, shlex, subprocess, sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest, yaml
from hypothesis import HealthCheck, given, settings, strategies as st

from vllm_tuner.cli import main
from vllm_tuner.commands import COMMANDS

LLAMA = 'meta-llama/Llama-3.1-8B-Instruct'


def shell(line):
    "Exit code, standard output, standard error"
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err): code = main(shlex.split(line)[1:] if isinstance(line, str) else line)
    return code, out.getvalue(), err.getvalue()


def data(line):
    code, out, err = shell(line+' --json')
    assert not err, err
    return code, json.loads(out)


# the main job

@pytest.fixture(scope='module')
def plan(): return shell(f'vllm-tuner plan {LLAMA} --gpu H100 --workload chatbot')


def test_the_plan_says_everything(plan):
    code, out, err = plan
    assert code==0 and not err
    for part in ('GiB', '%', 'KV cache', 'tokens', 'concurrency', 'What to set', 'Throughput', 'output tokens', 'Latency', 'TTFT', 'TPOT', f'vllm serve {LLAMA}'): assert part in out, part


@pytest.mark.parametrize('width', [60, 80, 120, 200])
def test_the_page_fits_the_terminal(width, monkeypatch):
    monkeypatch.setenv('COLUMNS', str(width))
    _, out, _ = shell(f'vllm-tuner plan {LLAMA} --gpu H100 --workload chatbot')
    long = [line for line in out.splitlines() if len(line.rstrip())>width and 'vllm serve' not in line and not line.startswith('  --')]
    assert not long


def test_the_plan_as_data(plan):
    code, d = data(f'vllm-tuner plan {LLAMA} --gpu H100 --workload chatbot')
    assert code==0 and d['fits'] and d['met'] and d['command'] in plan[1]
    m = d['memory']
    assert sum(m[k]['bytes'] for k in ('weights', 'activation', 'non_torch', 'cuda_graph', 'kv_cache'))==m['requested']<=m['total']
    assert all(set(f)=={'flag', 'value', 'default', 'why', 'lower', 'higher'} for f in d['flags'])
    low, high = d['prediction']['output_tokens_per_second']['interval']
    assert low<=d['prediction']['output_tokens_per_second']['value']<=high
    assert set(d['prediction']['ttft_ms'])=={'mean', 'p50', 'p90', 'p99', 'interval'}


def test_the_command_can_be_pasted():
    _, d = data(f'vllm-tuner deploy {LLAMA} --gpu H100 --as-given --max-num-seqs 7')
    assert shlex.split(d['text'])==['vllm', 'serve', LLAMA, '--max-num-seqs', '7']


KEPT = {'compose': lambda s: s.replace('$', '$$'), 'kubernetes': lambda s: s.replace('$(', '$$(')}   # what keeps a dollar literal where it would be replaced


def strings(x): return [x] if isinstance(x, str) else [s for v in (x.values() if isinstance(x, dict) else x if isinstance(x, list) else ()) for s in strings(v)]


@pytest.mark.parametrize('name', ["it's a model; rm -rf $HOME", '$(reboot)', 'a`b`', 'line\nbreak'])
@pytest.mark.parametrize('target', ['command', 'config', 'compose', 'kubernetes', 'ray'])
def test_hostile_names_are_quoted(name, target, tmp_path):
    folder = tmp_path/name
    folder.mkdir()
    (folder/'config.json').write_text(json.dumps(dict(model_type='llama', architectures=['LlamaForCausalLM'], hidden_size=1024, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=8, intermediate_size=2048, vocab_size=32000,
                                                      max_position_embeddings=2048, torch_dtype='bfloat16')))
    code, out, err = shell(['deploy', str(folder), '--gpu', 'L4', '--as-given', '--target', target])
    assert code==0, err
    if target=='command': assert shlex.split(out)[2]==str(folder)
    else: assert KEPT.get(target, str)(str(folder)) in strings(list(yaml.safe_load_all(out)))


# the other commands

def test_memory():
    code, d = data(f'vllm-tuner memory {LLAMA} --gpu L4 --max-model-len 8192')
    assert code==0 and d['fits'] and d['memory']['kv_tokens']>8192
    code, d = data(f'vllm-tuner memory {LLAMA} --gpu L4')
    assert code==1 and not d['fits'] and d['findings'][0]['level']=='error'


def test_flags_in_any_spelling_and_place():
    want = data(f'vllm-tuner memory {LLAMA} --gpu H100 --tensor-parallel-size 2 --max-model-len 16384')[1]['memory']
    for line in (f'vllm-tuner memory {LLAMA} -tp 2 --max-model-len=16K --gpu H100', f'vllm-tuner memory --gpu H100 --max_model_len 16384 --tensor_parallel_size=2 {LLAMA}', f'vllm-tuner memory --gpu h100-sxm -tp 2 {LLAMA} --max-model-len 16384'):
        assert data(line)[1]['memory']==want, line


def test_versions_differ():
    new, old = (data(f'vllm-tuner memory {LLAMA} --gpu H100 --vllm-version {v}')[1]['memory'] for v in ('0.33.0', '0.8.5'))
    assert new['requested']>old['requested'] and new['weights']['bytes']==old['weights']['bytes']


@pytest.mark.parametrize('line,code', [(f'-- vllm serve {LLAMA} --max-model-len 8192', 0), (f'-- vllm serve {LLAMA} --tensor-parallel-size 3', 1), (f'-- python -m vllm.entrypoints.openai.api_server --model {LLAMA} --max-num-seqs 16', 0),
                                       (f'{LLAMA} --max-num-sex 4', 1), (f'{LLAMA} --max-model-len 8192', 0)])
def test_check(line, code): assert shell(f'vllm-tuner check --gpu H100 {line}')[0]==code


def test_check_reads_files(tmp_path, monkeypatch):
    (f := tmp_path/'serve.yaml').write_text(f'model: {LLAMA}\nmax-num-seqs: 64\ntensor-parallel-size: 3\n')
    code, d = data(f'vllm-tuner check {f} --gpu H100')
    assert code==1 and any('divisible' in x['what'] for x in d['findings'])
    (c := tmp_path/'compose.yaml').write_text(f'services:\n  a:\n    image: vllm/vllm-openai\n    command: ["--model", "{LLAMA}"]\n  b:\n    image: vllm/vllm-openai\n    command: ["--model", "{LLAMA}", "--max-model-len", "999999"]\n')
    code, d = data(f'vllm-tuner check {c} --gpu H100')
    assert code==1 and [x['valid'] for x in d]==[True, False]
    run = subprocess.run([sys.executable, '-m', 'vllm_tuner', 'check', '-', '--gpu', 'H100', '--json'], input=f.read_text(), capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode==1 and json.loads(run.stdout)['valid'] is False


def test_models_and_gpus():
    code, d = data('vllm-tuner models llama-3.1 8b')
    assert code==0 and LLAMA in [x['id'] for x in d]
    assert data(f'vllm-tuner models {LLAMA}')[1]['parameters']==8_030_261_248
    assert [x['name'] for x in data('vllm-tuner gpus h100 sxm')[1]]==['H100-SXM']
    assert len(data('vllm-tuner gpus')[1])>=35


def test_deploy(tmp_path):
    _, d = data(f'vllm-tuner deploy {LLAMA} --gpu H100 --target kubernetes --replicas 3')
    kinds = [x['kind'] for x in yaml.safe_load_all(d['text'])]
    assert 'Deployment' in kinds and next(yaml.safe_load_all(d['text']))['spec']['replicas']==3
    assert shell(f'vllm-tuner deploy {LLAMA} --gpu H100 --target nomad')[0]==2


def test_cluster():
    code, d = data('vllm-tuner cluster Qwen/Qwen3-8B --node 2xL40S:2 --rate 4 --input-len 500 --output-len 100')
    assert code==0 and d['layouts'][0]['command'].startswith('vllm serve') and d['total_throughput']>0 and d['recommendations']


def test_a_cluster_that_keeps_no_limit():
    code, out, _ = shell('vllm-tuner cluster meta-llama/Llama-3.1-70B-Instruct --node 8xL40S --slo tpot=5 --rate 4')
    assert code==1 and 'Closest layout' in out and 'no load keeps tpot_ms 5 ms' in ' '.join(out.split()) and 'Cannot be' in out and 'of the capacity' not in out


def test_an_impossible_limit():
    code, d = data(f'vllm-tuner plan {LLAMA} --gpu L4 --slo tpot=10 --users 16 --input-len 1000 --output-len 200')
    assert code==1 and not d['met'] and 'closest that can be promised' in d['nearest'][0]
    code, d = data(f'vllm-tuner plan {LLAMA} --gpu H100 --max-num-seqs 256 --slo tpot=25 --users 256 --input-len 1000 --output-len 200')
    assert code==1 and 'requests in flight keep every limit' in d['nearest'][0]


BENCH = dict(completed=64, failed=0, total_input_tokens=64000, total_output_tokens=12800, max_concurrency=16, request_rate='inf', output_throughput=500., mean_ttft_ms=400., mean_tpot_ms=30., mean_e2el_ms=6400., input_lens=[1000]*64, output_lens=[200]*64)


def test_one_measurement_corrects(tmp_path):
    "A machine several times as slow as most: its own benchmark says so to the plan and the prediction"
    (f := tmp_path/'bench.json').write_text(json.dumps(BENCH))
    line = f'vllm-tuner predict {LLAMA} --gpu H100 --users 16 --input-len 1000 --output-len 200'
    (_, before), (_, after) = data(line), data(f'{line} --measured {f}')
    before, after = (x['prediction']['tpot_ms']['mean'] for x in (before, after))
    assert before<15 and abs(after-30)<.3*abs(before-30)
    (tmp_path/'no.json').write_text('hello')
    assert shell(f'{line} --measured {tmp_path}/no.json')[0]==2


def test_check_names_every_mistake_of_a_file(tmp_path):
    (f := tmp_path/'v.yaml').write_text('model: Qwen/Qwen3-8B\nno-such-key: 3\ngpu_memory_utilization: 1.5\n')
    code, d = data(f'vllm-tuner check {f} --gpu H100')
    assert code==1 and not d['valid'] and ['no-such-key' in x['what'] or 'gpu_memory_utilization' in x['what'] for x in d['findings']]==[True, True]
    (f := tmp_path/'compose.yaml').write_text('services:\n  a:\n    image: vllm/vllm-openai:v0.10.0\n    command: --model Qwen/Qwen3-8B --swap-space 4\n')
    code, d = data(f'vllm-tuner check {f} --gpu H100')
    assert (code, d['vllm_version'])==(0, '0.10.0')                         # the rules of the release that the image names
    assert data(f'vllm-tuner check {f} --gpu H100 --vllm-version 0.33.0')[0]==1


def test_minima_are_limits_too():
    code, d = data(f'vllm-tuner plan {LLAMA} --gpu L4 --slo context=16k,concurrency=4 --rate 0.2 --input-len 500 --output-len 100')
    assert code==0 and d['met']
    assert data(f'vllm-tuner plan {LLAMA} --gpu L4 --slo concurrency=400 --rate 0.2 --input-len 500 --output-len 100')[0]==1


def test_names_of_gpus_are_whole(monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    assert 'A100-80GB-PCIe' in shell('vllm-tuner gpus a100')[1]


def test_sweep_resumes(tmp_path):
    (f := tmp_path/'sweep.yaml').write_text('models: [Qwen/Qwen3-0.6B]\ngpus: [L4, H100]\nworkloads: [chatbot]\n')
    code, d = data(f'vllm-tuner sweep {f} --out {tmp_path}/r.csv --workers 1')
    assert (code, d['rows'], d['computed'])==(0, 2, 2)
    assert data(f'vllm-tuner sweep {f} --out {tmp_path}/r.csv --workers 1')[1]['computed']==0


LOG = '''(APIServer pid=1) INFO 04-01 10:00:00 [utils.py:233] non-default args: {'model': 'codellama/CodeLlama-7b-hf', 'max_model_len': 8192, 'gpu_memory_utilization': 0.95}
(APIServer pid=1) INFO 04-01 10:00:01 [utils.py:299]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.19.0
(EngineCore pid=2) INFO 04-01 10:00:20 [gpu_model_runner.py:4800] Model loading took 12.56 GiB memory and 3.1 seconds
(EngineCore pid=2) INFO 04-01 10:00:40 [gpu_worker.py:436] Available KV cache memory: 61.66 GiB
(EngineCore pid=2) INFO 04-01 10:00:41 [kv_cache_utils.py:1314] GPU KV cache size: 126,256 tokens
'''


def test_log(tmp_path):
    (a := tmp_path/'a.log').write_text(LOG)
    (b := tmp_path/'b.log').write_text(LOG.replace('0.95', '0.9').replace('61.66', '57.70').replace('126,256', '118,144'))
    code, d = data(f'vllm-tuner log {a} --gpu H100')
    assert code==0 and {t['name']: t['observed'] for t in d['terms']}['kv_tokens']==126256
    code, d = data(f'vllm-tuner log {a} {b} --gpu H100')
    assert code==0 and d['causes'][0]['kv_gib']==pytest.approx(-3.96, abs=.02) and 'gpu_memory_utilization' in d['causes'][0]['what']
    assert data(f'vllm-tuner log {a} --gpu H100 --save {tmp_path}/m.toml')[0]==0
    assert data(f'vllm-tuner memory codellama/CodeLlama-7b-hf --gpu H100 --profile {tmp_path}/m.toml')[0]==0
    run = subprocess.run([sys.executable, '-m', 'vllm_tuner', 'log', '-', '--gpu', 'H100'], input=LOG, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode==0 and 'KV cache' in run.stdout


# nonsense: one sentence, exit code 2, no traceback

BAD = {
    'no command': '', 'no such switch': f'plan {LLAMA} --gpu H100 --no-such-flag', 'unknown command': 'plon x', 'no model': 'plan --gpu H100', 'unknown model': 'memory no/such-model --gpu H100', 'no gpu': f'memory {LLAMA}', 'unknown gpu': f'memory {LLAMA} --gpu H1000', 'gpu of no size': f'memory {LLAMA} --gpu 0',
    'unknown flag': f'memory {LLAMA} --gpu H100 --max-num-sex 4', 'unknown version': f'memory {LLAMA} --gpu H100 --vllm-version banana', 'share 0': f'memory {LLAMA} --gpu H100 --gpu-memory-utilization 0',
    'share 1.5': f'memory {LLAMA} --gpu H100 --gpu-memory-utilization 1.5', 'share abc': f'memory {LLAMA} --gpu H100 --gpu-memory-utilization abc', 'negative length': f'memory {LLAMA} --gpu H100 --max-model-len -5',
    'length of words': f'memory {LLAMA} --gpu H100 --max-model-len long', 'zero ranks': f'memory {LLAMA} --gpu H100 -tp 0', 'half a workload': f'plan {LLAMA} --gpu H100 --input-len 5', 'negative rate': f'plan {LLAMA} --gpu H100 --rate -3',
    'nan rate': f'plan {LLAMA} --gpu H100 --rate nan', 'unknown workload': f'plan {LLAMA} --gpu H100 --workload chess', 'empty prompt': f'plan {LLAMA} --gpu H100 --input-len 0 --output-len 5', 'no limit': f'plan {LLAMA} --gpu H100 --slo ttft',
    'limit of words': f'plan {LLAMA} --gpu H100 --slo tpot=fast', 'unknown limit': f'plan {LLAMA} --gpu H100 --slo joy=3', 'confidence 2': f'plan {LLAMA} --gpu H100 --confidence 2', 'unknown objective': f'plan {LLAMA} --gpu H100 --objective joy',
    'unknown permission': f'plan {LLAMA} --gpu H100 --allow magic', 'no gpus': f'plan {LLAMA} --gpu H100 --gpus 0', 'no log': 'log', 'no such log': 'log nowhere.log', 'no nodes': f'cluster {LLAMA}', 'no such node': f'cluster {LLAMA} --node 8xH999',
    'no sweep': 'sweep', 'no such sweep': 'sweep nowhere.yaml', 'no such profile': f'memory {LLAMA} --gpu H100 --profile nowhere.toml', 'unknown target': f'deploy {LLAMA} --gpu H100 --target nomad', 'bad port': f'deploy {LLAMA} --gpu H100 --port 99999999',
    'option without value': f'memory {LLAMA} --gpu', 'check of nothing': 'check --gpu H100', 'no gpu that is called so': 'gpus z99', 'dictionary of a drafter': f"memory {LLAMA} --gpu H100 --speculative-config notjson"}


@pytest.mark.parametrize('kind', BAD)
def test_nonsense(kind, monkeypatch):
    monkeypatch.setattr('vllm_tuner.asking.local_gpu', lambda: '')
    code, out, err = shell('vllm-tuner '+BAD[kind])
    assert code==2, (code, out, err)
    if kind!='no command': assert err.startswith('vllm-tuner: ') and err.count('\n')==1 and 20<len(err)<700 and 'Traceback' not in err and not out, err
    if kind not in ('no command', 'unknown command', 'option without value'):
        code, out, _ = shell('vllm-tuner '+BAD[kind]+' --json')
        assert code==2 and json.loads(out)['error']


CONFIG = dict(model_type='llama', architectures=['LlamaForCausalLM'], hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, intermediate_size=14336, vocab_size=128256, max_position_embeddings=8192, torch_dtype='bfloat16')
BROKEN = {'truncated': json.dumps(CONFIG)[:60], 'not json': 'hello', 'list': '[1]', 'empty': '', 'binary': '\0\1\2'*50, 'strings': json.dumps({**CONFIG, 'hidden_size': 'wide'}), 'negative': json.dumps({**CONFIG, 'num_hidden_layers': -4}),
          'absurd': json.dumps({**CONFIG, 'vocab_size': 10**15}), 'nan': json.dumps({**CONFIG, 'intermediate_size': math.nan}), 'heads': json.dumps({**CONFIG, 'num_key_value_heads': 5}), 'zero': json.dumps({**CONFIG, 'num_attention_heads': 0}),
          'deep': '{"a":'*20000+'1'+'}'*20000, '100 MB': '{"a":"'+'x'*(100*2**20)+'"}'}


@pytest.mark.parametrize('kind', BROKEN)
def test_a_broken_config(kind, tmp_path):
    (tmp_path/'config.json').write_text(BROKEN[kind])
    for source in (tmp_path, tmp_path/'config.json'):
        code, out, err = shell(['memory', str(source), '--gpu', 'H100'])
        assert code==2 and err.count('\n')==1 and len(err)<900, err


@pytest.mark.parametrize('text', ['', '\0\1\2', 'hello world', '{"a": 1}', '- x\n- y', 'services:\n  a: !!python/object/apply:os.system ["touch hacked"]\n', '&a [*a]', 'a: &a [x]\nb: ['+','.join(['*a']*9)+']', 'model: [1, 2', 'model: 3\ntensor-parallel-size: many\n'])
def test_files_that_are_no_configuration(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'f.yaml').write_text(text)
    code, out, err = shell(['check', 'f.yaml', '--gpu', 'H100'])
    assert code in (1, 2) and 'Traceback' not in out+err and not (tmp_path/'hacked').exists()


def test_no_command_needs_a_terminal_that_knows_unicode():
    run = subprocess.run([sys.executable, '-m', 'vllm_tuner', 'memory', LLAMA, '--gpu', 'H100'], capture_output=True, env={'PYTHONIOENCODING': 'ascii', 'PYTHONPATH': str(Path(__file__).parent.parent), 'PATH': '/usr/bin'})
    assert run.returncode==0 and b'KV cache' in run.stdout


def test_a_closed_pipe_is_no_error():
    p = subprocess.Popen([sys.executable, '-m', 'vllm_tuner', 'gpus'], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    p.stdout.close()
    assert b'Traceback' not in p.stderr.read()
    p.wait()


@pytest.mark.parametrize('name', COMMANDS)
def test_help(name):
    code, out, _ = shell(f'vllm-tuner {name} --help')
    assert code==0 and out.startswith(f'usage: vllm-tuner {name} ') and '\n  vllm-tuner '+name in out.partition('example:')[2] and '--json' in out


def test_every_command_is_in_the_readme():
    text = (Path(__file__).parent.parent/'README.md').read_text(encoding='utf-8')
    assert [n for n in COMMANDS if f'vllm-tuner {n}' not in text]==[]


words = st.one_of(st.sampled_from(['--gpu', 'H100', '-tp', '2', LLAMA, '--json', '--', 'vllm', 'serve', '--max-model-len', '8192', '--rate', '-1', '', '{', '--slo', 'tpot=40', '--kv-cache-dtype', 'fp8']), st.text(max_size=12))


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(['memory', 'check', 'models', 'gpus', 'log']), st.lists(words, max_size=6))
def test_whatever_is_typed(name, rest):
    "An exit code of the table, never a traceback"
    code, out, err = shell([name, *rest])
    assert code in (0, 1, 2), err


def test_a_full_disk_and_a_closed_pipe_are_no_crash():
    line = f'{sys.executable} -m vllm_tuner memory Qwen/Qwen3-8B --gpu H100'
    for end,code in (('>&-',0), ('| head -1 >/dev/null; exit ${PIPESTATUS[0]}',0), *([('>/dev/full',2)] if Path('/dev/full').exists() else [])):
        run = subprocess.run(['bash','-c',f'{line} {end}'], capture_output=True, text=True)
        assert run.returncode==code and 'Traceback' not in run.stderr, (end,run)


def test_a_log_out_of_a_pipe(tmp_path):
    (tmp_path/'startup.log').write_text("INFO 04-01 10:00:01 [utils.py:299] version 0.19.0\nINFO 04-01 10:00:20 [gpu_model_runner.py:4800] Model loading took 12.56 GiB memory and 3.1 seconds\n")
    run = subprocess.run(['bash','-c',f'{sys.executable} -m vllm_tuner log <(cat {tmp_path}/startup.log)'], capture_output=True, text=True)
    assert run.returncode==0 and '12.56 GiB' in run.stdout, run.stderr


def test_names_cannot_write_on_the_terminal(tmp_path):
    (tmp_path/'config.json').write_text(json.dumps({'architectures':['Llama\x1b[31mForCausalLM'],'model_type':'ll\x1b]0;x\x07ama','hidden_size':64,'num_hidden_layers':2,'num_attention_heads':2,'vocab_size':100,'intermediate_size':100}))
    code, out, err = shell(f'vllm-tuner memory {tmp_path} --gpu H100')
    assert code==0 and '\x1b' not in out+err and '\x07' not in out+err
