"""Blocks of cells: every cell once, shuffled, in step across processes."""

import numpy as np
import pytest
import torch

from mixvi import GMVAE
from mixvi.data import CellsDataset
from mixvi.data._loader import BlockSampler, Shuffled, is_resident
from mixvi.data._matrix import DeviceMatrix, HostMatrix, runs
from mixvi.ops.csr import dense


def test_each_pass_has_every_row_once_in_a_new_order():
    sampler = BlockSampler(np.arange(100, 150), 16, torch.Generator().manual_seed(0))
    first, second = (np.concatenate(list(sampler)) for _ in range(2))
    assert [len(block) for block in sampler] == [16, 16, 16, 2]
    assert len(sampler) == 4
    np.testing.assert_array_equal(np.sort(first), np.arange(100, 150))
    np.testing.assert_array_equal(np.sort(second), np.arange(100, 150))
    assert (first != second).any()
    np.testing.assert_array_equal(np.concatenate(list(BlockSampler(np.arange(50), 16))), np.arange(50))


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 1000])
@pytest.mark.parametrize("neighbours", [1, 64])
@pytest.mark.parametrize("seed", range(3))
def test_a_shuffle_has_every_number_once_and_keeps_neighbours(n, neighbours, seed):
    order = Shuffled(n, neighbours, torch.Generator().manual_seed(seed))[np.arange(n)]
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    n_breaks = (np.diff(order) != 1).sum()
    assert n_breaks <= n // neighbours
    assert n < 1000 or n_breaks > n // neighbours / 2


def test_replicas_share_rows_out_and_take_as_many_steps():
    shares = [
        np.concatenate(list(BlockSampler(np.arange(51), 8, torch.Generator().manual_seed(0), rank, 2)))
        for rank in range(2)
    ]
    assert len(shares[0]) == len(shares[1]) == 25
    assert len(set(shares[0]) | set(shares[1])) == 50


def test_drop_last_leaves_full_minibatches():
    assert sum(map(len, BlockSampler(np.arange(50), 16, drop_last=8))) == 48


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


@pytest.mark.parametrize("n", [1, 16, 17, 33])
def test_one_cell_makes_no_block_of_its_own(n):
    blocks = list(BlockSampler(torch.arange(n).numpy(), 16))
    assert len(blocks) == len(BlockSampler(torch.arange(n).numpy(), 16))
    assert sum(map(len, blocks)) == n
    assert n == 1 or min(map(len, blocks)) > 1


@pytest.mark.parametrize("n", [50, 64, 1000])
@pytest.mark.parametrize("n_replicas", [1, 2])
def test_neighbours_stay_together_and_come_once_in_a_new_order(rng, n, n_replicas):
    rows = rng.permutation(2 * n)[:n]
    samplers = [
        BlockSampler(rows, 256, torch.Generator().manual_seed(0), rank, n_replicas, neighbours=64)
        for rank in range(n_replicas)
    ]
    first, second = ([np.concatenate(list(sampler)) for sampler in samplers] for _ in range(2))
    for epoch in (first, second):
        assert len(np.unique(np.concatenate(epoch))) == sum(map(len, epoch)) == n
    assert (first[0] != second[0]).any()
    ordered = np.concatenate(list(BlockSampler(rows, 256, neighbours=64)))
    np.testing.assert_array_equal(ordered, np.sort(rows))


def test_a_block_is_made_of_few_runs_and_shuffled_within():
    block = next(iter(BlockSampler(np.arange(10_000), 1024, torch.Generator().manual_seed(0), neighbours=64)))
    first, after, _ = runs(np.sort(block))
    assert len(first) <= 17
    assert (np.diff(block) == 1).mean() < 0.1
