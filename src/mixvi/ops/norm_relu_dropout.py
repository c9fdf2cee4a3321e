"""Batch norm, ReLU and dropout of a hidden layer in one pass, compiled for the CPU.

In torch they are a dozen operations, and the overhead of each is larger than its arithmetic. Here a layer in training
takes one operation, and another for its gradient. This is for single precision on the CPU; other layers use torch.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


def activate(h: Tensor, norm: nn.BatchNorm1d, dropout: nn.Dropout) -> Tensor:
    """dropout(relu(norm(h))); the running statistics of the norm are updated as in torch.

    Dropout draws 16 random bits for each unit, because drawing is its main cost. So its probability p is rounded to a
    multiple of 2^-16, and kept units are scaled by the same rounded value.

    One cell alone has no spread. The running statistics, which it leaves as they are, then normalise it.

    Parameters
    ----------
    h
        (n, k) output of a linear layer.
    norm
        Batch norm of k units.
    dropout
        Dropout; it acts in training only.

    Returns
    -------
    (n, k) activations.
    """
    usual = type(norm) is nn.BatchNorm1d and norm.affine and norm.track_running_stats and norm.momentum is not None
    drops = norm.training and dropout.training and 0 < dropout.p < 1
    single = h.device.type == "cpu" and h.dtype == torch.float32
    if usual and norm.training and len(h) == 1:
        running = norm.running_mean, norm.running_var, norm.weight, norm.bias
        return dropout(functional.batch_norm(h, *running, eps=norm.eps).relu())
    if not (usual and drops and single) or torch.compiler.is_compiling():
        return dropout(norm(h).relu())
    norm.get_buffer("num_batches_tracked").add_(1)
    bits = torch.empty(-(-h.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = bits.view(torch.int16)[: h.numel()].view(h.shape)
    return _Activation.apply(h.contiguous(), norm.weight, norm.bias, norm, bits, round(dropout.p * 2**16))


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, h: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm1d, bits: Tensor, n_dropped: int
    ) -> Tensor:
        out, moments = torch.empty_like(h), h.new_empty(2, h.shape[1])
        running = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        ctx.scale = 2**16 / (2**16 - n_dropped)
        arrays = _numpy((h, weight, bias, bits, *running, out, moments))
        _forward(n_dropped - 2**15, ctx.scale, norm.eps, norm.momentum, *arrays)
        ctx.save_for_backward(h, weight, out, moments)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        h, weight, out, moments = ctx.saved_tensors
        by_h, by_weight_and_bias = torch.empty_like(h), torch.empty_like(moments)
        _backward(ctx.scale, *_numpy((grad, h, weight, out, moments, by_h, by_weight_and_bias)))
        return by_h, *by_weight_and_bias, None, None, None


def _numpy(tensors: tuple[Tensor, ...]) -> list[np.ndarray]:
    return [values.detach().contiguous().numpy() for values in tensors]


@njit(cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
def _forward(lowest, scale, eps, momentum, h, weight, bias, bits, running_mean, running_var, out, moments):
    """Fill in the output (n, k), and mean and 1 / standard deviation (2, k) of each unit."""
    n, k = h.shape
    mean, var = np.zeros(k), np.zeros(k)
    for i in range(n):
        for j in range(k):
            mean[j] += h[i, j]
    for j in range(k):
        mean[j] /= n
    for i in range(n):
        for j in range(k):
            var[j] += (h[i, j] - mean[j]) ** 2
    for j in range(k):
        running_mean[j] += momentum * (mean[j] - running_mean[j])
        running_var[j] += momentum * (var[j] / (n - 1) - running_var[j])
        moments[0, j], moments[1, j] = mean[j], 1 / np.sqrt(var[j] / n + eps)
    factor, shift = np.empty(k, np.float32), np.empty(k, np.float32)
    for j in range(k):
        factor[j] = scale * moments[1, j] * weight[j]
        shift[j] = scale * bias[j]
    for i in range(n):
        for j in range(k):
            y = (h[i, j] - moments[0, j]) * factor[j] + shift[j]
            out[i, j] = np.float32(0) if y <= 0 or bits[i, j] < lowest else y


@njit(cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
def _backward(scale, grad, h, weight, out, moments, by_h, by_weight_and_bias):
    """Fill in the gradients by h (n, k), weight and bias (2, k), from the gradient by the output (n, k)."""
    n, k = h.shape
    by_weight, by_bias = np.zeros(k), np.zeros(k)
    for i in range(n):
        for j in range(k):
            g = grad[i, j] if out[i, j] > 0 else np.float32(0)
            by_bias[j] += g
            by_weight[j] += g * (h[i, j] - moments[0, j])
    factor, mean_grad, slope = np.empty(k, np.float32), np.empty(k, np.float32), np.empty(k, np.float32)
    for j in range(k):
        factor[j] = scale * weight[j] * moments[1, j]
        mean_grad[j], slope[j] = by_bias[j] / n, by_weight[j] * moments[1, j] ** 2 / n
        by_weight_and_bias[0, j], by_weight_and_bias[1, j] = scale * by_weight[j] * moments[1, j], scale * by_bias[j]
    for i in range(n):
        for j in range(k):
            g = grad[i, j] if out[i, j] > 0 else np.float32(0)
            by_h[i, j] = factor[j] * (g - mean_grad[j] - (h[i, j] - moments[0, j]) * slope[j])
