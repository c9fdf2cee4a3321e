"""Planted ambient RNA."""

import numpy as np
import pytest

from mixvi.cluster.ambient import ambient_share
from tests.cluster.populations import profiles


@pytest.mark.parametrize("planted", [0.0, 0.05, 0.2])
def test_the_share_is_estimated_from_genes_of_one_cluster(rng, planted):
    own = profiles(rng, 4, 300)
    for k in range(4):  # each population has ten genes that no other one expresses
        own[np.arange(4) != k, 10 * k : 10 * k + 10] = 0
    own /= own.sum(1, keepdims=True)
    mean = (1 - planted) * own + planted * own.mean(0)
    found = ambient_share(rng.poisson(100_000 * mean), rng.poisson(25_000 * mean))
    assert found == pytest.approx(planted, abs=0.03)


def test_it_is_an_upper_bound(rng):
    mean = 100_000 * profiles(rng, 4, 300, 0.1)
    assert ambient_share(rng.poisson(mean), rng.poisson(mean)) > 0.5  # clusters are alike


def test_one_cluster_or_few_counts_say_nothing(rng):
    for counts, shape in ((100.0, (1, 500)), (0.1, (3, 500)), (100.0, (3, 50))):  # or few genes
        assert np.isnan(ambient_share(rng.poisson(counts, size=shape), rng.poisson(counts, size=shape)))
