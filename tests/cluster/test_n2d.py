"""Clusters that mixtures on a UMAP layout agree on."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from mixvi.cluster import n2d as module
from mixvi.cluster.leiden import by_size
from mixvi.cluster.n2d import MIN_LAID_OUT, n2d


@pytest.fixture(scope="module")
def blobs():
    return make_blobs([100, 80, 70, 50], 5, cluster_std=0.8, random_state=1)


def test_blobs_are_found_the_largest_first_and_again(blobs):
    x, y = blobs
    part = n2d(x, 4)
    np.testing.assert_array_equal(part, y)
    np.testing.assert_array_equal(n2d(x, 4), part)


def test_clusters_are_what_mixtures_agree_on(blobs, monkeypatch):
    """Each mixture joins two of the four blobs, never all the same two, and cuts the others at will."""
    x, y = blobs
    rng, asked = np.random.default_rng(0), []

    class Mixture:
        def __init__(self, n_components, **_):
            self.n_components = n_components

        def fit_predict(self, layout):
            joined, pieces = y.copy(), rng.integers(2, size=300)
            joined[y == rng.integers(4)] = rng.integers(4)
            asked.append(self.n_components)
            return np.unique(2 * joined + pieces * (joined == rng.integers(4)), return_inverse=True)[1]

    monkeypatch.setattr(module, "GaussianMixture", Mixture)
    monkeypatch.setattr(module, "_layout", lambda latent, seed: latent)
    np.testing.assert_array_equal(n2d(x, 4), by_size(y))
    assert sorted(asked) == [3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6]


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
