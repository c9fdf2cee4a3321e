"""The order of cells: every cell once an epoch, in a new order, in step across processes."""

import numpy as np
import pytest
import torch

from mixvi.data._matrix import runs
from mixvi.data._sampler import BlockSampler, Shuffled


def test_each_epoch_has_every_row_once_in_a_new_order():
    sampler = BlockSampler(np.arange(100, 150), 16, 0)
    first, again = (np.concatenate(list(sampler)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    sampler.set_epoch(1)
    second = np.concatenate(list(sampler))
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
    shares = [np.concatenate(list(BlockSampler(np.arange(51), 8, 0, rank, 2))) for rank in range(2)]
    assert len(shares[0]) == len(shares[1]) == 25
    assert len(set(shares[0]) | set(shares[1])) == 50


def test_drop_last_leaves_full_minibatches():
    assert sum(map(len, BlockSampler(np.arange(50), 16, drop_last=8))) == 48


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
    samplers = [BlockSampler(rows, 256, 0, rank, n_replicas, neighbours=64) for rank in range(n_replicas)]
    first = [np.concatenate(list(sampler)) for sampler in samplers]
    for sampler in samplers:
        sampler.set_epoch(1)
    second = [np.concatenate(list(sampler)) for sampler in samplers]
    for epoch in (first, second):
        assert len(np.unique(np.concatenate(epoch))) == sum(map(len, epoch)) == n
    assert (first[0] != second[0]).any()
    ordered = np.concatenate(list(BlockSampler(rows, 256, neighbours=64)))
    np.testing.assert_array_equal(ordered, np.sort(rows))


def test_a_block_is_made_of_few_runs_and_shuffled_within():
    block = next(iter(BlockSampler(np.arange(10_000), 1024, 0, neighbours=64)))
    first, after, _ = runs(np.sort(block))
    assert len(first) <= 17
    assert (np.diff(block) == 1).mean() < 0.1
