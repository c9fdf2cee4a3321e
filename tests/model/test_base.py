"""What all models share: every likelihood and matrix type, and an AnnData that stays as it was."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_matrix, csr_matrix, issparse

import mixvi
from mixvi import datasets
from tests.model.helpers import MODELS, QUICK, build, fitted

LIKELIHOODS = ["nb", "zinb", "poisson", "bernoulli", "normal"]


def as_form(adata, form):
    """The same values as another kind of matrix: in a layer, or as rows of a larger AnnData."""
    if form == "layer":
        adata.layers["counts"] = adata.X.copy()
        adata.X = np.full(adata.shape, -1.0, dtype=np.float32)
        return adata, {"layer": "counts"}
    if form == "view":
        twice = ad.concat([adata, adata], index_unique="-")
        return twice[: adata.n_obs], {}
    adata.X = {"dense": np.asarray, "fortran": np.asfortranarray, "csr": csr_matrix, "csc": csc_matrix}[form](adata.X)
    return adata, {}


@pytest.mark.parametrize("form", ["dense", "fortran", "csr", "csc", "layer", "view"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("name", MODELS)
def test_trains_and_reloads(name, likelihood, form, counts, tmp_path):
    if likelihood == "bernoulli":
        counts.X = counts.X / counts.X.max()
    adata, setup = as_form(counts, form)
    model = fitted(name, adata, setup, {"max_epochs": 2}, likelihood=likelihood)
    z = model.get_latent_representation()
    assert z.shape == (120, 3)
    assert np.isfinite(z).all()
    assert np.isfinite(model.get_elbo())
    model.save(tmp_path / "model")
    again = MODELS[name].load(tmp_path / "model", adata=adata, accelerator="cpu")
    np.testing.assert_array_equal(again.get_latent_representation(), z)
    np.testing.assert_array_equal(again.get_reconstruction(None, [0, 1]), model.get_reconstruction(None, [0, 1]))
    assert again.likelihood_ == likelihood
    if name == "GMVAE":
        pd.testing.assert_frame_equal(again.predict(soft=True), model.predict(soft=True))


@pytest.mark.parametrize("form", ["dense", "csr", "csc"])
@pytest.mark.parametrize("name", MODELS)
def test_every_form_of_a_matrix_gives_the_same_latents(name, form, counts):
    expected = fitted(name, counts.copy()).get_latent_representation()
    adata, setup = as_form(counts, form)
    np.testing.assert_allclose(fitted(name, adata, setup).get_latent_representation(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_gives_the_same_bits(name, counts):
    first, again, other = (fitted(name, counts.copy(), seed=s).get_latent_representation() for s in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def snapshot(adata):
    x = adata.X.copy() if issparse(adata.X) else np.array(adata.X)
    return x, adata.obs.copy(), adata.var.copy(), set(adata.obsm), set(adata.uns), set(adata.layers)


def without_scvi(keys):
    return [key for key in keys if not str(key).startswith("_scvi")]


@pytest.mark.parametrize("form", ["dense", "csr", "csc"])
@pytest.mark.parametrize("name", MODELS)
def test_nothing_but_scvis_own_keys_is_written(name, form, counts):
    adata, setup = as_form(counts, form)
    adata.obs["age"] = np.linspace(0, 1, adata.n_obs)
    if name in ("CVAE", "GMVAE"):
        setup |= {"batch_key": "condition", "continuous_covariate_keys": ["age"]}
    x, obs, var, obsm, uns, layers = snapshot(adata)
    type_before = type(adata.X)
    model = fitted(name, adata, setup)
    model.get_reconstruction()
    model.get_elbo()
    model.sample(3)
    assert type(adata.X) is type_before
    difference = x != adata.X
    assert (difference.nnz if issparse(difference) else difference.sum()) == 0
    pd.testing.assert_frame_equal(adata.obs[without_scvi(adata.obs)], obs)
    pd.testing.assert_frame_equal(adata.var, var)
    assert set(without_scvi(adata.obsm)) == obsm
    assert set(without_scvi(adata.uns)) == uns
    assert set(adata.layers) == layers


@pytest.mark.parametrize("name", MODELS)
def test_new_cells_are_read_and_not_written_to(name, counts):
    model = fitted(name, counts)
    new = datasets.blobs(50, 30, n_clusters=3, n_conditions=2, kind="count", seed=1)
    _, obs, _, obsm, uns, _ = snapshot(new)
    whole = model.get_latent_representation(new)
    np.testing.assert_allclose(model.get_latent_representation(new[20:30]), whole[20:30], rtol=1e-5, atol=1e-6)
    assert model.get_reconstruction(new).shape == (50, 30)
    assert model.get_elbo(new, return_mean=False).shape == (50,)
    pd.testing.assert_frame_equal(new.obs, obs)
    assert (set(new.obsm), set(new.uns)) == (obsm, uns)
    np.testing.assert_allclose(
        model.get_latent_representation(counts[:5].copy()), model.get_latent_representation()[:5], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("sparse", [False, True])
def test_a_backed_file_trains(counts, tmp_path, sparse):
    if sparse:
        counts.X = csr_matrix(counts.X)
    expected = fitted("VAE", counts.copy()).get_latent_representation()
    counts.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    model = fitted("VAE", backed)
    assert model.get_latent_representation(indices=[7, 2]).shape == (2, 3)
    assert model.get_latent_representation().shape == expected.shape


def test_loading_refuses_genes_in_another_order(counts, tmp_path):
    model = fitted("VAE", counts)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="another order.*get_var_names"):
        mixvi.VAE.load(tmp_path / "model", adata=counts[:, ::-1].copy(), accelerator="cpu")
    again = mixvi.VAE.load(tmp_path / "model", adata=counts[:50].copy(), accelerator="cpu")
    z = model.get_latent_representation()[:50]
    np.testing.assert_allclose(again.get_latent_representation(), z, rtol=1e-5, atol=1e-6)


def test_loading_what_is_not_there(counts, tmp_path):
    fitted("VAE", counts).save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"There is no .*other.model.pt; pass the folder that save\(\) wrote"):
        mixvi.VAE.load(tmp_path / "other", adata=counts)
    with pytest.raises(ValueError, match=r"model holds a VAE, not a GMVAE; load it with mixvi.VAE.load\(\)"):
        mixvi.GMVAE.load(tmp_path / "model", adata=counts)


def test_loading_without_data(counts, tmp_path):
    model = fitted("GMVAE", counts, {"batch_key": "condition"})
    model.save(tmp_path / "model")
    again = mixvi.GMVAE.load(tmp_path / "model", adata=False, accelerator="cpu")
    with pytest.raises(ValueError, match="loaded without data; pass adata="):
        again.get_latent_representation()
    np.testing.assert_allclose(
        again.get_latent_representation(counts), model.get_latent_representation(), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(again.predict(counts), model.predict())


@pytest.mark.parametrize("name", MODELS)
def test_size_factors_and_covariates(name, counts):
    counts.obs["sf"] = counts.X.sum(1) / counts.X.sum(1).mean()
    counts.obs["age"] = np.linspace(-1, 1, counts.n_obs)
    setup = {"size_factor_key": "sf"}
    if name in ("CVAE", "GMVAE"):
        setup |= {"categorical_covariate_keys": ["condition"], "continuous_covariate_keys": ["age"]}
        if name == "GMVAE":
            setup["batch_key"] = "condition"
    model = fitted(name, counts, setup)
    assert np.isfinite(model.get_elbo())
    assert np.isfinite(model.get_elbo(counts[:10].copy()))
    width = 2 + 2 + 1 if name in ("CVAE", "GMVAE") else 0  # batch, the same as a covariate, and age
    assert model.module.layout.n_conditions == width
    sampled = model.sample(4)
    assert set(sampled.obs) == ({"sf", "condition", "age"} if width else {"sf"})
    assert model.get_latent_representation(sampled).shape == (4, 3)


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_runs_on_a_gpu(name, counts):
    model = build(name, counts)
    model.train(**(QUICK | {"accelerator": "gpu"}))
    assert model.device.type == "cuda"
    assert np.isfinite(model.get_elbo())
    model.annotate()


def test_a_model_loads_with_fewer_cells_and_columns(counts, tmp_path):
    model = fitted("GMVAE", counts, n_clusters=5)
    model.save(tmp_path / "five")
    few = mixvi.GMVAE.load(tmp_path / "five", adata=counts[:3].copy(), accelerator="cpu")
    np.testing.assert_array_equal(few.predict(), model.predict()[:3])
    fitted("GMVAE", counts, init="cluster").save(tmp_path / "column")
    new = counts[:20].copy()
    del new.obs["cluster"]
    assert len(mixvi.GMVAE.load(tmp_path / "column", adata=new, accelerator="cpu").predict()) == 20


def test_cells_of_an_earlier_model_beside_a_new_one_are_said(counts, tmp_path, warned):
    fitted("VAE", counts[:60].copy()).save(tmp_path / "model", save_anndata=True)
    fitted("VAE", counts[60:].copy()).save(tmp_path / "model", overwrite=True)
    assert "not those that the model was trained on" not in warned()
    mixvi.VAE.load(tmp_path / "model", accelerator="cpu")
    assert "not those that the model was trained on; an earlier model may have saved them" in warned()
