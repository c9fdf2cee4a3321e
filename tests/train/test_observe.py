"""What a module says of many cells, in the order asked for, and counts as they are registered."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from mixvi.data import CellsDataset
from mixvi.train import read_counts
from mixvi.train._observe import evaluate
from tests.model.helpers import build

ROWS = np.array([5, 3, 99, 0, 7, 7])


@pytest.fixture
def observed(counts, rng, monkeypatch):
    """A module in training mode and its cells. They are read in small parts, so that a few cells need several."""
    monkeypatch.setattr("mixvi.train._observe.EVALUATION_BATCH", 4)
    monkeypatch.setattr(CellsDataset, "block_size", lambda self, batch_size: batch_size)
    counts.obs["site"] = rng.choice(["north", "south"], 120)
    counts.X[:, 3:] *= rng.random((120, 27)) < 0.2  # sparse enough for CSR
    setup = {"batch_key": "condition", "categorical_covariate_keys": ["site"]}
    model = build("CVAE", counts, setup)
    return model.module.train(), CellsDataset(model.adata_manager, torch.device("cpu"), False)


def test_answers_are_those_of_evaluation_mode_in_the_order_of_the_rows(observed, counts):
    module, dataset = observed
    running = [buffer.clone() for buffer in module.buffers()]
    x, z = evaluate(module, dataset, ROWS, lambda cells: (cells.library, module.encode(cells).loc))
    assert module.training
    assert not z.requires_grad
    assert all(torch.equal(*pair) for pair in zip(module.buffers(), running, strict=True))
    np.testing.assert_allclose(x.ravel(), counts.X[ROWS].sum(1))
    module.eval()
    torch.testing.assert_close(z, module.encode(module.read(dataset[ROWS])).loc.detach())
    evaluate(module, dataset, ROWS, lambda cells: (cells.library,))
    assert not module.training


def test_other_values_may_stand_in_for_the_registered_ones(observed, rng):
    module, dataset = observed
    other = rng.poisson(0.3, (6, 30)).astype(np.float32)
    found, c = evaluate(module, dataset, ROWS, lambda cells: (cells.filled().x, cells.c), csr_matrix(other))
    np.testing.assert_array_equal(found, other)
    torch.testing.assert_close(c, module.read(dataset[ROWS]).c)


def test_counts_and_strata_are_those_of_the_cells(observed, counts):
    found = read_counts(*observed, ROWS)
    np.testing.assert_array_equal(found.x.toarray(), counts.X[ROWS])
    names = (counts.obs["condition"].astype(str) + counts.obs["site"].astype(str)).to_numpy()[ROWS]
    same = names[:, None] == names
    np.testing.assert_array_equal(found.stratum[:, None] == found.stratum, same)
    model = build("VAE", counts)
    dataset = CellsDataset(model.adata_manager, torch.device("cpu"), False)
    assert read_counts(model.module, dataset, ROWS).stratum is None
