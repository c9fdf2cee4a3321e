"""Cells that a trained module has not seen the like of: genes that were not measured, and new levels of conditions."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from mixvi.module.cells import Cells, Layout
from mixvi.ops.csr import dense

if TYPE_CHECKING:
    from mixvi.module._elbo import ELBOModule

N_FILLS = 5  # of encoding and filling in


@torch.no_grad()
def complete(module: "ELBOModule", cells: Cells, unseen: Tensor) -> Cells:
    """Replace the zeros of unseen genes by the values that the module expects.

    Encoding and filling in alternate: the latent of the seen genes gives p(x | z, c), whose mean is read by the encoder
    in the next round. A library size that is a total count is divided by the expected share of the seen genes.

    Parameters
    ----------
    module
        Trained module in evaluation mode.
    cells
        n cells, with zeros in the unseen genes.
    unseen
        (g,) whether a gene was not measured.

    Returns
    -------
    The same cells with other ``seen`` and ``library``. ``x`` keeps its zeros.
    """
    seen, total = dense(cells.seen).clone(), cells.library
    sums_up = module.likelihood.support == "count" and not module.layout.size_factor
    for _ in range(N_FILLS):
        z = module.encode(cells).loc
        if sums_up:
            share = (module.decode(z, cells).mean[:, unseen] / cells.library).sum(1, keepdim=True)
            cells = cells._replace(library=total / (1 - share).clamp(min=1e-3))
        seen[:, unseen] = module.likelihood.expected_seen(z, cells, unseen)
        cells = cells._replace(seen=seen)
    return cells


def check_all_seen(unseen: Tensor | None) -> None:
    """Raise ``ValueError`` if genes are unseen, because the likelihood of the others alone is not computed.

    Parameters
    ----------
    unseen
        (g,) genes that the cells lack; ``None`` for none.
    """
    if unseen is not None:
        raise ValueError(
            f"{int(unseen.sum())} genes of these cells are unseen, so the likelihood of all genes is not known. Use "
            "get_outlier_p(), or train a model on the common genes."
        )


class Levels(NamedTuple):
    """How the conditions of a wider layout follow from those of an earlier one. Here q counts the wider ones."""

    known: Tensor  # (q,) whether the earlier layout has this column
    average: Tensor  # (q, q_old) the earlier conditions that stand for it: itself, or the mean of the known levels

    @classmethod
    def between(cls, old: Layout, new: Layout) -> "Levels":
        """Compare two layouts; new levels of a covariate follow its known ones.

        Parameters
        ----------
        old, new
            The earlier and the wider layout.
        """
        blocks = list(_blocks(old, new))
        known = torch.cat([torch.arange(n_new) < n_old for n_old, n_new in blocks])
        means = (torch.full((n_new - n_old, n_old), 1 / max(n_old, 1)) for n_old, n_new in blocks)
        parts = [torch.cat([torch.eye(n_old), mean]) for (n_old, _), mean in zip(blocks, means, strict=True)]
        return cls(known, torch.block_diag(*parts))

    @property
    def typical(self) -> Tensor:
        """(q, q) what replaces each column of c where new levels must not be used."""
        return self.average @ torch.eye(len(self.known))[self.known]

    def widen(self, state: dict[str, Tensor], module: "ELBOModule") -> dict[str, Tensor]:
        """Weights for the wider layout, in which a new level equals what stands for it.

        Parameters
        ----------
        state
            Weights of the trained module. Cells of known levels keep their results.
        module
            Module with the wider layout, for the shapes.

        Returns
        -------
        Weights of this module.
        """
        of_c, found = self.average, {}
        if (batches := module.encoder.trunk.batches) is not None:  # weights on c see the places of the batches
            old = len(state["encoder.trunk.batches.weight"])
            of_c = torch.block_diag(torch.eye(batches.embedding_dim), of_c[batches.num_embeddings :, old:])
        q = of_c.shape[1]
        for name, target in module.state_dict().items():
            value = state[name]
            if value.shape == target.shape:
                found[name] = value
            elif name.endswith("c_mean"):  # 0 for a new level, so that known ones do not move
                found[name] = torch.zeros_like(target).masked_scatter(self.known.to(value.device), value)
            elif value.shape[0] != target.shape[0]:  # of all conditions, or of the batches, which come first
                found[name] = self.average[: len(target), : len(value)].to(value) @ value
            else:
                found[name] = torch.cat([value[..., :-q], value[..., -q:] @ of_c.t().to(value)], -1)
        return found


def _blocks(old: Layout, new: Layout) -> Iterator[tuple[int, int]]:
    """Numbers of old and new columns of each part of c."""
    yield old.batch_levels, new.batch_levels
    yield from zip(old.covariate_levels, new.covariate_levels, strict=True)
    yield old.n_continuous, new.n_continuous
