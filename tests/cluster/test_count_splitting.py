"""Two parts of one count: they add up, and are independent where the model of the counts holds."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.stats import binom, chisquare

from mixvi.cluster.count_splitting import split_counts
from tests.cluster.populations import draw

N = 40_000


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_parts_add_up(rng, dtype, share):
    counts = csr_matrix(rng.poisson(1.0, (500, 40)), dtype=dtype)
    whole = counts.toarray()
    halves = split_counts(counts, rng.exponential(size=40), share)
    assert halves.share == share
    for part in (halves.seen, halves.held_out):
        assert part.shape == counts.shape
        assert (part.data > 0).all()  # no zero is kept
        assert (part.data == np.round(part.data)).all()
    np.testing.assert_array_equal(halves.seen.toarray() + halves.held_out.toarray(), whole)
    np.testing.assert_array_equal(counts.toarray(), whole)  # left as it was
    assert halves.held_out.sum() / whole.sum() == pytest.approx(share, abs=0.02)


def test_entries_that_stand_twice_are_one_count():
    twice = csr_matrix((np.ones(2000), (np.zeros(2000, int), np.zeros(2000, int))), (1, 2))
    alpha = np.array([1e3, 0.0])  # all on one side
    halves = split_counts(twice, alpha, 0.5)
    assert {halves.seen[0, 0], halves.held_out[0, 0]} == {0, 2000}


def test_without_overdispersion_the_cut_is_binomial(rng):
    counts = csr_matrix(np.full((N, 1), 6.0))
    found = np.bincount(split_counts(counts, np.zeros(1)).held_out.toarray().ravel().astype(int), minlength=7)
    assert chisquare(found, N * binom.pmf(np.arange(7), 6, 0.2)).pvalue > 0.001


@pytest.mark.parametrize("theta", [0.5, 2.0, np.inf])
def test_parts_are_independent_and_of_the_same_family(rng, theta):
    """If x ~ NB(mu, theta), the held-out part is NB(share mu, share theta), and nothing in the other tells of it."""
    mu, share = 5.0, 0.2
    counts = draw(rng, np.full((N, 1), mu), theta)
    halves = split_counts(counts, np.array([1 / theta]), share)
    seen, held_out = halves.seen.toarray().ravel(), halves.held_out.toarray().ravel()
    assert abs(np.corrcoef(seen, held_out)[0, 1]) < 4 / N**0.5
    assert abs(np.corrcoef(seen == 0, held_out == 0)[0, 1]) < 4 / N**0.5
    for part, s in ((held_out, share), (seen, 1 - share)):
        variance = s * mu + s * mu**2 / theta
        assert part.mean() == pytest.approx(s * mu, abs=4 * (variance / N) ** 0.5)
        assert part.var() == pytest.approx(variance, rel=0.1)


def test_a_cut_that_knows_nothing_of_overdispersion_leaves_parts_correlated(rng):
    counts = draw(rng, np.full((N, 1), 5.0), 0.5)
    halves = split_counts(counts, np.zeros(1))
    seen, held_out = halves.seen.toarray().ravel(), halves.held_out.toarray().ravel()
    covariance = 0.2 * 0.8 * 25 / 0.5
    assert np.cov(seen, held_out)[0, 1] == pytest.approx(covariance, rel=0.1)


def test_the_seed_decides(rng):
    counts = csr_matrix(rng.poisson(2.0, (50, 20)))
    first, again, other = (split_counts(counts, np.ones(20), seed=seed).held_out.toarray() for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
