"""A model that grows, and clusters with names of their own."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import mixvi
from mixvi._warnings import MixviWarning
from mixvi.model._update import _on_both
from tests.cluster.populations import draw, profiles
from tests.model.helpers import fitted

EPOCHS = {"max_epochs": 60}


@pytest.fixture(scope="module")
def cells():
    """600 cells x 60 genes in four populations, each without inner structure."""
    rng = np.random.default_rng(0)
    cluster = rng.integers(4, size=600)
    counts = draw(rng, 300 * profiles(rng, 4, 60)[cluster])
    return ad.AnnData(
        counts.astype(np.float32), pd.DataFrame({"cluster": [f"type {k}" for k in cluster]}, map(str, range(600)))
    )


@pytest.fixture(scope="module")
def parts(cells):
    """A reference of three clusters, and a query that has a fourth."""
    is_new = (cells.obs["cluster"] == "type 3").to_numpy()
    later = np.arange(600) % 4 == 0
    return cells[~is_new & ~later].copy(), cells[is_new | later].copy()


@pytest.fixture(scope="module")
def grown(parts):
    model = fitted("GMVAE", parts[0].copy(), train=EPOCHS, n_clusters=None)
    model.rename_clusters({"0": "my cells"})
    return model, model.update(parts[1].copy(), max_epochs=60, enable_progress_bar=False)


def test_clusters_that_stay_keep_their_names(grown, parts):
    model, later = grown
    assert later.adata.n_obs == sum(part.n_obs for part in parts)
    kinds = later.changes_.set_index("before")["kind"]
    assert kinds["my cells"] == "stays"
    assert set(model.cluster_names) <= set(later.cluster_names)
    known = parts[0].obs_names
    same = later.predict()[later.adata.obs_names.get_indexer(known)] == model.predict()
    assert same.mean() > 0.95


def test_a_new_type_is_a_new_cluster(grown, parts, cells):
    model, later = grown
    new = later.changes_.query("kind == 'new'")
    assert len(new) == 1
    name = new["after"].iloc[0]
    assert name not in model.cluster_names
    fourth = cells.obs_names[cells.obs["cluster"] == "type 3"]
    found = later.adata.obs_names[later.predict() == name]
    assert len(found.intersection(fourth)) > 0.9 * len(found.union(fourth))


def test_names_and_changes_are_saved(grown, tmp_path):
    _, later = grown
    later.save(tmp_path / "model")
    loaded = mixvi.GMVAE.load(tmp_path / "model", later.adata)
    assert loaded.cluster_names == later.cluster_names
    assert loaded.changes_.equals(later.changes_)
    np.testing.assert_array_equal(loaded.predict(), later.predict())


def test_a_renamed_cluster_keeps_its_name_at_other_cuts(grown):
    model, _ = grown
    assert "my cells" in str(model.tree)
    assert model.cluster_names == ["my cells", *map(str, range(1, model.n_clusters))]  # others keep their numbers
    finer = model.predict(soft=True, n_clusters=model.n_clusters + 1).columns
    kept = model.tree.node("my cells") in model._clusters().nodes(model.n_clusters + 1)
    assert ("my cells" in finer) == kept
    assert len(set(finer)) == len(finer)
    assert len(model.subclusters("my cells")) == (model.predict() == "my cells").sum()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"no such": "x"}, "cannot be renamed"), ({"1": "2"}, "more than once"),
        ({"1": "my cells.0"}, "more than once"), ({"1": ""}, "pass a dictionary"),
        ({"1": None}, "pass a dictionary"), (["1"], "pass a dictionary"),
    ],
)  # fmt: skip
def test_names_that_cannot_be(grown, names, message):
    model, _ = grown
    before = model.cluster_names
    with pytest.raises(ValueError, match=message):
        model.rename_clusters(names)
    assert model.cluster_names == before


def test_a_model_can_grow_twice(grown, parts):
    _, later = grown
    again = parts[1][:60].copy()
    again.obs_names = [f"again {name}" for name in again.obs_names]
    last = later.update(again, max_epochs=60, enable_progress_bar=False)
    assert len(set(last.tree.names)) == len(last.tree.names)
    stays = last.changes_.query("kind == 'stays'")
    assert (stays["before"] == stays["after"]).all()
    assert "my cells" in set(stays["after"])


def test_cells_that_cannot_be_taken_in(grown, parts):
    model, _ = grown
    with pytest.raises(ValueError, match="have names that the model knows"):
        model.update(parts[0][:30].copy())
    with pytest.raises(ValueError, match="Train a new model on the common genes"):
        model.update(parts[1][:, :50].copy())
    given = fitted("GMVAE", parts[0].copy(), n_clusters=None, init=np.arange(parts[0].n_obs) % 2)
    with pytest.raises(ValueError, match="come from a partition"):
        given.update(parts[1].copy())


def test_labelled_classes_and_new_batches(cells):
    adata = cells.copy()
    adata.obs["batch"] = np.where(np.arange(600) % 2, "a", "b")
    adata.obs["type"] = adata.obs["cluster"].astype(str)
    first, second = adata[:250].copy(), adata[250:].copy()
    second.obs["batch"] = "c"
    setup = {"batch_key": "batch", "labels_key": "type"}
    model = fitted("GMVAE", first, setup, train=EPOCHS, n_clusters=None)
    later = model.update(second, max_epochs=60, enable_progress_bar=False)
    assert later.cluster_names[:4] == model.cluster_names[:4]
    assert later.conditions["batch"].tolist() == ["a", "b", "c"]
    assert (later.predict()[250:] == second.obs["type"]).mean() > 0.9


def test_a_loaded_model_hands_on_the_labels_that_it_read(counts, tmp_path):
    """What `load` took as unlabelled is no class of the model that grows."""
    model = fitted("GMVAE", counts, {"labels_key": "cluster"})
    model.save(tmp_path / "model")
    query = counts.copy()
    query.obs["cluster"] = np.where(np.arange(120) % 3, query.obs["cluster"], None)
    with pytest.warns(MixviWarning, match="missing or that the model does not know"):
        loaded = mixvi.GMVAE.load(tmp_path / "model", query, accelerator="cpu")
    both = _on_both(loaded, counts)
    classes, expected = (one.registry_["field_registries"]["labels"]["state_registry"] for one in (both, model))
    assert list(classes["categorical_mapping"]) == list(expected["categorical_mapping"])
