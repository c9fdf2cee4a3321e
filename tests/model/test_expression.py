"""Expression under scvi-tools' names: shapes, means of the draws, and what they are of."""

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scipy.stats import spearmanr
from scvi.criticism import PosteriorPredictiveCheck

from mixvi import datasets
from tests.model.helpers import fitted


@pytest.fixture(scope="module", params=["VAE", "CVAE", "GMVAE"])
def model(request):
    counts = datasets.blobs(120, 30, n_clusters=3, n_conditions=2, kind="count")
    return fitted(request.param, counts, {} if request.param == "VAE" else {"batch_key": "condition"})


def test_shares_sum_to_one_and_scale(model):
    shares = model.get_normalized_expression()
    assert isinstance(shares, pd.DataFrame)
    assert list(shares.columns) == list(model.adata.var_names)
    assert list(shares.index) == list(model.adata.obs_names)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(model.get_normalized_expression(library_size=1e4).sum(1), 1e4, rtol=1e-5)
    total = np.asarray(model.adata.X.sum(1)).ravel()
    np.testing.assert_allclose(model.get_normalized_expression(library_size="latent").sum(1), total, rtol=1e-5)
    np.testing.assert_allclose(model.get_latent_library_size().ravel(), total, rtol=1e-6)


def test_shapes_and_means_of_draws(model):
    genes, rows = list(model.adata.var_names[[4, 2]]), [7, 3, 50]
    scvi.settings.seed = 1
    draws = model.get_normalized_expression(indices=rows, n_samples=5, return_mean=False, gene_list=genes)
    scvi.settings.seed = 1
    mean = model.get_normalized_expression(indices=rows, n_samples=5, gene_list=genes)
    assert draws.shape == (5, 3, 2)
    assert list(mean.columns) == genes[::-1]
    assert list(mean.index) == list(model.adata.obs_names[rows])
    np.testing.assert_allclose(mean, draws.mean(0), rtol=1e-5)
    for weights in (None, "uniform", "importance"):
        some = model.get_normalized_expression(indices=rows, n_samples_overall=11, weights=weights)
        assert some.shape == (11, 30)


def test_batches_are_changed_and_averaged(model):
    if not model.conditions:
        with pytest.raises(ValueError, match="was set up without batch_key"):
            model.get_normalized_expression(transform_batch="a")
        return
    levels = list(model.conditions["condition"])
    draws = {}
    for batch in (*levels, tuple(levels)):
        scvi.settings.seed = 2
        draws[batch] = model.get_normalized_expression(transform_batch=list(batch) if batch == tuple(levels) else batch)
    np.testing.assert_allclose(draws[tuple(levels)], (draws[levels[0]] + draws[levels[1]]) / 2, rtol=1e-4)
    assert not np.allclose(draws[levels[0]], draws[levels[1]], rtol=1e-3)
    with pytest.raises(ValueError, match="is not known; the model knows"):
        model.get_normalized_expression(transform_batch="nowhere")


def test_predictive_draws_have_the_mean_of_the_likelihood(model):
    scvi.settings.seed = 0
    sample = model.posterior_predictive_sample(n_samples=200)
    assert sample.shape == (120, 30, 200)
    assert model.posterior_predictive_sample(indices=[3, 1], gene_list=model.adata.var_names[[1]]).shape == (2, 1)
    values = sample.todense()
    assert (values == np.round(values)).all()
    parameters = model.get_likelihood_parameters(n_samples=200, give_mean=True)
    assert set(parameters) == {"mean", "dispersions"}
    error = values.std(-1) / np.sqrt(200) + 0.05
    assert (abs(values.mean(-1) - parameters["mean"]) / error < 8).all()


def test_parameters_have_the_shape_of_scvi_tools(model):
    parameters = model.get_likelihood_parameters(indices=[0, 1], n_samples=3)
    assert {name: values.shape for name, values in parameters.items()} == {
        "mean": (3, 2, 30),
        "dispersions": (3, 2, 30),
    }
    theta = model.module.likelihood.log_theta.exp().detach().numpy()
    np.testing.assert_allclose(model.get_likelihood_parameters()["dispersions"], np.tile(theta, (120, 1)), rtol=1e-5)


@pytest.mark.parametrize("kind", ["spearman", "pearson"])
def test_correlations_are_of_the_rates(model, kind, monkeypatch):
    monkeypatch.setattr("mixvi.model.expression.Gamma", lambda a, b: torch.distributions.Normal(a / b, 1e-9))
    scvi.settings.seed = 0
    found = model.get_feature_correlation_matrix(n_samples=1, correlation_type=kind)
    scvi.settings.seed = 0
    shares = model.get_normalized_expression()
    expected = spearmanr(shares).statistic if kind == "spearman" else np.corrcoef(shares, rowvar=False)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert list(found.index) == list(found.columns) == list(model.adata.var_names)


def test_criticism_of_scvi_tools_works(model):
    check = PosteriorPredictiveCheck(model.adata, {"ours": model}, n_samples=2)
    check.coefficient_of_variation("features")
    (table,) = check.metrics.values()
    assert np.isfinite(table["ours"]).all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"gene_list": ["no such gene"]}, "gene_list has .*no such gene"),
        ({"library_size": 0}, "library_size=0"),
        ({"library_size": "own"}, "library_size='own'"),
        ({"n_samples": 0}, "n_samples=0"),
        ({"n_samples_overall": 2.5}, "n_samples_overall=2.5"),
        ({"weights": "some"}, "weights='some' is not known"),
        ({"n_mc_samples": 0}, "n_mc_samples=0"),
    ],
)
def test_bad_arguments_are_named(model, kwargs, message):
    with pytest.raises(ValueError, match=message):
        model.get_normalized_expression(**kwargs)


def test_other_likelihoods():
    adata = datasets.blobs(60, 12)
    model = fitted("VAE", adata)
    for call in (model.differential_expression, model.get_latent_library_size, model.get_feature_correlation_matrix):
        with pytest.raises(ValueError, match="is for counts, and this model has likelihood='normal'"):
            call()
    scvi.settings.seed = 1
    expected = model.get_normalized_expression()
    scvi.settings.seed = 1
    np.testing.assert_array_equal(expected, model.get_likelihood_parameters()["mean"])
    with pytest.raises(ValueError, match="library_size='latent' is for counts"):
        model.get_normalized_expression(library_size="latent")
    assert set(model.get_likelihood_parameters()) == {"mean", "scale"}
    assert model.posterior_predictive_sample().shape == (60, 12)
    counts = datasets.blobs(60, 12, kind="count")
    zinb = fitted("VAE", counts, likelihood="zinb").get_likelihood_parameters()
    assert set(zinb) == {"mean", "dispersions", "dropout"}
    assert ((zinb["dropout"] > 0) & (zinb["dropout"] < 1)).all()
    assert set(fitted("VAE", counts, likelihood="poisson").get_likelihood_parameters()) == {"mean"}


def test_a_model_without_cells_answers_for_given_ones(model, tmp_path):
    model.save(tmp_path / "model")
    alone = type(model).load(tmp_path / "model", adata=False)
    shares = alone.get_normalized_expression(model.adata.copy())
    assert list(shares.columns) == list(model.adata.var_names)
    assert alone.get_feature_correlation_matrix(model.adata.copy(), n_samples=1).shape == (30, 30)
