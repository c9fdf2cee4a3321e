"""Local outlier factors, and p-values of new cells against reference cells of the same depth."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from mixvi.cluster.outliers import local_outlier_factor, neighbor_distances, outlier_p


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


def factors(view, reference):
    view, reference = torch.as_tensor(view), torch.as_tensor(reference)
    return local_outlier_factor(view, reference, neighbor_distances(reference, reference, skip=1)[0]).numpy()


def test_a_local_outlier_factor_is_a_ratio_of_mean_neighbour_distances(rng):
    reference, view = rng.normal(size=(300, 4)), rng.normal(size=(20, 4))
    index = NearestNeighbors(n_neighbors=15).fit(reference)
    own = index.kneighbors()[0].mean(1)
    distance, near = index.kneighbors(view)
    np.testing.assert_allclose(factors(view, reference), np.log(distance.mean(1) / own[near].mean(1)), rtol=1e-6)


def test_a_local_outlier_factor_does_not_depend_on_density(rng):
    """Cells of a type of which there are few, or whose profiles vary more, are no outliers for that."""
    dense, sparse = rng.normal(size=(2000, 3)), 100 + 10 * rng.normal(size=(200, 3))
    reference = np.concatenate([dense, sparse])
    known = [
        np.median(factors(x, reference)) for x in (rng.normal(size=(500, 3)), 100 + 10 * rng.normal(size=(500, 3)))
    ]
    assert max(map(abs, known)) < 0.2
    assert (
        factors(np.array([[8.0, 0, 0]]), reference) > 1 > np.log(2) > factors(np.array([[108.0, 100, 100]]), reference)
    )


def test_equal_cells_and_a_small_reference_have_finite_factors():
    same = np.ones((5, 2))
    assert factors(same, same) == pytest.approx(np.zeros(5))
    assert np.isfinite(factors(same + 1, same)).all()
