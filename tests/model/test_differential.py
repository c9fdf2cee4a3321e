"""Differential expression and abundance under scvi-tools' names."""

import numpy as np
import pytest
import scvi
import torch
from scipy.stats import multivariate_normal

from mixvi import datasets
from tests.model.helpers import fitted


@pytest.fixture(scope="module")
def planted():
    """A model of two populations, of which one has five times as much of genes 0 to 4."""
    rng = np.random.default_rng(0)
    mean = np.full((300, 40), 4.0)
    group = np.repeat(["a", "b"], 150)
    mean[150:, :5] *= 5
    adata = datasets.blobs(300, 40, kind="count")
    adata.X = rng.poisson(mean).astype(np.float32)
    adata.obs["group"] = group
    return fitted("GMVAE", adata, train={"max_epochs": 60, "batch_size": 16}, n_clusters=None)


@pytest.mark.parametrize("mode", ["vanilla", "change"])
@pytest.mark.parametrize("weights", ["uniform", "importance"])
def test_planted_genes_come_first(planted, mode, weights):
    scvi.settings.seed = 0
    table = planted.differential_expression(
        groupby="group", group1="b", group2="a", mode=mode, weights=weights, silent=True
    )
    first = table["bayes_factor" if mode == "vanilla" else "proba_de"].sort_values(ascending=False).index[:5]
    assert set(first) == set(planted.adata.var_names[:5])
    assert len(table) == 40


def test_changes_have_the_planted_size(planted):
    table = planted.differential_expression(
        groupby="group", group1="b", group2="a", mode="change", silent=True, pseudocounts=0.0
    )
    planted_change = np.log2(5 / (1 + 5 * 4 / 40))  # of shares: the library grows too
    assert table.loc[planted.adata.var_names[:5], "lfc_mean"].to_numpy() == pytest.approx(planted_change, abs=0.35)


def test_double_dipping_is_said(planted):
    planted.annotate(key_added="found")
    with pytest.warns(UserWarning, match=r"double dipping.*GMVAE.markers\(\) tests counts that were held out"):
        planted.differential_expression(groupby="found", mode="change", silent=True)


def test_batches_that_were_not_set_up_are_named(planted):
    with pytest.raises(ValueError, match="set up without batch_key"):
        planted.differential_expression(groupby="group", batch_correction=True)


def test_batch_correction_compares_within_batches():
    adata = datasets.blobs(120, 20, n_clusters=2, n_conditions=2, kind="count")
    model = fitted("CVAE", adata, {"batch_key": "condition"})
    table = model.differential_expression(
        groupby="cluster", batch_correction=True, mode="change", silent=True, weights="uniform"
    )
    assert np.isfinite(table["lfc_mean"]).all()


def test_the_aggregated_posterior_is_the_mixture_of_posteriors(planted):
    rows = [3, 200, 8]
    mean, variance = planted.get_latent_representation(indices=rows, return_dist=True)
    z = np.random.default_rng(0).normal(size=(6, mean.shape[1]))
    expected = np.log(
        np.mean([multivariate_normal(m, np.diag(v)).pdf(z) for m, v in zip(mean, variance, strict=True)], 0)
    )
    found = planted.get_aggregated_posterior(indices=rows, dof=None).log_prob(torch.as_tensor(z, dtype=torch.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    with pytest.raises(ValueError, match="AE has no posterior; use mixvi.VAE"):
        fitted("AE", datasets.blobs(60, 12)).get_aggregated_posterior()


def test_cells_are_dense_in_their_own_sample(planted):
    table = planted.differential_abundance(sample_key="group", num_cells_posterior=100)
    assert planted.adata.obsm["da_log_probs"].equals(table)
    assert (table.idxmax(1) == planted.adata.obs["group"]).mean() > 0.95
    some = planted.differential_abundance(adata_sub=planted.adata[:10].copy(), sample_key="group")
    assert some.shape == (10, 2)
    for key in ("donor", None):
        with pytest.raises(KeyError, match=f"sample_key={key!r}; it must be a column of .obs"):
            planted.differential_abundance(sample_key=key)
