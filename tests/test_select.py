"""The number of latent dimensions: of data whose number is known."""

import numpy as np
import pytest
import scvi
from anndata import AnnData

import mixvi
from mixvi import datasets


@pytest.fixture(scope="module")
def table():
    """Three factors with noise, under a linear model."""
    scvi.settings.seed = 0
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3)) @ rng.normal(size=(3, 20)) + 0.5 * rng.normal(size=(600, 20))
    adata = AnnData(x.astype(np.float32))
    mixvi.VAE.setup_anndata(adata)
    train = {"max_epochs": 150, "enable_progress_bar": False, "accelerator": "cpu", "batch_size": 32}
    train["plan_kwargs"] = {"lr": 1e-2}
    return mixvi.select_n_latent(mixvi.VAE, adata, (1, 2, 3, 6), 20, {"linear": True}, train)


def test_the_number_of_factors_is_found(table):
    assert list(table.index[table["selected"]]) == [3]
    assert list(table.index) == [1, 2, 3, 6]
    assert table["log_evidence"][[1, 2, 3]].is_monotonic_increasing
    assert (table["below_best"] >= 0).all()
    assert list(table["n_active"][[1, 2, 3]]) == [1, 2, 3]


def test_the_plot_marks_the_choice(table):
    ax = mixvi.pl.n_latent(table, show=False)
    marked = [line for line in ax.lines if list(np.ravel(line.get_xdata())) == [3, 3]]
    assert len(marked) == 1
    assert ax.get_xlabel() == "latent dimensions"


def test_bad_arguments_are_named():
    adata = datasets.blobs(60, 12)
    mixvi.VAE.setup_anndata(adata)
    with pytest.raises(ValueError, match="it must be mixvi.VAE, mixvi.CVAE or mixvi.GMVAE"):
        mixvi.select_n_latent(mixvi.AE, adata)
    with pytest.raises(ValueError, match="candidates is empty"):
        mixvi.select_n_latent(mixvi.VAE, adata, [])
    with pytest.raises(ValueError, match="candidates=0; it must be a whole number of at least 1"):
        mixvi.select_n_latent(mixvi.VAE, adata, [2, 0])
    with pytest.raises(ValueError, match="select_n_latent"):
        mixvi.pl.n_latent(adata.obs)
