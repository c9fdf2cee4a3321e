"""Effects of new levels of a condition."""

import numpy as np
import pytest

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


@pytest.mark.parametrize("kinds", [["blob 0", "blob 1"], ["blob 2"]], ids=["two", "one"])
def test_the_effect_of_a_new_batch_is_found_whatever_its_kinds_of_cells(cells, kinds):
    model = fitted("GMVAE", cells, {"batch_key": "condition"}, train={"max_epochs": 60})
    query, log_factor = later(cells, kinds)
    mapped = model.map(query)
    effects = mapped.module.encoder.trunk.layers[0].effects.numpy()
    of_batch = effects[2] - effects[0]
    assert np.corrcoef(of_batch, log_factor)[0, 1] > 0.85
    assert 0.6 < np.polyfit(log_factor, of_batch, 1)[0] < 1.1
    before, z, known = query.copy(), mapped.get_latent_representation(), model.get_latent_representation()
    before.obs["condition"] = "condition 0"

    def distance(latent):
        apart = [latent[query.obs["cluster"] == k].mean(0) - known[cells.obs["cluster"] == k].mean(0) for k in kinds]
        return np.linalg.norm(apart, axis=1).mean()

    assert distance(z) < 0.8 * distance(model.get_latent_representation(before))


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
