"""New levels of the conditions, such as the batch of a query: the nearest known level, and weights of their own."""

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor

from mixvi.data import CellsDataset
from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Cells
from mixvi.module.encoders import Encoder
from mixvi.module.query import Levels
from mixvi.ops.csr import dense
from mixvi.train._condition_effects import some_cells
from mixvi.train._observe import stream

MAX_OF_LEVELS = 1000  # to compare known levels; differences between them are large
N_CELLS = 128  # in a minibatch
RATE, N_STEPS = 0.01, 400  # a step of Adam moves a weight by 0.01 at most, so that effects reach 4, a factor of 55
REFILL = 100  # steps after which unseen genes are filled in anew


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
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:MAX_OF_LEVELS])
    average, typical = levels.average.clone(), levels.typical
    cells = list(stream(module, dataset, rows))
    for column in torch.where(~levels.known)[0].tolist():
        bounds = {}
        for old in torch.where(average[column] > 0)[0].tolist():
            other = typical.clone()
            other[column] = torch.eye(len(typical))[levels.known][old]
            bounds[old] = sum(_bound_under(module, part, other, column) for part in cells)
        if any(part.c[:, column].any() for part in cells):
            average[column] = torch.eye(average.shape[1])[max(bounds, key=bounds.__getitem__)]
            typical = Levels(levels.known, average).typical
    return Levels(levels.known, average)


def fit_new_levels(
    module: ELBOModule, dataset: CellsDataset, rows: np.ndarray, known: Tensor, seed: int = 0,
    n_epochs: int | None = None, n_cells: int = N_CELLS, rate: float = RATE,
) -> None:  # fmt: skip
    """Train the weights of new levels, and no others, on the bound of their cells (architecture surgery).

    Each new level has two weights for each gene: its effect on what the encoders read, and its intercept in the
    decoder. A batch that is embedded has its place in the embedding instead. They start with those of the known level
    that stands for it. A linear encoder has an intercept instead of an effect.
    Unseen genes are filled in anew a few times, because the expected values change with the weights.

    Parameters
    ----------
    module
        Module with the wider layout, in evaluation mode; the weights of new levels are changed.
    dataset
        The new cells.
    rows
        (m,) row numbers of those with a new level.
    known
        (q,) which columns of c are not new.
    seed
        Seed of the order of cells and of the draws of z.
    n_epochs
        Passes over these cells; ``None`` takes 400 steps.
    n_cells
        Cells in a minibatch.
    rate
        Learning rate of Adam.

    References
    ----------
    Lotfollahi et al. 2022, Mapping single-cell data to reference atlases by transfer learning.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    masks = dict(_weights_of(module, ~known))
    order = np.random.default_rng(seed).permutation(rows)[: some_cells(module.layout.n_genes)]
    n_batches = -(-len(order) // n_cells)
    n_steps = N_STEPS if n_epochs is None else n_epochs * n_batches
    batches: list[list[Cells]] = []
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.enable_grad(), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        optimizer = torch.optim.Adam(masks, lr=rate)
        for step in range(n_steps):
            if not batches or (module.unseen is not None and step % REFILL == 0):
                batches = [list(stream(module, dataset, np.sort(order[i::n_batches]))) for i in range(n_batches)]
            for cells in batches[step % n_batches]:
                (-_bound(module, cells).sum()).backward()
            for weight, mask in masks.items():
                cast(Tensor, weight.grad).mul_(mask)
            optimizer.step()
            optimizer.zero_grad()
    for weight in masks:
        weight.requires_grad_(False)
    for parameter in trainable:
        parameter.requires_grad_(True)


def _bound_under(module: ELBOModule, cells: Cells, replaced: Tensor, column: int) -> float:
    """Sum of the bound at the posterior means over the cells of a new level, under replaced conditions."""
    known = cells._replace(c=cells.c @ replaced.to(cells.c), y=cells.y[:, :0])
    return float(_bound(module, known, module.encode(known).loc)[cells.c[:, column] > 0].sum())


def _weights_of(module: ELBOModule, new: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Tensors with weights of the new columns of c, and masks that are 1 at these weights."""
    seen = torch.ones(module.layout.n_genes) if module.unseen is None else ~module.unseen
    of_c = new
    if (batches := module.encoder.trunk.batches) is not None:
        b = batches.num_embeddings
        of_c = torch.cat([torch.zeros(batches.embedding_dim, dtype=torch.bool), new[b:]])
        yield batches.weight.requires_grad_(), new[:b, None].expand_as(batches.weight).to(batches.weight)
    heads = [module.likelihood.head] if module.likelihood.trunk.n_conditions else []
    masks = [torch.outer(seen, of_c) for _ in heads]
    for encoder in (part for part in module.modules() if isinstance(part, Encoder)):
        if encoder.trunk.is_linear:
            heads.append(encoder.loc)
            masks.append(of_c.expand(encoder.loc.out_features, -1))
        else:
            effects = cast(Tensor, encoder.trunk.layers[0].effects)  # (q, g), as the module has conditions
            yield effects.requires_grad_(), torch.outer(new, seen).to(effects)
    for head, mask in zip(heads, masks, strict=True):
        whole = torch.zeros_like(head.weight)
        whole[:, -len(of_c) :] = mask
        yield head.weight.requires_grad_(), whole


def _bound(module: ELBOModule, cells: Cells, z: Tensor | None = None) -> Tensor:
    """Bound (n,) of cells for the measured genes; from a draw of z, or at given z (n, d)."""
    qz = module.encode(cells)
    z = qz.rsample() if z is None else z
    log_px = module.decode(z, cells).log_prob(dense(cells.x))
    if module.unseen is not None:
        log_px = log_px[:, ~module.unseen.to(log_px.device)]
    return log_px.sum(1) - sum(module.prior.kl(qz, z, cells).annealed.values(), torch.zeros_like(log_px[:, 0]))
