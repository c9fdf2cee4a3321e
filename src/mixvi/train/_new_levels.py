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
def nearest_levels(module: ELBOModule, dataset: CellsDataset, n_cells: int, levels: Levels, seed: int = 0) -> Levels:
    """Find the known level under which the cells of each new level are the most probable, by the bound.

    Parameters
    ----------
    module
        Module with the wider layout, in evaluation mode.
    dataset
        The new cells.
    n_cells
        Their number.
    levels
        Which columns of c are new, and what stands for them now.
    seed
        Seed of the choice of cells, if there are many.

    Returns
    -------
    The same, where the nearest known level stands for each new one.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(n_cells)[:MAX_CELLS])
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
def fit_intercepts(module: ELBOModule, dataset: CellsDataset, n_cells: int, levels: Levels, seed: int = 0) -> None:
    """Give each new level its intercept in the decoder, so that the mean of its cells is the expected one.

    The encoders treat a new level like the known one that stands for it.

    Parameters
    ----------
    module
        Module with the wider layout, in which new levels equal those that stand for them; it is changed.
    dataset
        The new cells.
    n_cells
        Their number.
    levels
        Which columns of c are new, and what stands for them.
    seed
        Seed of the choice of cells, if there are many.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(n_cells)[: some_cells(module.layout.n_genes)])
    new = torch.where(~levels.known)[0].tolist()
    found = torch.stack([_sums(module, cells, new) for cells in stream(module, dataset, rows)]).sum(0)
    observed, expected, n = found.split([module.layout.n_genes] * 2 + [1], 1)
    for i, column in enumerate(new):
        if n[i] > 0:
            change = module.likelihood.link(observed[i] / n[i]) - module.likelihood.link(expected[i] / n[i])
            if module.unseen is not None:
                change[module.unseen.to(change.device)] = 0
            module.likelihood.add_intercept(column, change)


def _sums(module: ELBOModule, cells: Cells, new: list[int]) -> Tensor:
    """Sums over the cells of each new level (m, 2 g + 1): scaled x, its expectation, and their number."""
    expected = cells._replace(x=module.decode(module.encode(cells).loc, cells).mean)
    scaled = [module.likelihood.scaled(part) for part in (cells, expected)]
    return cells.c[:, new].t() @ torch.cat([*scaled, torch.ones_like(cells.library)], 1)


def _bound(module: ELBOModule, cells: Cells, replaced: Tensor, column: int) -> float:
    """Sum of the bound over the cells of a new level, for the measured genes, under replaced conditions."""
    known = cells._replace(c=cells.c @ replaced.to(cells.c), y=cells.y[:, :0])
    qz = module.encode(known)
    log_px = module.decode(qz.loc, known).log_prob(dense(cells.x))
    if module.unseen is not None:
        log_px = log_px[:, ~module.unseen.to(log_px.device)]
    kl = sum(module.prior.kl(qz, qz.loc, known).annealed.values(), torch.zeros_like(log_px[:, 0]))
    return float((log_px.sum(1) - kl)[cells.c[:, column] > 0].sum())
