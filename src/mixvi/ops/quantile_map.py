"""Quantile mapping: a value under one distribution becomes the value at the same quantile of another."""

from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from scipy.special import expit
from scvi.distributions import NegativeBinomial, Poisson
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Normal

TAIL = 1e-6  # a value further out is impossible under the model, and its quantile is not informative
TINY = 1e-30
THETA_RANGE = (1e-8, 1e6)  # range; below it every count is 0, above it the distribution is a Poisson


def carry(x: Tensor, here: Distribution, there: Distribution) -> Tensor:
    """Move values to the same quantiles of another distribution, as a counterfactual (Pearl 2009, chapter 7).

    The quantile is the noise of a cell under ``here``, and it is kept under ``there``. A normal value keeps its number
    of standard deviations from the mean. A count covers a range of quantiles, and one of them is drawn; so does a 0 or
    a 1. A grey value v is first drawn as 1 with probability v. If x is a draw from ``here``, the result is a draw from
    ``there``. If both are equal, counts do not change. A count in the first or last millionth of ``here`` is scaled by
    the ratio of means instead. The result is at most the last millionth of ``there``, or the count if that is larger.

    Parameters
    ----------
    x
        (n, g) values.
    here, there
        Distributions p(x | z, c) of one family, of shape (n, g) or one that broadcasts to it.

    Returns
    -------
    (n, g) values under ``there``.
    """
    if isinstance(here, Normal) and isinstance(there, Normal):
        return there.loc + (x - here.loc) * torch.where(here.scale > TINY, there.scale / here.scale, 1.0)
    if isinstance(here, Bernoulli) and isinstance(there, Bernoulli):
        on, u, p, other = torch.rand_like(here.probs) < x, torch.rand_like(here.probs), here.probs, there.probs
        return torch.where(on, u * p < other, u * (1 - p) > 1 - other).to(p)
    counts = _array(x)
    old, new = (_Counts.of(px, counts.shape) for px in (here, there))
    some, low, high = counts > 0, np.zeros_like(counts), old.cdf_at_zero()
    low[some], high[some] = (old.of_those(some).cdf(counts[some] - less) for less in (1, 0))
    u, v = torch.rand(2, *x.shape, dtype=torch.float64).numpy()
    at = (low + (high - low) * u).clip(TAIL, 1 - TAIL)
    found, more = np.zeros_like(counts), ~(at <= new.cdf_at_zero())  # NaN stays
    found[more] = new.of_those(more).quantile(at[more])
    scaled = np.floor(counts * new.mean / np.maximum(old.mean, TINY) + v)
    impossible = (low > 1 - TAIL) | (high < TAIL)
    found = np.where(impossible, np.minimum(scaled, np.maximum(counts, found)), found)
    return torch.from_numpy(found).to(x.dtype).to(x.device)


class _Counts(NamedTuple):
    """A zero-inflated distribution of counts, as arrays of one shape."""

    mean: np.ndarray  # mean without zero inflation
    theta: np.ndarray | None  # inverse dispersion; ``None`` for a Poisson
    zeros: np.ndarray  # probability of an additional zero

    @classmethod
    def of(cls, px: Poisson | NegativeBinomial, shape: tuple[int, ...]) -> "_Counts":
        mean = np.broadcast_to(_array(px.rate if isinstance(px, Poisson) else px.mu), shape)
        theta = None if isinstance(px, Poisson) else np.broadcast_to(_array(px.theta).clip(*THETA_RANGE), shape)
        zeros = expit(_array(px.zi_logits)) if hasattr(px, "zi_logits") else np.zeros(1)
        return cls(mean, theta, np.broadcast_to(zeros, shape))

    def of_those(self, chosen: np.ndarray) -> "_Counts":
        theta = None if self.theta is None else self.theta[chosen]
        return _Counts(self.mean[chosen], theta, self.zeros[chosen])

    def cdf_at_zero(self) -> np.ndarray:
        own = -self.mean if self.theta is None else -self.theta * np.log1p(self.mean / self.theta)
        return self.zeros + (1 - self.zeros) * np.exp(own)

    def cdf(self, x: np.ndarray) -> np.ndarray:
        return self.zeros + (1 - self.zeros) * self._own().cdf(x)

    def quantile(self, u: np.ndarray) -> np.ndarray:
        return self._own().ppf(np.maximum(u - self.zeros, TINY) / np.maximum(1 - self.zeros, TAIL))

    def _own(self):
        if self.theta is None:
            return stats.poisson(self.mean)
        return stats.nbinom(self.theta, self.theta / (self.theta + self.mean))


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()
