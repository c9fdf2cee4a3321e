"""New levels of a condition: the known level that is nearest, and the training of weights of their own."""

import numpy as np
import pytest
import torch

from mixvi import datasets
from tests.model.helpers import fitted


@pytest.fixture
def cells():
    return datasets.blobs(900, 40, n_clusters=3, n_conditions=2, kind="count")


def later(cells, kinds, strength=0.7):
    """A third batch: cells of the first one, each gene multiplied by a factor of its own; and the logs of these."""
    of = cells.obs["cluster"].isin(kinds) & (cells.obs["condition"] == "condition 0")
    query, log_factor = cells[of.to_numpy()].copy(), strength * np.random.default_rng(1).normal(size=cells.n_vars)
    query.X = np.random.default_rng(0).poisson(query.X * np.exp(log_factor)).astype(np.float32)
    query.obs["condition"] = "later"
    return query, log_factor


def as_known(query):
    """The cells of a new batch as if they were of each of the known batches."""
    for name in ("condition 0", "condition 1"):
        query.obs["condition"] = name
        yield query.copy()
    query.obs["condition"] = "later"


@pytest.fixture
def untrained(monkeypatch):
    """New levels keep the weights of the known level that stands for them. `map` always trains them further."""
    monkeypatch.setattr("mixvi.model.query.fit_new_levels", lambda *args: None)


@pytest.mark.parametrize("of", [0, 1])
@pytest.mark.parametrize("name", ["CVAE", "GMVAE"])
def test_a_new_batch_starts_as_the_one_that_it_is_like(cells, name, of, untrained):
    model = fitted(name, cells, {"batch_key": "condition"}, train={"max_epochs": 60})
    query = cells[(cells.obs["condition"] == f"condition {of}").to_numpy()].copy()
    known = model.get_latent_representation(query)
    query.obs["condition"] = "later"
    np.testing.assert_allclose(model.map(query).get_latent_representation(), known, atol=1e-5)


def test_several_new_levels_at_once(cells, untrained):
    cells.obs["side"] = np.tile(["a", "b"], 450)
    setup = {"batch_key": "condition", "categorical_covariate_keys": ["side"]}
    model = fitted("CVAE", cells, setup, train={"max_epochs": 40})
    query = cells[:300].copy()
    known = model.get_latent_representation(query)
    new = query.obs["condition"].astype(str).replace({"condition 0": "later", "condition 1": "last"})
    query.obs["condition"] = new
    np.testing.assert_allclose(model.map(query).get_latent_representation(), known, atol=1e-5)
    query.obs["side"] = "c"
    assert model.map(query).conditions["side"].tolist() == ["a", "b", "c"]


SETTINGS = [
    ("CVAE", {}),
    ("CVAE", {"n_layers": 0}),
    ("CVAE", {"learned_prior": True, "decode_condition": False}),
    ("CVAE", {"batch_representation": "embedding"}),
    ("GMVAE", {}),
]


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_training_raises_the_bound_of_the_new_batch(cells, name, settings):
    """Above that of the same cells as of a known batch, from which the new one starts."""
    model = fitted(name, cells, {"batch_key": "condition"}, {"max_epochs": 40}, **settings)
    query, _ = later(cells, ["blob 0", "blob 1", "blob 2"])
    assert model.map(query).get_elbo() > max(model.get_elbo(known) for known in as_known(query)) + 1


def test_cells_of_a_new_batch_lie_where_their_kind_lies(cells):
    model = fitted("GMVAE", cells, {"batch_key": "condition"}, train={"max_epochs": 60})
    query, _ = later(cells, ["blob 0", "blob 1", "blob 2"], strength=1.5)
    expected = model.get_latent_representation(cells[query.obs_names].copy())

    def distance(z):
        return np.linalg.norm(z - expected, axis=1).mean()

    untrained = [distance(model.get_latent_representation(known)) for known in as_known(query)]
    assert distance(model.map(query).get_latent_representation()) < 0.8 * min(untrained)


def test_mapping_leaves_the_random_numbers_alone_and_needs_no_gradients(cells):
    model = fitted("CVAE", cells, {"batch_key": "condition"}, train={"max_epochs": 4})
    query, _ = later(cells, ["blob 0"])
    before = torch.get_rng_state()
    expected = model.map(query).get_latent_representation()
    assert torch.get_rng_state().equal(before)
    with torch.no_grad():
        found = model.map(query).get_latent_representation()
    np.testing.assert_array_equal(found, expected)


def test_only_weights_of_new_levels_and_measured_genes_are_trained(cells):
    model = fitted("GMVAE", cells, {"batch_key": "condition"}, train={"max_epochs": 8})
    query, _ = later(cells, ["blob 0", "blob 1"])
    mapped = model.map(query[:, 5:].copy())
    after, before = mapped.module.state_dict(), model.module.state_dict()
    changed = {
        name for name, value in after.items() if value.shape == before[name].shape and not value.equal(before[name])
    }
    assert not changed
    wider = {name for name, value in after.items() if value.shape != before[name].shape}
    effects = next(name for name in wider if name.endswith("effects"))
    known = before[effects]
    assert after[effects][:2].equal(known)
    new = after[effects][2]
    assert any(new[:5].equal(row[:5]) for row in known)
    assert not any(torch.isclose(new[5:], row[5:]).any() for row in known)
    assert all(p.requires_grad for p in mapped.module.likelihood.parameters())


@pytest.mark.parametrize("name", ["CVAE", "GMVAE"])
def test_the_decoder_expects_the_shares_of_the_new_batch(cells, name):
    model = fitted(name, cells, {"batch_key": "condition"}, train={"max_epochs": 60})
    query, _ = later(cells, ["blob 0", "blob 1", "blob 2"])
    observed = np.log((query.X / query.X.sum(1, keepdims=True)).mean(0))
    expected = model.map(query).get_normalized_expression()
    before = query.copy()
    before.obs["condition"] = "condition 0"
    error, other = (
        abs(np.log(shares.mean(0).to_numpy()) - observed).mean()
        for shares in (expected, model.get_normalized_expression(before))
    )
    assert error < other / 3


def test_nothing_known_moves_and_the_draws_are_the_same_each_time(cells):
    model = fitted("GMVAE", cells, {"batch_key": "condition"}, train={"max_epochs": 8})
    query, _ = later(cells, ["blob 0"])
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    first, second = model.map(query), model.map(query)
    for key, value in model.module.state_dict().items():
        assert value.equal(before[key])
    np.testing.assert_array_equal(first.get_latent_representation(), second.get_latent_representation())
    np.testing.assert_allclose(
        first.get_latent_representation(cells.copy()), model.get_latent_representation(), atol=1e-5
    )
    np.testing.assert_allclose(first.predict(cells.copy(), soft=True), model.predict(soft=True), atol=1e-5)


def test_cells_that_are_new_in_two_ways_are_not_counted_twice(cells):
    cells.obs["side"] = np.tile(["a", "b"], 450)
    setup = {"batch_key": "condition", "categorical_covariate_keys": ["side"]}
    model = fitted("CVAE", cells, setup, train={"max_epochs": 40})
    query, _ = later(cells, ["blob 0", "blob 1", "blob 2"])
    query.obs["side"] = "c"
    observed = np.log((query.X / query.X.sum(1, keepdims=True)).mean(0))
    expected = np.log(model.map(query).get_normalized_expression().mean(0).to_numpy())
    assert abs(expected - observed).mean() < 0.1
