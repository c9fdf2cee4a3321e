"""Labels that spread along a neighbour graph, against the exact solution of the equation."""

import numpy as np
import pytest
from scipy.sparse import block_diag, csr_matrix
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from mixvi.cluster.graph import shared_neighbors
from mixvi.cluster.label_spreading import ALPHA, FOLDS, classify, found_share, held_out, spread
from mixvi.cluster.leiden import by_size


@pytest.fixture(scope="module")
def blobs():
    """A graph (300, 300) of four blobs, without an edge between any two, and the blob of each cell."""
    x, y = make_blobs(300, 5, centers=4, cluster_std=0.8, random_state=1)
    graph = shared_neighbors(x)
    assert all(graph[y == k][:, y != k].nnz == 0 for k in range(4))
    return graph, y


def _exact(graph, labels, n_classes):
    """(I - alpha S)^-1 Y, divided by its row sums; S without its diagonal, as in the paper."""
    w, n = graph.toarray().astype(float), len(labels)
    np.fill_diagonal(w, 0)
    root = np.sqrt(np.where(w.sum(1), w.sum(1), 1))
    y = np.zeros((n, n_classes))
    y[labels >= 0, labels[labels >= 0]] = 1
    reach = np.linalg.solve(np.eye(n) - ALPHA * w / np.outer(root, root), y)
    return reach / np.where(reach.sum(1), reach.sum(1), 1)[:, None]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("every", [100, 10, 1])
def test_shares_solve_the_equation(blobs, every, dtype):
    graph, y = blobs
    graph = csr_matrix(graph + csr_matrix(np.full((300, 300), 1e-3)), dtype=dtype)  # every label reaches every cell
    labels = np.where(np.arange(300) % every, -1, y)
    shares, exact = spread(graph, labels, 4), _exact(graph, labels, 4)
    np.testing.assert_allclose(shares, exact, atol=2e-4)
    np.testing.assert_array_equal(shares.argmax(1), exact.argmax(1))
    np.testing.assert_allclose(shares.sum(1), 1)


@pytest.mark.filterwarnings("error")
def test_a_long_chain_converges():
    """Two labels, each 100 steps from the middle, where they arrive 1e-6 of their size."""
    graph = csr_matrix(np.eye(200, k=1) + np.eye(200, k=-1))
    labels = np.full(200, -1)
    labels[[0, 199]] = 0, 1
    shares = spread(graph, labels, 2)
    np.testing.assert_allclose(shares, _exact(graph, labels, 2), atol=5e-3)
    np.testing.assert_array_equal(shares.argmax(1), np.arange(200) // 100)


@pytest.mark.filterwarnings("error")
def test_classes_without_a_label_and_cells_without_an_edge_get_zeros(blobs):
    graph, y = blobs
    graph = block_diag([graph, csr_matrix((2, 2))], format="csr")
    labels = np.append(np.where(np.arange(300) % 10, -1, 2 * y), [2, -1])  # classes 1, 3, 5 and 7 have no label
    shares = spread(graph, labels, 8)
    np.testing.assert_array_equal(shares[:, 1::2], 0)
    np.testing.assert_array_equal(shares[:300].argmax(1), 2 * y)
    np.testing.assert_array_equal(shares[300:], [np.eye(8)[2], np.zeros(8)])
    np.testing.assert_array_equal(spread(graph, np.full(302, -1), 3), np.zeros((302, 3)))
    np.testing.assert_array_equal(spread(csr_matrix((3, 3)), np.array([1, -1, 0]), 2), [[0, 1], [0, 0], [1, 0]])


def test_one_label_a_class_reaches_its_blob(blobs):
    graph, y = blobs
    labels = np.full(300, -1)
    labels[[np.flatnonzero(y == k)[0] for k in range(4)]] = range(4)
    np.testing.assert_array_equal(classify(graph, labels, 4), y)


def test_a_wrong_label_is_kept_and_does_not_spread_far(blobs):
    graph, y = blobs
    labels = np.where(np.arange(300) % 3, -1, y)
    labels[0] = (y[0] + 1) % 4
    part = classify(graph, labels, 4)
    assert part[0] == labels[0]
    np.testing.assert_array_equal(part[1:], y[1:])
    np.testing.assert_array_equal(classify(graph, y, 4), y)


def test_cells_that_no_label_reaches_have_no_class_or_a_new_part(blobs):
    graph, y = blobs
    labels = np.where((y < 2) & (np.arange(300) % 3 == 0), y, -1)
    np.testing.assert_array_equal(classify(graph, labels, 2), np.where(y < 2, y, -1))
    np.testing.assert_array_equal(classify(graph, labels, 2, np.minimum(y, 1)), np.where(y < 2, y, -1))  # two, no new
    part = classify(graph, labels, 2, y)
    np.testing.assert_array_equal(part[y < 2], y[y < 2])
    assert adjusted_rand_score(part, y) == 1
    assert set(part) == {0, 1, 2, 3}


@pytest.mark.parametrize(("n_classes", "parts"), [(3, [3, 0, 0, 0]), (2, [3, 0, 2, 0]), (1, [2, 0, 1, 0])])
def test_new_parts_are_the_communities_that_lack_most_labels(n_classes, parts):
    """Of four communities the first lacks most, 4.5 / sqrt(4.5), then the third, 6 / sqrt(9); two have too many.

    The third is larger and comes first. With one class three new parts fit, but only these two lack labels.
    """
    sizes, n_labels = [30, 60, 60, 50], [0, 19, 3, 8]
    communities = np.repeat(np.arange(4), sizes)
    rank = np.concatenate([np.arange(size) for size in sizes])
    labels = np.where(rank < np.repeat(n_labels, sizes), 0, -1)
    part = classify(csr_matrix(np.ones((200, 200))), labels, n_classes, communities)
    np.testing.assert_array_equal(part, np.where(labels == 0, 0, np.array(parts)[communities]))


def test_without_labels_the_first_communities_are_new_parts(blobs):
    graph, y = blobs
    part = classify(graph, np.full(300, -1), 2, y)
    np.testing.assert_array_equal(part[y < 2], 2 + by_size(y[y < 2]))
    np.testing.assert_array_equal(part[y >= 2], -1)


@pytest.mark.filterwarnings("error")
def test_labels_are_held_out_a_fifth_at_a_time():
    labels = np.repeat([0, 1, 2, 3, -1], [50, 23, 4, 1, 100])
    folds = held_out(labels, seed=1)
    assert len(folds) == FOLDS
    np.testing.assert_array_equal(np.sort(np.concatenate(folds)), np.arange(77))  # not the only one of class 3
    for fold in folds:
        assert (labels[fold] == 0).sum() == 10
        assert (labels[fold] == 1).sum() in (4, 5)
        assert (labels[fold] == 2).sum() in (0, 1)
    assert held_out(labels[:78]) == []  # all are labelled
    assert held_out(labels[73:]) == []  # no class has five labels
    assert held_out(labels[78:]) == []  # no label
    for again, fold in zip(held_out(labels, seed=1), folds, strict=True):
        np.testing.assert_array_equal(again, fold)


def test_found_labels_are_counted_by_the_rule_of_succession(blobs):
    """One label of a blob, two of another, nine of two more: 20 can be held out."""
    graph, y = blobs
    labels = np.full(300, -1)
    for k, n_labels in enumerate((1, 2, 9, 9)):
        labels[np.flatnonzero(y == k)[:n_labels]] = k
    assert found_share(graph, labels, 4) == 21 / 22
    labels[np.flatnonzero(labels == 3)[0]] = 2  # a wrong one, which its neighbours do not find
    assert found_share(graph, labels, 4) == 20 / 22
    labels[np.flatnonzero(labels == 3)[0]] = -1
    assert found_share(graph, labels, 4) is None
    assert found_share(graph, y, 4) is None


def test_held_out_labels_do_not_find_themselves():
    """Each of 50 labels is asked for once. In a graph without edges, a label that was not hidden would be found."""
    labels = np.where(np.arange(100) < 50, 0, -1)
    labels[:25] = 1
    np.testing.assert_array_equal(classify(csr_matrix((100, 100)), labels, 2), labels)
    assert found_share(csr_matrix((100, 100)), labels, 2) == 1 / 52
