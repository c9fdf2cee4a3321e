"""Classes of which some cells are labelled."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

from mixvi import classes, cluster


def test_labels_spread_to_the_cells_of_their_class(four_blobs):
    graph, y = four_blobs
    labels = np.full(300, -1)
    one_of_each = [np.flatnonzero(y == k)[0] for k in range(4)]
    labels[one_of_each] = range(4)
    np.testing.assert_array_equal(classes.partition_with_classes(graph, labels, 4)[0], y)


def test_spread_solves_its_equation(four_blobs):
    graph, y = four_blobs
    graph = graph + csr_matrix(np.full((300, 300), 1e-3))  # all cells within reach
    labels = np.where(np.arange(300) % 10, -1, y)
    w = graph.toarray()
    s = w / np.sqrt(np.outer(w.sum(1), w.sum(1)))
    reach = np.linalg.solve(np.eye(300) - classes.SPREAD * s, np.eye(4)[labels] * (labels >= 0)[:, None])
    expected = reach / reach.sum(1, keepdims=True)
    np.testing.assert_allclose(classes.spread(graph, labels, 4), expected, atol=1e-3)


def test_cells_that_no_label_reaches_are_of_no_class_or_of_a_new_part(four_blobs):
    graph, y = four_blobs
    labels = np.where((y < 2) & (np.arange(300) % 3 == 0), y, -1)  # a third of two classes
    apart = graph.toarray()[y < 2][:, y >= 2].sum() == 0
    assert apart
    np.testing.assert_array_equal(classes.partition_with_classes(graph, labels, 2)[0], np.where(y < 2, y, -1))
    part, share = classes.partition_with_classes(graph, labels, 2, cluster.partition(graph, 4))
    assert share == classes.share_found((labels >= 0).sum(), (labels >= 0).sum())
    np.testing.assert_array_equal(part[y < 2], y[y < 2])
    assert adjusted_rand_score(part, y) == 1
    three = np.where(y < 2, y, 2)  # two communities have labels, one has none, and two new parts are asked for
    two_in_one, _ = classes.partition_with_classes(graph, np.where(y == 0, labels, -1), 1, three)
    assert set(two_in_one[y > 0]) == {1, 2}


def test_new_parts_are_as_many_as_asked_for(four_blobs):
    graph, y = four_blobs
    labels = np.where((y < 3) & (np.arange(300) % 3 == 0), 0, -1)  # one class in three of four communities
    part, _ = classes.partition_with_classes(graph, labels, 1, cluster.partition(graph, 4))
    assert set(part[y < 3]) == {0}
    assert set(part[y == 3]) == {1, 2, 3}


def test_a_wrong_label_is_kept_and_does_not_spread_far(four_blobs):
    graph, y = four_blobs
    labels = np.where(np.arange(300) % 3, -1, y)
    labels[0] = (y[0] + 1) % 4
    part, _ = classes.partition_with_classes(graph, labels, 4)
    assert part[0] == labels[0]
    np.testing.assert_array_equal(part[1:], y[1:])


def test_labels_of_all_cells_are_the_parts_at_once(four_blobs, monkeypatch):
    graph, y = four_blobs
    monkeypatch.setattr(classes, "StratifiedKFold", None)
    np.testing.assert_array_equal(classes.partition_with_classes(graph, y, 4)[0], y)


def test_a_community_backs_its_labels(monkeypatch):
    reach = np.array([[0.4, 0.6], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.0, 0.0]])
    monkeypatch.setattr(classes, "spread", lambda *_: reach.copy())
    monkeypatch.setattr(classes, "partition", lambda *_, **__: np.array([0, 0, 0, 1, 2]))
    part, _ = classes.partition_with_classes(csr_matrix((5, 5)), np.full(5, -1), 2)
    np.testing.assert_array_equal(part, [0, 0, 0, 1, -1])


@pytest.mark.parametrize("n_labels", [2, 20])
def test_many_labels_say_whether_communities_help(monkeypatch, n_labels):
    """A small class inside the community of a large one, which its own shares show and the community's hide."""
    truth = np.arange(100) % 10 // 9
    monkeypatch.setattr(classes, "spread", lambda *_: np.array([[0.9, 0.1], [0.45, 0.55]])[truth])
    monkeypatch.setattr(classes, "partition", lambda *_, **__: np.zeros(100, dtype=int))
    labels = np.full(100, -1)
    for k in (0, 1):
        some = np.flatnonzero(truth == k)[:n_labels]
        labels[some] = k
    part, share_found = classes.partition_with_classes(csr_matrix((100, 100)), labels, 2)
    expected = truth if n_labels == 20 else np.where(labels == 1, 1, 0)
    np.testing.assert_array_equal(part, expected)
    n_asked = (labels >= 0).sum()  # 30: of the smaller class there are ten; all of them are found
    assert share_found == (None if n_labels == 2 else (n_asked + 1) / (n_asked + 2))


def test_few_labels_that_are_found_are_not_certainty(four_blobs):
    """Nine of two classes, two of another, one that cannot be asked for; then one of them is wrong."""
    graph, y = four_blobs
    labels = np.full(300, -1)
    for k, n_labels in enumerate((1, 2, 9, 9)):
        labels[np.flatnonzero(y == k)[:n_labels]] = k
    assert classes.partition_with_classes(graph, labels, 4)[1] == 21 / 22
    labels[np.flatnonzero(labels == 3)[0]] = 2
    assert classes.partition_with_classes(graph, labels, 4)[1] == 20 / 22
    labels[np.flatnonzero(labels == 3)[0]] = -1  # nineteen
    assert classes.partition_with_classes(graph, labels, 4)[1] is None


@pytest.mark.filterwarnings("error")
def test_labels_are_held_out_a_fifth_at_a_time():
    labels = np.repeat([0, 1, 2, 3, -1], [50, 23, 4, 1, 100])
    folds = classes.held_out(labels, seed=1)
    assert len(folds) == classes.FOLDS
    np.testing.assert_array_equal(np.sort(np.concatenate(folds)), np.arange(77))  # all but the only one
    for fold in folds:
        assert (labels[fold] == 0).sum() == 10
        assert (labels[fold] == 1).sum() in (4, 5)
        assert (labels[fold] == 2).sum() in (0, 1)
    assert classes.held_out(labels[:78]) == []  # no cell to be named
    assert classes.held_out(labels[73:]) == []  # too few of any class
    assert classes.held_out(labels[78:]) == []


def test_classes_that_shrink_are_said():
    """Of 300 cells, 30 have labels: 15, 12 and 3, so 30 cells are expected in the last class."""
    labels = np.full(300, -1)
    labels[:30] = np.repeat([0, 1, 2], [15, 12, 3])
    part = np.repeat([0, 1, 2, 3], [150, 97, 3, 50])
    assert classes.shrunken(part, labels, 3) == {}
    part[247] = 3
    assert classes.shrunken(part, labels, 3) == {2: 2}
    assert classes.shrunken(part, np.full(300, -1), 0) == {}
    assert classes.shrunken(part, np.where(labels == 2, -1, labels), 3) == {}  # no label, nothing expected
