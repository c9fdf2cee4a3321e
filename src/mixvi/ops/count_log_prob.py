"""Log-likelihoods of counts, which compute costly functions only where counts are not zero.

Every docstring gives the plain formula, and every function returns its sum over genes. With s = mu + theta, all lgamma
of the negative binomial cancel at x = 0, where log NB(0; mu, theta) = theta log(theta / s). A compiled step needs
tensors of constant shape, but the number of non-zero counts differs between minibatches. So ``torch.compile`` gets the
plain formula, which it turns into one pass over x.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from mixvi.ops.csr import Entries, entries
from mixvi.ops.negative_binomial_cpu import EPS


def log_poisson(x: Tensor, mu: Tensor) -> Tensor:
    """sum_g x log mu - mu - lgamma(x + 1).

    Parameters
    ----------
    x
        (n, g) counts, dense or CSR.
    mu
        (n, g) means.

    Returns
    -------
    (n,) log-likelihood of each cell, in nats.
    """
    if torch.compiler.is_compiling():
        x = x.to(mu)
        return (x * (mu + EPS).log() - (x + 1).lgamma() - mu).sum(-1)
    e = entries(x, mu.dtype)
    at = e.value * (_at(mu, e.flat) + EPS).log() - (e.value + 1).lgamma()
    return _add_up(at, e.row, len(x)) - mu.sum(-1)


def log_negative_binomial(x: Tensor, mu: Tensor, theta: Tensor) -> Tensor:
    """sum_g theta log(theta / s) + x log(mu / s) + lgamma(x + theta) - lgamma(theta) - lgamma(x + 1).

    Parameters
    ----------
    x
        (n, g) counts, dense or CSR.
    mu
        (n, g) means.
    theta
        (g,) inverse dispersions, or (n, g) if cells differ.

    Returns
    -------
    (n,) log-likelihood of each cell, in nats.
    """
    if torch.compiler.is_compiling():
        return _log_negative_binomial(x, mu, theta).sum(-1)
    if theta.dim() > 1:
        e = entries(x, mu.dtype)
        return _log_at_zero(mu, theta).sum(-1) + _add_up(_above_zero(e, mu, theta), e.row, len(x))
    return _NegativeBinomial.apply(entries(x, mu.dtype), mu, theta)


def log_zero_inflated(x: Tensor, mu: Tensor, theta: Tensor, zero_logits: Tensor) -> Tensor:
    """sum_g log( pi [x = 0] + (1 - pi) NB(x; mu, theta) ), with pi = sigmoid(zero_logits).

    Parameters
    ----------
    x
        (n, g) counts, dense or CSR.
    mu
        (n, g) means of the negative binomial.
    theta
        (g,) inverse dispersions, or (n, g) if cells differ.
    zero_logits
        (n, g) logits of the probabilities pi of an additional zero.

    Returns
    -------
    (n,) log-likelihood of each cell, in nats.
    """
    zero = _log_at_zero(mu, theta)  # (n, g)
    if torch.compiler.is_compiling():
        nb = _log_negative_binomial(x, mu, theta)
        return (torch.where(x == 0, softplus(zero - zero_logits), nb - zero_logits) - softplus(-zero_logits)).sum(-1)
    e = entries(x, mu.dtype)
    nb = _at(zero, e.flat) + _above_zero(e, mu, theta)
    at_zero = softplus(zero - zero_logits)  # log(pi + (1 - pi) NB(0)) - log(pi) - ..., up to log(1 + e^-logits)
    at = nb - _at(zero_logits, e.flat) - _at(at_zero, e.flat)
    return at_zero.sum(-1) + _add_up(at, e.row, len(x)) - softplus(-zero_logits).sum(-1)


def _log_at_zero(mu: Tensor, theta: Tensor) -> Tensor:
    """Log NB(0; mu, theta) = theta log(theta / s), (n, g)."""
    return -theta * (mu / (theta + EPS)).log1p()


def _above_zero(e: Entries, mu: Tensor, theta: Tensor) -> Tensor:
    """Log NB(x; mu, theta) - log NB(0; mu, theta) of the counts above 0."""
    each = theta.dim() == 1  # one theta for all cells, so that lgamma(theta) is computed once for each gene
    mu_at, theta_at = _at(mu, e.flat), _at(theta, e.gene if each else e.flat)
    lgamma_theta = _at(theta.lgamma(), e.gene) if each else theta_at.lgamma()
    log_ratio = ((mu_at + EPS) / (mu_at + theta_at + EPS)).log()
    return e.value * log_ratio + (e.value + theta_at).lgamma() - lgamma_theta - (e.value + 1).lgamma()


def _log_negative_binomial(x: Tensor, mu: Tensor, theta: Tensor) -> Tensor:
    """Log-likelihood of each count (n, g), for a dense x.

    Theta is expanded to (n, g), so that its gradients, which cancel at x = 0, cancel before they are summed.
    """
    x, theta = x.to(mu), theta.expand_as(mu)
    at_mean = x * ((mu + EPS) / (mu + theta + EPS)).log() - theta * (mu / (theta + EPS)).log1p()
    return at_mean + ((x + theta).lgamma() - theta.lgamma() - (x + 1).lgamma())


class _NegativeBinomial(torch.autograd.Function):
    """The negative binomial with its gradient in closed form."""

    @staticmethod
    def forward(ctx, e: Entries, mu: Tensor, theta: Tensor) -> Tensor:
        theta_e = theta + EPS
        s = mu + theta_e  # (n, g)
        log_ratio = (mu / theta_e).log1p()  # log(s / theta); log s alone would cancel where theta is large
        s_at, mu_at, theta_at = _at(s, e.flat), _at(mu, e.flat) + EPS, _at(theta, e.gene)
        at = e.value * (mu_at / s_at).log() + (e.value + theta_at).lgamma() - _at(theta.lgamma(), e.gene)
        at -= (e.value + 1).lgamma()
        ctx.save_for_backward(e.row, e.gene, e.flat, e.value, theta, log_ratio, s.reciprocal_(), s_at, mu_at)
        return _add_up(at, e.row, len(mu)) - log_ratio @ theta

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        row, gene, flat, value, theta, log_ratio, inverse_s, s_at, mu_at = ctx.saved_tensors
        theta_e = theta + EPS
        grad_mu = inverse_s * -theta  # (n, g)
        ratio = value / s_at
        grad_mu.view(-1).scatter_add_(0, flat, value / mu_at - ratio)
        grad_mu *= grad.unsqueeze(-1)
        at = _at(grad, row) * (_digamma(value + _at(theta, gene)) - _at(theta.digamma(), gene) - ratio)
        grad_theta = grad.sum() * (theta / theta_e) - grad @ log_ratio - theta * (grad @ inverse_s)
        return None, grad_mu, grad_theta.scatter_add_(0, gene, at)


def _digamma(y: Tensor) -> Tensor:
    """Digamma of y >= 1 (Abramowitz & Stegun 6.3.5 and 6.3.18). It is vectorised; on the CPU, torch's is not."""
    below = torch.zeros_like(y)
    for i in range(6):
        below -= 1 / (y + i)  # digamma(y) = digamma(y + 6) - sum_i 1 / (y + i)
    y = y + 6
    w = 1 / y**2
    series = w * (1 / 12 - w * (1 / 120 - w * (1 / 252 - w * (1 / 240 - w * (1 / 132)))))
    return below + y.log() - 0.5 / y - series


def _at(values: Tensor, place: Tensor) -> Tensor:
    """Values at flat positions; many times faster than indexing by brackets."""
    return values.view(-1).index_select(0, place)


def _add_up(value: Tensor, row: Tensor, n: int) -> Tensor:
    """Sums by row, (n,)."""
    return value.new_zeros(n).scatter_add_(0, row, value)
