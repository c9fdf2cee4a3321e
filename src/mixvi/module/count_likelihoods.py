"""Likelihoods of raw counts: Poisson, negative binomial, and negative binomial with additional zeros."""

from abc import abstractmethod
from typing import override

import scvi.distributions as scvi_distributions
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import softplus

from mixvi.module._likelihood import ALL, EDGE, Likelihood, positive
from mixvi.module.cells import Cells, Layout
from mixvi.module.encoders import Posterior
from mixvi.module.nets import Hidden
from mixvi.ops.count_log_prob import log_negative_binomial, log_poisson, log_zero_inflated
from mixvi.ops.csr import dense, map_entries
from mixvi.ops.expected_log1p import expected_log1p
from mixvi.ops.negative_binomial_cpu import NegativeBinomialSoftmax


class CountLikelihood(Likelihood):
    """Counts with mean mu = library size * rho(z, c). The shares rho of the genes are positive and sum to 1.

    With registered size factors, mu = size factor * rho. Then rho is positive but does not sum to 1, because a size
    factor need not be the total count. The decoder's output is a multiple of the ``unit``: the mean of the training
    cells' total count / size factor. The encoders read log(1 + counts).
    """

    support = "count"

    def __init__(self, layout: Layout, n_latent: int, hidden: Hidden):
        super().__init__(layout, n_latent, hidden)
        self.rho = nn.Linear(self.trunk.n_out, layout.n_genes)
        self.free = layout.size_factor
        if self.free:
            self.unit = torch.ones(())

    @override
    def prepare(self, x: Tensor) -> Tensor:
        return map_entries(torch.log1p, x)

    @override
    def scaled(self, cells: Cells) -> Tensor:
        shares = dense(cells.x) / cells.library
        return shares if self.unit is None else shares / self.unit

    @override
    @torch.no_grad()
    def measure(self, scaled: Tensor) -> None:
        if self.unit is not None:
            self.unit.mul_(positive(scaled.sum(1).mean()))

    @property
    @override
    def head(self) -> nn.Linear:
        return self.rho

    @override
    def link(self, mean: Tensor) -> Tensor:
        # the inverse of softmax or softplus, of a mean that is never 0
        mean = mean.clamp(min=0) + EDGE / mean.shape[-1]
        return mean + (-torch.expm1(-mean)).log() if self.free else mean.log()

    def shares(self, h: Tensor) -> Tensor:
        """Rho (..., n, g) from the output (..., n, h) of the hidden layers."""
        rho = self.rho(h)
        return rho.softmax(dim=-1) if self.unit is None else softplus(rho) * self.unit

    @abstractmethod
    def log_prob_at(self, h: Tensor, cells: Cells) -> Tensor:
        """Log p(x | z, c), summed over genes, from the output of the hidden layers.

        It does not compute lgamma for counts of zero (`mixvi.ops.count_log_prob`).

        Parameters
        ----------
        h
            (n, h) output of the hidden layers at one z for each cell.
        cells
            n cells.

        Returns
        -------
        (n,) nats.
        """

    @override
    def log_prob(self, z: Tensor, cells: Cells, qz: Posterior | None = None) -> Tensor:
        if z.dim() > 2:
            return torch.stack([self.log_prob(one, cells) for one in z])
        return self.log_prob_at(self.trunk(z, cells.c), cells)


class Poisson(CountLikelihood):
    """x_g ~ Poisson(mu_g)."""

    @override
    def forward(self, z: Tensor, cells: Cells) -> Distribution:
        rho = self.shares(self.trunk(z, cells.c))
        return scvi_distributions.Poisson(cells.library * rho, scale=rho, validate_args=False)

    @override
    def expected_seen(self, z: Tensor, cells: Cells, genes: Tensor | slice = ALL) -> Tensor:
        return expected_log1p(self(z, cells).mean[:, genes])

    @override
    def log_prob_at(self, h: Tensor, cells: Cells) -> Tensor:
        return log_poisson(cells.x, cells.library * self.shares(h))


class NegativeBinomial(CountLikelihood):
    """x_g ~ NB(mean mu_g, inverse dispersion theta_g), with variance mu + mu^2 / theta.

    Parameters
    ----------
    by_batch
        Whether each batch has its own theta_g.
    """

    def __init__(self, layout: Layout, n_latent: int, hidden: Hidden, by_batch: bool = False):
        super().__init__(layout, n_latent, hidden)
        self.log_theta = _dispersions(layout, by_batch)

    @override
    def forward(self, z: Tensor, cells: Cells) -> Distribution:
        rho = self.shares(self.trunk(z, cells.c))
        return scvi_distributions.NegativeBinomial(
            mu=cells.library * rho, theta=_theta(self.log_theta, cells), scale=rho, validate_args=False
        )

    @override
    def expected_seen(self, z: Tensor, cells: Cells, genes: Tensor | slice = ALL) -> Tensor:
        return expected_log1p(self(z, cells).mean[:, genes], _theta(self.log_theta, cells)[..., genes])

    @override
    def log_prob_at(self, h: Tensor, cells: Cells) -> Tensor:
        theta = _theta(self.log_theta, cells)
        if not self.free and NegativeBinomialSoftmax.takes(h, theta):
            return NegativeBinomialSoftmax.apply(cells.x, h, self.rho.weight, self.rho.bias, cells.library, theta)
        return log_negative_binomial(cells.x, cells.library * self.shares(h), theta)


class ZeroInflatedNegativeBinomial(CountLikelihood):
    """x_g = 0 with probability pi_g(z, c). Otherwise x_g ~ NB(mu_g, theta_g).

    Parameters
    ----------
    by_batch
        Whether each batch has its own theta_g.
    """

    def __init__(self, layout: Layout, n_latent: int, hidden: Hidden, by_batch: bool = False):
        super().__init__(layout, n_latent, hidden)
        self.log_theta = _dispersions(layout, by_batch)
        self.zero_logits = nn.Linear(self.trunk.n_out, layout.n_genes)

    @override
    def forward(self, z: Tensor, cells: Cells) -> Distribution:
        h = self.trunk(z, cells.c)
        rho = self.shares(h)
        return scvi_distributions.ZeroInflatedNegativeBinomial(
            mu=cells.library * rho, theta=_theta(self.log_theta, cells), zi_logits=self.zero_logits(h), scale=rho,
            validate_args=False,
        )  # fmt: skip

    @override
    def expected_seen(self, z: Tensor, cells: Cells, genes: Tensor | slice = ALL) -> Tensor:
        px = self(z, cells)
        not_inflated = 1 - px.zi_probs[:, genes]
        return not_inflated * expected_log1p(px.mu[:, genes], _theta(self.log_theta, cells)[..., genes])

    @override
    def log_prob_at(self, h: Tensor, cells: Cells) -> Tensor:
        return log_zero_inflated(
            cells.x, cells.library * self.shares(h), _theta(self.log_theta, cells), self.zero_logits(h)
        )


def _dispersions(layout: Layout, by_batch: bool) -> nn.Parameter:
    """Log theta of the genes (g,), or of each batch and gene (b, g)."""
    return nn.Parameter(torch.zeros((layout.batch_levels, layout.n_genes) if by_batch else layout.n_genes))


def _theta(log_theta: Tensor, cells: Cells) -> Tensor:
    """Inverse dispersions (g,), or (n, g) if each batch has its own; batches are the first columns of c."""
    return (log_theta if log_theta.dim() == 1 else cells.c[:, : len(log_theta)] @ log_theta).exp()
