"""Cells under another condition than their own."""

import numpy as np
import pytest

from tests.model.helpers import TRAIN, build, fitted, of


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("CVAE", {}),
        ("CVAE", {"learned_prior": True, "decode_condition": False}),
        ("CVAE", {"batch_representation": "embedding"}),
        ("GMVAE", {"n_clusters": 3}),
    ],
)
def test_counterfactuals_of_the_toy_are_where_the_other_condition_is(toy, name, settings):
    model = fitted(name, toy, setup={"batch_key": "condition"}, train=TRAIN, **settings)
    found = model.predict_counterfactual(condition="condition 1", from_="condition 0")
    assert found.obs_names.equals(toy.obs_names[of(toy, "condition 0")])
    assert set(found.obs["condition"]) == {"condition 1"}
    for cluster in ("blob 0", "blob 1", "blob 2"):
        real, before = (toy.X[of(toy, c) & of(toy, cluster, "cluster")].mean(0) for c in ("condition 1", "condition 0"))
        predicted = found.X[of(found, cluster, "cluster")].mean(0)
        left = 0.35 if settings.get("learned_prior") else 0.2  # which knows a condition by its mean and spread alone
        assert np.abs(predicted - real).mean() < left * np.abs(before - real).mean()


def test_counterfactuals_under_the_own_condition_are_reconstructions(toy):
    model = fitted("CVAE", toy, learned_prior=True)
    found = model.predict_counterfactual(condition="condition 0")
    own = of(toy, "condition 0")
    np.testing.assert_allclose(found.X[own], model.get_reconstruction()[own], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.X, model.get_reconstruction(transform_batch="condition 0"), rtol=1e-4, atol=1e-4)
    assert np.abs(found.X - model.get_reconstruction())[~own].mean() > 0.1
    few = model.predict_counterfactual(condition="condition 0", indices=[5, 3, 5])
    np.testing.assert_allclose(few.X, found.X[[5, 3, 5]], rtol=1e-4, atol=1e-5)
    assert few.obs_names.is_unique


def test_counterfactual_draws_and_library_sizes(counts):
    model = fitted("CVAE", counts, train={"max_epochs": 20})
    mean = model.predict_counterfactual(condition="condition 1")
    np.testing.assert_allclose(mean.X.sum(1), counts.X.sum(1), rtol=1e-3)
    drawn = model.predict_counterfactual(condition="condition 1", give_mean=False, seed=1)
    assert (np.round(drawn.X) == drawn.X).all()
    np.testing.assert_array_equal(
        drawn.X, model.predict_counterfactual(condition="condition 1", give_mean=False, seed=1).X
    )
    own, change = of(counts, "condition 0"), model.predict_counterfactual(condition="condition 0").X
    back = model.predict_counterfactual(condition="condition 0", give_mean=False).X
    np.testing.assert_array_equal(back[own], counts.X[own])  # no change of condition is no change
    fell, rose = (0.99 * change > mean.X), (1.01 * change < mean.X)  # each as its mean
    assert (drawn.X[own] <= counts.X[own])[fell[own]].all()
    assert (drawn.X[own] >= counts.X[own])[rose[own]].all()
    sized = model.predict_counterfactual(condition="condition 1", library_size=1e4)
    np.testing.assert_allclose(sized.X.sum(1), 1e4, rtol=1e-3)


@pytest.mark.parametrize("name", ["CVAE", "GMVAE"])
def test_places_of_batches(name, counts, tmp_path):
    model = fitted(name, counts, {"batch_key": "condition"}, batch_representation="embedding", embedding_dim=4)
    places = model.get_batch_representation()
    assert places.shape == (counts.n_obs, 4)
    assert len(np.unique(places, axis=0)) == 2
    np.testing.assert_array_equal(model.get_batch_representation(indices=[5, 1]), places[[5, 1]])
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", counts)
    np.testing.assert_array_equal(loaded.get_batch_representation(), places)
    query = counts[:40].copy()
    query.obs["condition"] = "later"
    mapped = model.map(query)
    np.testing.assert_array_equal(mapped.get_batch_representation(counts), places)
    later = mapped.get_batch_representation()
    assert np.abs(later[:1] - np.unique(places, axis=0)).sum(1).min() > 0
    np.testing.assert_allclose(
        mapped.get_latent_representation(counts), model.get_latent_representation(), rtol=1e-4, atol=1e-4
    )


def test_what_an_embedding_refuses(counts):
    with pytest.raises(KeyError):
        fitted("CVAE", counts, train={"max_epochs": 1}).get_batch_representation()
    for settings, message in (
        ({"batch_representation": "pca"}, "it is 'one-hot' or 'embedding'"),
        ({"batch_representation": "embedding", "n_layers": 0}, "needs hidden layers"),
        ({"batch_representation": "embedding", "embedding_dim": 0}, "embedding_dim=0"),
        ({"batch_representation": "embedding", "learned_prior": True}, "leave one of them out"),
    ):
        with pytest.raises(ValueError, match=message):
            build("CVAE", counts, **settings)
    with pytest.raises(ValueError, match="needs a batch"):
        build("GMVAE", counts, batch_representation="embedding")
