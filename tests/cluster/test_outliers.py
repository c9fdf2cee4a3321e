"""P-values of new cells against reference cells of the same depth."""

import numpy as np
import pytest

from mixvi.cluster.outliers import outlier_p


@pytest.fixture
def draw(rng):
    """Scores whose mean and spread grow with the depth, and the depths."""

    def of(n, depth=None, shift=0.0):
        depth = rng.uniform(5, 9, n) if depth is None else np.full(n, depth)
        return (3 + 2 * depth + depth * (rng.normal(size=n) + shift), depth)

    return of


def test_p_values_of_reference_cells_are_uniform_at_each_depth(draw):
    known = draw(4000)
    for depth in (5.5, 7.0, 8.5):
        p = outlier_p(*draw(4000, depth), *known)
        for level in (0.05, 0.2, 0.5):
            assert abs((p < level).mean() - level) < 4 * np.sqrt(level * (1 - level) / 2000)


def test_outliers_have_low_p_values_and_none_is_zero(draw):
    known = draw(199)
    assert np.median(outlier_p(*draw(500, 7.0, shift=6.0), *known)) == 1 / 200
    assert outlier_p(np.array([-1e9]), np.array([7.0]), *known) == [1.0]


def test_without_depth_a_p_value_is_a_rank(rng):
    known = rng.permutation(np.arange(1.0, 20))
    p = outlier_p(np.array([20.0, 19.0, 10.0, 0.0]), np.zeros(4), known, np.zeros(19))
    np.testing.assert_allclose(p, np.array([1, 2, 11, 20]) / 20)
