"""The order of cells: blocks of row numbers, in a new order each epoch."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler


class BlockSampler(Sampler):
    """Blocks of row numbers.

    Parameters
    ----------
    rows
        (m,) row numbers.
    block_size
        Number of cells in a block.
    seed
        Shuffles the rows in each epoch; ``None`` keeps the order.
    rank, n_replicas
        Number of this process, and of processes. Each takes every n-th row. The last rows are left out if they do not
        suffice for all processes, so that all take the same number of steps.
    drop_last
        Size of a minibatch; cells that do not fill the last one are left out. 0 leaves out none.
    neighbours
        Number of consecutive rows that are in one block, for faster reading of a file. Rows are shuffled within the
        block. Without ``seed``, rows come in rising order if this is above 1.
    """

    def __init__(
        self,
        rows: np.ndarray,
        block_size: int,
        seed: int | None = None,
        rank: int = 0,
        n_replicas: int = 1,
        drop_last: int = 0,
        neighbours: int = 1,
    ):
        self.rows = rows if neighbours == 1 else np.sort(rows)
        self.block_size, self.seed, self.neighbours = block_size, seed, neighbours
        self.epoch = 0
        self.rank, self.n_replicas = rank, n_replicas
        n_mine = len(rows) // n_replicas
        self.n_rows = n_mine - (n_mine % drop_last if drop_last else 0)

    def __len__(self) -> int:
        return max(-(-(self.n_rows - 1) // self.block_size), min(self.n_rows, 1))  # one cell is no block of its own

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch. Lightning calls it, so that an epoch has its order when training continues.

        Parameters
        ----------
        epoch
            Number of the epoch.
        """
        self.epoch = epoch

    def __iter__(self) -> Iterator[np.ndarray]:
        order = generator = None
        if self.seed is not None:
            generator = torch.Generator().manual_seed((self.seed + self.epoch) % 2**63)
            order = Shuffled(len(self.rows), self.neighbours, generator)
        for i in range(len(self)):
            place = np.arange(i * self.block_size, (i + 1) * self.block_size if i + 1 < len(self) else self.n_rows)
            place = place * self.n_replicas + self.rank
            block = self.rows[place if order is None else order[place]]
            if order is not None and self.neighbours > 1:
                block = block[torch.randperm(len(block), generator=generator).numpy()]
            yield block


class Shuffled:
    """Numbers below n in random order of runs of consecutive numbers. Only the order of runs takes memory."""

    def __init__(self, n: int, neighbours: int, generator: torch.Generator):
        self.n, self.neighbours = n, neighbours
        self.first = torch.randperm(-(-n // neighbours), generator=generator).numpy() * neighbours  # of each run
        self.n_missing = -n % neighbours  # in the run that holds the last number
        self.end_of_short = (self.first.argmax() + 1) * neighbours - self.n_missing if n else 0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, place: np.ndarray) -> np.ndarray:
        """The numbers (m,) at the given positions (m,), which are below n."""
        place = place + self.n_missing * (place >= self.end_of_short)
        return self.first[place // self.neighbours] + place % self.neighbours
