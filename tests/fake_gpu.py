"""A GPU that is not there: torch checks the device of every tensor, and computes shapes only.

Under torch's FakeTensorMode, tensors have a device, a dtype and a shape, but no values. Arithmetic with a CPU tensor
among CUDA tensors raises an error, as on a GPU. Where Python or NumPy asks for values, `Invented` gives some. NumPy
gets none of a CUDA tensor. A backward pass needs a driver, so all gradients are zeros.
"""

from contextlib import ExitStack, contextmanager, nullcontext
from unittest.mock import patch

import numpy as np
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from scvi.model.base import BaseModelClass
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.overrides import TorchFunctionMode

CUDA = torch.device("cuda", 0)
SCALAR = {Tensor.__bool__: bool, Tensor.__int__: int, Tensor.__index__: int, Tensor.__float__: float}


class Invented(TorchFunctionMode):
    """Values, where something asks for them: small counts, and true."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """What torch does, except where it needs values."""
        x, *others = args or (None,)
        if func in (Tensor.numpy, Tensor.__array__):
            if x.device.type != "cpu":
                raise TypeError(f"NumPy cannot read a tensor on {x.device}; copy it to the CPU first.")
            return values(x)
        if func in (Tensor.item, Tensor.tolist):
            return getattr(values(x), func.__name__)()
        if func in (torch.equal, Tensor.equal):
            return True
        if func is torch.where and not others:  # masks are true
            return (torch.arange(len(x), device=x.device),)
        if func is torch.bincount:
            return x.new_zeros(kwargs["minlength"])
        if func is Tensor.to and x.layout == torch.sparse_csr:
            parts = (part.to(*others) for part in (x.crow_indices(), x.col_indices(), x.values()))
            return torch.sparse_csr_tensor(*parts, x.shape, check_invariants=False)
        if func in SCALAR:
            return SCALAR[func](values(x).item())
        if func is Tensor.backward:
            return leave_zeros(x)
        if func is torch.autograd.grad:
            return tuple(map(torch.zeros_like, others[0] if isinstance(others[0], tuple | list) else [others[0]]))
        if func is Tensor.__deepcopy__:
            return x.detach().clone()
        if func is Tensor.__getitem__:  # masks are true
            index = others[0] if isinstance(others[0], tuple) else (others[0],)
            args = (x, tuple(map(every, index)))
        return func(*args, **(kwargs or {}))


def values(x):
    """Invented values of a tensor, as an array; true ones of a tensor from before."""
    if not isinstance(x, FakeTensor):
        with unset_fake_temporarily():
            return x.detach().numpy()
    dtype, shape = str(x.dtype).removeprefix("torch."), tuple(map(int, x.shape))
    if dtype == "bool":
        return np.ones(shape, bool)
    small = np.random.default_rng(0).poisson(1.5, shape)
    return (small if x.is_floating_point() else small % 2).astype(dtype)  # whole numbers may be classes


def every(index):
    """A mask as row numbers."""
    mask = values(index) if isinstance(index, Tensor) and index.dtype == torch.bool else index
    if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.ndim != 1:
        return index
    return torch.from_numpy(np.flatnonzero(mask)).to(index.device if isinstance(index, Tensor) else "cpu")


def leave_zeros(loss):
    """Give zero gradients to all parameters that a loss depends on."""
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            node.variable.grad = torch.zeros_like(node.variable)
        nodes += [other for other, _ in node.next_functions]


def move(module, to, recurse=True):
    """What ``nn.Module.to`` does, with new parameters. Torch exchanges old ones in place, which these cannot be."""
    for child in module.children() if recurse else ():
        child._apply(to)
    for name, parameter in module.named_parameters(recurse=False):
        module._parameters[name] = torch.nn.Parameter(to(parameter.detach()), parameter.requires_grad)
    for name, buffer in module.named_buffers(recurse=False):
        module._buffers[name] = to(buffer)
    return module


@contextmanager
def fake_gpu():
    """Everything inside sees a GPU if it is told to use it."""
    with ExitStack() as entered:
        for owner, name in ((CPUAccelerator, "setup_device"), (SingleDeviceStrategy, "teardown")):
            entered.enter_context(patch.object(owner, name, lambda *args: None))
        entered.enter_context(patch.object(BaseModelClass, "to_device", lambda *args: None))
        entered.enter_context(patch.object(torch.nn.Module, "_apply", move))
        entered.enter_context(patch.object(torch.random, "fork_rng", lambda *args, **kwargs: nullcontext()))
        entered.enter_context(FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv()))
        entered.enter_context(Invented())
        yield CUDA


def train_on(device, model, **kwargs):
    """Train a model for a few epochs on a device."""
    settings = {"max_epochs": 4, "data_path": "stream", "enable_progress_bar": False, "accelerator": "cpu"}
    model.train(**settings | {"strategy": SingleDeviceStrategy(device=device)} | kwargs)
    assert model.device.type == device.type
