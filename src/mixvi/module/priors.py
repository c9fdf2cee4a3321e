"""Priors: what is believed of z before a cell is seen, and what that costs.

``Prior.kl(qz, z, cells)`` gives the terms of KL( q(z, ... | x, c) || p(z, ... | c) ) by name, each (n,) in nats;
``Prior.log_ratio(qz, z, cells)`` is log p(z, ... | c) - log q(z, ... | x, c) at draws z ~ q, for importance weights;
``Prior.components(cells)`` is p(z | c) as a mixture of normals; ``Prior.sample(c, component)`` draws z (n, d) for
conditions c (n, q); ``Prior.move(z, c, other)`` takes z from one condition to another.
"""

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence

from mixvi.module.cells import Cells

_IMPROPER = "A flat prior is improper: nothing can be drawn from it, and there is no evidence under it."


class Terms(NamedTuple):
    """Terms of the bound by name, each (n,): ``annealed`` ones are warmed up, ``fixed`` ones always count in full."""

    annealed: dict[str, Tensor]
    fixed: dict[str, Tensor]


class Prior(nn.Module):
    """p(z | c), and p(z, y | c) where there are components.

    ``generative`` and ``inference`` name its factors, for `ELBOModule.factors`.
    """

    generative: ClassVar[tuple[str, ...]]
    inference: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def kl(self, qz: Distribution, z: Tensor, cells: Cells) -> Terms:
        """Cost of coding n cells, by term."""

    @abstractmethod
    def log_ratio(self, qz: Distribution, z: Tensor, cells: Cells) -> Tensor:
        """Log p(z, ... | c) - log q(z, ... | x, c) at z (..., n, d) ~ q: (..., n)."""

    @abstractmethod
    def components(self, cells: Cells) -> tuple[Tensor, Normal]:
        """Log weights (K,) and normals (n or 1, K, d) that p(z | c) is the mixture of; K = 1 for a single one."""

    @abstractmethod
    def sample(self, c: Tensor, component: int | None = None) -> Tensor:
        """One z (n, d) for each row of c (n, q)."""

    @abstractmethod
    def move(self, z: Tensor, c: Tensor, other: Tensor) -> Tensor:
        """Where z (n, d) of conditions c (n, q) would be under others (n, q): the same place in p(z | other)."""

    @abstractmethod
    def log_density(self) -> Tensor | float:
        """Log density of the prior's own parameters, a scalar; 0 where they have no prior."""


class Flat(Prior):
    """p(z) constant: no cost, and nothing to draw from."""

    generative = ("p(z)",)

    def kl(self, qz: Distribution, z: Tensor, cells: Cells) -> Terms:
        """No term."""
        return Terms({}, {})

    def log_ratio(self, qz: Distribution, z: Tensor, cells: Cells) -> Tensor:
        """Not possible: neither the flat prior nor the delta has a density to weight with."""
        raise ValueError(_IMPROPER)

    def components(self, cells: Cells) -> tuple[Tensor, Normal]:
        """Not possible either."""
        raise ValueError(_IMPROPER)

    def sample(self, c: Tensor, component: int | None = None) -> Tensor:
        """Not possible: a flat prior has no mass to draw from."""
        raise ValueError(_IMPROPER)

    def move(self, z: Tensor, c: Tensor, other: Tensor) -> Tensor:
        """Z itself: it knows of no condition."""
        return z

    def log_density(self) -> float:
        """Nothing to learn here has a prior."""
        return 0.0


class StandardNormal(Prior):
    """p(z) = N(0, I), whatever the condition is: the latent space is asked to forget c."""

    generative = ("p(z)",)

    def __init__(self, n_latent: int):
        super().__init__()
        self.n_latent = n_latent

    def kl(self, qz: Distribution, z: Tensor, cells: Cells) -> Terms:
        """kl_z = KL(q(z | x, c) || N(0, I)) = sum_j (m_j^2 + s_j^2 - 1) / 2 - log s_j."""
        each = (qz.loc.square() + qz.scale.square() - 1) / 2 - qz.scale.log()
        return Terms({"kl_z": each.sum(-1)}, {})

    def log_ratio(self, qz: Distribution, z: Tensor, cells: Cells) -> Tensor:
        """Log N(z; 0, I) - log q(z | x, c)."""
        return (standard(qz).log_prob(z) - qz.log_prob(z)).sum(-1)

    def components(self, cells: Cells) -> tuple[Tensor, Normal]:
        """The one."""
        zero = cells.library.new_zeros(1, 1, self.n_latent)
        return zero[0, :, 0], Normal(zero, torch.ones_like(zero), validate_args=False)

    def sample(self, c: Tensor, component: int | None = None) -> Tensor:
        """Z ~ N(0, I)."""
        _refuse(component, "one standard normal")
        return torch.randn(c.shape[0], self.n_latent, device=c.device, dtype=c.dtype)

    def move(self, z: Tensor, c: Tensor, other: Tensor) -> Tensor:
        """Z itself: it knows of no condition."""
        return z

    def log_density(self) -> float:
        """Nothing to learn here has a prior."""
        return 0.0


class ConditionalNormal(Prior):
    """p(z | c) = N(m(c), diag s(c)^2), linear in c: each condition has a place of its own in the latent space."""

    generative = ("p(z | c)",)

    def __init__(self, n_conditions: int, n_latent: int):
        super().__init__()
        self.loc = nn.Linear(n_conditions, n_latent)
        self.log_scale = nn.Linear(n_conditions, n_latent)
        for head in (self.loc, self.log_scale):  # start as N(0, I)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def given(self, c: Tensor) -> Normal:
        """p(z | c) for c (n, q): loc and scale (n, d)."""
        return Normal(self.loc(c), self.log_scale(c).exp(), validate_args=False)

    def kl(self, qz: Distribution, z: Tensor, cells: Cells) -> Terms:
        """kl_z = KL(q(z | x, c) || p(z | c))."""
        return Terms({"kl_z": kl_divergence(qz, self.given(cells.c)).sum(-1)}, {})

    def log_ratio(self, qz: Distribution, z: Tensor, cells: Cells) -> Tensor:
        """Log p(z | c) - log q(z | x, c)."""
        return (self.given(cells.c).log_prob(z) - qz.log_prob(z)).sum(-1)

    def components(self, cells: Cells) -> tuple[Tensor, Normal]:
        """The one of each cell's condition."""
        pz = self.given(cells.c.unsqueeze(1))  # (n, 1, d)
        return pz.loc.new_zeros(1), pz

    def sample(self, c: Tensor, component: int | None = None) -> Tensor:
        """Z ~ p(z | c)."""
        _refuse(component, "one normal a condition")
        return self.given(c).sample()

    def move(self, z: Tensor, c: Tensor, other: Tensor) -> Tensor:
        """As many standard deviations from the mean of p(z | other) as from that of p(z | c)."""
        here, there = self.given(c), self.given(other)
        return there.loc + there.scale * (z - here.loc) / here.scale

    def log_density(self) -> float:
        """Nothing to learn here has a prior."""
        return 0.0


def standard(q: Distribution) -> Normal:
    """N(0, I) of the shape of q."""
    return Normal(torch.zeros_like(q.loc), torch.ones_like(q.scale), validate_args=False)


def _refuse(component: int | None, what: str) -> None:
    if component is not None:
        raise ValueError(
            f"component={component} was asked for, but the prior is {what}; use mixvi.GMVAE for components."
        )
