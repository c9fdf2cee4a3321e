"""Cells between two populations, and the share of cells that fit the other one better, against the truth."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.stats import norm

from mixvi.cluster.agglomerate import EVEN, MIN_WORTH
from mixvi.cluster.count_splitting import split_counts
from mixvi.cluster.evidence import Evidence
from mixvi.cluster.overlap import confusion, overlap
from tests.cluster.populations import draw, evidence_of, on_a_line, profiles

N, G = 2000, 60


def groups(evidence, part):
    return [evidence.group(np.flatnonzero(part == k)) for k in range(part.max() + 1)]


@pytest.mark.parametrize("theta", [np.inf, 10.0])
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


@pytest.mark.parametrize("nats", [MIN_WORTH, 8.0, 15.0, EVEN * MIN_WORTH, 60.0])
@pytest.mark.parametrize("on_line", [False, True])
def test_confusion_is_the_share_of_cells_that_fit_the_other_side_better(rng, nats, on_line):
    """By a likelihood ratio at the truth: of two populations, and of cells that are evenly spread along a line.

    At the limits of the two it is 5 %.
    """
    even = rng.random(20_000)
    place = even if on_line else np.where(even > 0.5, 0.75, 0.25)  # the mean places of both halves
    counts, ratio = on_a_line(rng, place, nats)
    wrong = ((ratio > 0) != (even > 0.5)).mean()
    if nats == (EVEN * MIN_WORTH if on_line else MIN_WORTH):
        assert wrong == pytest.approx(0.05, abs=0.005)
    evidence = evidence_of(counts)
    found = overlap(evidence, *groups(evidence, (even > 0.5).astype(int))).confusion
    assert found == pytest.approx(wrong, abs=0.02)


def test_confusion_is_that_of_an_even_spread():
    """By quadrature; at a gap it is the tail of the normal distribution, and no noise leaves what reaches over."""
    for reach, worth in ((0.2, 5.0), (0.5, 20.0), (1.0, 2.0)):
        places = (np.arange(10_000) + 0.5) / 10_000 * 2 * reach - reach
        assert confusion(reach, worth) == pytest.approx(norm.sf((0.5 - places) * (2 * worth) ** 0.5).mean(), abs=1e-5)
    assert confusion(1e-3, 5.0) == pytest.approx(norm.sf(2.5**0.5), rel=1e-4)
    assert confusion(0.75, 1e9) == pytest.approx(0.25 / 1.5, rel=1e-3)
    assert confusion(0.5, -1.0) == pytest.approx(0.5, abs=1e-3)


def test_another_population_on_the_outer_side_is_not_between(rng):
    """A twentieth of one group is far off, away from the other group."""
    y = np.arange(4000) % 2
    place = np.where(y == 1, 0.75, np.where(np.arange(4000) < 200, -0.75, 0.25))
    evidence = evidence_of(on_a_line(rng, place, 15.0)[0])
    found = overlap(evidence, *groups(evidence, y))
    assert found.between < 0.05
    assert found.confusion < 0.01


def test_no_cell_is_between_groups_whose_populations_are_apart(rng):
    """The spread of each group alone would put a fifth of the cells between. None is seen there, so there is none."""
    y = np.arange(4000) % 2
    place = y + rng.choice([-0.2, 0.0, 0.2], 4000, p=[0.4, 0.2, 0.4])
    evidence = evidence_of(on_a_line(rng, place, 8000.0)[0])
    assert overlap(evidence, *groups(evidence, y)).between < 0.02


def test_cells_without_a_partner_in_their_batch_have_no_place(rng):
    """Batches that hold one group only are left out: all numbers are those without their cells."""
    y = np.arange(3 * N) % 2
    batch = np.where(np.arange(3 * N) < 2 * N, 0, 1 + y)
    counts = draw(rng, 300 * profiles(rng, 4, G, 0.3)[y + 2 * (batch > 0)])
    some = np.flatnonzero(batch == 0)
    evidence = evidence_of(counts, stratum=batch)
    whole = overlap(evidence, *groups(evidence, y))
    part = overlap(evidence, *(evidence.group(some[y[some] == k]) for k in (0, 1)))
    assert whole.between == part.between == 0
    assert whole.confusion == pytest.approx(part.confusion, abs=1e-3)


def test_cells_without_counts_have_no_place(rng):
    """No count of the second batch is in the half from which profiles are estimated, so they do not differ there."""
    y, batch = np.arange(N) % 2, np.where(np.arange(N) < 2, 1, 0)
    halves = split_counts(draw(rng, 300 * profiles(rng, 2, G, 0.5)[y]), np.zeros(G))
    seen, held_out, some = halves.seen.toarray(), halves.held_out.toarray(), np.flatnonzero(batch == 0)
    seen[:2] = 0
    evidence = Evidence(halves._replace(seen=csr_matrix(seen)), np.zeros(G), batch)
    part = overlap(evidence, *(evidence.group(some[y[some] == k]) for k in (0, 1)))
    assert overlap(evidence, *groups(evidence, y)) == pytest.approx(part, abs=1e-6)
    held_out[y == 1] = 0
    evidence = Evidence(halves._replace(held_out=csr_matrix(held_out)), np.zeros(G))
    assert np.isnan(overlap(evidence, *groups(evidence, y))).all()


def test_the_order_of_both_groups_makes_no_difference(rng):
    place = rng.random(2000)
    evidence = evidence_of(on_a_line(rng, place, 20.0)[0])
    a, b = groups(evidence, (place > 0.4).astype(int))
    assert overlap(evidence, a, b) == pytest.approx(overlap(evidence, b, a))
