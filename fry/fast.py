"""The gated delta net between its projections as one operation in C, compiled at first use (needs `cc`)."""
import ctypes
import subprocess
import tempfile
from pathlib import Path

import torch

SOURCE = Path(__file__).parent / "delta.c"
_library = []


def library():
    if not _library:
        built = Path(tempfile.mkdtemp()) / "delta.so"
        subprocess.run(["cc", "-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-shared", "-fPIC", "-o", built, SOURCE, "-lm"], check=True)
        _library.append(ctypes.CDLL(str(built)))
    return _library[0]


def pointers(tensors):
    assert all(t.dtype == torch.float32 and t.is_contiguous() for t in tensors)
    return [ctypes.c_void_p(t.data_ptr()) for t in tensors]


class Delta(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs):
        """mixed [B,T,256], conv [4,256], z [B,T,128], ba [B,T,8], A_log [4], dt_bias [4], norm [32] -> [B,T,128]."""
        inputs = [t.detach().float().contiguous() for t in inputs]
        ctx.save_for_backward(*inputs)
        b, t, _ = inputs[0].shape
        out = torch.empty_like(inputs[2])
        library().delta_forward(*pointers([*inputs, out]), b, t)
        return out

    @staticmethod
    def backward(ctx, gradient):
        inputs = ctx.saved_tensors
        b, t, _ = inputs[0].shape
        found = [torch.zeros_like(t) for t in inputs]
        library().delta_backward(*pointers([*inputs, gradient.float().contiguous(), *found]), b, t)
        return tuple(found)
