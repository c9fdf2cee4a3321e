"""Held-out gains against log-likelihoods by hand, and what they say of populations that are one or two."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix, hstack
from scipy.stats import multinomial, t

from mixvi.cluster.agglomerate import MIN_WORTH
from mixvi.cluster.count_splitting import Halves, split_counts
from mixvi.cluster.evidence import SPLIT_LEVEL, Evidence, lower_bound
from tests.cluster.populations import draw, evidence_of, profiles

N, G = 200, 60


def groups(evidence, part):
    return [evidence.group(np.flatnonzero(part == k)) for k in range(part.max() + 1)]


def profile(halves, cells, weight=1.0):
    """Posterior mean shares of the genes, under a gamma prior of shape 1 around the shares of all cells.

    ``weight`` (n, g) of each cell's counts.
    """
    seen = halves.seen.toarray()
    counts, exposure = weight * seen, weight * seen.sum(1, keepdims=True) * np.ones(seen.shape)
    everything = counts.sum(0) / exposure.sum(0)
    share = (counts[cells].sum(0) + 1) / (exposure[cells].sum(0) + everything.sum() / everything)
    return share / share.sum()


@pytest.fixture
def two(rng):
    """Counts of two populations and which one each cell is of."""
    y = np.arange(N) % 3 // 2
    return draw(rng, 50 * profiles(rng, 2, G, 0.3)[y]), y


def test_a_gain_is_that_of_held_out_multinomial_counts(two):
    counts, y = two
    halves = split_counts(counts, np.zeros(G))
    found = Evidence(halves, np.zeros(G)).gain(*groups(Evidence(halves, np.zeros(G)), y))
    held_out = halves.held_out.toarray().astype(int)
    joint = profile(halves, np.arange(N))
    gains = []
    for k in (0, 1):
        own, rows = profile(halves, y == k), held_out[y == k]
        by_own, by_joint = (multinomial.logpmf(rows, rows.sum(1), p) for p in (own, joint))
        gains.append((by_own - by_joint) / halves.share)
    n_pairs = len(gains[0]) * len(gains[1]) / N
    assert found.worth == pytest.approx(sum(map(np.sum, gains)) / n_pairs, rel=1e-6)
    assert found.error == pytest.approx(sum(len(x) * x.var(ddof=1) for x in gains) ** 0.5 / n_pairs, rel=1e-6)


def test_counts_that_vary_more_are_weighed_less(two, rng):
    """Quasi-likelihood: each gene's Poisson term, times Poisson variance over negative binomial variance of the cell.

    Half of the cells have libraries twenty times as large. All cells of one half have one library size.
    """
    counts, y = two
    depth = 20 ** (np.arange(N) // 2 % 2)
    alpha = rng.exponential(size=G)
    counts = csr_matrix(np.round(5 * counts.toarray()) * depth[:, None])
    halves = split_counts(counts, np.zeros(G))
    evidence = Evidence(halves, alpha)
    found = evidence.gain(*groups(evidence, y))
    seen = halves.seen.toarray()
    library = evidence.library[evidence.block]
    assert (np.abs(np.log2(library / (seen.sum(1) / (1 - halves.share)))) <= 1).all()
    weight = 1 / (1 + alpha * seen.sum(0) / seen.sum() * library[:, None])  # at the mean count of the cell
    joint, total = profile(halves, np.arange(N), weight), 0.0
    for k in (0, 1):
        own = profile(halves, y == k, weight)
        for x, w in zip(halves.held_out.toarray()[y == k], weight[y == k], strict=True):
            expected, expected_joint = x.sum() * own, x.sum() * joint
            total += (w * (x * np.log(expected / expected_joint) - expected + expected_joint)).sum()
    assert found.worth == pytest.approx(total / halves.share / ((y == 1).sum() * (y == 0).mean()), rel=1e-4)


def test_one_deep_cell_does_not_decide(rng):
    """Reads of one cell, a thousand times as many as those of any other, with a count in one gene only."""
    y = np.arange(N) % 2
    counts = draw(rng, 200 * profiles(rng, 2, G)[y], 0.5).tolil()

    def bound(counts):
        evidence = evidence_of(counts.tocsr(), 0.5)
        return lower_bound(*evidence.gain(*groups(evidence, y)), N // 2, 1)

    alone = bound(counts)
    counts[0] = 1000 * counts[1]
    counts[0, 5] = 50_000
    assert bound(counts) > alone / 2 > 0


def test_a_lower_bound_is_that_of_a_t_test():
    found = lower_bound(np.array([3.0, 3.0]), np.array([1.5, 1.5]), np.array([10, 1]), 7)
    assert found[0] == pytest.approx(3.0 - t.isf(SPLIT_LEVEL / 7, 9) * 1.5)
    assert found[1] == -np.inf  # one cell has no variance


def test_the_worth_is_the_divergence_between_profiles_whatever_the_sizes(rng):
    """Of populations that differ slightly; 5 % of cells are on the wrong side of a likelihood ratio at the default."""
    share = profiles(rng, 1, G)[0]
    other = share * np.exp(rng.normal(0, 0.25, G))
    p = np.stack([share, other / other.sum()])
    size = MIN_WORTH / (p[1] * np.log(p[1] / p[0])).sum()
    way = np.log(p[1] / p[0])
    for n in ((3000, 3000), (5500, 500)):
        y = np.repeat([0, 1], n)
        counts = draw(rng, size * p[y])
        evidence = evidence_of(counts)
        assert evidence.gain(*groups(evidence, y)).worth == pytest.approx(MIN_WORTH, rel=0.15)
        ratio = counts @ way - size * (p[1] - p[0]).sum()
        assert ((ratio > 0) != (y == 1)).mean() == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("theta", [np.inf, 2.0, 0.5])
@pytest.mark.parametrize("varying", [False, True])
def test_halves_of_one_population_are_worth_less_than_nothing(theta, varying):
    """On average over 60 draws; and hardly ever is it above 0 beyond chance, also where library sizes vary tenfold."""
    worth, n_beyond = [], 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        size = 60 * 10 ** rng.uniform(-0.5, 0.5, (N, 1)) if varying else np.full((N, 1), 60.0)
        evidence = evidence_of(draw(rng, size * profiles(rng, 1, G), theta), theta, seed=seed)
        gain = evidence.gain(*groups(evidence, rng.integers(2, size=N)))
        worth.append(gain.worth)
        n_beyond += lower_bound(*gain, N // 2, 1) > 0
    assert np.mean(worth) + 3 * np.std(worth) / 60**0.5 < 0
    assert n_beyond <= 6  # of 60 at level 0.05: three are expected, seven or more come in 3 of 100 such tests


@pytest.mark.parametrize("theta", [np.inf, 2.0, 0.5])
def test_two_populations_are_worth_it(rng, theta):
    y = np.arange(N) % 4 // 3
    size = 60 * 10 ** rng.uniform(-0.5, 0.5, (N, 1))
    evidence = evidence_of(draw(rng, size * profiles(rng, 2, G)[y], theta), theta)
    assert lower_bound(*evidence.gain(*groups(evidence, y)), 50, 63) > 0
    assert evidence.information(groups(evidence, y)) > 0.1
    assert evidence.information([evidence.all]) == pytest.approx(0, abs=1e-9)
    evidence = evidence_of(draw(rng, size * profiles(rng, 1, G), theta), theta)
    assert evidence.information(groups(evidence, y)) < 0


def test_differences_between_strata_are_worth_nothing_within_them(rng):
    """Groups that are batches but for a tenth of their cells; then groups that are populations in both batches."""
    batch, y = np.arange(2 * N) % 2, np.arange(2 * N) // 2 % 2
    mixed = np.where(rng.random(2 * N) < 0.1, 1 - batch, batch)
    of_batch, of_population = profiles(rng, 2, G), profiles(rng, 2, G)
    mean = of_batch[batch] * of_population[y]
    counts = draw(rng, 60 * mean / mean.sum(1, keepdims=True))
    without, within = evidence_of(counts), evidence_of(counts, stratum=batch)
    assert lower_bound(*without.gain(*groups(without, mixed)), N, 1) > 0
    assert within.gain(*groups(within, mixed)).worth < 0
    assert lower_bound(*within.gain(*groups(within, y)), N, 1) > 0
    apart = within.gain(*groups(within, batch))  # no stratum has cells of both: nothing can be compared
    assert apart.worth == pytest.approx(0, abs=1e-9)


def test_strata_count_one_by_one(rng):
    """The gain over both is the sum of the gains in each stratum by itself."""
    stratum, y = np.arange(N) % 2, np.arange(N) // 2 % 2
    halves = split_counts(draw(rng, 50 * profiles(rng, 2, G)[y]), np.zeros(G))
    both = Evidence(halves, np.zeros(G), stratum)
    total = 0.0
    for s in (0, 1):
        rows = stratum == s
        one = Evidence(Halves(halves.seen[rows], halves.held_out[rows], halves.share), np.zeros(G))
        total += one.gain(*groups(one, y[rows])).worth * (N // 8)
    assert both.gain(*groups(both, y)).worth == pytest.approx(total / (2 * (N // 8)), rel=1e-6)


def test_a_loss_is_that_of_pooled_multinomial_counts(two):
    counts, y = two
    evidence = evidence_of(counts)
    seen = evidence.halves.seen.toarray().astype(int)
    pooled = [seen[y == k].sum(0) for k in (0, 1)]
    shared = sum(pooled) / seen.sum()
    expected = sum(multinomial.logpmf(x, x.sum(), x / x.sum()) - multinomial.logpmf(x, x.sum(), shared) for x in pooled)
    assert evidence.loss(*groups(evidence, y)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("theta", [np.inf, 0.5])
def test_a_loss_is_never_negative(rng, theta):
    evidence = evidence_of(draw(rng, 5 * profiles(rng, 1, G).repeat(N, 0), theta), theta, stratum=np.arange(N) % 3)
    part = rng.integers(20, size=N)
    parts = groups(evidence, part)
    assert min(evidence.loss(a, b) for i, a in enumerate(parts) for b in parts[i + 1 :]) >= 0
    twice = evidence.group(np.r_[np.flatnonzero(part == 0), np.flatnonzero(part == 0)])
    assert evidence.loss(parts[0], twice) == pytest.approx(0, abs=1e-9)  # of the same shares


def test_joined_groups_are_the_group_of_both(two):
    counts, y = two
    evidence = evidence_of(counts, stratum=np.arange(N) % 2)
    joined = groups(evidence, y)[0].join(groups(evidence, y)[1])
    np.testing.assert_allclose(joined.seen, evidence.all.seen)
    np.testing.assert_array_equal(joined.size, evidence.all.size)
    assert joined.n_cells == N
    for s in (0, 1):
        assert joined.totals[joined.block == s].sum() == evidence.all.totals[evidence.all.block == s].sum() > 0
    assert evidence.information([joined]) == pytest.approx(0, abs=1e-9)


def test_scores_weigh_each_count_by_its_block_and_gene(rng, two):
    evidence = evidence_of(two[0], stratum=np.arange(N) % 2)
    slope = rng.normal(size=evidence.all.seen.shape)
    expected = (evidence.all.held_out.toarray() * slope[evidence.all.block]).sum(1)
    np.testing.assert_allclose(evidence.all.scores(slope), expected)


def test_genes_without_counts_say_nothing(two):
    counts, y = two
    halves = split_counts(counts, np.zeros(G))
    none = csr_matrix((N, 20 * G))
    wide = Halves(*(hstack([part, none], format="csr") for part in halves[:2]), halves.share)
    narrow, padded = Evidence(halves, np.zeros(G)), Evidence(wide, np.zeros(21 * G))
    assert padded.loss(*groups(padded, y)) == pytest.approx(narrow.loss(*groups(narrow, y)), rel=1e-6)
    gains = [evidence.gain(*groups(evidence, y)) for evidence in (narrow, padded)]
    np.testing.assert_allclose(gains[1], gains[0], rtol=1e-5)


def test_groups_are_comparable_if_cells_share_a_stratum_whatever_their_depth(rng):
    """Shallow cells of one group and deep cells of the other can be compared; cells of two strata cannot."""
    y = np.arange(N) % 2
    counts = draw(rng, np.where(y, 2000.0, 50.0)[:, None] * profiles(rng, 1, G))
    one, apart = evidence_of(counts), evidence_of(counts, stratum=y)
    assert one.comparable(*groups(one, y))
    assert not apart.comparable(*groups(apart, y))
    assert apart.loss(*groups(apart, y)) == pytest.approx(one.loss(*groups(one, y)), rel=1e-6)  # then across strata
