"""Effects of new levels of the conditions, such as the batch of a query. Nothing else of the module changes."""

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Categorical

from mixvi.data import CellsDataset
from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Cells
from mixvi.module.encoders import Encoder
from mixvi.module.mixtures import MixturePrior
from mixvi.module.query import Levels
from mixvi.ops.csr import dense
from mixvi.train._effects import some_cells
from mixvi.train._observe import stream


@torch.no_grad()
def fit_new_levels(module: ELBOModule, dataset: CellsDataset, n_cells: int, levels: Levels, seed: int = 0) -> None:
    """Estimate the effect of each new level on x, for the encoders, and its intercept, for the decoder.

    Each new cell is compared with what the decoder expects of reference cells that are like it. The effect of a level
    is the mean difference over its cells. So a level that has other types of cells than the reference does not have an
    effect for that reason. There is one round: further ones drift, because nothing else fixes where the new cells lie.

    Parameters
    ----------
    module
        Module with the wider layout and the weights of the trained one; it is changed.
    dataset
        The new cells.
    n_cells
        Their number.
    levels
        Which columns of c are new.
    seed
        Seed of the choice of cells, if there are many, and of the draws.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(n_cells)[: some_cells(module.layout.n_genes)])
    was_training, device = module.training, next(module.parameters()).device
    module.eval()
    new, typical = torch.where(~levels.known)[0].tolist(), levels.typical.to(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        sums = torch.stack([_differences(module, cells, typical, new) for cells in stream(module, dataset, rows)]).sum(
            0
        )
    difference, observed, expected, n = sums.split([module.layout.n_genes] * 3 + [1], 1)
    unseen = torch.zeros(module.layout.n_genes, dtype=torch.bool) if module.unseen is None else module.unseen
    measured, link = (~unseen).to(sums), module.likelihood.link
    for i, column in enumerate(new):
        if n[i] > 0:
            for encoder in (part for part in module.modules() if isinstance(part, Encoder)):
                encoder.add_effect(column, difference[i] / n[i] * measured)
            module.likelihood.add_intercept(column, (link(observed[i] / n[i]) - link(expected[i] / n[i])) * measured)
    module.train(was_training)


def _differences(module: ELBOModule, cells: Cells, typical: Tensor, new: list[int]) -> Tensor:
    """Sums over the cells of each new level (m, 3 g + 1): differences, scaled x, its expectation, and their number."""
    known = cells._replace(c=_some_known(cells.c, typical, new))
    z, discounted = _latent_of_like(module, cells), module.encoder.discounted
    expected = module.likelihood.expected_seen(z, known)
    # what the encoder reads of such a cell under its level, read under the mean of the known levels
    expected = discounted(expected, known.c) - discounted(torch.zeros_like(expected), cells.c @ typical)
    scaled = [module.likelihood.scaled(part) for part in (cells, known._replace(x=module.decode(z, known).mean))]
    values = [dense(cells.seen) - expected, *scaled, torch.ones_like(cells.library)]
    return cells.c[:, new].t() @ torch.cat(values, 1)


def _some_known(c: Tensor, typical: Tensor, new: list[int]) -> Tensor:
    """Conditions (n, q) with a random known level in the place of each new one."""
    found = c.clone()
    found[:, new] = 0
    for column in new:
        mine = torch.where(c[:, column] > 0)[0]
        if len(mine):
            found[mine, typical[column].multinomial(len(mine), replacement=True)] += 1
    return found


def _latent_of_like(module: ELBOModule, cells: Cells) -> Tensor:
    """Latents (n, d) of reference cells that are like these: draws from the components that are responsible for them.

    The latent of a cell itself would take over a part of the effect. It has to do for a model without components.
    """
    qz = module.encode(cells)
    if not isinstance(module.prior, MixturePrior):
        return qz.loc
    y = Categorical(logits=module.prior.log_responsibilities(qz, cells)).sample()
    pz, _ = module.prior.given(cells, mean=False)
    return pz.sample().expand(len(y), -1, -1)[torch.arange(len(y)), y]
