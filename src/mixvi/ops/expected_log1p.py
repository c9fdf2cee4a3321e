"""The mean of log(1 + x) of counts x, which the encoders read."""

import numpy as np
import torch
from torch import Tensor

N_NODES = 16  # the relative error is below 2e-4 for means up to 1,000, and below 2e-3 up to 10,000


def expected_log1p(mean: Tensor, theta: Tensor | None = None) -> Tensor:
    """E[log(1 + x)] of a negative binomial or Poisson x, by quadrature.

    With the Laplace transform L(u) = E[(1 - u)^x], Frullani's integral gives

        E[log(1 + x)] = int_0^1 (1 - L(u)) / (-log(1 - u)) du.

    The substitution u = v^3 puts more nodes near 0, where the integrand changes fast if the mean is large.

    Parameters
    ----------
    mean
        (..., g) mean, 0 or more.
    theta
        (g,) inverse dispersion, where the variance is mean + mean^2 / theta; ``None`` is a Poisson.

    Returns
    -------
    (..., g) means of log(1 + x).
    """
    nodes, weights = np.polynomial.legendre.leggauss(N_NODES)
    v = (nodes + 1) / 2
    u = v**3
    total = torch.zeros_like(mean)
    for at, weight in zip(u.tolist(), (weights / 2 * 3 * v**2 / -np.log1p(-u)).tolist(), strict=True):
        log_l = -mean * at if theta is None else -theta * torch.log1p(mean * at / theta)
        total -= weight * torch.expm1(log_l)
    return total
