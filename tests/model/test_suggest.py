"""Which cells to label next."""

import numpy as np
import pytest

from mixvi.model._predict import component_probabilities, log_responsibilities
from mixvi.model.streaming import collect
from tests.model.helpers import fitted


def test_the_typical_cell_of_the_least_sure_component_comes_first(model):
    found = model.suggest_labels(300)
    assert sorted(found.index) == sorted(model.adata.obs_names)
    p = model.predict(soft=True).to_numpy()
    entropy = -np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0).sum(1)
    r = component_probabilities(model, collect(model, log_responsibilities(model)))
    unsure, own = r.T @ entropy, r.argmax(1)
    first = model.adata.obs_names.get_loc(found.index[0])
    occupied = np.unique(own)
    assert own[first] == occupied[unsure[occupied].argmax()]
    assert r[first, own[first]] == r[own == own[first], own[first]].max()
    firsts = found.iloc[: len(occupied)]
    assert (np.diff(firsts["entropy"]) <= 0).all()
    assert len(set(own[model.adata.obs_names.get_indexer(firsts.index)])) == len(occupied)
    np.testing.assert_array_equal(found["cluster"], model.predict()[model.adata.obs_names.get_indexer(found.index)])
    assert found["entropy"].iloc[0] == pytest.approx(unsure.max(), rel=1e-4)


def test_of_new_cells_as_many_as_there_are(model, blobs):
    assert set(model.suggest_labels(5, blobs[20:40].copy()).index) <= set(blobs.obs_names[20:40])
    with pytest.raises(ValueError, match="n=21; it must be a whole number between 1 and 20"):
        model.suggest_labels(21, blobs[20:40].copy())


def test_one_cluster_needs_no_labels(blobs):
    one = fitted("GMVAE", blobs, n_clusters=1)
    with pytest.raises(ValueError, match="This GMVAE has one cluster"):
        one.suggest_labels(2)
