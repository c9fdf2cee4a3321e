"""Clusters that mixtures on a UMAP layout agree on."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from mixvi.cluster.leiden import by_size
from mixvi.cluster.n2d import MIN_LAID_OUT, SIZES, _consensus, n2d


@pytest.fixture(scope="module")
def blobs():
    return make_blobs([100, 80, 70, 50], 5, cluster_std=0.8, random_state=1)


def test_blobs_are_found_the_largest_first_and_again(blobs):
    x, y = blobs
    part = n2d(x, 4)
    np.testing.assert_array_equal(part, y)
    np.testing.assert_array_equal(n2d(x, 4), part)


def test_clusters_are_what_mixtures_agree_on(blobs):
    """Each mixture joins two of the four blobs, never all the same two, and cuts the others at will."""
    _, y = blobs
    rng, parts = np.random.default_rng(0), []
    for _ in SIZES:
        joined, pieces = y.copy(), rng.integers(2, size=300)
        joined[y == rng.integers(4)] = rng.integers(4)
        parts.append(2 * joined + pieces * (joined == rng.integers(4)))
    assert not any(len(np.unique(part)) == 4 and adjusted_rand_score(part, y) == 1 for part in parts)
    np.testing.assert_array_equal(_consensus(np.column_stack(parts), 4, 0), by_size(y))


def test_mixtures_have_fewer_and_more_components_than_clusters_are_wanted():
    assert sorted(np.multiply(SIZES, 4)) == [3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6]


def test_few_cells_are_clustered_or_refused():
    x, y = make_blobs(MIN_LAID_OUT, 5, centers=2, cluster_std=0.1, random_state=0)
    part = n2d(x, 1)
    np.testing.assert_array_equal(part, 0)
    assert n2d(x, MIN_LAID_OUT).max() < MIN_LAID_OUT
    with pytest.raises(ValueError, match=f"{MIN_LAID_OUT - 1} cells .* at least {MIN_LAID_OUT}"):
        n2d(x[1:], 2)


def test_numpys_own_stream_is_left_alone(blobs):
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    assert adjusted_rand_score(n2d(blobs[0][::5], 4), blobs[1][::5]) > 0.9
    np.testing.assert_array_equal(np.random.get_state()[1], before)
