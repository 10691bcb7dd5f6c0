"""Answer many questions: one job per line in, one answer per line out, appended as they come.

    python -m vllm_oracle.build --home HOME --version 0.33.0 --gpu H100 --jobs jobs.jsonl --out answers.jsonl [--params DIR] [--no-flashinfer]

A job is {"model": name, "config_json": {...}, "cases": [{...}, ...]}; more keys are copied into the answers. A process that has imported vLLM
is forked for every model, and again for every case, so that no case sees another's state and a crash costs one case.
Answers already in the output file are not asked again.
"""
import argparse, gc, json, os, pickle, signal, sys, time
from pathlib import Path

def in_child(f, timeout=180):
    "f() in a forked child; None and a word of what happened when it died or took too long."
    r, w = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(r); signal.alarm(timeout)
        code = 1
        try:
            with os.fdopen(w, 'wb') as fh: pickle.dump(f(), fh)
            code = 0
        except BaseException:
            import traceback; traceback.print_exc()
        finally: os._exit(code)
    os.close(w)
    with os.fdopen(r, 'rb') as fh: data = fh.read()
    _, status = os.waitpid(pid, 0)
    if data:
        try: return pickle.loads(data), None
        except Exception as e: return None, repr(e)
    return None, f'child ended with {os.waitstatus_to_exitcode(status)}'

def key(model, case): return model + json.dumps(case, sort_keys=True)

def done_keys(out):
    "Cases that the output already holds."
    if not Path(out).exists(): return set()
    return {key(d['model'], d['case']) for d in map(json.loads, open(out))}

def run_model(oracle, job, done, emit, params_dir=None):
    "All cases of one job; runs inside a child that stays warm for this model's classes."
    warmed = False
    for case in job['cases']:
        if key(job['model'], case) in done: continue
        want = params_dir is not None and not (set(case) - {'tp', 'pp', 'max_model_len'}) and case.get('tp', 1) == 1 and case.get('pp', 1) == 1
        if not warmed: warm(oracle, job['config_json']); warmed = True
        t0 = time.time()
        ans, died = in_child(lambda: oracle.plan(job['config_json'], case, want))
        if ans is None: ans = dict(case=case, refused_at='oracle', error=dict(type='OracleFailure', message=died), seconds=round(time.time()-t0, 2))
        if want and ans.get('workers'):
            w = ans['workers'][0]
            rows = {k: w.pop(k) for k in ('tensors', 'tensors_after') if k in w}
            name = job['model'].replace('/', '__')
            Path(params_dir).mkdir(parents=True, exist_ok=True)
            json.dump(dict(model=job['model'], case=case, columns=['name', 'shape', 'dtype', 'kind'], **rows), open(Path(params_dir)/f'{name}.json', 'w'))
        for w in ans.get('workers') or []: w.pop('tensors', None); w.pop('tensors_after', None)
        emit(dict(model=job['model'], **{k: v for k, v in job.items() if k not in ('model', 'cases', 'config_json')}, **ans))

def warm(oracle, config):
    "Import the model's module before forking for its cases."
    try:
        from vllm.model_executor.models.registry import ModelRegistry
        for arch in config.get('architectures') or []:
            if (m := ModelRegistry.models.get(arch)) is not None: m.load_model_cls()
    except Exception: pass

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--home', required=True); p.add_argument('--version', required=True); p.add_argument('--gpu', default='H100')
    p.add_argument('--jobs', required=True); p.add_argument('--out', required=True); p.add_argument('--params'); p.add_argument('--no-flashinfer', action='store_true')
    p.add_argument('--only', help='comma-separated model names')
    a = p.parse_args(argv)
    from .oracle import Oracle
    oracle = Oracle(a.home, a.version, a.gpu, not a.no_flashinfer)
    gc.collect(); gc.freeze()
    done, t0 = done_keys(a.out), time.time()
    for job in map(json.loads, open(a.jobs)):
        if a.only and job['model'] not in a.only.split(','): continue
        if all(key(job['model'], c) in done for c in job['cases']): continue
        def emit(row):
            with open(a.out, 'a') as fh: fh.write(json.dumps(row) + '\n')
        t = time.time()
        _, died = in_child(lambda: run_model(oracle, job, done, emit, a.params), timeout=1800)
        print(f'{job["model"]:50s} {len(job["cases"]):3d} cases {time.time()-t:6.1f} s', died if died and 'ended with 0' not in died else '', flush=True)
    print(f'{time.time()-t0:.0f} s')

if __name__ == '__main__': main()
