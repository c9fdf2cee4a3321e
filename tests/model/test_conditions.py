"""Conditions by name: what c becomes, and names that the model does not know."""

import numpy as np
import pandas as pd
import pytest

import mixvi
from mixvi import datasets
from mixvi.model.conditions import under
from mixvi.model.streaming import collect
from tests.model.helpers import fitted, of


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


def test_a_level_without_cells_is_warned_of_also_by_a_loaded_model(counts, tmp_path, warned, recwarn):
    counts.obs["b"] = pd.Categorical(np.array(["x", "y"])[np.arange(counts.n_obs) % 2], ["w", "x", "y"])
    model = fitted("CVAE", counts, {"batch_key": "b"})
    model.save(tmp_path / "model")
    loaded = mixvi.CVAE.load(tmp_path / "model", counts, accelerator="cpu")
    for used in (model, loaded):
        recwarn.clear()
        used.get_reconstruction(transform_batch="x")
        assert "had no cells in training" not in warned()
        used.get_reconstruction(transform_batch="w")
        assert "b='w' had no cells in training" in warned()
