"""Local outlier factors, and p-values of new cells against reference cells of the same depth."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from mixvi.cluster.outliers import conformal_p, local_outlier_factor, neighbor_distances, standardise


def outlier_p(score, depth, known, known_depth):
    return conformal_p(*standardise(score, depth, known, known_depth))


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


def spacing_of(cells, n_neighbors=15):
    cells = torch.as_tensor(cells)
    return neighbor_distances(cells, cells, np.arange(len(cells)), n_neighbors)[0]


def factors(view, reference, around=None):
    return local_outlier_factor(*map(torch.as_tensor, (view, reference)), spacing_of(reference), around).numpy()


def test_a_cell_is_not_its_own_neighbour(rng):
    reference, own = torch.as_tensor(rng.normal(size=(50, 3))), np.arange(30, 50)
    view = torch.cat([reference[30:40], torch.as_tensor(rng.normal(size=(10, 3)))])
    found, near = neighbor_distances(view, reference, own, 4)
    index = NearestNeighbors(n_neighbors=4).fit(reference)
    np.testing.assert_allclose(found[:10], index.kneighbors()[0][30:40].mean(1))
    for row in range(10, 20):  # in the place of another cell
        others = NearestNeighbors(n_neighbors=4).fit(np.delete(reference.numpy(), own[row], 0))
        np.testing.assert_allclose(found[row], others.kneighbors(view[[row]])[0].mean())
    assert not (near.numpy() == own[:, None]).any()
    assert neighbor_distances(view, reference, own, 90)[1].shape == (20, 49)
    assert neighbor_distances(view, reference, n_neighbors=90)[1].shape == (20, 50)


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


def test_a_dense_group_beside_a_sparse_type_shows_by_the_spacing_of_the_query(rng):
    """The spacing is the geometric mean of both. By that of the reference alone, the group is hardly unusual."""
    sparse, group = 10 * rng.normal(size=(500, 3)), 12 + rng.normal(size=(50, 3))
    near = neighbor_distances(torch.as_tensor(group), torch.as_tensor(sparse))[1]
    alone, both = factors(group, sparse), factors(group, sparse, spacing_of(group))
    ratio = spacing_of(sparse)[near].mean(1) / spacing_of(group)
    np.testing.assert_allclose(both, alone + ratio.log().numpy() / 2)
    known = 10 * rng.normal(size=(100, 3))
    usual_alone, usual = factors(known, sparse), factors(known, sparse, spacing_of(known, 3))
    assert (alone > np.quantile(usual_alone, 0.95)).mean() < 0.5 < 0.9 < (both > np.quantile(usual, 0.95)).mean()


def test_equal_cells_and_a_small_reference_have_finite_factors():
    same = np.ones((5, 2))
    assert factors(same, same) == pytest.approx(np.zeros(5))
    assert np.isfinite(factors(same + 1, same)).all()
