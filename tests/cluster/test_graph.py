"""Neighbour graphs against brute force, and views of counts against scanpy and scikit-learn."""

import warnings

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from scipy.sparse import csr_matrix
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from mixvi import datasets
from mixvi.cluster import find_partition
from mixvi.cluster.graph import (
    PEARSON_THETA,
    count_views,
    nearest,
    pearson_residuals,
    principal_components,
    shared_neighbors,
)
from tests.cluster.populations import draw, profiles


@pytest.mark.parametrize(("n", "k"), [(40, 5), (40, 15), (10, 15), (3, 15)])
def test_weights_are_jaccard_indices_of_neighbour_lists(rng, n, k):
    view = rng.normal(size=(n, 3))
    order = np.argsort(cdist(view, view), axis=1)[:, : min(k, n - 1) + 1]  # each cell is the nearest to itself
    lists = [set(row.tolist()) for row in order]
    expected = np.zeros((n, n))
    for a in range(n):
        for b in range(n):
            common = len(lists[a] & lists[b])
            if a != b and common > 1:
                expected[a, b] = common / len(lists[a] | lists[b])
    graph = shared_neighbors(view, k)
    np.testing.assert_allclose(graph.toarray(), expected, rtol=1e-6)
    assert (graph.data > 0).all()
    np.testing.assert_array_equal(nearest(view, 2), order[:, 1:3])


def test_cells_far_apart_share_no_neighbour(four_blobs):
    graph, y = four_blobs
    assert graph.shape == (300, 300)
    assert all(graph[y == k][:, y != k].nnz == 0 for k in range(4))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_few_cells_do_no_harm(rng, n):
    view = rng.normal(size=(n, 2))
    graph = shared_neighbors(view)
    assert graph.shape == (n, n)
    assert (graph.nnz == 0) == (n < 3)
    views = count_views(csr_matrix(rng.poisson(3.0, (n, 10))))
    assert len(views) == (2 if n > 2 else 0)
    for found in (find_partition({"latent": view}), find_partition({"latent": view} | views, n_clusters=min(n, 2))):
        assert found.part.shape == (n,)
        assert found.part.max() + 1 == found.tree.n_leaves == found.shares.shape[1]
        np.testing.assert_allclose(found.shares.sum(1), 1)
    assert find_partition({"latent": view}, n_clusters=min(n, 2)).tree.n_leaves == min(n, 2)


def test_residuals_are_those_of_scanpy():
    counts = csr_matrix(datasets.blobs(300, 40, n_clusters=4, kind="count").X)
    cells = ad.AnnData(counts.astype(np.float64))
    assert (counts.sum(0) > 0).all()
    expected = sc.experimental.pp.normalize_pearson_residuals(cells, theta=PEARSON_THETA, inplace=False)["X"]
    np.testing.assert_allclose(pearson_residuals(counts), expected, rtol=1e-3, atol=1e-4)


def test_residuals_are_clipped_at_the_root_of_the_number_of_cells():
    counts = np.ones((100, 50))
    counts[:, 0] = 0
    counts[0, 0] = 30  # 42 standard deviations from what is expected
    assert pearson_residuals(csr_matrix(counts)).max() == 10


def test_views_are_principal_components_of_both(rng):
    y = rng.choice(6, 300, p=[0.3, 0.25, 0.2, 0.15, 0.06, 0.04])  # axes of different lengths
    counts = draw(rng, 500 * rng.uniform(0.5, 2, (300, 1)) * profiles(rng, 6, 80)[y])
    views = count_views(counts)
    assert list(views) == ["log-normalised", "residuals"]
    total = counts.sum(1)
    log = np.log1p(counts.toarray() / np.asarray(total) * np.median(total.A1))
    for values, found in zip((log, pearson_residuals(counts)), views.values(), strict=True):
        assert found.shape == (300, 30)
        expected = PCA(5, svd_solver="full").fit_transform(values.astype(float))
        for k in range(5):
            assert abs(np.corrcoef(expected[:, k], found[:, k])[0, 1]) > 0.999
    np.testing.assert_array_equal(count_views(counts)["residuals"], views["residuals"])


def test_cells_and_genes_without_a_count_do_no_harm(rng):
    counts = rng.poisson(1.0, (200, 40)).astype(float)
    counts[3] = 0
    counts[:, 7] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        found = count_views(csr_matrix(counts))
    assert len(found) == 2
    assert all(np.isfinite(view).all() for view in found.values())
    assert count_views(csr_matrix((50, 10))) == {}


@pytest.mark.parametrize("most", [1, 8, 400])
def test_views_in_which_all_cells_are_alike_are_left_out(rng, most):
    """The same genes in the same parts, but more or less of them: not quite alike in single precision."""
    counts = csr_matrix(np.outer(rng.integers(1, most, 300, endpoint=True), np.arange(40) % 5))
    assert count_views(counts) == {}


def test_there_are_no_more_components_than_cells_or_values(rng):
    for shape in ((4, 50), (50, 4), (50, 40)):
        found = principal_components(rng.normal(size=shape))
        assert found.shape == (shape[0], min(30, *shape))
