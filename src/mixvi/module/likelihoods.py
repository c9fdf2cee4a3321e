"""Likelihoods: a decoder and the distribution it feeds, p(x | z, c).

Every likelihood is built from ``(layout, n_latent, hidden)`` and maps z (..., n, d) and a minibatch to a distribution
over x (..., n, g). ``log_prob`` is its log density at the minibatch, summed over genes and as fast as it can be had;
``expected_log_prob`` is E_q of it. ``support`` names the data it can describe, ``prepare`` is what encoders see of x.

- ``"count"``: non-negative integers; ``"unit"``: values in [0, 1]; ``"real"``: any finite values.
"""

import math
from abc import abstractmethod
from typing import ClassVar, Literal

import scvi.distributions as scvi_distributions
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import softplus

from mixvi.module.cells import Cells, Layout
from mixvi.module.nets import Hidden, Trunk
from mixvi.ops.count_log_prob import (
    log_negative_binomial,
    log_negative_binomial_softmax,
    log_poisson,
    log_zero_inflated,
)
from mixvi.ops.csr import dense, map_entries

EDGE = 0.05  # keeps links finite


class Likelihood(nn.Module):
    """p(x | z, c): a trunk on (z, c) and a head of its own."""

    support: ClassVar[Literal["count", "unit", "real"]]

    def __init__(self, layout: Layout, n_latent: int, hidden: Hidden):
        super().__init__()
        self.trunk = Trunk(n_latent, layout.n_conditions, hidden)

    @staticmethod
    def prepare(x: Tensor) -> Tensor:
        """What the encoders see of x (n, g)."""
        return x

    @staticmethod
    def scaled(cells: Cells) -> Tensor:
        """X (n, g) on the scale of what the decoder gives: shares of the library, of counts."""
        return dense(cells.x)

    @property
    @abstractmethod
    def head(self) -> nn.Linear:
        """What turns features of the trunk into the mean of x, before its link."""

    @abstractmethod
    def link(self, mean: Tensor) -> Tensor:
        """Means (..., g) of scaled x as what the head would have to give."""

    @torch.no_grad()
    def add_effects(self, mean: Tensor, effects: Tensor, c_mean: Tensor) -> None:
        """Start with an intercept for each condition: (c - c_mean) @ effects (q, g), around the mean (g,)."""
        q = self.trunk.n_conditions
        if q and not self.trunk.is_linear:
            linked = self.link(mean + effects) - self.link(mean)
            weight = self.head.weight[:, self.trunk.n_out - q :]
            self.head.bias.add_((weight - linked.t()) @ c_mean)
            weight.copy_(linked.t())

    @abstractmethod
    def forward(self, z: Tensor, cells: Cells) -> Distribution:
        """p(x | z, c) of n cells, one distribution a gene: (..., n, g)."""

    @abstractmethod
    def log_prob(self, z: Tensor, cells: Cells) -> Tensor:
        """Log p(x | z, c) of n cells at z (..., n, d): (..., n)."""

    @abstractmethod
    def expected_log_prob(self, z: Tensor, qz: Distribution, cells: Cells) -> Tensor:
        """E_q[log p(x | z, c)] (n,): in closed form, or at the one z ~ q (n, d)."""


class Normal(Likelihood):
    """x_g ~ N(mu_g(z, c), sigma^2), one sigma for all genes.

    Parameters
    ----------
    sigma
        Fixed standard deviation; ``None`` learns it. A fixed one makes -log p the squared error over 2 sigma^2, plus
        a constant.
    """

    support = "real"

    def __init__(self, layout: Layout, n_latent: int, hidden: Hidden, sigma: float | None = None):
        super().__init__(layout, n_latent, hidden)
        self.loc = nn.Linear(self.trunk.n_out, layout.n_genes)
        log_sigma = torch.tensor(1.0 if sigma is None else float(sigma)).log()
        self.log_sigma = nn.Parameter(log_sigma, requires_grad=sigma is None)

    @property
    def head(self) -> nn.Linear:
        """See `Likelihood.head`."""
        return self.loc

    def link(self, mean: Tensor) -> Tensor:
        """The identity."""
        return mean

    def forward(self, z: Tensor, cells: Cells) -> Distribution:
        """See the class."""
        loc = self.loc(self.trunk(z, cells.c))
        return torch.distributions.Normal(loc, self.log_sigma.exp().expand_as(loc), validate_args=False)

    @property
    def is_linear(self) -> bool:
        """Whether mu is linear in z, mu = W z + A c + b."""
        return self.trunk.is_linear

    def log_prob(self, z: Tensor, cells: Cells) -> Tensor:
        """See the class."""
        return self(z, cells).log_prob(dense(cells.x)).sum(-1)

    def expected_log_prob(self, z: Tensor, qz: Distribution, cells: Cells) -> Tensor:
        """Linear: log N(x; mu(m), sigma^2) - sum_j s_j^2 ||W_j||^2 / (2 sigma^2), exact; else at the sample."""
        if not self.is_linear:
            return self.log_prob(z, cells)
        w = self.loc.weight[:, : qz.loc.shape[-1]]  # (g, d)
        mu = self.loc(self.trunk(qz.loc, cells.c))  # (n, g)
        error = torch.linalg.vector_norm(dense(cells.x) - mu, dim=-1).square()  # (n,)
        spread = (qz.scale**2 * w.square().sum(0)).sum(-1)  # (n,)
        log_norm = cells.x.shape[-1] * (self.log_sigma + math.log(2 * math.pi) / 2)
        return -(error + spread) / (2 * (2 * self.log_sigma).exp()) - log_norm


class Bernoulli(Likelihood):
    """x_g ~ Bernoulli(rho_g(z, c)); grey values in between are scored by the same cross-entropy."""

    support = "unit"

    def __init__(self, layout: Layout, n_latent: int, hidden: Hidden):
        super().__init__(layout, n_latent, hidden)
        self.logits = nn.Linear(self.trunk.n_out, layout.n_genes)

    @property
    def head(self) -> nn.Linear:
        """See `Likelihood.head`."""
        return self.logits

    def link(self, mean: Tensor) -> Tensor:
        """Log odds."""
        return mean.clamp(EDGE, 1 - EDGE).logit()

    def forward(self, z: Tensor, cells: Cells) -> Distribution:
        """See the class."""
        return torch.distributions.Bernoulli(logits=self.logits(self.trunk(z, cells.c)), validate_args=False)

    def log_prob(self, z: Tensor, cells: Cells) -> Tensor:
        """See the class."""
        return self(z, cells).log_prob(dense(cells.x)).sum(-1)

    def expected_log_prob(self, z: Tensor, qz: Distribution, cells: Cells) -> Tensor:
        """At the sample."""
        return self.log_prob(z, cells)


class CountLikelihood(Likelihood):
    """Counts with mean mu = library * rho(z, c), rho on the simplex: the share of each gene.

    Where the user registered size factors of their own, these need not be totals; then mu = size factor * rho with
    rho > 0 but free.
    """

    support = "count"

    def __init__(self, layout: Layout, n_latent: int, hidden: Hidden):
        super().__init__(layout, n_latent, hidden)
        self.rho = nn.Linear(self.trunk.n_out, layout.n_genes)
        self.free = layout.size_factor

    @staticmethod
    def prepare(x: Tensor) -> Tensor:
        """Counts enter the encoders on the log scale."""
        return map_entries(torch.log1p, x)

    @staticmethod
    def scaled(cells: Cells) -> Tensor:
        """Shares of the library."""
        return dense(cells.x) / cells.library

    @property
    def head(self) -> nn.Linear:
        """See `Likelihood.head`."""
        return self.rho

    def link(self, mean: Tensor) -> Tensor:
        """Logs of shares, or what softplus takes there, of a mean with EDGE of an even share more."""
        mean = mean.clamp(min=0) + EDGE / mean.shape[-1]
        return mean + (-torch.expm1(-mean)).log() if self.free else mean.log()

    def shares(self, h: Tensor) -> Tensor:
        """Rho (..., n, g) from the features of the trunk."""
        rho = self.rho(h)
        return softplus(rho) if self.free else rho.softmax(dim=-1)

    @abstractmethod
    def forward(self, z: Tensor, cells: Cells) -> Distribution:
        """p(x | z, c) of n cells, one distribution a gene: (..., n, g)."""

    @abstractmethod
    def log_prob_at(self, h: Tensor, cells: Cells) -> Tensor:
        """Log p(x | z, c) (n,) from the features of the trunk at one z a cell."""

    def log_prob(self, z: Tensor, cells: Cells) -> Tensor:
        """See the class; without lgamma where counts are zero (`mixvi.ops.count_log_prob`)."""
        if z.dim() > 2:
            return torch.stack([self.log_prob(one, cells) for one in z])
        return self.log_prob_at(self.trunk(z, cells.c), cells)

    def expected_log_prob(self, z: Tensor, qz: Distribution, cells: Cells) -> Tensor:
        """At the sample."""
        return self.log_prob(z, cells)


class Poisson(CountLikelihood):
    """x_g ~ Poisson(mu_g)."""

    def forward(self, z: Tensor, cells: Cells) -> Distribution:
        """See the class."""
        rho = self.shares(self.trunk(z, cells.c))
        return scvi_distributions.Poisson(cells.library * rho, scale=rho, validate_args=False)

    def log_prob_at(self, h: Tensor, cells: Cells) -> Tensor:
        """See the class."""
        return log_poisson(cells.x, cells.library * self.shares(h))


class NegativeBinomial(CountLikelihood):
    """x_g ~ NB(mean mu_g, inverse dispersion theta_g): variance mu + mu^2 / theta."""

    def __init__(self, layout: Layout, n_latent: int, hidden: Hidden):
        super().__init__(layout, n_latent, hidden)
        self.log_theta = nn.Parameter(torch.zeros(layout.n_genes))

    def forward(self, z: Tensor, cells: Cells) -> Distribution:
        """See the class."""
        rho = self.shares(self.trunk(z, cells.c))
        return scvi_distributions.NegativeBinomial(
            mu=cells.library * rho, theta=self.log_theta.exp(), scale=rho, validate_args=False
        )

    def log_prob_at(self, h: Tensor, cells: Cells) -> Tensor:
        """See the class."""
        theta = self.log_theta.exp()
        if self.free:
            return log_negative_binomial(cells.x, cells.library * self.shares(h), theta)
        return log_negative_binomial_softmax(cells.x, h, self.rho.weight, self.rho.bias, cells.library, theta)


class ZeroInflatedNegativeBinomial(CountLikelihood):
    """x_g = 0 with probability pi_g(z, c), else NB(mu_g, theta_g)."""

    def __init__(self, layout: Layout, n_latent: int, hidden: Hidden):
        super().__init__(layout, n_latent, hidden)
        self.log_theta = nn.Parameter(torch.zeros(layout.n_genes))
        self.zero_logits = nn.Linear(self.trunk.n_out, layout.n_genes)

    def forward(self, z: Tensor, cells: Cells) -> Distribution:
        """See the class."""
        h = self.trunk(z, cells.c)
        rho = self.shares(h)
        return scvi_distributions.ZeroInflatedNegativeBinomial(
            mu=cells.library * rho, theta=self.log_theta.exp(), zi_logits=self.zero_logits(h), scale=rho,
            validate_args=False,
        )  # fmt: skip

    def log_prob_at(self, h: Tensor, cells: Cells) -> Tensor:
        """See the class."""
        return log_zero_inflated(cells.x, cells.library * self.shares(h), self.log_theta.exp(), self.zero_logits(h))


LIKELIHOODS = {
    "nb": NegativeBinomial,
    "zinb": ZeroInflatedNegativeBinomial,
    "poisson": Poisson,
    "bernoulli": Bernoulli,
    "normal": Normal,
}
