"""Encoders: the posterior q(z | x, c) of the latent.

Each encoder maps x (n, g) and c (n, q) to a distribution over z, with ``loc`` and ``scale`` of shape (n, d).
"""

from abc import abstractmethod
from typing import override

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, constraints

from mixvi.module.nets import Hidden, Trunk

SCALE_FLOOR = 1e-4  # below it, log q(z | x) overflows in float32
LOG_SCALE_CEILING = 10.0  # above it, the KL overflows


class Encoder(nn.Module):
    """q(z | x, c): hidden layers on (x, c), and linear heads. The first layer subtracts condition effects from x."""

    def __init__(self, n_genes: int, n_conditions: int, n_latent: int, hidden: Hidden):
        super().__init__()
        self.trunk = Trunk(n_genes, n_conditions, hidden, discounts=True)
        self.loc = nn.Linear(self.trunk.n_out, n_latent)

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor) -> "Posterior":
        """q(z | x, c) of n cells.

        Parameters
        ----------
        x
            (n, g) values that the encoder reads, dense or CSR.
        c
            (n, q) conditions.

        Returns
        -------
        (n, d) posterior.
        """

    @staticmethod
    @abstractmethod
    def restored(loc: Tensor, scale: Tensor) -> "Posterior":
        """The posterior with a given loc (n, d) and scale (n, d).

        Parameters
        ----------
        loc, scale
            (n, d) what the posterior of an earlier `forward` had.
        """

    def discounted(self, x: Tensor, c: Tensor) -> Tensor:
        """X without the effects of the conditions, as the first hidden layer uses it.

        Parameters
        ----------
        x
            (n, g) dense values that the encoder reads.
        c
            (n, q) conditions.

        Returns
        -------
        (n, g) x - (c - c_mean) @ effects. It is x itself if there are no hidden layers or no conditions.
        """
        if self.trunk.is_linear:
            return x
        first = self.trunk.layers[0]
        if first.effects is None or first.c_mean is None:
            return x
        return x - (c - first.c_mean) @ first.effects

    @torch.no_grad()
    def discount(self, effects: Tensor, c_mean: Tensor) -> None:
        """Set the effects (c - c_mean) @ effects that the first hidden layer subtracts from x.

        The posterior mean then starts without a direct effect of c. A linear encoder does not change.

        Parameters
        ----------
        effects
            (q, g) effects of the conditions on x.
        c_mean
            (q,) mean condition.
        """
        if self.trunk.is_linear:
            return
        first = self.trunk.layers[0]
        if first.effects is not None and first.c_mean is not None:
            first.effects.copy_(effects)
            first.c_mean.copy_(c_mean)
            self.loc.weight[:, self.trunk.n_out - self.trunk.n_conditions :] = 0


class Delta(Distribution):
    """All mass at ``loc`` (n, d): a normal in the limit of scale 0. The bound does not count its entropy."""

    arg_constraints = {"loc": constraints.real_vector}
    has_rsample = True

    def __init__(self, loc: Tensor):
        self.loc = loc
        self.scale = torch.zeros_like(loc)
        super().__init__(batch_shape=loc.shape, validate_args=False)

    @property
    @override
    def mean(self) -> Tensor:
        return self.loc

    @override
    def rsample(self, sample_shape=()) -> Tensor:
        return self.loc.expand(torch.Size(sample_shape) + self.loc.shape)


Posterior = Normal | Delta  # q(z | x, c), with loc and scale (n, d)


class DeltaEncoder(Encoder):
    """q(z | x, c) = delta at e(x, c)."""

    @override
    def forward(self, x: Tensor, c: Tensor) -> Delta:
        return Delta(self.loc(self.trunk(x, c)))

    @staticmethod
    @override
    def restored(loc: Tensor, scale: Tensor) -> Delta:
        return Delta(loc)


class NormalEncoder(Encoder):
    """q(z | x, c) = N(m(x, c), diag s(x, c)^2)."""

    def __init__(self, n_genes: int, n_conditions: int, n_latent: int, hidden: Hidden):
        super().__init__(n_genes, n_conditions, n_latent, hidden)
        self.log_scale = nn.Linear(self.trunk.n_out, n_latent)

    @override
    def forward(self, x: Tensor, c: Tensor) -> Normal:
        h = self.trunk(x, c)
        return Normal(
            self.loc(h), self.log_scale(h).clamp(max=LOG_SCALE_CEILING).exp() + SCALE_FLOOR, validate_args=False
        )

    @staticmethod
    @override
    def restored(loc: Tensor, scale: Tensor) -> Normal:
        return Normal(loc, scale, validate_args=False)
