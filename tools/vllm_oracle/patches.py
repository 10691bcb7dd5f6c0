"""What has to be replaced in vLLM from outside so that one process can play one rank of many. No source file is touched."""

def apply():
    "Patch process groups, communicators and class inspection; call once, after the platform is installed."
    import importlib.machinery, sys
    import torch.distributed as dist
    import vllm.distributed.parallel_state as ps
    from vllm.distributed.device_communicators import base_device_communicator as base, shm_broadcast
    import vllm.platforms as platforms

    new_group = dist.new_group
    dist.new_group = lambda ranks=None, timeout=None, backend=None, *a, **k: new_group(ranks, backend='fake')
    shm_broadcast.MessageQueue.create_from_process_group = staticmethod(lambda *a, **k: None)

    class Communicator(base.DeviceCommunicatorBase):
        "A communicator that never communicates; it brings the default all-to-all manager that expert parallelism asks for."
        def __init__(self, *a, **k):
            super().__init__(*a, **k)
            self.ca_comm = self.pynccl_comm = self.qr_comm = self.symm_mem_comm = self.fi_ar_comm = None
            if getattr(self, 'use_all2all', False):
                from vllm.distributed.device_communicators.all2all import AgRsAll2AllManager
                self.all2all_manager = AgRsAll2AllManager(self.cpu_group)
    module = type(sys)('vllm_oracle_communicator'); module.Communicator = Communicator
    sys.modules[module.__name__] = module
    type(platforms.current_platform).get_device_communicator_cls = classmethod(lambda cls: f'{module.__name__}.Communicator')

    ps.in_the_same_node_as = lambda pg, source_rank=0: [True]*len(dist.get_process_group_ranks(pg))

    import inspect
    from vllm.utils import torch_utils
    register = torch_utils.direct_register_custom_op
    def with_fake(op_name, op_func, *a, **k):
        "Give an operator that only writes into its arguments the trivial shape function."
        if k.get('fake_impl') is None and len(a) < 2 and inspect.signature(op_func).return_annotation in (None, 'None'): k['fake_impl'] = lambda *x, **y: None
        return register(op_name, op_func, *a, **k)
    torch_utils.direct_register_custom_op = with_fake

    for name in ('cuda', 'cuda.bindings', 'cuda.bindings.runtime'):      # cuda-python: asked for peer-to-peer workspaces only, which then are not made
        if name not in sys.modules:
            m = sys.modules[name] = type(sys)(name); m.__path__ = []; m.__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules['cuda'].bindings = sys.modules['cuda.bindings']; sys.modules['cuda.bindings'].runtime = sys.modules['cuda.bindings.runtime']

    from vllm.model_executor.models import registry
    registry._run_in_subprocess = lambda fn: fn()

def join(world, rank):
    "Join a fake process group as `rank` of `world`."
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore
    leave()
    dist.init_process_group(backend='fake', store=FakeStore(), rank=rank, world_size=world)

def leave():
    "Forget every group."
    import torch.distributed as dist
    import vllm.distributed.parallel_state as ps
    for name in [n for n in vars(ps) if n.startswith('_') and isinstance(getattr(ps, n), ps.GroupCoordinator)]: setattr(ps, name, None)
    if hasattr(ps, '_NODE_COUNT'): ps._NODE_COUNT = None
    if dist.is_initialized(): dist.destroy_process_group()
