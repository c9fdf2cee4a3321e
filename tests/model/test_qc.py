"""Planted faults are named, and clean cells have none."""

import numpy as np
import pandas as pd
import pytest
import scvi

from mixvi import GMVAE, datasets
from mixvi.model import QualityControl
from tests.model.helpers import fitted


@pytest.fixture(scope="module")
def clean():
    return datasets.blobs(600, 60, n_clusters=4, kind="count", seed=1)


def checked(cells, n_clusters=None, batch_key=None, cut=None):
    scvi.settings.seed = 0
    cells = cells.copy()
    GMVAE.setup_anndata(cells)
    model = GMVAE(cells, n_clusters, n_hidden=32, n_latent=5)
    model.train(60, enable_progress_bar=False, accelerator="cpu")
    return model.quality_control(batch_key, cut)


def test_clean_cells_have_no_faults(clean):
    found = checked(clean)
    assert isinstance(found, QualityControl)
    assert found.faults == []
    assert found.doublets < 0.02
    assert found.clusters["cells"].sum() == 600
    assert found.clusters["confidence"].between(0, 1).all()


def test_two_types_in_one_cluster_are_named(clean):
    n_default = len(checked(clean).clusters)
    found = checked(clean, cut=n_default - 1)
    assert sum("may hold several types" in fault for fault in found.faults) == 1
    assert (found.clusters["inside"] > 5.41).sum() == 1


def test_a_batch_that_is_taken_for_a_type_is_named(clean, rng):
    cells = clean.copy()
    batch = rng.random(600) < 0.4
    cells.X = rng.poisson(np.asarray(cells.X) * np.where(batch[:, None], rng.lognormal(0, 1, 60), 1)).astype(np.float32)
    cells.obs["run"] = np.where(batch, "b", "a")
    found = checked(cells, batch_key="run")
    assert any("may be an effect of run" in fault for fault in found.faults)
    assert all(share > 0.9 for share in found.clusters["batch_share"])
    cells.obs["run"] = rng.permutation(cells.obs["run"])
    assert not any("effect of run" in fault for fault in checked(cells, batch_key="run").faults)


def test_cells_without_a_batch_are_a_level(clean, rng):
    model = fitted("GMVAE", clean.copy(), train={"max_epochs": 60}, n_clusters=4)
    first = model.predict() == "0"
    model.adata.obs["run"] = pd.Series(np.where(first, "a", None), model.adata.obs_names, dtype=object)
    found = model.quality_control("run")
    assert found.clusters["batch"].tolist() == ["a", "missing", "missing", "missing"]
    assert found.clusters["batch_expected"].iloc[0] == pytest.approx(first.mean())
    assert sum("effect of run" in fault for fault in found.faults) == 4


def test_a_type_that_is_alone_in_its_batch_is_no_doublet(clean):
    cells = clean.copy()
    alone = (cells.obs["cluster"] == cells.obs["cluster"].iloc[0]).to_numpy()
    cells.X = np.asarray(cells.X) * np.where(alone, 2, 1)[:, None]
    cells.obs["run"], cells.obs["cluster"] = np.where(alone, "b", "a"), cells.obs["cluster"].astype(str)
    model = fitted("GMVAE", cells, {"batch_key": "run"}, n_clusters=None, init="cluster")
    found = model.quality_control()
    row = found.clusters[found.clusters["batch"] == "b"].iloc[0]
    assert row["doublet_of"] == ""
    assert np.isnan(row["doublet_worth"])
    assert not any("doublets of clusters" in fault for fault in found.faults)


def test_shallow_cells_are_named(clean, rng):
    cells = clean.copy()
    shallow = (cells.obs["cluster"] == cells.obs["cluster"].iloc[0]).to_numpy() & (np.arange(600) % 3 == 0)
    x = np.asarray(cells.X).copy()
    cells.obs["cluster"] = cells.obs["cluster"].astype(str)
    x[shallow] = rng.binomial(x[shallow].astype(int), 0.5)
    cells.X = x
    cells.obs.loc[shallow, "cluster"] = "shallow"
    model = fitted("GMVAE", cells, n_clusters=None, init="cluster")
    assert [fault for fault in model.quality_control().faults if "low quality" in fault]


def test_values_that_are_no_counts_have_no_doublets():
    found = fitted("GMVAE", datasets.blobs(120, 10, n_clusters=3)).quality_control()
    assert np.isnan(found.doublets)
    assert np.isnan(found.ambient)
    assert found.clusters["library"].isna().all()
    assert not any("doublets" in fault for fault in found.faults)


def test_wrong_arguments_are_named(model):
    with pytest.raises(KeyError, match="no column 'donor'"):
        model.quality_control("donor")
    with pytest.raises(ValueError, match="n_clusters=0"):
        model.quality_control(n_clusters=0)


def test_conditions_are_read_from_the_registry(blobs):
    found = fitted("GMVAE", blobs, {"batch_key": "condition"}).quality_control()
    assert set(found.clusters["batch"]) <= set(blobs.obs["condition"].astype(str))
