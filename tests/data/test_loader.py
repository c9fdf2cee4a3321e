"""Blocks of cells, on their device."""

import numpy as np
import pytest
import torch

from mixvi import GMVAE
from mixvi.data import CellsDataset
from mixvi.data._loader import is_resident
from mixvi.data._matrix import DeviceMatrix, HostMatrix
from mixvi.ops.csr import dense


def test_a_block_has_the_cells_covariates_too(counts):
    GMVAE.setup_anndata(counts, batch_key="condition", labels_key="cluster", unlabeled_category="none")
    manager = GMVAE(counts).adata_manager
    rows = np.array([5, 3, 99])
    for resident in (False, True):
        block = CellsDataset(manager, torch.device("cpu"), resident)[rows]
        np.testing.assert_array_equal(dense(block["X"]).numpy(), counts.X[rows])
        codes = counts.obs["condition"].astype("category").cat.codes.to_numpy()[rows]
        np.testing.assert_array_equal(block["batch"].squeeze(-1).numpy(), codes)
        assert block["labels"].shape == (3, 1)


def test_blocks_are_whole_minibatches_and_stay_small(counts):
    GMVAE.setup_anndata(counts)
    dataset = CellsDataset(GMVAE(counts).adata_manager, torch.device("cpu"), True)
    assert dataset.block_size(128) == 16_384
    assert dataset.block_size(100) % 100 == 0
    assert dataset.block_size(50_000) == 50_000
    dataset.n_genes, dataset.density = 20_000, 1.0
    assert dataset.block_size(128) == 1_536
    dataset._matrix = DeviceMatrix(HostMatrix(counts.X, True), torch.device("cpu"))  # as on a GPU
    assert dataset.block_size(128) == 3_072
    dataset.n_genes = 30
    assert dataset.block_size(128) == 131_072
    GMVAE.setup_anndata(counts, batch_key="condition", categorical_covariate_keys=["condition", "cluster"])
    dataset = CellsDataset(GMVAE(counts).adata_manager, torch.device("cpu"), True)
    assert dataset.n_levels == 2 + 2 + 3
    dataset.n_levels = 10_000  # one-hot, they are wider than the genes
    assert dataset.block_size(128) == 1_536


def test_columns_without_a_use_are_not_read(counts):
    GMVAE.setup_anndata(counts)
    manager = GMVAE(counts).adata_manager
    assert {"_scvi_batch", "_scvi_labels"} <= set(counts.obs)
    dataset = CellsDataset(manager, torch.device("cpu"), True)
    assert dataset.n_levels == 0
    assert set(dataset[np.arange(3)]) == {"X", "ind_x"}


def test_what_fits_is_resident(counts, monkeypatch):
    GMVAE.setup_anndata(counts)
    manager, cpu = GMVAE(counts).adata_manager, torch.device("cpu")
    assert is_resident(manager, cpu, "auto")
    assert not is_resident(manager, cpu, "stream")
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    assert not is_resident(manager, cpu, "auto")
    assert is_resident(manager, cpu, "resident")


@pytest.mark.parametrize("batch_size", [7, 128, 1000])
def test_resident_and_streamed_cells_train_the_same_model(counts, batch_size):
    found = []
    for data_path in ("resident", "stream"):
        torch.manual_seed(0)
        GMVAE.setup_anndata(counts)
        model = GMVAE(counts, n_clusters=3)
        model.train(3, batch_size=batch_size, data_path=data_path, accelerator="cpu", enable_progress_bar=False)
        found.append(model.get_latent_representation())
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)  # sums of floats may end in another last bit
