"""Values at their quantile: what is a cell's own, beside its place in the latent space, under another distribution."""

import numpy as np
import torch
from scipy import stats
from scipy.special import expit
from scvi.distributions import Poisson
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Normal

EDGE = 1e-6  # what is further out than that, a model holds for impossible: its quantile says nothing
TINY = 1e-30


def carry(x: Tensor, here: Distribution, there: Distribution) -> Tensor:
    """Values (n, g) that stand in ``there`` where x (n, g) stands in ``here``, two p(x | z, c) of one likelihood.

    As a counterfactual is found: what a cell's noise was, by its own p, goes into the other (Pearl 2009, chapter 7).
    For normals these are as many standard deviations from the mean. A count, or 0 or 1, covers a range of quantiles, of
    which one is drawn; a grey value is 1 as often as it says. So x ~ here becomes a draw from there, and counts stay
    what they are where the two are the same. Counts beyond the last millionth of ``here`` go by the ratio of means, as
    far as to the last millionth of ``there``.
    """
    if isinstance(here, Normal):
        return there.loc + (x - here.loc) * there.scale / here.scale
    if isinstance(here, Bernoulli):
        on, u, p, other = torch.rand_like(here.probs) < x, torch.rand_like(here.probs), here.probs, there.probs
        return torch.where(on, u * p < other, u * (1 - p) > 1 - other).to(p)
    counts = _array(x)
    low, high = _cdf(counts - 1, here), _cdf(counts, here)
    u, v = torch.rand(2, *x.shape, dtype=torch.float64).numpy()
    found = _quantile((low + (high - low) * u).clip(EDGE, 1 - EDGE), there)
    scaled = np.floor(counts * _mean(there) / np.maximum(_mean(here), TINY) + v)
    impossible = (low > 1 - EDGE) | (high < EDGE)
    found = np.where(impossible, np.minimum(scaled, np.maximum(counts, found)), found)
    return torch.from_numpy(found).to(x.dtype).to(x.device)


def _cdf(x: np.ndarray, px: Distribution) -> np.ndarray:
    zero = _zeros(px)
    return np.where(x < 0, 0.0, zero + (1 - zero) * _frozen(px).cdf(x))


def _quantile(u: np.ndarray, px: Distribution) -> np.ndarray:
    zero = _zeros(px)
    return np.where(u <= zero, 0.0, _frozen(px).ppf(np.maximum(u - zero, TINY) / np.maximum(1 - zero, EDGE)))


def _frozen(px: Distribution):
    if isinstance(px, Poisson):
        return stats.poisson(_mean(px))
    theta = _array(px.theta)
    return stats.nbinom(theta, theta / (theta + _mean(px)))


def _mean(px: Distribution) -> np.ndarray:
    """Of the counts' own distribution."""
    return _array(px.rate if isinstance(px, Poisson) else px.mu)


def _zeros(px: Distribution) -> np.ndarray | float:
    """Probability of a zero beside those of the counts' own distribution."""
    return expit(_array(px.zi_logits)) if hasattr(px, "zi_logits") else 0.0


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()
