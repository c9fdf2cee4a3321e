"""Planted doublets: their parents are named, and their share is estimated."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix, vstack

from mixvi.cluster.doublets import doublet_share, doublets
from tests.cluster.populations import draw, evidence_of, profiles

G, DEPTH = 200, np.array([400.0, 500.0, 600.0, 450.0])


@pytest.fixture
def singlets(rng):
    """Four populations of 250 cells, whose library sizes vary by a third."""
    y = np.repeat(np.arange(4), 250)
    depth = DEPTH[y] * rng.lognormal(0, 0.3, len(y))
    return draw(rng, depth[:, None] * profiles(rng, 4, G)[y]), y


def groups_of(counts, y):
    evidence = evidence_of(counts)
    groups = [evidence.group(np.flatnonzero(y == k)) for k in range(y.max() + 1)]
    total = np.asarray(counts.sum(1)).ravel()
    return evidence, groups, np.array([np.median(total[y == k]) for k in range(y.max() + 1)])


def test_a_cluster_of_doublets_has_two_parents(singlets):
    counts, y = singlets
    both = counts[:80] + counts[250:330]
    found = doublets(*groups_of(vstack([counts, both], "csr"), np.r_[y, np.full(80, 4)]))
    assert found[4].parents == (0, 1)
    assert found[4].gain.worth < 3 * found[4].gain.error
    assert found[4].is_larger
    assert all(one.gain.worth > 20 for one in found[2:4])  # populations 2 and 3 are no sums
    assert found[0].gain.worth > 20 or not found[0].is_larger


def test_two_clusters_have_no_third_one(singlets):
    counts, y = singlets
    two = y < 2
    assert doublets(*groups_of(counts[two], y[two])) == [None, None]


@pytest.mark.parametrize("planted", [0.0, 0.05, 0.1])
def test_the_share_of_doublets_is_estimated(singlets, planted, rng):
    counts, y = singlets
    n = round(planted * len(y))
    a, b = rng.integers(len(y), size=(2, n))
    cells, part = vstack([counts, counts[a] + counts[b]], "csr"), np.r_[y, y[a]]
    evidence, groups, library = groups_of(cells, part)
    share = doublet_share(evidence, cells, part, library)
    true = (y[a] != y[b]).sum() / len(part)  # doublets of one population are not found
    assert true / 2 <= share <= true + 0.01  # it tends to be too low: doublets also enlarge the median libraries


def test_without_a_second_cluster_there_is_no_doublet(singlets):
    counts, y = singlets
    one = y == 0
    evidence, groups, library = groups_of(counts[one], y[one])
    assert doublet_share(evidence, counts[one], y[one], library) == 0


def test_parents_share_strata_with_their_doublets(singlets, rng):
    """Population 3 is in another batch than the doublets of 0 and 1, and genes differ between batches."""
    counts, y = singlets
    cells, part = vstack([counts, counts[:80] + counts[250:330]], "csr"), np.r_[y, np.full(80, 4)]
    batch = np.where(part == 3, 1, np.arange(len(part)) % 2 * (part < 3))
    factor = np.where(batch[:, None] == 1, rng.lognormal(0, 0.5, G), 1.0)
    evidence = evidence_of(csr_matrix(rng.poisson(cells.toarray() * factor).astype(float)), stratum=batch)
    groups = [evidence.group(np.flatnonzero(part == k)) for k in range(5)]
    found = doublets(evidence, groups, np.r_[DEPTH, DEPTH[:2].sum()])
    assert found[4].parents == (0, 1)
    assert found[3] is None or 4 not in found[3].parents  # they have no batch in common
