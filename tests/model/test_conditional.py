"""Conditions: forgotten, kept, exchanged."""

import numpy as np
import pytest
import scvi
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import cross_val_score

import mixvi
from mixvi import datasets, diagrams
from mixvi.model.conditions import under
from mixvi.model.streaming import collect
from tests.model.helpers import fitted

TRAIN = {"max_epochs": 150, "plan_kwargs": {"lr": 5e-3}}


@pytest.fixture
def toy():
    return datasets.blobs(600, 30, n_clusters=3, n_conditions=2)


def of(adata, condition, key="condition"):
    return (adata.obs[key] == condition).to_numpy()


@pytest.mark.parametrize("setup", [{}, {"batch_key": "condition"}])
def test_classes_of_the_toy_are_found_with_and_without_conditions(setup):
    n_conditions = 1 + len(setup)
    adata = datasets.blobs(n_conditions=n_conditions, separation=10)
    mixvi.GMVAE.setup_anndata(adata, **setup)
    model = mixvi.GMVAE(adata, n_clusters=5)
    model.train(150, enable_progress_bar=False, accelerator="cpu")
    assert adjusted_rand_score(adata.obs["cluster"], model.predict()) == 1.0


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
            z = kept.get_latent_representation()[of(toy, name)]
            np.testing.assert_allclose(place.loc.loc[name], z.mean(0), atol=0.15)
            assert (place.scale.loc[name] > z.std(0) - 0.15).all()


@pytest.mark.parametrize(
    ("name", "settings"),
    [("CVAE", {}), ("CVAE", {"learned_prior": True, "decode_condition": False}), ("GMVAE", {"n_clusters": 3})],
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


def test_covariates_are_exchanged_by_name(rng):
    toy = datasets.blobs(300, 20, n_clusters=2, n_conditions=3)
    toy.obs["site"], toy.obs["age"] = rng.choice(["north", "south"], 300), rng.normal(size=300)
    setup = {"batch_key": "condition", "categorical_covariate_keys": ["site"], "continuous_covariate_keys": ["age"]}
    model = fitted("CVAE", toy, setup=setup, train={"train_size": 1.0})
    put = under(model, {"site": "south", "age": 0.5})
    found = []
    collect(model, lambda cells: found.append(put(cells.c)) or cells.library)
    c = found[0].numpy()
    np.testing.assert_array_equal(c[:, :3], np.eye(3)[toy.obs["condition"].cat.codes])
    age = (0.5 - toy.obs["age"].mean()) / toy.obs["age"].std(ddof=0)
    np.testing.assert_allclose(c[:, 3:], np.tile([0, 1, age], (300, 1)), atol=1e-5)
    found = model.predict_counterfactual(condition={"site": "south", "age": 0.5}, from_={"site": "north"})
    assert set(found.obs["site"]) == {"south"}
    assert (found.obs["age"] == 0.5).all()
    assert found.n_obs == (toy.obs["site"] == "north").sum()
    places = fitted("CVAE", toy, setup=setup, learned_prior=True).condition_prior()
    assert places.loc.index.names == ["condition", "site"]
    assert places.loc.shape == (6, 3)


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


def test_conditions_that_make_no_sense_are_named(toy, counts):
    model = fitted("CVAE", toy)
    with pytest.raises(ValueError, match="condition is missing"):
        model.predict_counterfactual()
    with pytest.raises(ValueError, match="'drug' is not known; the model knows"):
        model.predict_counterfactual(condition="drug")
    with pytest.raises(ValueError, match="not conditioned on 'cluster'"):
        model.predict_counterfactual(condition={"cluster": "blob 0"})
    with pytest.raises(ValueError, match="library_size"):
        model.predict_counterfactual(condition="condition 1", library_size=1e4)
    with pytest.raises(ValueError, match="No cell is of from_"):
        model.predict_counterfactual(condition="condition 1", from_="condition 0", indices=of(toy, "condition 1"))
    with pytest.raises(ValueError, match="learned_prior=True"):
        model.condition_prior()
    with pytest.raises(ValueError, match="learned_prior=True"):
        mixvi.CVAE(toy, decode_condition=False)
    with pytest.raises(ValueError, match="without batch_key"):
        fitted("VAE", toy).get_reconstruction(transform_batch="condition 1")


def test_a_type_of_one_batch_alone_is_not_smeared_away():
    """Two batches, one of them without blob 2: its cells stay a cluster of their own."""
    scvi.settings.seed = 0
    adata = datasets.blobs(900, 40, n_clusters=3, n_conditions=2, kind="count", separation=10)
    adata = adata[~((adata.obs["cluster"] == "blob 2") & (adata.obs["condition"] == "condition 1"))].copy()
    mixvi.GMVAE.setup_anndata(adata, batch_key="condition")
    model = mixvi.GMVAE(adata, n_clusters=3)
    model.train(150, enable_progress_bar=False, accelerator="cpu")
    assert adjusted_rand_score(adata.obs["cluster"], model.predict()) > 0.95
