"""Cells are no surer of their cluster, on average, than they are found to be right."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

from mixvi.cluster.calibration import HOTTEST, calibrated, cluster_log_probabilities, share_right, temperature


@pytest.fixture
def log_p(rng):
    return log_softmax(2 * rng.normal(size=(20_000, 5)), axis=1)


def test_mean_confidence_is_the_share_that_is_right(log_p):
    sharp = log_softmax(3 * log_p, axis=1)
    for right in (0.3, 0.6, 0.8):
        t = temperature(sharp, right)
        assert t > 1
        p = softmax(sharp / t, axis=1)
        assert p.max(1).mean() == pytest.approx(right, abs=1e-4)
        np.testing.assert_array_equal(p.argmax(1), log_p.argmax(1))


def test_components_share_what_is_calibrated_for_their_cluster(log_p):
    """The likeliest cluster stays so, however many components another one has; and shares inside a cluster stay."""
    group = np.array([1, 0, 0, 1, 2])
    sharp = log_softmax(3 * log_p, axis=1)
    log_q = cluster_log_probabilities(sharp, group)
    r = np.exp(sharp)
    sums = np.stack([r[:, [1, 2]].sum(1), r[:, [0, 3]].sum(1), r[:, 4]], 1)
    np.testing.assert_allclose(np.exp(log_q), sums)
    t = temperature(log_q, 0.7)
    p = calibrated(sharp, group, t)
    clusters = np.stack([p[:, [1, 2]].sum(1), p[:, [0, 3]].sum(1), p[:, 4]], 1)
    np.testing.assert_allclose(p.sum(1), 1)
    assert clusters.max(1).mean() == pytest.approx(0.7, abs=1e-4)
    np.testing.assert_array_equal(clusters.argmax(1), sums.argmax(1))
    np.testing.assert_allclose(p[:, 1] * r[:, 2], p[:, 2] * r[:, 1])
    np.testing.assert_allclose(calibrated(sharp, group, 1.0), r)
    off = np.full_like(sharp, -np.inf)
    off[:, 4] = 0.0
    np.testing.assert_array_equal(calibrated(off, group, 3.0), np.exp(off))


def test_many_components_do_not_outweigh_one(rng):
    """Of 34 components 33 are one cluster, to which a tenth of the cells belongs."""
    log_r = log_softmax(rng.normal(size=(1000, 34)), axis=1)
    log_r[:900] = np.log(0.01 / 33)
    log_r[:900, 33] = np.log(0.99)
    group = np.repeat([0, 1], [33, 1])
    for t in (1.0, 3.0, HOTTEST):
        assert (calibrated(log_r, group, t)[:900, 33] > 0.5).all()


def test_it_is_the_temperature_that_labels_drawn_from_known_probabilities_would_choose(log_p, rng):
    """Labels are drawn from p; of p^3, renormalised, the temperature that is most likely of them is 3, and it is found
    from the share alone that is right."""
    label = (np.exp(log_p).cumsum(1) < rng.random((len(log_p), 1))).sum(1)
    sharp = log_softmax(3 * log_p, axis=1)
    found = temperature(sharp, (label == log_p.argmax(1)).mean())
    assert found == pytest.approx(3, rel=0.05)
    loss = [log_loss(label, softmax(sharp / t, axis=1)) for t in (0.8 * found, found, 1.25 * found)]
    assert loss[1] < min(loss[0], loss[2])


def test_it_never_makes_cells_surer_and_stays_finite(log_p):
    assert temperature(log_p, 0.99) == 1.0
    assert temperature(log_p, 0.1) == HOTTEST  # five even shares are surer than that
    assert temperature(log_p * np.nan, 0.5) == 1.0
    assert temperature(np.zeros((5, 1)), 0.5) == 1.0  # of one component
    off = np.column_stack([log_p, np.full(len(log_p), -np.inf)])
    assert temperature(off, 0.4) == pytest.approx(temperature(log_p, 0.4), rel=1e-3)


def test_two_guesses_agree_as_often_as_both_are_right(rng):
    """Wrong guesses are all different here, so the agreement is p^2."""
    n, p = 100_000, 0.8
    first, second = (np.where(rng.random(n) < p, 0, guess + np.arange(n)) for guess in (1, n + 1))
    assert share_right(first, second) == pytest.approx(p, abs=0.005)
    assert share_right(np.arange(5), np.arange(5)) == 1
    assert share_right(np.zeros(5), np.ones(5)) == 0
