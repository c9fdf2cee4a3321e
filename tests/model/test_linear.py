"""Linear models through the front door: principal components of real cells, and what is refused."""

import numpy as np
import pytest
import scanpy as sc
import torch
from anndata import AnnData

import mixvi
from mixvi import datasets
from tests.model.helpers import QUICK, build, fitted


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


@pytest.mark.parametrize("cls", [mixvi.AE, mixvi.VAE])
@pytest.mark.parametrize(("shift", "scale"), [(0, 1e-4), (100, 1), (1e4, 1), (-7, 1e5)])
def test_mean_and_scale_of_the_cells_do_not_matter(cls, shift, scale, rng):
    axes, _ = np.linalg.qr(rng.normal(size=(30, 6)))
    signal = rng.normal(size=(300, 6)) * [6, 4, 3, 2, 1.5, 1.2] @ axes.T
    adata = AnnData((shift + scale * (signal + 0.3 * rng.normal(size=(300, 30)))).astype(np.float32))
    sc.pp.pca(adata, n_comps=5)
    cls.setup_anndata(adata)
    model = cls(adata, n_latent=5, linear=True)
    model.train(enable_progress_bar=False, accelerator="cpu")
    found = model.principal_components()
    assert np.abs((found.axes * adata.varm["PCs"]).sum(0)).min() > 0.9999
    if cls is mixvi.VAE:
        gap = model.exact_log_evidence() - model.get_elbo(return_mean=False)
        assert abs(gap.mean()) < 0.01
    assert model.history["elbo_train"].iloc[-1, 0] == pytest.approx(-model.get_elbo(), rel=1e-3)
    before = model.get_elbo()
    model.train(2, enable_progress_bar=False, accelerator="cpu")  # goes on from where it is
    assert model.get_elbo() == pytest.approx(before, rel=1e-3)


def test_axes_that_are_written_are_those_of_principal_components(cells):
    model = fitted("AE", cells, train={"batch_size": 64, "max_epochs": 2}, linear=True)  # far from the optimum
    model.annotate()
    np.testing.assert_array_equal(cells.varm["PCs_mixvi"], model.principal_components().axes)


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


def test_a_linear_model_without_its_cells_annotates_others(tmp_path):
    cells = datasets.blobs(100, 8, kind="real", seed=0)
    model = build("VAE", cells, linear=True)
    model.train(enable_progress_bar=False)
    model.save(tmp_path / "model")
    for adata in (False, cells[:2].copy()):
        new = cells[:10].copy()
        mixvi.VAE.load(tmp_path / "model", adata=adata, accelerator="cpu").annotate(new)
        assert not list(new.varm)
    model.annotate()
    assert cells.varm["PCs_mixvi"].shape[0] == 8


def test_loadings_are_the_weights_on_the_genes(counts):
    model = fitted("VAE", counts, n_layers=0, likelihood="nb")
    loadings = model.get_loadings()
    assert list(loadings.index) == list(counts.var_names)
    assert list(loadings.columns) == ["Z_0", "Z_1", "Z_2"]
    with torch.inference_mode():  # a step along a latent axis changes log shares by its loadings, up to a constant
        cells = model.module.read({"X": torch.as_tensor(counts.X[:1])})
        here, there = (model.module.decode(torch.tensor([[0.0, z, 0.0]]), cells).scale.log() for z in (0.0, 1.0))
    change = (there - here).numpy().ravel() - loadings["Z_1"].to_numpy()
    np.testing.assert_allclose(change, change.mean(), atol=1e-5)
    with pytest.raises(ValueError, match="has hidden layers, so it has no loadings"):
        fitted("VAE", counts).get_loadings()
