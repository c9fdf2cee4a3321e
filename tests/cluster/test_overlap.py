"""Cells between two populations, and the share of cells that fit the other one better, against the truth."""

import numpy as np
import pytest

from mixvi.cluster.agglomerate import EVEN, MIN_WORTH
from mixvi.cluster.overlap import mixture_shares, overlap
from tests.cluster.populations import draw, evidence_of, on_a_line, profiles

N, G = 200, 60


def groups(evidence, part):
    return [evidence.group(np.flatnonzero(part == k)) for k in range(part.max() + 1)]


@pytest.mark.parametrize("theta", [np.inf, 2.0])
def test_no_cell_is_between_two_populations_and_some_are_on_a_line(rng, theta):
    ends = np.log(profiles(rng, 2, G, 0.5))
    y = np.arange(N) % 2

    def between(place):
        p = np.exp((1 - place)[:, None] * ends[0] + place[:, None] * ends[1])
        evidence = evidence_of(draw(rng, 300 * p / p.sum(1, keepdims=True), theta), theta)
        return overlap(evidence, *groups(evidence, (place > 0.5).astype(int))).between

    assert between(y.astype(float)) < 0.1
    assert between(rng.random(N)) >= 0.25
    third = np.where(np.arange(N) % 3 == 2, 0.5, y)  # as many in the middle as at each end
    assert between(third) > between(y.astype(float)) + 0.25


def test_many_cells_are_looked_at_in_part(rng, monkeypatch):
    """Above 10,000, or here fewer, so that the test is quick."""
    ends, y = profiles(rng, 3, G), np.arange(10 * N) % 3
    evidence, y = evidence_of(draw(rng, 300 * np.array([ends[0], ends[1], (ends[0] * ends[1]) ** 0.5])[y])), y % 2
    whole = overlap(evidence, *groups(evidence, y)).between
    monkeypatch.setattr("mixvi.cluster.graph.SAMPLE", 5 * N)
    some, again, other = (overlap(evidence, *groups(evidence, y), seed).between for seed in (0, 0, 1))
    assert some == again != other
    assert some == pytest.approx(whole, abs=0.2)


@pytest.mark.parametrize(
    ("nats", "on_line"), [(MIN_WORTH, False), (15.0, False), (EVEN * MIN_WORTH, True), (60.0, True)]
)
def test_confusion_is_the_share_of_cells_that_fit_the_other_side_better(rng, nats, on_line):
    """By a likelihood ratio at the truth: of two populations, and of cells that are evenly spread along a line.

    At the two limits it is 5 %. For two populations that differ slightly, the estimate is too high.
    """
    even = rng.random(20_000)
    place = even if on_line else np.where(even > 0.5, 0.75, 0.25)  # the mean places of both halves
    counts, ratio = on_a_line(rng, place, nats)
    wrong = ((ratio > 0) != (even > 0.5)).mean()
    if nats in (MIN_WORTH, EVEN * MIN_WORTH):
        assert wrong == pytest.approx(0.05, abs=0.005)
    evidence = evidence_of(counts)
    found = overlap(evidence, *groups(evidence, (even > 0.5).astype(int))).confusion
    assert wrong - 0.015 < found < wrong + (0.01 if on_line or nats > 10 else 0.05)


def test_shares_of_a_mixture_are_of_maximum_likelihood(rng):
    """At the maximum, the mean ratio of a component's likelihood to that of the mixture is 1; below for no share."""
    places = np.linspace(-3, 3, 7)
    x = np.r_[rng.normal(-2, 1, 6000), rng.normal(1, 1, 2000)]
    p = np.exp(-((x[:, None] - places) ** 2) / 2)
    share = mixture_shares(p, np.ones(len(p)))
    ratio = (p / (p @ share)[:, None]).mean(0)
    assert mixture_shares(p[:100], np.ones(100)) == pytest.approx(mixture_shares(p[:100], np.full(100, 3.0)))
    doubled = mixture_shares(np.r_[p[:100], p[:50]], np.ones(150))
    assert doubled == pytest.approx(mixture_shares(p[:100], np.r_[np.full(50, 2.0), np.ones(50)]))
    assert share.sum() == pytest.approx(1)
    assert (ratio < 1.01).all()
    assert (abs(ratio - 1) < 0.01)[share > 0.01].all()
    assert share[1] == pytest.approx(0.75, abs=0.1)


def test_the_order_of_both_groups_makes_no_difference(rng):
    place = rng.random(2000)
    evidence = evidence_of(on_a_line(rng, place, 20.0)[0])
    a, b = groups(evidence, (place > 0.4).astype(int))
    assert overlap(evidence, a, b) == pytest.approx(overlap(evidence, b, a), rel=1e-3)


def test_a_rare_group_is_looked_at_whole(rng, monkeypatch):
    """20 cells beside 4,000. If 400 are looked at, not 10,000 as by default, the answer is about that from all."""
    y = (np.arange(4020) >= 4000).astype(int)
    evidence = evidence_of(draw(rng, 300 * profiles(rng, 2, G, 0.5)[y]))
    whole = overlap(evidence, *groups(evidence, y))
    monkeypatch.setattr("mixvi.cluster.graph.SAMPLE", 400)
    for seed in range(3):
        some = overlap(evidence, *groups(evidence, y), seed)
        assert some.confusion == pytest.approx(whole.confusion, abs=0.03)
