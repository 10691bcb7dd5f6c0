"Published start-ups are read as their sources state them"
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent/'tools'))
records = pytest.importorskip('startup_records')
from vllm_tuner.models import catalogue

BARE = dict(id='x', source_url='https://example.org', date_if_known=None, vllm_version=None, engine='v1', model='Qwen/Qwen3-8B', dtype=None, quantization=None, gpu_name='RTX 3090', gpu_total_gib_if_logged=None, tp=1,
            gpu_memory_utilization=.9, max_model_len=None, max_num_seqs=None, max_num_batched_tokens=None, kv_cache_dtype=None, cudagraph_mode=None, cudagraph_capture_sizes=None, enforce_eager=None, chunked_prefill=None,
            speculative=None, extra_flags=None, evidence='', notes=None, error_text=None, measured={})


def record(**kw): return records.from_corpus({**BARE, **kw})


@pytest.mark.parametrize('name,base', [
    ('somebody/Qwen3-8B-int4-AutoRound', 'Qwen/Qwen3-8B'), ('somebody/llama3-8b-gptq-4bit', 'meta-llama/Meta-Llama-3-8B'),
    ('my-omni-int8 (Qwen3-Omni-30B-A3B, local)', 'Qwen/Qwen3-Omni-30B-A3B-Instruct'), ('Qwen/Qwen3.6-27B (AutoRound INT4)', 'Qwen/Qwen3.6-27B'), ('a-model-of-nobody', None)])
def test_names_lead_to_shapes(name, base): assert records.known_as(name, set(catalogue()))==base


@pytest.mark.parametrize('name,stated,method,bits', [
    ('x/y-Q8_0.gguf', 'gguf', 'gguf', None), ('x/y', 'auto_round int4', 'gptq', 4), ('x/y-AWQ', None, 'awq', 4), ('x/y', 'bitsandbytes nf4', 'bitsandbytes', None), ('x/y', 'wna16 int8', 'compressed-tensors', None)])
def test_words_for_precision(name, stated, method, bits):
    q = records.quantised(name, stated, True)
    assert q['quant_method']==method and q.get('bits')==bits and (method!='gguf' or q['type']=='Q8_0')


def test_a_plain_release_stays_plain(): assert records.quantised('Qwen/Qwen3-8B', None, True) is None


@pytest.mark.parametrize('name,notes,card', [
    ('RTX 4090 48GB (modified)', None, 'RTX 4090 48GB'), ('12 GB card (WSL2; not named)', None, '12 GB'), (None, '24 GB class, not named', '24 GB'),
    (None, '80 GB class by arithmetic', None), (None, None, None)])  # a class that was added up from the cache is no card
def test_cards(name, notes, card): assert records.gpu({**BARE, 'gpu_name':name, 'notes':notes})[0]==card


def test_graphs_and_what_they_imply():
    r = record(vllm_version='0.21.0', evidence='Profiling CUDA graph memory: PIECEWISE=5 (largest=16), FULL=4 (largest=8)')
    assert r['graphs']==[['PIECEWISE',5,16],['FULL',4,8]]
    assert records.subject(r)[2].max_num_seqs==8
    assert records.subject(record(vllm_version='0.21.0', evidence='PIECEWISE 51/51, FULL 35/35'))[2].max_num_seqs is None   # the default explains them


def test_the_cache_is_never_used():
    "No flag depends on the size of the pool that it is to predict"
    one,two = (record(vllm_version='0.21.0', measured={'available_kv_gib':v,'kv_tokens':t,'weights_gib':15.3}) for v,t in ((3.,20_000),(9.,60_000)))
    assert records.subject(one)==records.subject(two)


@pytest.mark.parametrize('kw,release', [
    (dict(vllm_version='0.19.2rc1.dev8+g4b7f5ea1a'), '0.19.2'), (dict(date_if_known='2025-10-03'), '0.11.0'), (dict(notes='about v0.7.3 (worker.py:267)', engine='v0'), '0.7.3'),
    (dict(evidence='model weights take 1GiB; PyTorch activation peak memory takes 1GiB', engine=None), '0.10.2'), (dict(evidence='1 GiB for consumed memory (weights + non-torch)'), '0.29.0')])
def test_releases(kw, release): assert records.version({**BARE, **kw})[0]==release
