"""The negative binomial of a softmax decoder in one pass over each cell, compiled for the CPU.

`mixvi.ops.count_log_prob` has the formula, and computes it with torch. This file computes it in single precision. The
compiler vectorises its exp, log, lgamma and digamma over 8 or 16 genes. It uses one thread, because waking another one
takes as long as a minibatch of 128. Before a loop over the counts of a cell, all values that it needs are copied to
contiguous memory. Otherwise memory addresses would select the compiled loop, and thereby the last bits of the result.
"""

import numpy as np
import torch
from numba import njit
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.autograd.function import once_differentiable

from mixvi.ops.csr import is_sparse

EPS = 1e-8  # added inside logs, where mu or theta may underflow; as in scvi-tools
EPS_32 = np.float32(EPS)
FLAGS = {"contract", "reassoc", "arcp", "nsz"}  # sums may be reordered; NaN and infinity are kept
_f, _i = np.float32, np.int32


class NegativeBinomialSoftmax(torch.autograd.Function):
    """sum_g log NB(x; library softmax(h weight^T + bias), theta), with its gradient, by its method ``apply``.

    A pass needs one matrix (n, g): the logits, which gradients then replace. The pass also sums gradients by bias and
    theta, as if all cells had equal weight in the loss, as in a mean. If the weights differ, there is a second pass.
    """

    @staticmethod
    def takes(h: Tensor, theta: Tensor) -> bool:
        """Whether this function can compute it: in single precision on the CPU, with one theta for each gene.

        Parameters
        ----------
        h
            (n, k) output of the last hidden layer.
        theta
            Inverse dispersions.

        Returns
        -------
        ``False`` also while torch compiles or casts to half precision.
        """
        eager = h.device.type == "cpu" and theta.dim() == 1 and not torch.compiler.is_compiling()
        return eager and h.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")

    @staticmethod
    def forward(ctx, x: Tensor, h: Tensor, weight: Tensor, bias: Tensor, library: Tensor, theta: Tensor) -> Tensor:
        """Log-likelihood of each cell (n,), in nats. There is no gradient by ``library``.

        Parameters
        ----------
        ctx
            Memory for ``backward``.
        x
            (n, g) counts, dense or CSR.
        h
            (n, k) output of the last hidden layer.
        weight, bias
            (g, k) and (g,) of the linear layer before the softmax.
        library
            (n, 1) library sizes, in counts.
        theta
            (g,) inverse dispersions.
        """
        given = (*_csr(x), h, weight, bias, library, theta)
        log_p, by_logits, by_gene = _pass(*given, h.new_ones(len(h)))
        ctx.save_for_backward(*given, by_logits, by_gene)
        return log_p

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        """Gradients by the arguments of ``forward``, from the gradient (n,) by its result.

        Parameters
        ----------
        ctx
            Memory of ``forward``.
        grad
            (n,) gradient by the log-likelihood of each cell.
        """
        # by_logits are gradients of the log p of each cell, by_gene of their sum
        offset, gene, value, h, weight, bias, library, theta, by_logits, by_gene = ctx.saved_tensors
        each, first = grad.unsqueeze(-1), grad[:1]
        is_equal = (grad == first).all()
        if is_equal:
            by_bias, by_theta = first.sum() * by_gene
        else:
            by_bias, by_theta = _pass(offset, gene, value, h, weight, bias, library, theta, grad)[-1]
        return None, (by_logits @ weight) * each, by_logits.t() @ (h * each), by_bias, None, by_theta


def _pass(offset, gene, value, h, weight, bias, library, theta, each) -> tuple[Tensor, Tensor, Tensor]:
    """Log p (n,), its gradient by logits (n, g), and by bias and theta (2, g), summed with weights ``each`` (n,)."""
    logits, log_p, by_gene = torch.addmm(bias, h, weight.t()), h.new_empty(len(h)), h.new_zeros(2, len(theta))
    arrays = (logits, library.view(-1), theta, each, offset, gene, value, log_p, *by_gene)
    _negative_binomial(*(values.detach().contiguous().numpy() for values in arrays))
    return log_p, logits, by_gene


def _csr(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets of the rows, genes and values of the counts above 0."""
    if is_sparse(x):
        return x.crow_indices().int(), x.col_indices().int(), x.values().float()
    rows = csr_matrix(x.numpy())
    return torch.from_numpy(rows.indptr), torch.from_numpy(rows.indices), torch.from_numpy(rows.data)


@njit(inline="always", fastmath=FLAGS)
def _exp(x):
    """E^x by a power of two and a polynomial (Cephes expf); relative error 1e-7."""
    x = _f(-87) if x < _f(-87) else x
    k = np.floor(x * _f(1.44269504) + _f(0.5))
    r = x - k * _f(0.693359375) + k * _f(2.12194440e-4)
    p = _f(1.9875691500e-4) * r + _f(1.3981999507e-3)
    p = p * r + _f(8.3334519073e-3)
    p = p * r + _f(4.1665795894e-2)
    p = p * r + _f(1.6666665459e-1)
    p = p * r + _f(5.0000001201e-1)
    return (p * r * r + r + _f(1)) * _i((_i(k) + _i(127)) << _i(23)).view(_f)


@njit(inline="always", fastmath=FLAGS)
def _log(x):
    """Log x for normal x > 0: exponent, and a polynomial for the mantissa (Cephes logf); relative error 1e-7."""
    bits = _f(x).view(_i)
    exponent = _i(_i(bits - _i(0x3F3504F3)) >> _i(23))
    m = _i(bits - _i(exponent << _i(23))).view(_f) - _f(1)
    e = _f(exponent)
    p = _f(7.0376836292e-2) * m - _f(1.1514610310e-1)
    p = p * m + _f(1.1676998740e-1)
    p = p * m - _f(1.2420140846e-1)
    p = p * m + _f(1.4249322787e-1)
    p = p * m - _f(1.6668057665e-1)
    p = p * m + _f(2.0000714765e-1)
    p = p * m - _f(2.4999993993e-1)
    p = p * m + _f(3.3333331174e-1)
    return m + (m * m * m * p - e * _f(2.12194440e-4) - _f(0.5) * m * m) + e * _f(0.693359375)


@njit(inline="always", fastmath=FLAGS)
def _lgamma(y):
    """Log Gamma(y), y > 0: Stirling's series at y + 5, minus log y (y + 1) ... (y + 4); at y itself from 100 on."""
    small = y < _f(100)
    a = min(y, _f(100))
    z = y + _f(5) if small else y
    product = a * (a + _f(1)) * (a + _f(2)) * (a + _f(3)) * (a + _f(4))
    below = _log(product) if small else _f(0)
    w = _f(1) / z
    series = w * (_f(1 / 12) - w * w * (_f(1 / 360) - w * w * _f(1 / 1260)))
    return (z - _f(0.5)) * _log(z) - z + _f(0.9189385332) + series - below


@njit(inline="always", fastmath=FLAGS)
def _digamma(y):
    """Digamma(y), y > 0: its asymptotic series at y + 5, minus 1 / y + ... + 1 / (y + 4)."""
    below = _f(1) / y + _f(1) / (y + _f(1)) + _f(1) / (y + _f(2)) + _f(1) / (y + _f(3)) + _f(1) / (y + _f(4))
    z = y + _f(5)
    w = _f(1) / (z * z)
    series = w * (_f(1 / 12) - w * (_f(1 / 120) - w * (_f(1 / 252) - w * _f(1 / 240))))
    return _log(z) - _f(0.5) / z - series - below


@njit(inline="always")
def _ordered(bits):
    """Bits of a float as an integer of the same order, and back."""
    return _i(bits ^ _i(_i(bits >> _i(31)) & _i(0x7FFFFFFF)))


@njit(inline="always")
def _largest(values):
    """Largest value, by integer comparison. Floats may be NaN, and the compiler does not vectorise their maximum."""
    largest = _i(-(2**31))
    for j in range(len(values)):
        largest = max(largest, _ordered(_f(values[j]).view(_i)))
    return _ordered(largest).view(_f)


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
def _negative_binomial(logits, library, theta, each, offset, gene, value, log_p, by_bias, by_theta):
    """Fill in log p (n,), its gradient in place of logits (n, g), and by bias and theta (g,) with weights ``each``."""
    n, g = logits.shape
    rho, value_at, mu_at = np.empty(g, np.float32), np.empty(g, np.float32), np.empty(g, np.float32)
    y, lgamma_y, digamma_y = np.empty(3 * g, np.float32), np.empty(3 * g, np.float32), np.empty(2 * g, np.float32)
    for i in range(n):
        largest, total = _largest(logits[i]), _f(0)
        for j in range(g):
            rho[j] = _exp(logits[i, j] - largest)
            total += rho[j]
        share, size, times = _f(1) / total, library[i], each[i]
        log_px, sum_grad = _f(0), _f(0)
        for j in range(g):  # as if all counts were 0: theta log(theta / s)
            rho[j] *= share
            mu = size * rho[j]
            weight = theta[j] / (mu + theta[j] + EPS_32)
            log_ratio = _log(weight)
            log_px += theta[j] * log_ratio
            logits[i, j] = -weight * mu  # by log mu, for now
            sum_grad -= weight * mu
            by_theta[j] += times * (log_ratio + _f(1) - weight)
        first, m = offset[i], offset[i + 1] - offset[i]
        for k in range(m):
            j, x = gene[first + k], value[first + k]
            value_at[k], mu_at[k] = x, size * rho[j]
            y[k], y[m + k], y[2 * m + k] = x + theta[j], theta[j], x + _f(1)
        for k in range(3 * m):
            lgamma_y[k] = _lgamma(y[k])
        for k in range(2 * m):
            digamma_y[k] = _digamma(y[k])
        for k in range(m):  # contribution of counts above 0
            x, mu = value_at[k], mu_at[k]
            s = mu + y[m + k] + EPS_32
            log_px += x * _log((mu + EPS_32) / s) + lgamma_y[k] - lgamma_y[m + k] - lgamma_y[2 * m + k]
            mu_at[k] = x * mu / (mu + EPS_32) - x * mu / s
            sum_grad += mu_at[k]
            digamma_y[k] -= digamma_y[m + k] + x / s
        for k in range(m):
            j = gene[first + k]
            logits[i, j] += mu_at[k]
            by_theta[j] += times * digamma_y[k]
        for j in range(g):
            logits[i, j] -= rho[j] * sum_grad
            by_bias[j] += times * logits[i, j]
        log_p[i] = log_px + _f(0) * sum_grad  # passes on NaN, which _log does not
