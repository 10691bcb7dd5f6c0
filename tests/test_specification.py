"The specification's names: every class, method, field, default and result key, and the laws that any answer must keep"
import dataclasses, json, math, pickle
from functools import lru_cache

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from vllm_tuner import (AutotuningParameters, Engine, WorkloadProfile, arch, catalogue, device, devices, kv_plan, memory, optimize_vllm_config_for_cluster, vLLMConfigOptimizer, vLLMPerformanceModel,
                        weight_bytes)

LLAMA = 'meta-llama/Llama-2-7b-hf'
BREAKDOWN = ['model_memory', 'activation_memory', 'cuda_graph_memory', 'non_torch_memory', 'kv_cache_memory', 'total_used', 'utilization_ratio']
CHATBOT = WorkloadProfile.create_synthetic('chatbot')
quick = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))


# AutotuningParameters

def test_defaults_of_the_parameters():
    p = AutotuningParameters()
    assert (p.graph_memory_overhead_base_ratio, p.graph_memory_batch_scaling_factor) == (.1, .02)
    assert (p.compilation_memory_multiplier_full, p.compilation_memory_multiplier_piecewise, p.activation_memory_factor) == (1.8, 1., .3)
    assert (p.min_gpu_memory_utilization, p.max_gpu_memory_utilization) == (.8, .98)
    assert (p.throughput_batch_weight, p.throughput_graph_weight, p.latency_graph_weight, p.latency_batch_weight) == (.7, .3, .8, .2)


def ledger(engine=None, **knobs): return memory(arch(LLAMA), device(40), engine or Engine(max_model_len=2048), AutotuningParameters(**knobs))


@pytest.mark.parametrize('knob,value,term,engine', [
    ('graph_memory_overhead_base_ratio', .2, 'cuda_graph', Engine(max_model_len=2048)),
    ('graph_memory_batch_scaling_factor', .04, 'cuda_graph', Engine(max_model_len=2048)),
    ('compilation_memory_multiplier_full', 3.6, 'cuda_graph', Engine(max_model_len=2048, cudagraph_mode='FULL_DECODE_ONLY')),
    ('compilation_memory_multiplier_piecewise', 2., 'cuda_graph', Engine(max_model_len=2048, cudagraph_mode='PIECEWISE')),
    ('activation_memory_factor', .6, 'activation', Engine(max_model_len=2048)),
    ('non_torch_memory_factor', 2., 'non_torch', Engine(max_model_len=2048))])
def test_a_memory_knob_scales_its_term(knob, value, term, engine):
    "Twice the default: the term grows, by at most its double, the cache shrinks by as much, nothing else moves"
    a, b = ledger(engine), ledger(engine, **{knob: value})
    grown = getattr(b, term)-getattr(a, term)
    assert 0 < grown <= getattr(a, term)+1
    assert abs((a.kv_cache-b.kv_cache)-grown) <= 1
    assert all(getattr(a, k)==getattr(b, k) for k in ('weights', 'activation', 'non_torch', 'cuda_graph') if k!=term)


def test_the_graph_knobs_are_the_two_parts_of_one_term():
    "Both at zero leave no graph memory; activation at zero no activation"
    assert ledger(graph_memory_overhead_base_ratio=0, graph_memory_batch_scaling_factor=0).cuda_graph == 0
    assert ledger(activation_memory_factor=0).activation == 0


@pytest.mark.parametrize('low,high', [(.8, .85), (.93, .95), (.97, .98)])
def test_the_bounds_bind_the_search(low, high):
    best = vLLMConfigOptimizer(LLAMA, 40., AutotuningParameters(min_gpu_memory_utilization=low, max_gpu_memory_utilization=high)).search_optimal_config(CHATBOT).optimal_config
    assert low-1e-9 <= best.gpu_memory_utilization <= high+1e-9


@lru_cache
def score(metric, **weights):
    "Of the best configuration for a small load whose target is this metric"
    return vLLMConfigOptimizer('Qwen/Qwen3-0.6B', 24., AutotuningParameters(**weights), max_model_len=4096).search_optimal_config(WorkloadProfile.from_lengths(500, 100, max_concurrency=8, target_metric=metric)).performance_score


@pytest.mark.parametrize('weight,metric', [('throughput_batch_weight', 'throughput'), ('throughput_graph_weight', 'throughput'), ('latency_graph_weight', 'latency'), ('latency_batch_weight', 'latency')])
def test_a_weight_raises_the_score(weight, metric):
    "Every part of a score is positive, so that more weight on any is a higher score, in its own metric only"
    more = {weight: 2*getattr(AutotuningParameters(), weight)}
    assert score(metric, **more) > score(metric)
    other = {'throughput': 'latency', 'latency': 'throughput'}[metric]
    assert score(other, **more) == pytest.approx(score(other))


@pytest.mark.parametrize('field', [f.name for f in dataclasses.fields(AutotuningParameters)])
@pytest.mark.parametrize('bad', [-1, math.nan, math.inf, 'much', None])
def test_a_knob_refuses_nonsense(field, bad):
    with pytest.raises(ValueError, match=field): AutotuningParameters(**{field: bad})


# vLLMPerformanceModel

class Config:
    "What `transformers.AutoConfig` gives, as far as it is looked at"
    name_or_path = 'some/llama'
    def to_dict(self): return dict(model_type='llama', architectures=['LlamaForCausalLM'], hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32, intermediate_size=11008,
                                   vocab_size=32000, max_position_embeddings=4096, torch_dtype='float16', tie_word_embeddings=False)


def test_the_breakdown():
    model = vLLMPerformanceModel.from_transformers_config(config=Config(), gpu_memory_capacity_gb=40., gpu_memory_utilization=.9, max_model_len=2048)
    b = model.calculate_memory_breakdown()
    assert list(b) == BREAKDOWN
    assert b.model_memory == pytest.approx(6_738_415_616*2/2**30, abs=.02)
    assert sum(b[k] for k in BREAKDOWN[:5]) == pytest.approx(b['total_used']) == pytest.approx(36)
    assert b.utilization_ratio == pytest.approx(.9)
    assert all(b[k] > 0 for k in BREAKDOWN)
    assert model.calculate_effective_batch_size() == int(model.memory.plan.max_concurrency)


def test_a_real_transformers_config():
    transformers = pytest.importorskip('transformers')
    config = transformers.LlamaConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, intermediate_size=11008, vocab_size=32000, max_position_embeddings=4096, dtype='float16')
    model = vLLMPerformanceModel.from_transformers_config(config, gpu_memory_capacity_gb=40., gpu_memory_utilization=.9, max_model_len=2048)
    same = vLLMPerformanceModel.from_transformers_config(Config(), gpu_memory_capacity_gb=40., gpu_memory_utilization=.9, max_model_len=2048)
    assert model.calculate_memory_breakdown() == same.calculate_memory_breakdown()


def test_predictions():
    model = vLLMPerformanceModel(LLAMA, gpu='A100-80GB', max_model_len=4096)
    p = model.predict(CHATBOT)
    assert model.predict_throughput(CHATBOT) == p.output_tokens_per_second > 0
    assert model.predict_latency(CHATBOT) == p.tpot_ms.mean > 0
    assert 0 <= model.calculate_graph_coverage(CHATBOT) <= 1
    assert model.calculate_graph_coverage() == pytest.approx(min(1, model.config.max_cudagraph_capture_size/model.config.max_num_seqs))
    assert vLLMPerformanceModel(LLAMA, 40., max_model_len=2048, enforce_eager=True).calculate_graph_coverage() == 0


def test_the_effective_batch_follows_the_lengths():
    model = vLLMPerformanceModel(LLAMA, 40., max_model_len=4096)
    short, long = (model.calculate_effective_batch_size(WorkloadProfile.from_lengths(n, 100)) for n in (200, 2000))
    assert short > long >= model.calculate_effective_batch_size() > 0
    assert vLLMPerformanceModel(LLAMA, 40., max_model_len=256, max_num_seqs=3).calculate_effective_batch_size() == 3


# WorkloadProfile

@pytest.mark.parametrize('kind', ['chatbot', 'batch_inference', 'interactive'])
def test_presets(kind):
    w = WorkloadProfile.create_synthetic(kind)
    assert w.target_metric in ('throughput', 'latency')
    for d in (w.batch_size_distribution, w.sequence_length_distribution): assert sum(d.values()) == pytest.approx(1)


def test_a_custom_workload():
    w = WorkloadProfile(requests_per_second=100, batch_size_distribution={1: .3, 2: .4, 4: .2, 8: .1}, sequence_length_distribution={512: .4, 1024: .4, 2048: .2}, target_metric='latency', latency_budget_ms=50)
    assert (w.requests_per_second, w.latency_budget_ms, w.sequence_length_distribution.mean) == (100, 50, pytest.approx(1024))


@pytest.mark.parametrize('bad,why', [(dict(requests_per_second=-1), 'requests_per_second'), (dict(requests_per_second=math.nan), 'requests_per_second'), (dict(latency_budget_ms=0), 'latency_budget_ms'), (dict(target_metric='speed'), 'throughput'),
                                     (dict(sequence_length_distribution={}), 'more than 0'), (dict(sequence_length_distribution={100: 0}), 'more than 0'), (dict(sequence_length_distribution={-5: 1}), 'sequence_length_distribution'),
                                     (dict(batch_size_distribution={1: -.5, 2: 1.5}), 'batch_size_distribution'), (dict(batch_size_distribution={0: 1}), 'batch_size_distribution holds 0'), (dict(sequence_length_distribution={'long': 1}), 'long')])
def test_a_workload_refuses_nonsense(bad, why):
    with pytest.raises(ValueError, match=why): WorkloadProfile(**bad)


# vLLMConfigOptimizer

@pytest.fixture(scope='module')
def best(): return vLLMConfigOptimizer(model_name=LLAMA, gpu_memory_capacity_gb=40., tuning_params=AutotuningParameters()).search_optimal_config(workload=CHATBOT)


def test_the_keys_of_a_search(best):
    assert {'optimal_config', 'predictions', 'performance_score', 'memory_breakdown', 'serve_command', 'explanation'} <= set(best)
    assert {'effective_batch_size', 'graph_coverage', 'throughput', 'ttft_ms', 'tpot_ms', 'e2e_ms'} <= set(best['predictions'])
    assert list(best['memory_breakdown']) == BREAKDOWN
    assert best['optimal_config'].gpu_memory_utilization == best.optimal_config.gpu_memory_utilization
    assert 0 < best.performance_score and best.serve_command.startswith('vllm serve '+LLAMA) and best.explanation
    assert best.predictions.effective_batch_size >= 1 and 0 <= best.predictions.graph_coverage <= 1


def test_a_result_shows_itself(best):
    for shown in (repr(best), best._repr_html_(), best._repr_markdown_()): assert 'KV cache' in shown and 'vllm serve' in shown
    assert dict(pickle.loads(pickle.dumps(best.memory_breakdown))) == dict(best.memory_breakdown)
    with pytest.raises(AttributeError, match='it has'): best.nonsense
    json.dumps(best.memory_breakdown)


def test_the_choice_is_valid_and_fits(best):
    verdict = vLLMConfigOptimizer(LLAMA, 40.).validate_configuration(best.optimal_config)
    assert verdict['valid'] and isinstance(verdict['warnings'], list) and isinstance(verdict['recommendations'], list)
    assert best.memory_breakdown.utilization_ratio <= .98+1e-6


@pytest.mark.parametrize('kind', ['chatbot', 'batch_inference', 'interactive'])
@pytest.mark.parametrize('name', ['Qwen/Qwen3-30B-A3B', 'google/gemma-3-12b-it', 'deepseek-ai/DeepSeek-V2-Lite'])
def test_other_models_and_workloads(name, kind):
    r = vLLMConfigOptimizer(name, gpu='H100').search_optimal_config(WorkloadProfile.create_synthetic(kind))
    assert r.optimal_config is not None and r.predictions.throughput > 0
    assert vLLMConfigOptimizer(name, gpu='H100').validate_configuration(r.optimal_config).valid


def test_nothing_fits():
    r = vLLMConfigOptimizer('meta-llama/Llama-3.3-70B-Instruct', gpu='L4').search_optimal_config(CHATBOT)
    assert r['optimal_config'] is None and r.reasons and r.recommendations and r.serve_command is None and 'GiB' in r.explanation
    assert 'would make it fit' in repr(r)


@pytest.mark.parametrize('config,valid', [({}, True), ({'max_num_seqs': 64}, True), ({'tensor_parallel_size': 3}, False), ({'max_model_len': 10**6}, False), ('vllm serve x --kv-cache-dtype int3', False), (Engine(max_num_seqs=9000, max_num_batched_tokens=100), False),
                                          (['serve', 'x', '--max-num-seqs', '32'], True)])
def test_validation(config, valid):
    v = vLLMConfigOptimizer(LLAMA, 40., max_model_len=2048).validate_configuration(config)
    assert v.valid is valid
    if not valid: assert v.errors and set(v.errors) <= set(v.warnings) and v.recommendations


# clusters

@pytest.mark.parametrize('strategy', [{'tp': 2, 'pp': 1, 'dp': 4}, {'tp': 1, 'pp': 1, 'dp': 8}, {'tp': 8}, {'tp': 4, 'pp': 2}, {}])
def test_clusters(strategy):
    r = optimize_vllm_config_for_cluster(model_name=LLAMA, gpu_memory_capacity_gb=40., workload=CHATBOT, parallelism_strategy=strategy)
    n = math.prod(strategy.values()) if strategy else 1
    assert r.num_gpus == n and r.cluster_predictions.num_replicas == strategy.get('dp', 1)
    assert r['cluster_predictions']['total_throughput'] > 0 and r['recommendations'] and all(isinstance(t, str) for t in r.recommendations)


def test_a_wasteful_cluster_is_answered_and_says_so():
    wasteful = optimize_vllm_config_for_cluster('Qwen/Qwen3-0.6B', None, CHATBOT, {'tp': 8}, gpu='H100')
    assert wasteful.optimal_config and any('would serve' in t or 'busy' in t for t in wasteful.recommendations)
    impossible = optimize_vllm_config_for_cluster(LLAMA, 40., CHATBOT, {'tp': 3})
    assert impossible.optimal_config is None and impossible.cluster_predictions.total_throughput == 0 and impossible.recommendations


@pytest.mark.parametrize('bad', [{'tp': 0}, {'tp': -2}, {'tp': 'two'}, {'qp': 2}, [2, 1, 4], {'tp': 1.5}])
def test_a_strategy_refuses_nonsense(bad):
    with pytest.raises(ValueError): optimize_vllm_config_for_cluster(LLAMA, 40., CHATBOT, bad)


# errors of everything else

@pytest.mark.parametrize('make,why', [
    (lambda: vLLMPerformanceModel('no/such-model', 40.), 'no/such-model'), (lambda: vLLMPerformanceModel(LLAMA, gpu='H1000'), 'H1000'), (lambda: vLLMPerformanceModel(LLAMA), 'which GPU'),
    (lambda: vLLMPerformanceModel(LLAMA, 0), 'GiB'), (lambda: vLLMPerformanceModel(LLAMA, -3), 'GiB'), (lambda: vLLMPerformanceModel(LLAMA, math.nan), 'GiB'), (lambda: vLLMPerformanceModel(LLAMA, 'plenty'), 'plenty'),
    (lambda: vLLMPerformanceModel(LLAMA, 40., 0), 'gpu_memory_utilization'), (lambda: vLLMPerformanceModel(LLAMA, 40., 1.5), 'gpu_memory_utilization'), (lambda: vLLMPerformanceModel(LLAMA, 40., 'abc'), 'abc'),
    (lambda: vLLMPerformanceModel(LLAMA, 40., max_model_len=0), 'max_model_len'), (lambda: vLLMPerformanceModel(LLAMA, 40., max_num_seqs=-1), 'max_num_seqs'), (lambda: vLLMPerformanceModel(LLAMA, 40., max_sequences=1), 'max_sequences'),
    (lambda: vLLMPerformanceModel(LLAMA, 40., vllm_version='banana').memory, 'banana'), (lambda: vLLMConfigOptimizer(LLAMA, 40.).search_optimal_config(CHATBOT, objective='joy'), 'joy'),
    (lambda: vLLMConfigOptimizer(LLAMA, 40.).validate_configuration({'tensor_paralel_size': 2}), 'tensor_paralel_size'), (lambda: vLLMConfigOptimizer(LLAMA, 40.).validate_configuration(3.5), 'float'),
    (lambda: vLLMPerformanceModel('meta-llama/Llama-3.3-70B-Instruct', 24.).predict(CHATBOT), 'GiB are needed')])
def test_nonsense_gets_one_sentence(make, why):
    with pytest.raises(ValueError) as ex: make()
    assert why in str(ex.value) and 20 < len(str(ex.value)) < 600 and '\n' not in str(ex.value)


BROKEN = {'truncated': '{"model_type": "llama", "hidden_size": 40', 'not json': 'hello', 'a list': '[1, 2]', 'empty': '', 'strings': json.dumps({**Config().to_dict(), 'hidden_size': 'wide'}), 'negative': json.dumps({**Config().to_dict(), 'num_hidden_layers': -4}),
          'absurd': json.dumps({**Config().to_dict(), 'vocab_size': 10**15}), 'nan': json.dumps({**Config().to_dict(), 'intermediate_size': math.nan}), 'heads': json.dumps({**Config().to_dict(), 'num_key_value_heads': 5}),
          'deep': '{"a":'*20000+'1'+'}'*20000}


@pytest.mark.parametrize('kind', BROKEN)
def test_a_broken_config_is_explained(kind, tmp_path):
    (p := tmp_path/'config.json').write_text(BROKEN[kind])
    with pytest.raises(ValueError) as ex: vLLMPerformanceModel(str(p), 40.).calculate_memory_breakdown()
    assert len(str(ex.value)) > 20


def test_a_config_of_100_mb_is_refused_quickly(tmp_path):
    (p := tmp_path/'config.json').write_text('{"a": "'+'x'*(100*2**20)+'"}')
    with pytest.raises(ValueError): arch(str(p))


# laws

SOME = [n for i, n in enumerate(catalogue()) if not i%7]
names = st.sampled_from(SOME)
cards = st.sampled_from([d.name for d in devices() if d.vendor=='NVIDIA' and not d.unified])


@quick
@given(names, st.sampled_from([1, 2, 4]))
def test_more_ranks_never_hold_more_weights(name, tp):
    a, d = arch(name), device('H100')
    one = lambda n: weight_bytes(a, d, Engine(tensor_parallel_size=n).resolve(a, d))
    try: small, large = one(tp), one(2*tp)
    except ValueError: return  # heads that these ranks cannot share
    assert large <= small


@quick
@given(names, st.integers(2, 60))
def test_a_wider_cache_type_never_holds_more_tokens(name, gib):
    a, d = arch(name), device('H100')
    tokens = lambda t: kv_plan(a, d, Engine(kv_cache_dtype=t, max_model_len=2048).resolve(a, d), gib*2**30).kv_tokens
    if not a.kv_dtype: assert tokens('auto') <= tokens('fp8')  # a checkpoint that asks for an 8-bit cache is narrow already


@quick
@given(names, cards, st.floats(.3, 1))
def test_the_parts_sum_to_the_budget(name, card, share):
    m = memory(arch(name), device(card), Engine(gpu_memory_utilization=share, max_model_len=2048))
    assert m.weights+m.activation+m.non_torch+m.cuda_graph+m.kv_cache == m.requested <= m.total+1
    assert all(x >= 0 for x in (m.weights, m.activation, m.non_torch, m.cuda_graph))
    for k in ('activation', 'non_torch', 'cuda_graph', 'kv_cache'):
        low, high = m.interval(k)
        assert low <= getattr(m, k) <= high


@quick
@given(names, cards, st.floats(.3, .95), st.floats(.001, .05))
def test_more_of_the_card_never_shrinks_the_cache(name, card, share, more):
    a, d = arch(name), device(card)
    at = lambda u: memory(a, d, Engine(gpu_memory_utilization=u, max_model_len=2048))
    x, y = at(share), at(share+more)
    assert x.kv_cache <= y.kv_cache and x.plan.kv_tokens <= y.plan.kv_tokens


@quick
@given(names, st.integers(1, 1024), st.integers(1, 1024))
def test_a_longer_context_never_raises_concurrency(name, a, b):
    x, d = arch(name), device('H100')
    short, long = (kv_plan(x, d, Engine(max_model_len=n).resolve(x, d), 8*2**30) for n in (min(a, b)*16, max(a, b)*16))
    assert long.max_concurrency <= short.max_concurrency*(1+1e-9)


@quick
@given(st.text(max_size=60))
def test_any_text_is_a_model_or_a_sentence(text):
    try: arch(text)
    except ValueError as ex: assert str(ex)


@quick
@given(st.dictionaries(st.sampled_from(['model_type', 'architectures', 'hidden_size', 'num_hidden_layers', 'num_attention_heads', 'num_key_value_heads', 'intermediate_size', 'vocab_size', 'head_dim', 'torch_dtype', 'rope_scaling', 'quantization_config', 'num_experts']),
                       st.one_of(st.none(), st.booleans(), st.integers(-10, 10**7), st.floats(), st.text(max_size=8), st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=4), st.integers(), max_size=2))))
def test_any_config_is_an_architecture_or_a_sentence(config):
    try: m = memory(arch(config), device('H100'), Engine(max_model_len=1024))
    except ValueError as ex: assert str(ex); return
    assert m.weights >= 0 and math.isfinite(m.kv_cache)
