"""Minified cells: what comes from the posterior is as before, and what needs the values is refused."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
from scipy.sparse import csr_matrix, issparse

import mixvi
from tests.model.helpers import MODELS, QUICK, fitted

WITH_COUNTS = "latent_posterior_parameters_with_counts"
SAME = {  # of each model that has the method
    "get_latent_representation": lambda model: model.get_latent_representation(give_mean=False),
    "moments": lambda model: np.stack(model.get_latent_representation(return_dist=True)),
    "get_reconstruction": lambda model: model.get_reconstruction(),
    "get_normalized_expression": lambda model: model.get_normalized_expression(library_size="latent", n_samples=2),
    "get_likelihood_parameters": lambda model: model.get_likelihood_parameters()["dispersions"],
    "get_latent_library_size": lambda model: model.get_latent_library_size(),
    "posterior_predictive_sample": lambda model: model.posterior_predictive_sample(indices=[5, 3]).todense(),
    "differential_expression": lambda model: model.differential_expression(
        groupby="cluster", all_stats=False
    ).select_dtypes(float),
    "sample": lambda model: model.sample(20).X,
    "predict": lambda model: model.predict(soft=True),
    "predict_counterfactual": lambda model: model.predict_counterfactual(condition="condition 1").X,
}
REFUSED = {
    "get_elbo": lambda model: model.get_elbo(),
    "get_reconstruction_error": lambda model: model.get_reconstruction_error(),
    "get_marginal_ll": lambda model: model.get_marginal_ll(),
    "get_normalized_expression": lambda model: model.get_normalized_expression(weights="importance"),
    "predict_counterfactual": lambda model: model.predict_counterfactual(condition="condition 1", give_mean=False),
    "markers": lambda model: model.markers(),
    "train": lambda model: model.train(**QUICK),
    "refine": lambda model: mixvi.refine(model, 2),
}


def results(model):
    """What a model says of its cells, from one seed."""
    found = {}
    for name, call in SAME.items():
        if name == "moments" or hasattr(model, name):
            scvi.settings.seed = 1
            found[name] = np.asarray(call(model), dtype=float)
    return found


def of(name, counts, **settings):
    """A trained model, with a layer and size factors; those of GMVAE with a batch too."""
    counts.layers["counts"], counts.obs["size"] = counts.X.copy(), np.linspace(0.5, 2, counts.n_obs)
    setup = {"batch_key": "condition"} if name == "GMVAE" else {"layer": "counts"} if name == "AE" else {}
    return fitted(name, counts, setup | ({"size_factor_key": "size"} if name == "CVAE" else {}), **settings)


@pytest.mark.parametrize("kind", ["latent_posterior_parameters", WITH_COUNTS])
@pytest.mark.parametrize("name", MODELS)
def test_the_posterior_is_enough(name, kind, counts):
    model = of(name, counts)
    before = results(model)
    assert model.minified_data_type is None
    model.minify_adata(kind)
    assert model.minified_data_type == kind
    for method, values in results(model).items():
        np.testing.assert_allclose(values, before[method], rtol=1e-5, atol=1e-6, err_msg=method)


@pytest.mark.parametrize("name", MODELS)
def test_what_needs_the_values_is_refused(name, counts):
    model = of(name, counts)
    model.minify_adata()
    for method, call in REFUSED.items():
        if (method == "refine" and name != "GMVAE") or hasattr(model, method):
            with pytest.raises(ValueError, match=r"needs the values of the cells.*or keep the values"):
                call(model)
    with pytest.raises(ValueError, match="all_stats=True asks for statistics of the counts"):
        model.differential_expression(groupby="cluster", all_stats=True)
    with pytest.raises(ValueError, match="needs the values"):
        model.minify_adata(WITH_COUNTS)


@pytest.mark.parametrize("likelihood", ["bernoulli", "normal"])
def test_values_that_are_no_counts(likelihood, counts):
    counts.X = counts.X / counts.X.max()
    model = fitted("VAE", counts, likelihood=likelihood, linear=likelihood == "normal")
    before = model.get_reconstruction()
    model.minify_adata()
    np.testing.assert_allclose(model.get_reconstruction(), before, rtol=1e-5)
    model.annotate()
    assert "PCs_mixvi" not in model.adata.varm  # principal axes are of the values
    if likelihood == "normal":
        with pytest.raises(ValueError, match="needs the values"):
            model.principal_components()


def test_counts_that_are_kept_still_serve(counts):
    model = of("GMVAE", counts, train={"max_epochs": 20})
    calls = (lambda: model.get_elbo(return_mean=False), lambda: model.markers(2)["p"], lambda: model.get_marginal_ll())

    def found():
        scvi.settings.seed = 2
        return [call() for call in calls]

    before = found()
    model.minify_adata(WITH_COUNTS)
    for now, then in zip(found(), before, strict=True):
        np.testing.assert_allclose(now, then, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="store a posterior, which training would not change"):
        model.train(**QUICK)
    elbo = model.get_elbo(return_mean=False)
    model.adata.obsm["mixvi_latent_qzm"] = model.adata.obsm["mixvi_latent_qzm"] + 10
    assert (model.get_elbo(return_mean=False) < elbo).all()  # the bound is that of the stored posterior
    model.minify_adata()  # and now without
    assert not model.adata.X.nnz


def test_the_users_anndata_stays_and_nothing_but_values_goes(counts):
    counts.raw, counts.obsp["near"] = counts.copy(), np.eye(counts.n_obs)
    counts.uns["note"] = {"by": ["me"]}
    model = of("VAE", counts)
    before = counts.copy()
    model.minify_adata()
    assert model.adata is not counts
    np.testing.assert_array_equal(counts.X, before.X)
    pd.testing.assert_frame_equal(counts.obs, before.obs)
    assert counts.raw is not None
    assert [*counts.obsm] == [*before.obsm]
    small = model.adata
    assert issparse(small.X)
    assert small.X.nnz == small.layers["counts"].nnz == 0
    assert small.raw is None
    pd.testing.assert_frame_equal(small.obs.drop(columns="observed_lib_size"), before.obs)
    np.testing.assert_array_equal(small.obs["observed_lib_size"], counts.X.sum(1))
    np.testing.assert_array_equal(small.obsp["near"], np.eye(counts.n_obs))
    assert small.uns["note"] == {"by": ["me"]}
    small.uns["note"]["by"].append("you")
    assert counts.uns["note"] == {"by": ["me"]}
    np.testing.assert_array_equal(model.get_latent_representation(counts), model.get_latent_representation())


def test_save_and_load(counts, tmp_path):
    model = of("GMVAE", counts)
    model.save(tmp_path / "before")
    before = results(model)
    model.minify_adata()
    model.save(tmp_path / "after", save_anndata=True)
    again = mixvi.GMVAE.load(tmp_path / "after", accelerator="cpu")
    assert again.minified_data_type == "latent_posterior_parameters"
    for method, values in results(again).items():
        np.testing.assert_allclose(values, before[method], rtol=1e-5, atol=1e-6, err_msg=method)
    whole = mixvi.GMVAE.load(tmp_path / "after", adata=counts, accelerator="cpu")
    assert whole.minified_data_type is None
    whole.train(**QUICK)
    with pytest.raises(ValueError, match=r"is minified, and the GMVAE in .* was saved before minify_adata"):
        mixvi.GMVAE.load(tmp_path / "before", adata=model.adata)
    with pytest.raises(ValueError, match="minified, so it belongs to the model that minified it"):
        mixvi.GMVAE.setup_anndata(model.adata)


def test_saved_cells_are_small(rng, tmp_path):
    adata = ad.AnnData(rng.poisson(3.0, (200, 500)).astype(np.float32))
    model = fitted("VAE", adata, train={"max_epochs": 1})
    model.save(tmp_path / "whole", save_anndata=True)
    model.minify_adata()
    model.save(tmp_path / "small", save_anndata=True)
    whole, small = ((tmp_path / name / "adata.h5ad").stat().st_size for name in ("whole", "small"))
    assert small < whole / 3


def test_the_posterior_of_the_user(counts):
    model = fitted("VAE", counts)
    shape = model.get_latent_representation().shape
    counts.obsm["mean"], counts.obsm["variance"] = np.full(shape, 2.0), np.full(shape, 0.25)
    for wrong in (np.full(shape, -1.0), np.full(shape, np.nan), np.ones((shape[0], 1))):
        counts.obsm["wrong"] = wrong
        with pytest.raises(ValueError, match=r".obsm\['wrong'\] has shape .* must have"):
            model.minify_adata(use_latent_qzv_key="wrong")
    with pytest.raises(KeyError, match="no 'no' in .obsm"):
        model.minify_adata(use_latent_qzm_key="no")
    assert model.adata is counts
    model.minify_adata(use_latent_qzm_key="mean", use_latent_qzv_key="variance")
    mean, variance = model.get_latent_representation(return_dist=True)
    assert (mean == 2).all()
    assert (variance == 0.25).all()


def test_names_that_are_not_free_or_not_known(counts):
    counts.obs["observed_lib_size"] = 1.0
    model = fitted("VAE", counts)
    with pytest.raises(ValueError, match="has a column 'observed_lib_size'.*rename or drop"):
        model.minify_adata()
    with pytest.raises(ValueError, match=r"minified_data_type='small' is not known; it is one of \['latent_post"):
        model.minify_adata("small")
    assert model.adata is counts


def test_a_second_latent_needs_the_values(counts):
    model = of("GMVAE", counts, hierarchical=True)
    before = model.predict(soft=True)
    with pytest.raises(ValueError, match=r"hierarchical=True need q\(w \| x, c\).*Keep the values"):
        model.minify_adata()
    model.minify_adata(WITH_COUNTS)
    pd.testing.assert_frame_equal(model.predict(soft=True), before, rtol=1e-5)


def test_some_of_the_minified_cells(counts):
    model, other = of("CVAE", counts), fitted("CVAE", counts.copy())
    model.minify_adata()
    z, rows = model.get_latent_representation(), [7, 3, 40]
    for some in (model.adata[rows], model.adata[rows].copy()):
        np.testing.assert_array_equal(model.get_latent_representation(some), z[rows])
        np.testing.assert_array_equal(model.get_reconstruction(some), model.get_reconstruction(indices=rows))
    with pytest.raises(ValueError, match="cells are minified, and the AnnData of this CVAE is not"):
        other.get_latent_representation(model.adata[rows].copy())
    with pytest.raises(ValueError, match="needs the values"):
        model.get_elbo(model.adata[rows].copy())


def test_a_stored_posterior_that_changes_is_noticed(counts):
    model = of("VAE", counts)
    model.minify_adata()
    model.get_reconstruction()
    model.adata.obsm["mixvi_latent_qzm"] = model.adata.obsm["mixvi_latent_qzm"][::-1].copy()
    with pytest.raises(ValueError, match="values of this VAE's AnnData changed"):
        model.get_reconstruction()


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_cells_in_a_file(store, counts, tmp_path):
    counts.X, path = csr_matrix(counts.X), tmp_path / f"cells.{store}"
    getattr(counts, f"write_{store}")(path)
    adata = mixvi.data.from_zarr(path) if store == "zarr" else ad.read_h5ad(path, backed="r")
    model = fitted("VAE", adata)
    before = model.get_reconstruction()
    for kind in (WITH_COUNTS, "latent_posterior_parameters"):
        model.minify_adata(kind)
        np.testing.assert_array_equal(model.get_reconstruction(), before)
        assert model.minified_data_type == kind
    np.testing.assert_array_equal(model.adata.obs["observed_lib_size"], np.asarray(counts.X.sum(1)).ravel())
