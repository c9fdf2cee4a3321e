"""Encoders: what a cell says about its place in the latent space, q(z | x, c).

Every encoder maps x (n, g) and c (n, q) to a distribution over z with ``loc`` and ``scale`` of shape (n, d).
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, constraints

from mixvi.module.nets import Hidden, Trunk

SCALE_FLOOR = 1e-4  # a posterior narrower than this makes log q(z | x) overflow in float32
LOG_SCALE_CEILING = 10.0  # and one wider than e^10 its KL


class Encoder(nn.Module):
    """q(z | x, c): a trunk on (x, c) and heads of its own. With hidden layers, the first discounts conditions."""

    def __init__(self, n_genes: int, n_conditions: int, n_latent: int, hidden: Hidden):
        super().__init__()
        self.trunk = Trunk(n_genes, n_conditions, hidden, discounts=True)
        self.loc = nn.Linear(self.trunk.n_out, n_latent)

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor) -> Distribution:
        """Posterior of n cells."""

    def discounted(self, x: Tensor, c: Tensor) -> Tensor:
        """X (n, g) less what conditions add to it, as the first layer sees it."""
        if self.trunk.is_linear or not self.trunk.n_conditions:
            return x
        first = self.trunk.layers[0]
        return x - (c - first.c_mean) @ first.effects

    @torch.no_grad()
    def discount(self, effects: Tensor, c_mean: Tensor) -> None:
        """Take (c - c_mean) @ effects (q, g) from x, and start with a posterior mean that c itself does not move."""
        if not self.trunk.is_linear:
            self.trunk.layers[0].effects.copy_(effects)
            self.trunk.layers[0].c_mean.copy_(c_mean)
            self.loc.weight[:, self.trunk.n_out - self.trunk.n_conditions :] = 0


class Delta(Distribution):
    """All mass at ``loc`` (n, d): the limit of a normal whose scale goes to 0. Its entropy is left out."""

    arg_constraints = {"loc": constraints.real_vector}
    has_rsample = True

    def __init__(self, loc: Tensor):
        self.loc = loc
        self.scale = torch.zeros_like(loc)
        super().__init__(batch_shape=loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The point itself."""
        return self.loc

    def rsample(self, sample_shape=()) -> Tensor:
        """The point itself, as often as asked for."""
        return self.loc.expand(torch.Size(sample_shape) + self.loc.shape)


class DeltaEncoder(Encoder):
    """q(z | x, c) = delta at e(x, c)."""

    def forward(self, x: Tensor, c: Tensor) -> Delta:
        """Posterior of n cells."""
        return Delta(self.loc(self.trunk(x, c)))


class NormalEncoder(Encoder):
    """q(z | x, c) = N(m(x, c), diag s(x, c)^2)."""

    def __init__(self, n_genes: int, n_conditions: int, n_latent: int, hidden: Hidden):
        super().__init__(n_genes, n_conditions, n_latent, hidden)
        self.log_scale = nn.Linear(self.trunk.n_out, n_latent)

    def forward(self, x: Tensor, c: Tensor) -> Normal:
        """Posterior of n cells."""
        h = self.trunk(x, c)
        return Normal(
            self.loc(h), self.log_scale(h).clamp(max=LOG_SCALE_CEILING).exp() + SCALE_FLOOR, validate_args=False
        )
