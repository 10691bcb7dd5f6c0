"""A real vLLM on the CPU, end to end: `VLLM_CPU=folder-of-its-virtual-environment pytest tests/test_real_vllm.py`

How to make that environment stands in CONTRIBUTING.md. Servers listen on the loopback address and end with the test.
"""
import json, os, subprocess
from dataclasses import replace
from pathlib import Path

import pytest

VENV = os.environ.get('VLLM_CPU')
pytestmark = pytest.mark.skipif(not VENV, reason='VLLM_CPU names no virtual environment with vllm-cpu')
TINY = dict(architectures=['LlamaForCausalLM'], model_type='llama', hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, vocab_size=1024, max_position_embeddings=2048,
            rms_norm_eps=1e-5, tie_word_embeddings=False, torch_dtype='bfloat16', bos_token_id=0, eos_token_id=1)
MAKE = '''
import json, sys, torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from tokenizers import Tokenizer, models, pre_tokenizers, decoders, trainers
out, cfg = sys.argv[1], json.loads(sys.argv[2])
torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(**cfg)).to(torch.bfloat16).save_pretrained(out)
t = Tokenizer(models.BPE()); t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
t.train_from_iterator([open(json.__file__).read(), open(torch.__file__).read()], trainers.BpeTrainer(vocab_size=cfg['vocab_size'], special_tokens=['<s>','</s>'], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
PreTrainedTokenizerFast(tokenizer_object=t, bos_token='<s>', eos_token='</s>').save_pretrained(out)
'''


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    "A random Llama of three million parameters"
    out = tmp_path_factory.mktemp('tiny')
    subprocess.run([f'{VENV}/bin/python', '-c', MAKE, str(out), json.dumps(TINY)], check=True)
    return out


def engine(**more):
    from vllm_tuner.engine import Engine
    return Engine(vllm_version='0.32.0', enforce_eager=True, kv_cache_memory_bytes=64*2**20, block_size=128, **more)


def test_a_study_on_a_real_server(model, tmp_path):
    "Start, drive, read log and metrics, correct, rank; a second call measures nothing again"
    from vllm_tuner.devices import device
    from vllm_tuner.kv_cache import kv_plan
    from vllm_tuner.models import arch
    from vllm_tuner.tune import tune
    from vllm_tuner.workloads import WorkloadProfile
    a, d, w = arch(str(model)), device('H100'), WorkloadProfile.from_lengths(64, 32, max_concurrency=16)
    how = dict(candidates=[engine(max_num_seqs=n) for n in (2, 16)]+[engine(max_num_seqs=4, tensor_parallel_size=3)], trials=2, prompts=48, folder=tmp_path, start=(f'{VENV}/bin/vllm',), timeout=400)
    got = tune(str(model), a, d, w, engine(), **how)
    print(got); print('factors', got.correction.factors)
    by = {t.engine.max_num_seqs: t for t in got.trials}
    assert by[2].state==by[16].state=='measured' and by[4].state=='impossible', got
    assert by[2].measured.completed==by[16].measured.completed==48
    assert by[16].measured.output_tokens_per_second > by[2].measured.output_tokens_per_second and got.best.engine.max_num_seqs==16
    assert got.correction.of('tpot_ms')>1                                    # no CPU is as fast as the H100 that the prediction assumes
    plan = kv_plan(a, d, by[16].engine, 64*2**20)
    assert by[16].observed.kv_tokens==plan.kv_tokens==32768                  # the cache to the token
    assert by[16].observed.max_model_len==2048 and by[16].observed.ready
    assert by[16].counters['kv_cache_size_tokens']==plan.kv_tokens and by[16].counters['num_gpu_blocks']==plan.num_blocks and by[16].counters['generation_tokens']>=48*32
    again = tune(str(model), a, d, w, engine(), **how)
    assert [t.value for t in again.trials]==[t.value for t in got.trials]


def test_a_server_that_refuses_is_recorded(model, tmp_path):
    "vLLM's own words for a context that the checkpoint does not have"
    from vllm_tuner.benchmark import Died, LiveServer
    with pytest.raises(Died, match='max_model_len|ended with code'):
        with LiveServer(str(model), replace(engine(), max_model_len=10**6), tmp_path/'s.log', (f'{VENV}/bin/vllm',), 200): pass


def test_vllm_parses_the_config_file(model, tmp_path):
    "`vllm serve --config` read by vLLM's own parser gives the flags that were modelled"
    import yaml
    from vllm_tuner.deploy import Deployment, config_yaml
    e = engine(max_num_seqs=32, max_num_batched_tokens=1024, gpu_memory_utilization=.5, enable_prefix_caching=False, cudagraph_capture_sizes=(1, 2, 4), kv_cache_dtype='fp8')
    path = Path(tmp_path)/'serve.yaml'
    path.write_text(config_yaml(Deployment(str(model), e)))
    code = ('import json,sys\nfrom vllm.utils.argparse_utils import FlexibleArgumentParser\nfrom vllm.entrypoints.launchers.cli_args import make_arg_parser\n'
            'p = make_arg_parser(FlexibleArgumentParser())\na = p.parse_args(["serve","--config",sys.argv[1]])\nprint("ARGS"+json.dumps(vars(a), default=str))')
    out = subprocess.run([f'{VENV}/bin/python', '-c', code, str(path)], capture_output=True, text=True)
    line = next((x for x in out.stdout.splitlines() if x.startswith('ARGS')), None)
    assert line, out.stderr[-2000:]
    a = json.loads(line[4:])
    assert (a['max_num_seqs'], a['max_num_batched_tokens'], a['gpu_memory_utilization'], a['enable_prefix_caching'], a['block_size'], a['enforce_eager']) == (32, 1024, .5, False, 128, True)
    assert a['kv_cache_memory_bytes']==64*2**20 and a['kv_cache_dtype']=='fp8' and set(yaml.safe_load(path.read_text()))>={'model', 'max-num-seqs'}
