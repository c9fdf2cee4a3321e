"""New levels of the conditions, such as the batch of a query: the known level that is nearest, and an own intercept."""

import numpy as np
import torch
from torch import Tensor

from mixvi.data import CellsDataset
from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Cells
from mixvi.module.query import Levels
from mixvi.ops.csr import dense
from mixvi.train._effects import some_cells
from mixvi.train._observe import stream

MAX_CELLS = 1000  # to compare known levels; differences between them are large


@torch.no_grad()
def nearest_levels(
    module: ELBOModule, dataset: CellsDataset, rows: np.ndarray, levels: Levels, seed: int = 0
) -> Levels:
    """Find the known level under which the cells of each new level are the most probable, by the bound.

    Parameters
    ----------
    module
        Module with the wider layout, in evaluation mode.
    dataset
        The new cells.
    rows
        (m,) row numbers of those with a new level.
    levels
        Which columns of c are new, and what stands for them now.
    seed
        Seed of the choice of cells, if there are many.

    Returns
    -------
    The same, where the nearest known level stands for each new one.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:MAX_CELLS])
    average, typical = levels.average.clone(), levels.typical
    cells = list(stream(module, dataset, rows))
    for column in torch.where(~levels.known)[0].tolist():
        bounds = {}
        for old in torch.where(average[column] > 0)[0].tolist():
            other = typical.clone()
            other[column] = torch.eye(len(typical))[levels.known][old]
            bounds[old] = sum(_bound(module, part, other, column) for part in cells)
        if any(part.c[:, column].any() for part in cells):
            average[column] = torch.eye(average.shape[1])[max(bounds, key=bounds.__getitem__)]
            typical = Levels(levels.known, average).typical
    return Levels(levels.known, average)


@torch.no_grad()
def fit_intercepts(module: ELBOModule, dataset: CellsDataset, rows: np.ndarray, levels: Levels, seed: int = 0) -> None:
    """Give each new level its intercept in the decoder, so that the mean of its cells is the expected one.

    The encoders treat a new level like the known one that stands for it.

    Parameters
    ----------
    module
        Module with the wider layout, in which new levels equal those that stand for them; it is changed.
    dataset
        The new cells.
    rows
        (m,) row numbers of those with a new level.
    levels
        Which columns of c are new, and what stands for them.
    seed
        Seed of the choice of cells, if there are many.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[: some_cells(module.layout.n_genes)])
    for column in torch.where(~levels.known)[0].tolist():  # one after the other: cells may be new in several ways
        sums = torch.stack([_sums(module, cells, column) for cells in stream(module, dataset, rows)]).sum(0)
        observed, expected, n = sums.split([module.layout.n_genes] * 2 + [1])
        if n > 0:
            change = module.likelihood.link(observed / n) - module.likelihood.link(expected / n)
            if module.unseen is not None:
                change[module.unseen.to(change.device)] = 0
            module.likelihood.add_intercept(column, change)


def _sums(module: ELBOModule, cells: Cells, column: int) -> Tensor:
    """Sums over the cells of a new level (2 g + 1,): scaled x, its expectation, and their number."""
    expected = cells._replace(x=module.decode(module.encode(cells).loc, cells).mean)
    scaled = [module.likelihood.scaled(part) for part in (cells, expected)]
    return cells.c[:, column] @ torch.cat([*scaled, torch.ones_like(cells.library)], 1)


def _bound(module: ELBOModule, cells: Cells, replaced: Tensor, column: int) -> float:
    """Sum of the bound over the cells of a new level, for the measured genes, under replaced conditions."""
    known = cells._replace(c=cells.c @ replaced.to(cells.c), y=cells.y[:, :0])
    qz = module.encode(known)
    log_px = module.decode(qz.loc, known).log_prob(dense(cells.x))
    if module.unseen is not None:
        log_px = log_px[:, ~module.unseen.to(log_px.device)]
    kl = sum(module.prior.kl(qz, qz.loc, known).annealed.values(), torch.zeros_like(log_px[:, 0]))
    return float((log_px.sum(1) - kl)[cells.c[:, column] > 0].sum())
