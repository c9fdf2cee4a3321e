"""Figures of a prediction against other ways to compute them."""

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from scipy.spatial.distance import cdist
from scipy.stats import pearsonr

from mixvi import metrics
from mixvi.metrics import Trio, moments


@pytest.fixture
def cells(rng):
    """Predicted, observed and control cells of 40 genes."""
    shift = rng.normal(size=40)
    return [rng.normal(size=(n, 40)) * rng.uniform(0.5, 2, 40) + k * shift for n, k in ((50, 0.8), (60, 1), (70, 0))]


def test_moments_of_resampled_cells_are_those_of_the_cells_drawn(cells, rng):
    weights = metrics.resampling(np.arange(50), 3, rng)
    found = moments(cells[0], weights)
    for row, mean, variance in zip(weights, found.mean, found.variance, strict=True):
        drawn = np.repeat(cells[0], np.round(row * 50).astype(int), axis=0)
        assert len(drawn) == 50
        np.testing.assert_allclose(mean, drawn.mean(0))
        np.testing.assert_allclose(variance, drawn.var(0))


def test_top_genes_are_those_of_scanpy(cells):
    x = np.concatenate(cells[1:])
    adata = ad.AnnData(x, obs={"side": ["observed"] * 60 + ["control"] * 70})
    sc.tl.rank_genes_groups(adata, "side", groups=["observed"], reference="control", method="t-test", rankby_abs=True)
    found = metrics.de_genes(moments(cells[1]), moments(cells[2]), 10)
    assert adata.var_names[found].tolist() == adata.uns["rank_genes_groups"]["names"]["observed"][:10].tolist()


def test_figures_of_means_and_variances(cells):
    predicted, observed, control = cells
    trio, genes = Trio(*map(moments, cells)), np.arange(0, 40, 3)
    change, real = predicted.mean(0) - control.mean(0), observed.mean(0) - control.mean(0)
    assert metrics.pearson_of_change(trio) == pytest.approx(pearsonr(change, real)[0])
    assert metrics.pearson_of_change(trio, genes) == pytest.approx(pearsonr(change[genes], real[genes])[0])
    assert metrics.r2_of_means(trio) == pytest.approx(pearsonr(predicted.mean(0), observed.mean(0))[0] ** 2)
    assert metrics.r2_of_variances(trio) == pytest.approx(pearsonr(predicted.var(0), observed.var(0))[0] ** 2)
    assert metrics.mse_of_means(trio, genes) == pytest.approx(((change - real)[genes] ** 2).mean())
    unchanged = trio._replace(predicted=trio.control)
    assert metrics.pearson_of_change(unchanged) == 0
    assert metrics.de_overlap(unchanged, 10) == 0
    assert metrics.de_overlap(trio._replace(predicted=trio.observed), 10) == 1


def test_overlap_asks_for_the_direction_too(cells):
    control, observed = moments(cells[2]), moments(cells[1])
    opposite = observed._replace(mean=2 * control.mean - observed.mean)
    assert metrics.de_overlap(Trio(opposite, observed, control), 10) == 0


def test_energy_distance_against_its_definition(cells):
    a, b = cells[0], cells[1]
    distances, chosen = metrics.cell_distances(a, b)
    within = [cdist(x, x).sum() / (len(x) * (len(x) - 1)) for x in (a, b)]
    assert metrics.energy_distance(distances, chosen) == pytest.approx(2 * cdist(a, b).mean() - sum(within))


def test_energy_distance_of_the_same_population_is_zero_on_average(rng):
    found = [
        metrics.energy_distance(*metrics.cell_distances(*rng.normal(size=(2, 30, 5))[:, : rng.integers(10, 30)]))
        for _ in range(200)
    ]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(200)
    far = metrics.energy_distance(*metrics.cell_distances(rng.normal(size=(30, 5)), rng.normal(size=(30, 5)) + 2))
    assert far > max(found)


def test_distances_of_many_cells_are_those_of_a_sample(rng):
    a, b = rng.normal(size=(1500, 2)), rng.normal(size=(40, 2))
    distances, chosen = metrics.cell_distances(a, b)
    assert len(set(chosen)) == 1000
    np.testing.assert_allclose(distances, cdist(*2 * [np.concatenate([a[chosen], b])]), atol=1e-6)


def test_several_draws_of_a_cell_are_one_cell_to_the_energy_distance_and_the_bootstrap(rng):
    centres, b = rng.normal(size=(12, 5)), rng.normal(size=(30, 5))
    source = np.repeat(np.arange(12), 4)
    a = centres[source] + 0.3 * rng.normal(size=(48, 5))
    one_draw_each = [
        metrics.energy_distance(cdist(*2 * [np.concatenate([a[draw], b])]), np.arange(12))
        for draw in (4 * np.arange(12) + rng.integers(4, size=(4000, 12)))
    ]
    found = metrics.energy_distance(cdist(*2 * [np.concatenate([a, b])]), source)
    assert found == pytest.approx(np.mean(one_draw_each), abs=4 * np.std(one_draw_each) / np.sqrt(4000))
    alone = metrics.energy_distance(cdist(*2 * [np.concatenate([a, b])]), np.arange(48))
    assert alone > found + 0.1
    only_one = np.zeros((1, 48))
    only_one[0, :4] = 0.25
    distances = cdist(*2 * [np.concatenate([a, b])])
    assert np.isnan(metrics.energy_distance(distances, source, (only_one, np.full((1, 30), 1 / 30)))).all()
    weights = metrics.resampling(source, 20, rng).reshape(20, 12, 4)
    np.testing.assert_allclose(weights.sum((1, 2)), 1)
    assert (weights == weights[:, :, :1]).all()
    assert (weights[:, :, 0] == 0).any()


def test_overlap_is_a_share_where_genes_are_alike(rng):
    x, y = (np.repeat(rng.normal(size=(20, 1)) + k, 6, axis=1) for k in (0, 3))
    assert metrics.de_overlap(Trio(moments(y), moments(y), moments(x)), 2) == 1
