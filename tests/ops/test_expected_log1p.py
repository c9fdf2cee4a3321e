"""The mean of log(1 + x), against sums over all counts."""

import numpy as np
import pytest
import torch
from scipy.stats import nbinom, poisson

from mixvi.ops.expected_log1p import expected_log1p


@pytest.mark.parametrize("mean", [0.0, 1e-3, 0.1, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("theta", [0.1, 1.0, 10.0, None])
def test_it_is_the_sum_over_all_counts(mean, theta):
    x = np.arange(60 * int(mean) + 400)
    p = poisson.pmf(x, mean) if theta is None else nbinom.pmf(x, theta, theta / (theta + mean))
    given = None if theta is None else torch.tensor([theta, theta])
    found = expected_log1p(torch.full((3, 2), mean), given)
    assert found.shape == (3, 2)
    np.testing.assert_allclose(found, (p * np.log1p(x)).sum() / p.sum(), rtol=3e-4, atol=1e-7)
