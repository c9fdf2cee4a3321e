"""What is registered is what the module reads, in one order."""

import numpy as np
import pytest
import torch

from mixvi.data import CellsDataset
from mixvi.model.registry import conditions_of, covariate_keys, layout_of
from mixvi.module import Layout
from tests.model.helpers import build

SETUP = {
    "batch_key": "condition", "labels_key": "cluster", "unlabeled_category": "none", "size_factor_key": "size",
    "categorical_covariate_keys": ["site", "condition"], "continuous_covariate_keys": ["age", "depth"],
}  # fmt: skip


@pytest.fixture
def cells(counts, rng):
    counts.obs["site"] = rng.choice(["north", "east", "south"], 120)
    counts.obs["size"] = counts.obs["depth"] = rng.uniform(0.5, 2, 120)
    counts.obs["age"] = rng.normal(size=120)
    return counts


@pytest.mark.filterwarnings("ignore:No cell has unlabeled_category")
def test_the_layout_counts_what_is_registered(cells):
    model = build("GMVAE", cells, SETUP)
    assert layout_of(model.registry_) == Layout(30, 2, (3, 2), 2, n_labels=3, size_factor=True)
    assert layout_of(build("VAE", cells).registry_) == Layout(30)


@pytest.mark.filterwarnings("ignore:No cell has unlabeled_category")
def test_conditions_stand_in_the_order_of_c(cells):
    model = build("GMVAE", cells, SETUP)
    conditions = conditions_of(model.registry_)
    assert [key for key, _ in conditions] == ["condition", "site", "condition", "age", "depth"]
    tensors = CellsDataset(model.adata_manager, torch.device("cpu"), False)[np.arange(120)]
    c = model.module.read(tensors).c.numpy()
    expected = [
        (cells.obs[key].to_numpy()[:, None] == np.asarray(levels))
        if levels is not None
        else cells.obs[[key]].to_numpy()
        for key, levels in conditions
    ]
    np.testing.assert_allclose(c, np.hstack(expected).astype(np.float32), rtol=1e-6)
    assert conditions_of(build("VAE", cells).registry_) == []


@pytest.mark.filterwarnings("ignore:No cell has unlabeled_category")
def test_columns_that_are_read_come_once_and_labels_are_none_of_them(cells):
    assert covariate_keys(build("GMVAE", cells, SETUP).registry_) == ["condition", "size", "site", "age", "depth"]
    assert covariate_keys(build("AE", cells).registry_) == []
