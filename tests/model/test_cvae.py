"""CVAE: one prior forgets the condition, and a learned one keeps it."""

import numpy as np
import pytest
from anndata import AnnData
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

import mixvi
from mixvi import diagrams
from mixvi._warnings import MixviWarning
from tests.model.helpers import TRAIN, build, fitted, of


def guess(z, condition):
    """Accuracy of a classifier of two conditions on the latent space."""
    return cross_val_score(LogisticRegression(max_iter=1000), z, condition, cv=5).mean()


@pytest.mark.parametrize("decode_condition", [True, False])
def test_a_fixed_prior_forgets_the_condition_and_a_learned_one_keeps_it(toy, decode_condition):
    kept = fitted("CVAE", toy, train=TRAIN, learned_prior=True, decode_condition=decode_condition)
    forgotten = fitted("CVAE", toy, train=TRAIN)
    condition = toy.obs["condition"]
    assert guess(forgotten.get_latent_representation(), condition) < 0.6
    if not decode_condition:  # else z may hold it or leave it to the decoder
        assert guess(kept.get_latent_representation(), condition) > 0.95
        place = kept.condition_prior()
        for name in ("condition 0", "condition 1"):
            z = kept.get_latent_representation()
            spread, z = z.std(0), z[of(toy, name)]
            assert (abs(place.loc.loc[name] - z.mean(0)) < spread / 4).all()
            assert (place.scale.loc[name] > z.std(0) - 0.15).all()


def test_the_decoder_may_look_past_the_condition(toy, tmp_path):
    model = fitted("CVAE", toy, learned_prior=True, decode_condition=False)
    assert ("c", "x") not in diagrams.graph(model).generative
    assert ("c", "z") in diagrams.graph(model).generative
    model.save(tmp_path / "model")
    loaded = mixvi.CVAE.load(tmp_path / "model", adata=toy)
    np.testing.assert_array_equal(
        loaded.predict_counterfactual(condition="condition 1").X,
        model.predict_counterfactual(condition="condition 1").X,
    )
    linear = fitted("CVAE", toy, learned_prior=True, decode_condition=False, n_layers=0)
    assert np.isfinite(linear.exact_log_evidence()).all()


def test_without_a_condition_it_is_a_vae_and_says_so(counts):
    with pytest.warns(MixviWarning, match="no batch and no covariate to condition on: it is a plain VAE"):
        model = fitted("CVAE", counts, {"batch_key": None})
    expected = fitted("VAE", counts)
    np.testing.assert_array_equal(model.get_latent_representation(), expected.get_latent_representation())
    np.testing.assert_array_equal(model.get_reconstruction(), expected.get_reconstruction())
    with pytest.raises(ValueError, match="no categorical condition to place"), pytest.warns(MixviWarning):
        fitted("CVAE", counts, {"batch_key": None}, learned_prior=True).condition_prior()


def test_each_batch_may_have_its_dispersion(tmp_path, rng):
    batch, theta = np.repeat(["noisy", "quiet"], 300), np.repeat([[0.5], [50.0]], 300, axis=0)
    mean = rng.gamma(2, 4, 20) * np.ones((600, 1))
    adata = AnnData(rng.negative_binomial(theta, theta / (theta + mean)).astype(np.float32), obs={"batch": batch})
    train = {"max_epochs": 60, "plan_kwargs": {"lr": 1e-2}}
    settings = {"setup": {"batch_key": "batch"}, "train": train, "likelihood": "nb"}
    model = fitted("CVAE", adata, **settings, dispersion="gene-batch")
    found = model.get_likelihood_parameters()["dispersions"]
    assert (np.unique(found[of(adata, "noisy", "batch")], axis=0) == found[0]).all()
    assert np.median(found[0]) < 1 < 5 < np.median(found[-1])
    assert model.get_elbo() > fitted("CVAE", adata, **settings).get_elbo() + 1  # nats a cell
    model.save(tmp_path / "model")
    again = mixvi.CVAE.load(tmp_path / "model", adata)
    np.testing.assert_array_equal(again.get_likelihood_parameters()["dispersions"], found)
    query = adata[300:].copy()
    query.obs["batch"] = "later"
    mapped = model.map(query)  # a new batch has the dispersions of the known batch that it is most like
    np.testing.assert_allclose(mapped.get_likelihood_parameters()["dispersions"], found[300:], rtol=1e-6)


def test_a_dispersion_of_each_batch_needs_batches_and_counts(counts):
    for wrong, setup, said in (
        ({"dispersion": "gene-cell"}, {}, "dispersion='gene-cell' is not known; it is 'gene' or 'gene-batch'"),
        ({"likelihood": "poisson"}, {}, "likelihood='poisson' has no dispersion"),
        ({"decode_condition": False, "learned_prior": True}, {}, "needs a batch that the decoder sees"),
        ({}, {"batch_key": None, "categorical_covariate_keys": ["condition"]}, "Name it as batch_key"),
    ):
        with pytest.raises(ValueError, match=said):
            build("CVAE", counts, setup, **{"dispersion": "gene-batch"} | wrong)
