"""Likelihoods: the decoder and its distribution p(x | z, c).

Each likelihood is built from ``(layout, n_latent, hidden)``. It maps a latent z (..., n, d) and a minibatch of cells to
a distribution over x (..., n, g). ``support`` says which values it describes:

- ``"count"``: non-negative integers; ``"unit"``: values in [0, 1]; ``"real"``: any finite values.
"""

import math
from typing import override

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from mixvi.module._likelihood import ALL, EDGE, Likelihood, positive
from mixvi.module.cells import Cells, Layout
from mixvi.module.count_likelihoods import CountLikelihood, NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from mixvi.module.encoders import Posterior
from mixvi.module.nets import Hidden
from mixvi.ops.csr import dense

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "CountLikelihood",
    "Likelihood",
    "NegativeBinomial",
    "Normal",
    "Poisson",
    "ZeroInflatedNegativeBinomial",
]


class Normal(Likelihood):
    """x_g ~ N(mu_g(z, c), sigma^2), with one sigma for all genes.

    Weights and sigma are those of (x - ``center``) / ``unit``: the means and the standard deviation of the training
    values. L-BFGS standardises its cells itself, and leaves 0 and 1.

    If mu is linear in z and q(z | x, c) = N(m, diag s^2), the expected log-likelihood is exact:
    log N(x; mu(m), sigma^2) - sum_j s_j^2 ||W_j||^2 / (2 sigma^2), where W_j are the weights of z_j.

    Parameters
    ----------
    sigma
        Fixed standard deviation, above 0, in units. ``None`` learns it. If it is fixed, -log p is the squared error
        divided by 2 sigma^2, plus a constant.
    """

    support = "real"
    center: Tensor  # (g,)
    unit: Tensor  # ()

    def __init__(self, layout: Layout, n_latent: int, hidden: Hidden, sigma: float | None = None):
        super().__init__(layout, n_latent, hidden)
        self.loc = nn.Linear(self.trunk.n_out, layout.n_genes)
        log_sigma = torch.tensor(1.0 if sigma is None else float(sigma)).log()
        self.log_sigma = nn.Parameter(log_sigma, requires_grad=sigma is None)
        self.unit = torch.ones(())
        self.register_buffer("center", torch.zeros(layout.n_genes))

    @override
    def prepare(self, x: Tensor) -> Tensor:
        return (dense(x) - self.center) / self.unit

    @override
    def scaled(self, cells: Cells) -> Tensor:
        return self.prepare(dense(cells.x))

    @override
    @torch.no_grad()
    def measure(self, scaled: Tensor) -> None:
        variance, mean = torch.var_mean(scaled.to(self.unit), 0, correction=0)
        self.center.add_(self.unit * mean)
        self.unit.mul_(positive(variance.mean().sqrt()))

    @property
    @override
    def head(self) -> nn.Linear:
        return self.loc

    @property
    @override
    def loadings(self) -> Tensor:
        return self.unit * self.loc.weight

    @property
    def sigma(self) -> Tensor:
        """The standard deviation (), in the user's unit."""
        return self.unit * self.log_sigma.exp()

    @override
    def link(self, mean: Tensor) -> Tensor:
        return mean

    @override
    def forward(self, z: Tensor, cells: Cells) -> Distribution:
        loc = self.center + self.unit * self.loc(self.trunk(z, cells.c))
        return torch.distributions.Normal(loc, self.sigma.expand_as(loc), validate_args=False)

    @override
    def expected_seen(self, z: Tensor, cells: Cells, genes: Tensor | slice = ALL) -> Tensor:
        return self.prepare(self(z, cells).mean)[:, genes]

    @property
    def is_linear(self) -> bool:
        """Whether mu is linear in z, mu = W z + A c + b."""
        return self.trunk.is_linear

    @override
    def log_prob(self, z: Tensor, cells: Cells, qz: Posterior | None = None) -> Tensor:
        if qz is None or not self.is_linear:
            return self(z, cells).log_prob(dense(cells.x)).sum(-1)
        w = self.loc.weight[:, : qz.loc.shape[-1]]  # (g, d)
        mu = self.loc(self.trunk(qz.loc, cells.c))  # (n, g)
        error = torch.linalg.vector_norm(self.scaled(cells) - mu, dim=-1).square()  # (n,)
        spread = (qz.scale**2 * w.square().sum(0)).sum(-1)  # (n,)
        log_norm = cells.x.shape[-1] * (self.sigma.log() + math.log(2 * math.pi) / 2)
        return -(error + spread) / (2 * (2 * self.log_sigma).exp()) - log_norm


class Bernoulli(Likelihood):
    """x_g ~ Bernoulli(rho_g(z, c)). Values between 0 and 1 use the same cross-entropy."""

    support = "unit"

    def __init__(self, layout: Layout, n_latent: int, hidden: Hidden):
        super().__init__(layout, n_latent, hidden)
        self.logits = nn.Linear(self.trunk.n_out, layout.n_genes)

    @property
    @override
    def head(self) -> nn.Linear:
        return self.logits

    @override
    def link(self, mean: Tensor) -> Tensor:
        return mean.clamp(EDGE, 1 - EDGE).logit()

    @override
    def forward(self, z: Tensor, cells: Cells) -> Distribution:
        return torch.distributions.Bernoulli(logits=self.logits(self.trunk(z, cells.c)), validate_args=False)

    @override
    def log_prob(self, z: Tensor, cells: Cells, qz: Posterior | None = None) -> Tensor:
        return self(z, cells).log_prob(dense(cells.x)).sum(-1)


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "nb": NegativeBinomial,
    "zinb": ZeroInflatedNegativeBinomial,
    "poisson": Poisson,
    "bernoulli": Bernoulli,
    "normal": Normal,
}
