#!/usr/bin/env python
"""The specification's names, end to end: one server for three workloads, a cluster under several strategies, configurations judged, workloads compared.

    python examples/vllm_config_optimization.py [MODEL] [GPU]

Runs anywhere in seconds: no GPU, no download, no vLLM. The notebook twin with figures is nbs/tutorials/vllm_config_optimization.ipynb.
"""
import sys

from vllm_tuner import AutotuningParameters, WorkloadProfile, optimize_vllm_config_for_cluster, vLLMConfigOptimizer, vLLMPerformanceModel

PRESETS = 'chatbot', 'batch_inference', 'interactive'
STRATEGIES = {'tp': 8, 'pp': 1, 'dp': 1}, {'tp': 4, 'pp': 1, 'dp': 2}, {'tp': 2, 'pp': 2, 'dp': 2}, {'tp': 1, 'pp': 1, 'dp': 8}


def heading(text): print(f'\n{text}\n{"-"*len(text)}')


def memory(model, gpu):
    "Where the memory of one configuration goes"
    heading(f'Memory of {model} on {gpu}')
    configuration = vLLMPerformanceModel(model, gpu=gpu, gpu_memory_utilization=.9, max_model_len=8192)
    for name, gib in list(configuration.calculate_memory_breakdown().items())[:6]: print(f'{name:20} {gib:6.2f} GiB')
    print(f'{configuration.calculate_effective_batch_size()} requests of 8,192 tokens at once')


def single_instance(optimizer):
    "The best flags for each workload"
    heading('One server, three workloads')
    results = {kind: optimizer.search_optimal_config(workload=WorkloadProfile.create_synthetic(kind)) for kind in PRESETS}
    for kind, result in results.items():
        if not result.optimal_config: print(f'{kind:16} nothing fits: {result.explanation}'); continue
        print(f'{kind:16} {result.serve_command}')
        print(f'{"":16} share of the card {result.optimal_config.gpu_memory_utilization:.0%}, batch up to {result.predictions.effective_batch_size}, graph coverage {result.predictions.graph_coverage:.0%}')
    return results


def comparison(results):
    "The workloads side by side"
    heading('Workloads compared')
    print(f'{"":16} {"tokens/s":>9} {"80 % of cases":>18} {"first token":>13} {"next token":>11}')
    for kind, result in results.items():
        if not (p := result.predictions): continue
        low, high = p.intervals.output_tokens_per_second
        print(f'{kind:16} {p.throughput:9,.0f} {f"{low:,.0f} to {high:,.0f}":>18} {p.ttft_ms.p50:10,.0f} ms {p.tpot_ms.mean:8.1f} ms')


def cluster(model, gpu):
    "The same eight GPUs under several strategies"
    heading(f'Eight {gpu}, {len(STRATEGIES)} strategies')
    workload = WorkloadProfile.from_lengths(1000, 300, requests_per_second=10)
    for strategy in STRATEGIES:
        result = optimize_vllm_config_for_cluster(model_name=model, gpu=gpu, workload=workload, parallelism_strategy=strategy)
        print(strategy, f"{result['cluster_predictions']['total_throughput']:,.0f} tokens/s" if result.optimal_config else 'does not start')
        for text in result['recommendations']: print(f'    {text[:160]}')


def validation(optimizer, results):
    "Configurations judged before anything is started"
    heading('Configurations judged')
    good = next((r.optimal_config for r in results.values() if r.optimal_config), {})
    for name, configuration in {'the best of the search': good, 'three ranks': {'tensor_parallel_size': 3}, 'a command line': 'vllm serve model --max-num-seqs 4096 --max-num-batched-tokens 2048'}.items():
        verdict = optimizer.validate_configuration(configuration)
        print(f'{name}: {"valid" if verdict["valid"] else "refused"}')
        for text in verdict['warnings']: print(f'    {text[:160]}')
        for text in verdict['recommendations']: print(f'    do: {text[:160]}')


def main(model='meta-llama/Llama-3.1-8B-Instruct', gpu='L40S'):
    memory(model, gpu)
    optimizer = vLLMConfigOptimizer(model, gpu=gpu, tuning_params=AutotuningParameters())
    results = single_instance(optimizer)
    comparison(results)
    cluster('meta-llama/Llama-3.3-70B-Instruct', 'H100')
    validation(optimizer, results)


if __name__=='__main__':
    try: main(*sys.argv[1:3])
    except ValueError as ex: sys.exit(f'{ex}')
