"""What conditions do to values, read off the data."""

import numpy as np
import pytest
import torch

import mixvi
from mixvi import datasets
from mixvi.train._condition_effects import effects, groups
from tests.model.helpers import build, fitted


@pytest.fixture
def unbalanced():
    """Two batches, one of them without blob 2: values, one-hot batches, and the true difference of batches."""
    toy = datasets.blobs(900, 40, n_clusters=3, n_conditions=2)
    c = np.eye(2, dtype=np.float32)[toy.obs["condition"].cat.codes]
    true = effects(toy.X, c, toy.obs["cluster"].cat.codes.to_numpy().astype(int))
    kept = ~((toy.obs["cluster"] == "blob 2") & (toy.obs["condition"] == "condition 1")).to_numpy()
    return toy.X[kept], c[kept], true[1] - true[0]


def test_effects_within_groups_are_those_of_least_squares(rng):
    c, group = rng.normal(size=(200, 2)), rng.integers(4, size=200)
    x = c @ rng.normal(size=(2, 5)) + rng.normal(size=(4, 5))[group] + 0.1 * rng.normal(size=(200, 5))
    design = np.column_stack([c, np.eye(4)[group]])
    expected = np.linalg.lstsq(design, x, rcond=None)[0][:2]
    np.testing.assert_allclose(effects(x, c, group), expected, atol=1e-4)


def test_a_type_of_one_batch_alone_does_not_pull(unbalanced):
    x, c, true = unbalanced
    found = {name: effects(x, c, group) for name, group in (("all", np.zeros(len(x), int)), ("groups", groups(x, c)))}
    error = {name: np.abs(effect[1] - effect[0] - true).mean() for name, effect in found.items()}
    assert error["groups"] < 0.2 * np.abs(true).mean()
    assert error["groups"] < error["all"] / 4


def test_many_equal_cells_give_fewer_groups_and_no_warning(recwarn):
    x = np.repeat(np.eye(3, 4), 20, axis=0)
    group = groups(x, np.ones((60, 1)))
    assert len(np.unique(group)) == 3
    assert all(len(set(group[start : start + 20])) == 1 for start in (0, 20, 40))
    assert not groups(np.ones((60, 4)), np.ones((60, 1))).any()
    assert not recwarn


@pytest.mark.parametrize("kind", ["real", "count"])
def test_like_cells_of_two_conditions_start_together(kind):
    toy = datasets.blobs(300, 30, n_clusters=2, n_conditions=2, kind=kind)
    for cells in (toy, toy[::-1].copy()):
        model = fitted("CVAE", cells, train={"max_epochs": 1, "plan_kwargs": {"lr": 1e-8}})
        z = model.get_latent_representation()
        condition, cluster = (cells.obs[key].to_numpy() for key in ("condition", "cluster"))
        means = {
            (k, j): z[(condition == f"condition {k}") & (cluster == f"blob {j}")].mean(0)
            for k in (0, 1)
            for j in (0, 1)
        }
        apart = np.linalg.norm(means[0, 0] - means[0, 1])
        assert np.linalg.norm(means[0, 0] - means[1, 0]) < 0.3 * apart
        assert np.linalg.norm(means[0, 1] - means[1, 1]) < 0.3 * apart


def test_further_training_does_not_start_again(counts, tmp_path):
    model = fitted("CVAE", counts)
    before = model.module.encoder.trunk.layers[0].effects.clone()
    assert before.abs().max() > 0
    model.train(max_epochs=1, plan_kwargs={"lr": 0.0}, enable_progress_bar=False, accelerator="cpu")
    torch.testing.assert_close(model.module.encoder.trunk.layers[0].effects, before, rtol=0, atol=0)
    model.save(tmp_path / "model")
    loaded = mixvi.CVAE.load(tmp_path / "model", adata=counts)
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())


def test_models_without_conditions_have_no_effects(counts):
    assert build("VAE", counts).module.encoder.trunk.layers[0].effects is None


@pytest.mark.parametrize(("mean", "sd"), [(2020, 2), (0, 1000), (1.7e9, 40)])  # the last are Unix seconds
def test_continuous_covariates_may_have_any_scale(counts, rng, mean, sd):
    age = rng.normal(size=counts.n_obs)
    elbo = []
    for counts.obs["age"] in (age, mean + sd * age):
        model = fitted("CVAE", counts, {"continuous_covariate_keys": ["age"]}, train={"max_epochs": 10})
        elbo.append(model.history["elbo_train"].to_numpy().astype(float))
    np.testing.assert_allclose(elbo[0], elbo[1], rtol=1e-3)


def test_the_decoder_starts_with_what_conditions_do(counts):
    model = fitted("CVAE", counts, train={"max_epochs": 1, "plan_kwargs": {"lr": 1e-8}})
    second = (counts.obs["condition"] == "condition 1").to_numpy()
    found, real = (np.log(x[second].mean(0) / x[~second].mean(0)) for x in (model.get_reconstruction(), counts.X))
    assert np.corrcoef(found, real)[0, 1] > 0.9
