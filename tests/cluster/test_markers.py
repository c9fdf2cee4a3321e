"""Marker genes: p-values that hold although the groups were looked for, and markers that are there."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.stats import false_discovery_control, kstest, ttest_ind
from sklearn.cluster import KMeans

from mixvi.cluster.count_splitting import Halves, split_counts
from mixvi.cluster.markers import markers
from tests.cluster.populations import draw, profiles

N, G = 400, 300


def searched(counts):
    """Two groups that were looked for in counts."""
    log = np.log1p(counts.toarray())
    return KMeans(2, n_init=3, random_state=0).fit_predict(log)


@pytest.mark.parametrize("theta", [np.inf, 2.0])
def test_p_values_hold_where_groups_were_found_in_the_other_part(rng, theta):
    """One population: those of the counts that the groups were found in would be far too small."""
    counts = draw(rng, 1500 * rng.dirichlet(np.full(G, 20.0), 1).repeat(N, 0), theta)
    halves = split_counts(counts, np.full(G, 1 / theta), 0.5)
    part = searched(halves.seen)
    groups = [np.flatnonzero(part == k) for k in (0, 1)]
    found = markers(halves, *groups)
    assert (found.p < 0.05).mean() < 0.08
    assert kstest(found.p, "uniform").pvalue > 0.01
    assert not (found.q < 0.05).any()
    part = searched(counts)
    twice = markers(Halves(counts, counts, 0.5), *(np.flatnonzero(part == k) for k in (0, 1)))
    assert (twice.p < 0.05).mean() > 0.15


@pytest.fixture
def planted(rng):
    """Genes 0 to 9 are four times as high in one group, in two batches that change other genes."""
    group, batch = np.arange(N) % 2, rng.integers(2, size=N)
    mean = np.tile(profiles(rng, 1, G, 0.0), (N, 1))
    mean[:, :10] = 1 / G
    mean[np.ix_(group == 1, np.arange(10))] *= 4
    mean[np.ix_(batch == 1, np.arange(50, 80))] *= 3
    halves = split_counts(draw(rng, 1500 * mean / mean.sum(1, keepdims=True)), np.zeros(G))
    return halves, group, batch


def test_markers_are_found(planted):
    halves, group, _ = planted
    one, other = (np.flatnonzero(group == k) for k in (1, 0))
    found, mirrored = markers(halves, one, other), markers(halves, other, one)
    assert (found.q[:10] < 0.05).all()
    assert (found.q[10:] < 0.05).mean() < 0.02
    np.testing.assert_allclose(found.log2_fold_change[:10], 2, atol=0.5)
    np.testing.assert_allclose(found.log2_fold_change, -mirrored.log2_fold_change, rtol=1e-9)
    np.testing.assert_allclose(found.p, mirrored.p)
    np.testing.assert_allclose(found.q, false_discovery_control(found.p))
    held_out = halves.held_out.toarray()
    np.testing.assert_allclose(found.detection, (held_out[one] > 0).mean(0))
    np.testing.assert_allclose(found.detection_other, (held_out[other] > 0).mean(0))
    whole = (halves.seen + halves.held_out).tocsr()
    wide = markers(halves, one, other, detected=whole)
    np.testing.assert_allclose(wide.detection, (whole.toarray()[one] > 0).mean(0))
    np.testing.assert_array_equal(wide.p, found.p)


def test_the_test_is_welchs(planted):
    halves, group, _ = planted
    one, other = np.flatnonzero(group == 1)[:100], np.flatnonzero(group == 0)
    x = halves.held_out.toarray()
    total = x.sum(1, keepdims=True)
    log = np.log1p(x / total * np.median(total))
    expected = ttest_ind(log[one], log[other], equal_var=False)
    found = markers(halves, one, other).p
    some = expected.pvalue > 1e-4  # far out, the fewer degrees of freedom tell
    np.testing.assert_allclose(found[some], expected.pvalue[some], atol=0.005)
    assert (found >= expected.pvalue * (1 - 1e-6))[np.isfinite(expected.pvalue)].all()


def test_only_differences_within_strata_count(planted, rng):
    """Groups of two batches in different proportions: genes of the batch are no markers."""
    halves, group, batch = planted
    mixed = (rng.random(N) < np.where(batch == 1, 0.8, 0.2)).astype(int)
    rows = [np.flatnonzero(mixed == k) for k in (1, 0)]
    assert (markers(halves, *rows).q[50:80] < 0.05).mean() > 0.7
    assert not (markers(halves, *rows, stratum=batch).q < 0.05).any()
    within = markers(halves, *(np.flatnonzero(group == k) for k in (1, 0)), stratum=batch)
    assert (within.q[:10] < 0.05).all()


def test_p_is_1_where_nothing_can_be_tested(planted):
    halves, group, batch = planted
    apart = markers(halves, *(np.flatnonzero(batch == k) for k in (0, 1)), stratum=batch)
    assert (apart.p == 1).all()
    assert (markers(halves, np.array([0]), np.array([1])).p == 1).all()
    none = csr_matrix((N, G))
    empty = markers(Halves(none, none, 0.2), *(np.flatnonzero(group == k) for k in (0, 1)))
    assert (empty.p == 1).all()
    assert (empty.log2_fold_change == 0).all()
