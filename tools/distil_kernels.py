#!/usr/bin/env python
"""Distil measured kernel times into a few figures per GPU and family: vllm_tuner/data/kernels.json

    pip download --no-deps aiconfigurator-core==0.12.0 && unzip aiconfigurator_core-*.whl '*.parquet' -d FOLDER
    python tools/distil_kernels.py FOLDER/aiconfigurator_core/systems/data vllm_tuner/data/kernels.json

The package is NVIDIA's (Apache-2.0). It holds tables of single kernels, timed with vLLM's own kernels on nine GPUs; only those are
read here, never its serving measurements. Each group of rows (GPU, type of weights, kernel) is fitted with a form of
nbs/340_kernels.ipynb by robust least squares over logarithms; `error` is the median absolute error on the group itself, `left_out`
the one of a form whose figures are means over the other GPUs, those of the same architecture where there are any.
"""
import argparse, json
from pathlib import Path
import numpy as np
import pyarrow as pa, pyarrow.parquet as pq
from vllm_tuner.devices import device
from vllm_tuner.hardware_rates import architecture
from vllm_tuner.kernels import Kernel, decode_seconds, expert_seconds, gemm_seconds, prefill_seconds

GPUS = {'a100_sxm':'A100-80GB-SXM','l40s':'L40S','h100_sxm':'H100-SXM','h200_sxm':'H200-SXM','b200_sxm':'B200','b300_sxm':'B300','gb200':'GB200','gb300':'GB300','rtx_pro_6000_server':'RTX-PRO-6000'}
FAMILY = {'bfloat16':'bf16','fp8':'fp8','fp8_block':'fp8_block','nvfp4':'nvfp4','int4_wo':'w4a16','w4a16_mxfp4':'mxfp4'}
BYTES = {'bf16':2,'fp8':1,'fp8_block':1,'nvfp4':.5625,'w4a16':.52,'mxfp4':.53}   # of one weight with its scales

def newest(folder, gpu, op, table, producer='vllm'):
    "The rows of a table for the newest version that has it, and that version"
    files = sorted(Path(folder,gpu,op,producer).glob(f'*/{table}_perf.parquet'), key=lambda p: [int(x) for x in p.parent.name.split('.') if x.isdigit()])
    if not files: return None,''
    t = pq.read_table(files[-1])
    return {c:t[c].to_numpy(zero_copy_only=False) for c in t.column_names if not pa.types.is_null(t[c].type)}, files[-1].parent.name

def where(t, mask): return {k:v[mask] for k,v in t.items()}

def fit(form, start, measured, width=.15, rounds=40):
    "Logarithms of the figures of a form, by damped Gauss-Newton with soft weights; the median absolute error"
    x,y = np.log(start),np.log(measured)
    residual = lambda x: np.log(form(np.exp(x)))-y
    loss = lambda r,x: (width**2*np.log1p((r/width)**2)).sum()+1e-3*((x-np.log(start))**2).sum()*len(y)
    r,damp = residual(x),1.
    for _ in range(rounds):
        J = np.stack([(residual(x+1e-4*e)-r)/1e-4 for e in np.eye(len(x))], 1)
        w = 1/(1+(r/width)**2)
        A,g = J.T@(J*w[:,None])+1e-3*len(y)*np.eye(len(x)), J.T@(w*r)+1e-3*len(y)*(x-np.log(start))
        z = x-np.linalg.solve(A+damp*np.diag(np.diag(A)), g)
        s = residual(z)
        if loss(s,z)<loss(r,x): x,r,damp = z,s,damp/3
        else: damp *= 4
    return np.exp(x),float(np.median(np.abs(np.expm1(r))))

def thin(t, n=4000):
    "At most `n` rows"
    m = len(t['latency'])
    return t if m<=n else where(t, np.random.default_rng(0).permutation(m)[:n])

# ---------------------------------------------------------------- the four kinds of kernel: rows, and the form on them

def gemms(folder, gpu):
    "Groups of dense matrix products"
    t,v = newest(folder, gpu, 'gemm', 'gemm')
    t = where(t, (t['n']>=1024)&(t['k']>=1024)&(t['n']<=16384)&(t['k']<=16384)&(t['m']<=8192))
    for name in dict.fromkeys(t['gemm_dtype']):
        f,g = FAMILY[name],where(t, t['gemm_dtype']==name)
        if f=='fp8_block': continue   # the same 65 to 350 us up to a thousand tokens: these rows time the launch, not the kernel
        yield f,'',v,g,lambda k,d,g: gemm_seconds(k, d, g['m'], g['n'], g['k'], BYTES[k.family])

def experts(folder, gpu):
    "Groups of mixtures of experts whose tokens are spread evenly"
    t,v = newest(folder, gpu, 'moe', 'moe')
    t = where(t, (t['distribution']=='balanced')&(t['moe_ep_size']==1)&(t['inter_size']//t['moe_tp_size']>=128))
    for name,kernel in sorted({*zip(t['moe_dtype'],t['kernel_source'])}):
        g = where(t, (t['moe_dtype']==name)&(t['kernel_source']==kernel))
        if name not in FAMILY or len(g['topk'])<500: continue
        short = kernel.removeprefix('vllm_').split('moe_')[-1].replace('_experts','')
        yield FAMILY[name],short,v,g,lambda k,d,g: expert_seconds(k, d, g['num_tokens'], g['hidden_size'], g['inter_size']/g['moe_tp_size'], g['num_experts'], g['topk'], BYTES[k.family], spread=False)

def decodes(folder, gpu):
    "Groups of decode attention"
    t,v = newest(folder, gpu, 'attention', 'generation_attention')
    t = where(t, (t.get('window_size',np.zeros(len(t['latency'])))==0)&np.isin(t['head_dim'],(64,128,256)))
    for name,kernel in sorted({*zip(t['kv_cache_dtype'],t['kernel_source'])}):
        g = where(t, (t['kv_cache_dtype']==name)&(t['kernel_source']==kernel))
        if len(g['step'])<3000: continue
        wide = 1 if name=='fp8' else 2
        yield ('fp8' if wide==1 else 'bf16'),kernel.removeprefix('vllm_'),v,g,lambda k,d,g,wide=wide: decode_seconds(k, d, g['batch_size'], g['step']+1, g['num_heads'], g['num_key_value_heads'], g['head_dim'], wide)

def prefills(folder, gpu):
    "Groups of prefill attention with heads of 128"
    t,v = newest(folder, gpu, 'attention', 'context_attention')
    t = where(t, (t.get('window_size',np.zeros(len(t['latency'])))==0)&(t['head_dim']==128)&(t['kv_cache_dtype']=='bfloat16')&(t['isl']>=256)&(t['num_heads']>=8)&(t['batch_size']*t['isl']>=1024))
    kernel = max({*t['kernel_source']}, key=lambda k: (t['kernel_source']==k).sum())
    g = where(t, t['kernel_source']==kernel)
    yield 'bf16',kernel.removeprefix('vllm_'),v,g,lambda k,d,g: prefill_seconds(k, d, g['batch_size'], g['isl'], g['num_heads'], g['head_dim'])

KINDS = {'gemm':(gemms,(.8,.7,4e-6,2.)), 'experts':(experts,(.85,.4,2e-5,1.5)), 'decode':(decodes,(.8,.4,1e-5,2.)), 'prefill':(prefills,(1.,.6,5e-6,1000.))}

def groups(folder):
    "Every group of every kind, fitted"
    for kind,(rows,start) in KINDS.items():
        for g in GPUS:
            if not Path(folder,g).exists(): continue
            d = device(GPUS[g])
            for family,kernel,version,t,form in rows(folder, g):
                few = thin(t)
                seconds = lambda x,few=few,form=form,kind=kind,d=d,family=family: form(Kernel(kind, d.name, family, *x), d, few)
                x,error = fit(seconds, start, few['latency']/1e3)
                yield dict(kind=kind, gpu=d.name, family=family, kernel=kernel, vllm=version, x=x, error=error, measured=few['latency']/1e3, seconds=seconds, table=t, device=d)

def left_out(g, found):
    "Median error on a group of the mean of the others"
    same = [h for h in found if h['kind']==g['kind'] and h['family']==g['family'] and h['gpu']!=g['gpu']]
    near = [h for h in same if architecture(h['device'])==architecture(g['device'])] or same
    if not near: return None
    x = np.exp(np.mean([np.log(h['x']) for h in near], 0))
    return float(np.median(np.abs(g['seconds'](x)/g['measured']-1)))

def shares(g):
    "What a figure shows: share of the peak over tokens or length, medians"
    t,d = g['table'],g['device']
    if g['kind']=='gemm': at,work = t['m'],2.*t['m']*t['n']*t['k']/d.flops({'bf16':'bf16','nvfp4':'fp4'}.get(g['family'],'fp8'))
    elif g['kind']=='prefill': at,work = t['isl'],2.*t['batch_size']*t['isl']*(t['isl']+1.)*t['num_heads']*t['head_dim']/d.flops('bf16')
    else: return {}
    share = work/(t['latency']/1e3)
    big = t['n']*t['k']>=2**24 if g['kind']=='gemm' else at>0
    keep = [v for v in sorted({*at.tolist()}) if v==1 or v&(v-1)==0 and (big&(at==v)).sum()>4]
    return {'at':[int(v) for v in keep], 'share':[short(np.median(share[big&(at==v)])) for v in keep]}

def short(x): return None if x is None else float(f'{x:.3g}')

def reduces(folder):
    "All-reduces inside CUDA graphs as vLLM runs them: bytes and seconds"
    for g,name in GPUS.items():
        t,v = newest(folder, g, 'comm', 'custom_allreduce')
        if t is None: continue
        t = where(t, t['backend']=='vllm_graph')
        for n in sorted({*t['num_gpus'].tolist()}):
            s = where(t, (t['num_gpus']==n)&(t['message_size']>=512)&(t['message_size']<=2**26))
            o = np.argsort(s['message_size'])[::2]
            yield dict(gpu=name, ranks=int(n), vllm=v, bytes=[int(2*x) for x in s['message_size'][o]], us=[short(1e3*x) for x in s['latency'][o]])

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('folder'); ap.add_argument('out'); a = ap.parse_args()
    found = list(groups(a.folder))
    rows = [dict(kind=g['kind'], gpu=g['gpu'], family=g['family'], read=short(g['x'][0]), math=short(g['x'][1]), floor=short(g['x'][2]), shape=short(g['x'][3]), kernel=g['kernel'], vllm=g['vllm'], rows=len(g['table']['latency']), error=short(g['error']), left_out=short(left_out(g, found)), **shares(g)) for g in found]
    for r in rows: print({k:v for k,v in r.items() if k not in ('at','share')})
    old = json.loads(Path(a.out).read_text()) if Path(a.out).exists() else {}
    head = {'about':'Single kernels, timed alone: figures of the forms in nbs/340_kernels.ipynb per GPU and family, and all-reduces as measured', 'source':'aiconfigurator_core 0.12.0 (NVIDIA, Apache-2.0), its tables of vLLM kernels', 'script':'tools/distil_kernels.py', 'trial':old.get('trial',{})}
    lines = lambda rows: ',\n  '.join(json.dumps(r, separators=(',',':')) for r in rows)
    Path(a.out).write_text(json.dumps(head, indent=1)[:-2]+',\n "kernels": [\n  '+lines(rows)+'\n ],\n "reduces": [\n  '+lines(reduces(a.folder))+'\n ]\n}\n')

if __name__=='__main__': main()
