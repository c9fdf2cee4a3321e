"""Overdispersion of simulated counts: what was put in, whatever populations, depths and batches are mixed."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from mixvi.cluster.dispersion import overdispersion
from tests.cluster.populations import draw, profiles

N, G = 1500, 60


def of_frequent(alpha, mean):
    """Mean over genes with a mean of at least one count."""
    return alpha[mean.mean(0) >= 1].mean()


@pytest.mark.parametrize("theta", [0.5, 2.0, 10.0, np.inf])
@pytest.mark.parametrize("varying", [False, True])
def test_it_is_that_of_one_population(rng, theta, varying):
    size = 300 * (10 ** rng.uniform(-0.5, 0.5, (N, 1)) if varying else np.ones((N, 1)))
    mean = size * profiles(rng, 1, G)
    found = of_frequent(overdispersion(draw(rng, mean, theta)), mean)
    assert found == pytest.approx(1 / theta, rel=0.1, abs=0.03)


def test_differences_between_populations_are_none(rng):
    """Around one mean for all cells they would be more than the noise."""
    y = np.repeat([0, 1], [1400, 100])
    mean = 300 * profiles(rng, 2, G)[y]
    counts = draw(rng, mean, 5.0)
    x = counts.toarray()
    around_all = ((x.var(0) - x.mean(0)) / x.mean(0) ** 2)[mean.mean(0) >= 1].mean()
    assert around_all > 0.4
    assert of_frequent(overdispersion(counts), mean) == pytest.approx(0.2, abs=0.03)


def test_differences_between_strata_are_none(rng):
    stratum = rng.integers(2, size=N)
    mean = 300 * profiles(rng, 2, G)[stratum]
    assert of_frequent(overdispersion(draw(rng, mean, 5.0), stratum), mean) == pytest.approx(0.2, abs=0.03)


def test_many_cells_are_measured_in_part(rng, monkeypatch):
    """Above 10,000, or here fewer, so that the test is quick."""
    mean = 300 * profiles(rng, 1, G).repeat(N, 0)
    counts = draw(rng, mean, 2.0)
    monkeypatch.setattr("mixvi.cluster.graph.SAMPLE", N // 2)
    some, again, other = (overdispersion(counts, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(some, again)
    assert (some != other).any()
    assert of_frequent(some, mean) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("n_genes", [2, 3, 4, 5, 6])
def test_few_genes_and_small_strata_are_measured_too(rng, n_genes):
    counts = draw(rng, np.full((400, n_genes), 20.0), 1.0)
    for stratum in (None, np.arange(400) // 2, np.arange(400)):
        found = overdispersion(counts, stratum)
        assert (found > 0.05).all()  # too low for a gene among few, but none is taken for Poisson


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (2, 5), (3, 5), (40, 1), (40, 2), (40, 5)])
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_it_is_a_number_for_any_counts(shape, value):
    found = overdispersion(csr_matrix(np.full(shape, value)))
    assert found.shape == (shape[1],)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
