"""Thresholds of prediction sets."""

import numpy as np

from mixvi.cluster.conformal import likeliest, thresholds


def drawn(rng, n):
    """Probabilities of three classes, from a model that is too sure, and the classes."""
    logits = 2 * rng.normal(size=(n, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    label = (p.cumsum(1) < rng.uniform(size=(n, 1))).sum(1)
    too_sure = p**2
    return too_sure / too_sure.sum(1, keepdims=True), label


def test_each_class_is_covered_as_promised(rng):
    p, label = drawn(rng, 6000)
    for coverage in (0.5, 0.8, 0.9, 0.95):
        t = thresholds(p[:3000], label[:3000], coverage)
        within = p[3000:] >= t
        for k in range(3):
            mine = label[3000:] == k
            assert abs(within[mine, k].mean() - coverage) < 4 * np.sqrt(coverage * (1 - coverage) / 500)


def test_the_coverage_of_few_cells_is_exact_on_average(rng):
    covered = []
    for _ in range(2000):
        p, label = drawn(rng, 31)
        t = thresholds(p[:30, :1] * 0 + p[np.arange(30), label[:30], None], np.zeros(30, int), 0.9)
        covered.append(p[30, label[30]] >= t[0])
    assert abs(np.mean(covered) - (1 - 3 / 31)) < 4 * np.sqrt(0.1 * 0.9 / 2000)


def test_classes_with_too_few_cells_share_a_threshold(rng):
    p, label = drawn(rng, 400)
    few = np.r_[np.flatnonzero(label != 2), np.flatnonzero(label == 2)[:5]]
    t = thresholds(p[few], label[few], 0.9)
    right = np.sort(p[few, label[few]])
    assert t[2] == right[int((len(few) + 1) * 0.1) - 1]
    assert thresholds(p[:5], label[:5], 0.9).tolist() == [0, 0, 0]


def test_the_likeliest_are_as_few_as_reach_the_coverage():
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.2, 0.4, 0.4]])
    assert likeliest(p, 0.7).tolist() == [[True, True, False], [False, False, True], [False, True, True]]
    assert likeliest(p, 0.95).tolist() == [[True] * 3] * 3
    assert likeliest(p, 0.3).sum(1).tolist() == [1, 1, 1]
