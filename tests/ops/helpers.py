"""Counts and parameters of all sizes, and the plain formulas."""

import torch
from scvi import distributions

from mixvi.ops import csr as rows

N, G = 40, 60


def as_csr(x):
    """A dense matrix as CSR."""
    row, gene = x.nonzero(as_tuple=True)
    offset = torch.nn.functional.pad(torch.bincount(row, minlength=len(x)).cumsum(0), (1, 0))
    return rows.csr(offset.int(), gene.int(), x[row, gene], x.shape[1])


def draw(dtype):
    """Sparse counts with an empty cell and a very large count, and parameters of all sizes."""
    x = torch.poisson(torch.rand(N, G) * 4 * (torch.rand(N, G) < 0.3)).to(dtype)
    x[0], x[1, 2], x[2, 3] = 0, 3_000, 120
    mu = (torch.rand(N, G).to(dtype) * 4).pow(3) + 1e-3
    theta = torch.logspace(-2, 3, G, dtype=dtype)
    return x, mu.requires_grad_(), theta.requires_grad_(), torch.randn(N, G).to(dtype).requires_grad_()


def relative(found, expected):
    return ((found.double() - expected).norm() / expected.norm()).item()


def plain(name, x, mu, theta, logits):
    """The formula in the docstring, in double precision, from scvi-tools; it is tested against scipy elsewhere."""
    px = {
        "poisson": lambda: distributions.Poisson(mu, validate_args=False),
        "negative_binomial": lambda: distributions.NegativeBinomial(mu=mu, theta=theta, validate_args=False),
        "zero_inflated": lambda: distributions.ZeroInflatedNegativeBinomial(
            mu=mu, theta=theta, zi_logits=logits, validate_args=False
        ),
    }[name]()
    return px.log_prob(x).sum(-1)


def draw_head(x, spread=1.0):
    """Features, weight and bias of a decoder, library sizes and theta."""
    h, weight, bias = torch.randn(len(x), 7), torch.randn(x.shape[1], 7) * spread, torch.randn(x.shape[1]) * spread
    return h, weight, bias, x.sum(-1, keepdim=True) + 1, torch.logspace(-2, 3, x.shape[1])
