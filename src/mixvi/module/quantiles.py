"""Values at their quantile: what is a cell's own, beside its place in the latent space, under another distribution."""

import numpy as np
import torch
from scipy import stats
from scvi.distributions import Poisson
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Normal

EDGE = 1e-12  # of probabilities: quantiles stay finite


def carry(x: Tensor, here: Distribution, there: Distribution) -> Tensor:
    """Values (n, g) that stand in ``there`` where x (n, g) stands in ``here``, two p(x | z, c) of one likelihood.

    As a counterfactual is found: what a cell's noise was, by its own p, goes into the other (Pearl 2009, chapter 7).
    For normals these are as many standard deviations from the mean. A count, or 0 or 1, covers a range of quantiles, of
    which one is drawn; a grey value is 1 as often as it says. So x ~ here becomes a draw from there, and counts stay
    what they are where the two are the same.
    """
    if isinstance(here, Normal):
        return there.loc + (x - here.loc) * there.scale / here.scale
    if isinstance(here, Bernoulli):
        on, u = torch.rand_like(here.probs) < x, torch.rand_like(here.probs)
        return (torch.where(on, 1 - u * here.probs, u * (1 - here.probs)) > 1 - there.probs).to(here.probs)
    counts = x.double().cpu().numpy()
    low, high = _cdf(counts - 1, here), _cdf(counts, here)
    u = low + (high - low) * torch.rand(x.shape, dtype=torch.float64).numpy()
    return torch.from_numpy(_quantile(u.clip(EDGE, 1 - EDGE), there)).to(x)


def _cdf(x: np.ndarray, px: Distribution) -> np.ndarray:
    zero = _zeros(px)
    return np.where(x < 0, 0.0, zero + (1 - zero) * _frozen(px).cdf(x))


def _quantile(u: np.ndarray, px: Distribution) -> np.ndarray:
    zero = _zeros(px)
    return np.where(u <= zero, 0.0, _frozen(px).ppf(np.maximum(u - zero, EDGE) / (1 - zero)))


def _frozen(px: Distribution):
    if isinstance(px, Poisson):
        return stats.poisson(_array(px.rate))
    mu, theta = _array(px.mu), _array(px.theta)
    return stats.nbinom(theta, theta / (theta + mu))


def _zeros(px: Distribution) -> np.ndarray | float:
    """Probability of a zero beside those of the counts' own distribution."""
    return _array(px.zi_probs) if hasattr(px, "zi_probs") else 0.0


def _array(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()
