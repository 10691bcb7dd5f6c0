"A sweep on a real Ray cluster of two nodes, where Ray is installed: the same rows as local processes give, in any order"
import os, shutil, signal, socket, subprocess, sys, time
from pathlib import Path

import pytest

ray = pytest.importorskip('ray')
SPEC = {'models': ['Qwen/Qwen3-8B', 'meta-llama/Llama-3.1-8B-Instruct'], 'gpus': ['H100', 'L4'], 'workloads': [{'input_len': 256, 'output_len': 32, 'max_concurrency': 8}],
        'layouts': [{}, {'tp': 2}], 'flags': [{'max_num_seqs': n} for n in (8, 16, 32, 64, 128)]}


HOST = '127.0.0.2'  # a loopback address that Ray does not replace by the machine's own


def free_port():
    with socket.socket() as s: s.bind((HOST, 0)); return s.getsockname()[1]


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    "Two nodes of one processor each, started with `ray start`, ended by their process groups"
    exe = shutil.which('ray', path=f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    address, logs = f'{HOST}:{free_port()}', tmp_path_factory.mktemp('ray')
    env = {**os.environ, 'PYTHONPATH': str(Path(__file__).parent.parent), 'RAY_USAGE_STATS_ENABLED': '0'}
    start = lambda name, *a: subprocess.Popen([exe, 'start', '--block', '--num-cpus=1', f'--node-ip-address={HOST}', *a], stdout=open(logs/f'{name}.log', 'w'), stderr=subprocess.STDOUT, env=env, start_new_session=True)
    nodes = [start('head', '--head', f'--port={address.split(":")[1]}', '--include-dashboard=false', f'--temp-dir={logs}/t')]
    try:
        until = time.time()+120
        while 'Ray runtime started' not in (logs/'head.log').read_text():
            assert time.time()<until and nodes[0].poll() is None, (logs/'head.log').read_text()[-600:]
            time.sleep(.5)
        nodes.append(start('second', f'--address={address}'))
        ray.init(address=address, _node_ip_address=HOST, log_to_driver=False)
        while len([n for n in ray.nodes() if n['Alive']])<2:
            assert time.time()<until, [(logs/f).read_text()[-600:] for f in ('head.log', 'second.log')]
            time.sleep(.5)
        yield address
    finally:
        if ray.is_initialized(): ray.shutdown()
        for p in nodes:
            for sig in (signal.SIGTERM, signal.SIGKILL):
                try: os.killpg(p.pid, sig); p.wait(15)
                except (ProcessLookupError, subprocess.TimeoutExpired): pass


def test_two_nodes_give_the_rows_of_one(cluster, tmp_path):
    from vllm_tuner.sweep import read_rows, sweep
    from vllm_tuner.sweep_rows import points
    n = len(list(points(SPEC)))
    far, near = sweep(SPEC, tmp_path/'far.csv', ray=cluster, progress=False), sweep(SPEC, tmp_path/'near.csv', workers=1, progress=False)
    assert far.rows==far.computed==near.rows==n
    by = lambda p: {r['id']: r for r in read_rows(p)}
    assert by(tmp_path/'far.csv')==by(tmp_path/'near.csv')
    assert sweep(SPEC, tmp_path/'far.csv', ray=cluster, progress=False).computed==0


def test_both_nodes_work(cluster):
    @ray.remote(num_cpus=1)
    def where(): time.sleep(1); return ray.get_runtime_context().get_node_id()
    assert len(set(ray.get([where.remote() for _ in range(4)])))==2
