"""Linear models through the front door: principal components of real cells, and what is refused."""

import numpy as np
import pytest
import scanpy as sc

import mixvi
from mixvi import datasets

from .helpers import QUICK, build, fitted


@pytest.fixture(scope="module")
def cells():
    """600 real cells x 80 genes, log-normalised, with scanpy's PCA."""
    adata = datasets.pbmc68k_reduced()[:600, :80].copy()
    adata.X = adata.layers["counts"].copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=5)
    return adata


@pytest.mark.parametrize("cls", [mixvi.AE, mixvi.VAE])
def test_principal_components_are_those_of_scanpy(cells, cls):
    cls.setup_anndata(cells)
    model = cls(cells, n_latent=5, linear=True)
    model.train(enable_progress_bar=False, accelerator="cpu")
    found = model.principal_components()
    sign = np.sign((found.axes * cells.varm["PCs"]).sum(0))
    assert np.abs((found.axes * cells.varm["PCs"]).sum(0)).min() > 0.9999
    np.testing.assert_allclose(found.axes.T @ found.axes, np.eye(5), atol=1e-6)
    assert (found.axes.max(0) >= -found.axes.min(0)).all()  # the sign: the largest entry is positive
    np.testing.assert_allclose(found.variance, cells.uns["pca"]["variance"], rtol=1e-3)
    assert (np.diff(found.variance) < 0).all()
    np.testing.assert_allclose(found.scores, cells.obsm["X_pca"] * sign, atol=0.05)
    model.annotate()
    np.testing.assert_array_equal(cells.varm["PCs_mixvi"], found.axes)
    assert model.history["elbo_train"].iloc[-1, 0] < model.history["elbo_train"].iloc[0, 0]


def test_annotate_leaves_no_axes_of_an_earlier_model(cells):
    adata = cells.copy()
    fitted("AE", adata, n_layers=0).annotate()
    assert adata.varm["PCs_mixvi"].shape == (80, 3)
    fitted("AE", adata).annotate()
    assert "PCs_mixvi" not in adata.varm


def test_linear_says_the_same_as_no_layers(cells):
    first, second = (fitted("VAE", cells, **{key: value}) for key, value in (("linear", True), ("n_layers", 0)))
    np.testing.assert_array_equal(first.get_latent_representation(), second.get_latent_representation())


def test_a_linear_model_survives_save_and_load(cells, tmp_path):
    model = fitted("AE", cells, linear=True)
    model.save(tmp_path / "ae")
    again = mixvi.AE.load(tmp_path / "ae", adata=cells)
    np.testing.assert_array_equal(again.principal_components().axes, model.principal_components().axes)


def test_a_dimension_that_is_switched_off_is_no_component(rng):
    x = rng.standard_normal((300, 2)) @ rng.standard_normal((2, 20)) * 3 + 0.5 * rng.standard_normal((300, 20))
    adata = sc.AnnData(x.astype(np.float32))
    mixvi.VAE.setup_anndata(adata)
    model = mixvi.VAE(adata, n_latent=4, linear=True)
    model.train(enable_progress_bar=False, accelerator="cpu", plan_kwargs={"max_kl_weight": 3.0})
    found = model.principal_components()
    assert found.axes.shape == (20, 2)
    assert found.scores.shape == (300, 2)


def test_minibatches_stay_possible(cells):
    model = fitted("VAE", cells, train={"batch_size": 64}, linear=True)
    assert "elbo_validation" in model.history
    assert model.principal_components().axes.shape[0] == 80


def test_training_further_goes_on(cells):
    model = fitted("AE", cells, linear=True)
    before = model.history["elbo_train"].iloc[-1, 0]
    model.train(**QUICK)
    assert model.history["elbo_train"].iloc[-1, 0] <= before
    assert len(model.history["elbo_train"]) > QUICK["max_epochs"]


def test_models_that_are_not_linear_refuse(cells, counts):
    with pytest.raises(ValueError, match="linear=True"):
        fitted("VAE", cells).principal_components()
    with pytest.raises(ValueError, match="likelihood='nb'"):
        fitted("AE", counts, linear=True, likelihood="nb").principal_components()
    with pytest.raises(RuntimeError, match="not trained"):
        build("AE", cells, linear=True).principal_components()


def test_auto_takes_normal_for_a_linear_model_and_says_so(counts, caplog):
    with caplog.at_level("INFO", logger="mixvi"):
        model = build("AE", counts, linear=True)
    assert model.likelihood_ == "normal"
    assert "raw counts" in caplog.text
