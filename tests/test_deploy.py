"Deployment files against published schemas, and against strings that mean harm"
import json, shlex
from dataclasses import replace

import jsonschema, pytest, yaml
from vllm_tuner.deploy import TARGETS, Deployment, compose, deploy, kserve, kubernetes, leader_worker_set, llm_d, production_stack, ray_serve, serve
from vllm_tuner.engine import Engine
from vllm_tuner.flags import to_flags

D = Deployment('meta-llama/Llama-3.1-8B-Instruct', Engine(tensor_parallel_size=2, max_model_len=8192, max_num_seqs=128, gpu_memory_utilization=.93, cudagraph_mode='FULL_DECODE_ONLY'), gpu='H100-SXM', replicas=2, notes=('predicted 2,100 output tokens/s',))
BIG = Deployment('deepseek-ai/DeepSeek-V3', Engine(tensor_parallel_size=8, pipeline_parallel_size=2, max_model_len=16384), notes=D.notes)
HOSTILE = ('; rm -rf /', '$(reboot)', '${HOME}', '`id`', "it's", '"', 'a\nport: 1', '!!python/object/apply:os.system ["id"]', '{{ .Values.secret }}', '- x\n- y', '# comment', '--api-key=x', '&a *a', '\u2028next', '%(x)s')


def obj(required=(), **props): return {'type': 'object', 'required': list(required), 'properties': props}


STR, INT, CONTAINER = {'type': 'string'}, {'type': 'integer', 'minimum': 0}, obj(('name', 'image'), name={'type': 'string', 'pattern': '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'}, image={'type': 'string'}, command={'type': 'array', 'items': {'type': 'string'}}, args={'type': 'array', 'items': {'type': 'string'}},
    env={'type': 'array', 'items': obj(('name',), name={'type': 'string'}, value={'type': 'string'})}, resources=obj((), limits={'type': 'object', 'additionalProperties': {'type': 'string'}}))
POD = obj(('spec',), spec=obj(('containers',), containers={'type': 'array', 'minItems': 1, 'items': CONTAINER}))
# leaderworkerset.x-k8s.io/v1: spec.leaderWorkerTemplate with size, restartPolicy and two pod templates
LWS = obj(('apiVersion', 'kind', 'metadata', 'spec'), apiVersion={'const': 'leaderworkerset.x-k8s.io/v1'}, kind={'const': 'LeaderWorkerSet'},
          spec=obj(('leaderWorkerTemplate',), replicas=INT, leaderWorkerTemplate={**obj(('workerTemplate', 'size'), size=INT, leaderTemplate=POD, workerTemplate=POD, restartPolicy={'enum': ['RecreateGroupOnPodRestart', 'None', 'Default', 'RecreateGroupAfterStart']}), 'additionalProperties': False}))
# serving.kserve.io/v1beta1: a predictor is a pod spec with scaling fields beside
KSERVE = obj(('apiVersion', 'kind', 'metadata', 'spec'), apiVersion={'const': 'serving.kserve.io/v1beta1'}, kind={'const': 'InferenceService'},
             spec=obj(('predictor',), predictor=obj(('containers',), minReplicas=INT, maxReplicas=INT, scaleTarget=INT, scaleMetric={'enum': ['cpu', 'memory', 'concurrency', 'rps']}, containers={'type': 'array', 'minItems': 1, 'maxItems': 1, 'items': CONTAINER})))
# compose-spec: services with image, command as a list, reservations of devices
COMPOSE = obj(('services',), services={'type': 'object', 'additionalProperties': obj(('image',), image=STR, entrypoint={'type': 'array', 'items': STR}, command={'type': 'array', 'items': STR}, ports={'type': 'array', 'items': STR}, environment={'type': 'object'}, ipc=STR,
    restart={'enum': ['no', 'always', 'on-failure', 'unless-stopped']}, healthcheck=obj(('test',), test={'type': 'array', 'items': STR}, interval=STR, timeout=STR, retries=INT, start_period={'type': 'string', 'pattern': r'^\d+s$'}),
    deploy=obj((), resources=obj((), reservations=obj((), devices={'type': 'array', 'items': obj(('capabilities',), driver=STR, count=INT, capabilities={'type': 'array', 'items': STR})}))))})
# ray serve's config file: applications, each imported from a path with arguments
RAY = obj(('applications',), http_options=obj((), host=STR, port=INT), applications={'type': 'array', 'items': obj(('import_path', 'name'), name=STR, route_prefix={'type': 'string', 'pattern': '^/'}, import_path={'type': 'string', 'pattern': r'^[\w.]+:\w+$'},
    args=obj(('llm_configs',), llm_configs={'type': 'array', 'items': obj(('model_loading_config', 'engine_kwargs'), engine_kwargs={'type': 'object', 'propertyNames': {'pattern': '^[a-z0-9_]+$'}})}))})
# production-stack helm/values.schema.json: servingEngineSpec.modelSpec
STACK = obj(('servingEngineSpec',), servingEngineSpec=obj(('modelSpec',), modelSpec={'type': 'array', 'items': obj(('name', 'repository', 'tag', 'modelURL', 'replicaCount', 'requestCPU', 'requestMemory', 'requestGPU'), name=STR, repository=STR, tag=STR, modelURL=STR, replicaCount=INT, requestCPU=INT, requestMemory=STR, requestGPU=INT, requestGPUType=STR, shmSize=STR, env={'type': 'array'},
    vllmConfig=obj(('enablePrefixCaching',), enablePrefixCaching={'type': 'boolean'}, tensorParallelSize=INT, extraArgs={'type': 'array', 'items': STR}))}))
# llm-d-modelservice values.schema.json and templates/_helpers.tpl: no key beside these is read, and a stage is no key of parallelism
LLMD = {**obj(('modelArtifacts', 'decode'), multinode={'type': 'boolean'}, accelerator={**obj((), type={'enum': ['nvidia', 'amd']}), 'additionalProperties': False}, prefill=obj((), create={'type': 'boolean'}),
    modelArtifacts={**obj(('name', 'uri'), name=STR, uri=STR, size=STR, labels={**obj((), **{'llm-d.ai/inferenceServing': STR, 'llm-d.ai/model': STR}), 'additionalProperties': False}), 'additionalProperties': False},
    routing={**obj((), servicePort=INT, proxy=obj(('enabled',), enabled={'const': False})), 'additionalProperties': False},
    decode=obj(('containers',), create={'type': 'boolean'}, replicas=INT, volumes={'type': 'array'}, parallelism={**obj((), tensor=INT, data=INT, dataLocal=INT, workers=INT), 'additionalProperties': False},
               containers={'type': 'array', 'items': obj(('image', 'modelCommand'), image=STR, modelCommand={'enum': ['vllmServe', 'imageDefault', 'custom']}, args={'type': 'array', 'items': STR}, env={'type': 'array'}, ports={'type': 'array'})})), 'additionalProperties': False}


@pytest.mark.parametrize('text,schema', [(leader_worker_set(BIG), LWS), (kserve(D), KSERVE), (compose(D), COMPOSE), (ray_serve(D), RAY), (production_stack(D), STACK), (llm_d(D), LLMD)], ids=['lws', 'kserve', 'compose', 'ray', 'production-stack', 'llm-d'])
def test_keeps_the_schema(text, schema): jsonschema.validate(next(yaml.safe_load_all(text)), schema)


@pytest.mark.parametrize('make', [kubernetes, lambda d: kubernetes(replace(d, vendor='AMD'))], ids=['nvidia', 'amd'])
def test_kubernetes_by_its_own_schema(make):
    "Deployment, Service and autoscaler by the API's published schema, where kubernetes-validate is installed"
    k = pytest.importorskip('kubernetes_validate')
    for doc in yaml.safe_load_all(make(D)): k.validate(doc, '1.30', strict=True)
    k.validate(list(yaml.safe_load_all(leader_worker_set(BIG)))[1], '1.30', strict=True)


def test_ray_by_its_own_schema():
    "Where Ray Serve is installed"
    schema = pytest.importorskip('ray.serve.schema')
    schema.ServeDeploySchema.model_validate(yaml.safe_load(ray_serve(D))) if hasattr(schema.ServeDeploySchema, 'model_validate') else schema.ServeDeploySchema.parse_obj(yaml.safe_load(ray_serve(D)))


@pytest.mark.parametrize('gpu,vendor', [('H100-SXM', 'NVIDIA'), ('B200', 'NVIDIA'), ('A10G', 'NVIDIA'), ('RTX-4090', 'NVIDIA'), ('MI300X', 'AMD')])
def test_ray_by_the_model_of_its_configuration(gpu, vendor):
    "Where Ray Serve LLM is installed: its own pydantic model, accelerator names included"
    llm = pytest.importorskip('ray.serve.llm', exc_type=ImportError)
    for c in yaml.safe_load(ray_serve(replace(D, gpu=gpu, vendor=vendor)))['applications'][0]['args']['llm_configs']: llm.LLMConfig.model_validate(c)


def test_what_a_chart_would_change():
    "Prefix caching stays as it was modelled, stages stay stages, and several cards get shared memory"
    off = production_stack(replace(D, engine=replace(D.engine, enable_prefix_caching=False)))
    assert [yaml.safe_load(t)['servingEngineSpec']['modelSpec'][0]['vllmConfig']['enablePrefixCaching'] for t in (production_stack(D), off)]==[True, False]
    values = yaml.safe_load(llm_d(replace(D, engine=replace(D.engine, pipeline_parallel_size=2))))
    args = values['decode']['containers'][0]['args']
    assert args[args.index('--pipeline-parallel-size')+1]=='2' and values['decode']['parallelism']['tensor']==2
    assert {'mountPath': '/dev/shm', 'name': 'shm'} in values['decode']['containers'][0]['volumeMounts']
    with pytest.raises(ValueError, match='leader_worker_set'): llm_d(BIG)


def shape(x):
    "A document without its strings"
    return {str(k): shape(v) for k, v in x.items()} if isinstance(x, dict) else [shape(v) for v in x] if isinstance(x, list) else type(x).__name__


def strings(x): return [s for v in (x.values() if isinstance(x, dict) else x if isinstance(x, list) else ()) for s in strings(v)] or ([x] if isinstance(x, str) else [])


@pytest.mark.parametrize('target', TARGETS)
@pytest.mark.parametrize('evil', HOSTILE)
def test_a_string_stays_a_string(target, evil):
    "The same documents with the same keys, whatever the model is called and the notes say; the name itself comes through unchanged"
    text, plain = deploy(replace(D, model=evil, notes=(evil,)), target), deploy(replace(D, model='x', notes=('x',)), target)
    if target=='command':
        assert evil in [w.removeprefix('--model=') for w in shlex.split(text)] and len(shlex.split(text))==len(shlex.split(plain))
        return
    docs, other = list(yaml.safe_load_all(text)), list(yaml.safe_load_all(plain))
    name = lambda d: json.loads(json.dumps(d).replace(deploy_name(evil), 'NAME').replace(deploy_name('x'), 'NAME'))
    assert [shape(name(d)) for d in docs]==[shape(name(d)) for d in other]
    kept = {'compose': evil.replace('$', '$$')}.get(target, evil.replace('$(', '$$(') if target in ('kubernetes', 'kserve', 'lws') else evil)
    assert any(kept in (s, s.removeprefix('--model=')) for s in strings(docs)), strings(docs)


def deploy_name(model): return replace(D, model=model).name


def test_the_flags_are_those_that_were_modelled():
    "Every target carries the words of the command and no other engine flag"
    flags = list(to_flags(D.engine))
    assert shlex.split(serve(D))[3:]==flags
    args = lambda text: next(yaml.safe_load_all(text))['spec']['template']['spec']['containers'][0]['args']
    assert args(kubernetes(D))[1:1+len(flags)]==flags and set(args(kubernetes(D))[1+len(flags):])<={'--host', '0.0.0.0', '--port', '8000'}
    assert yaml.safe_load(production_stack(D))['servingEngineSpec']['modelSpec'][0]['vllmConfig']['extraArgs']==flags
    assert 'predicted 2,100' in deploy(D, 'kubernetes') and 'predicted 2,100' in llm_d(D)
