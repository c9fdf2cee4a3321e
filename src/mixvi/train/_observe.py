"""Results of a module for many cells, block by block, during training."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix, vstack
from scvi import REGISTRY_KEYS
from torch import Tensor

from mixvi.data import CellsDataset
from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Cells
from mixvi.ops.csr import csr, is_sparse

OfCells = Callable[[Cells], tuple[Tensor, ...]]

EVALUATION_BATCH = 1024  # cells of a minibatch without gradients


@torch.no_grad()
def evaluate(
    module: ELBOModule, dataset: CellsDataset, rows: np.ndarray, of: OfCells, x: csr_matrix | None = None
) -> list[Tensor]:
    """Evaluate a function of the module on many cells, in evaluation mode and without gradients.

    Parameters
    ----------
    module
        The module.
    dataset
        All cells.
    rows
        (m,) row numbers.
    of
        Function of `Cells` that returns tensors (n, ...).
    x
        (m, g) values to use instead of the registered ones.

    Returns
    -------
    The tensors (m, ...), on the CPU.
    """
    was_training = module.training
    module.eval()
    outputs = [[value.cpu() for value in of(cells)] for cells in stream(module, dataset, rows, x)]
    module.train(was_training)
    return [torch.cat(values) for values in zip(*outputs, strict=True)]


def stream(
    module: ELBOModule,
    dataset: CellsDataset,
    rows: np.ndarray,
    x: csr_matrix | None = None,
    batch_size: int | None = None,
) -> Iterator[Cells]:
    """Read cells in minibatches.

    Parameters
    ----------
    module
        The module that reads them.
    dataset
        All cells.
    rows
        (m,) row numbers.
    x
        (m, g) values to use instead of the registered ones.
    batch_size
        Most cells of a minibatch; ``None`` is ``EVALUATION_BATCH``.

    Yields
    ------
    Minibatches, in the order of the rows.
    """
    batch_size = batch_size or EVALUATION_BATCH
    size = dataset.block_size(batch_size)
    for start in range(0, len(rows), size):
        block = dataset[rows[start : start + size]]
        if x is not None:
            block[REGISTRY_KEYS.X_KEY] = _tensor(x[start : start + size], block[REGISTRY_KEYS.X_KEY])
        yield from module.read(block).split(batch_size)


class Counts(NamedTuple):
    """Counts of m cells. Only cells of one stratum are compared."""

    x: csr_matrix  # (m, g)
    stratum: np.ndarray | None  # (m,) number of the combination of batch and categorical covariates


def read_counts(module: ELBOModule, dataset: CellsDataset, rows: np.ndarray) -> Counts:
    """Registered counts of some cells.

    Parameters
    ----------
    module
        The module that reads them.
    dataset
        All cells.
    rows
        (m,) row numbers.

    Returns
    -------
    Counts (m, g) and strata (m,).
    """
    layout = module.layout
    n_codes = layout.batch_levels + sum(layout.covariate_levels)
    counts, codes = [], []
    for cells in stream(module, dataset, rows):
        counts.append(_scipy(cells.x))
        codes.append(cells.c[:, :n_codes].bool().cpu().numpy())
    stratum = np.unique(np.concatenate(codes), axis=0, return_inverse=True)[1].ravel() if n_codes else None
    return Counts(vstack(counts, "csr"), stratum)


def _scipy(x: Tensor) -> csr_matrix:
    if not is_sparse(x):
        return csr_matrix(x.cpu().numpy())
    parts = (part.cpu().numpy() for part in (x.values(), x.col_indices(), x.crow_indices()))
    return csr_matrix(tuple(parts), x.shape)


def _tensor(x: csr_matrix, like: Tensor) -> Tensor:
    if not is_sparse(like):
        return torch.from_numpy(x.toarray()).to(like)
    offset, gene = (torch.from_numpy(part).to(like.crow_indices()) for part in (x.indptr, x.indices))
    return csr(offset, gene, torch.from_numpy(x.data).to(like.values()), x.shape[1])
