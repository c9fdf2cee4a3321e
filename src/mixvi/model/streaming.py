"""How cells stream through a trained model: any function of `Cells`, in large blocks, in the order asked for."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from mixvi._checks import check_whole
from mixvi.data import CellsDataset, as_positions
from mixvi.model.registration import registered
from mixvi.module.cells import Cells
from mixvi.ops.csr import dense
from mixvi.train import stream

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel


def check_trained(model: "LatentModel") -> None:
    """Raise ``RuntimeError`` if a model is not trained."""
    if not model.is_trained_:
        raise RuntimeError(f"This {type(model).__name__} is not trained yet; call model.train() first.")


def collect(
    model: "LatentModel",
    of: Callable[[Cells], Tensor],
    adata: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    batch_size: int | None = None,
    *,
    minified: bool = False,
) -> np.ndarray:
    """Values of a function for each cell, (n, ...), in the order of ``indices``.

    Parameters
    ----------
    model
        A trained model.
    of
        Function of `Cells` that gives a tensor with one row for each cell.
    adata, indices, batch_size
        As in ``get_latent_representation``.
    minified
        Whether the function does not read x, so that minified cells will do.
    """
    return np.concatenate(list(blocks(model, of, adata, indices, batch_size, minified=minified)))


def blocks(
    model: "LatentModel",
    of: Callable[[Cells], Tensor],
    adata: AnnData | None,
    indices: Sequence[int] | np.ndarray | None,
    batch_size: int | None,
    *,
    minified: bool = False,
) -> Iterator[np.ndarray]:
    """Values of a function for each cell, block by block.

    Parameters
    ----------
    model, of, adata, indices, batch_size, minified
        As in `collect`.

    Raises
    ------
    ValueError
        If a result is not finite. Single values of minus infinity, the log of 0, are allowed.
    """
    check_trained(model)
    check_whole("batch_size", batch_size, none="the default")
    manager = registered(model, adata, minified)
    rows = as_positions(indices, manager.adata.n_obs)
    model.module.eval()
    dataset = CellsDataset(manager, model.device, resident=False)
    n_read = 0
    for cells in stream(model.module, dataset, rows, batch_size=batch_size):
        with torch.inference_mode():  # not around a yield, which would leave the caller in it
            part = of(cells).cpu().numpy()
        wrong = _is_wrong(part.reshape(len(part), -1))
        if wrong.any():
            first = int(wrong.argmax())
            raise ValueError(_what_is_wrong(manager.adata, rows[n_read + first], dense(cells.x)[first]))
        n_read += len(part)
        yield part


def _is_wrong(found: np.ndarray) -> np.ndarray:
    """Which rows (n,) of results (n, k) have NaN or infinity, or only minus infinity."""
    if not found.size or np.isfinite(found).all():
        return np.zeros(len(found), dtype=bool)
    return (np.isnan(found) | (found == np.inf)).any(1) | np.isneginf(found).all(1)


def _what_is_wrong(adata: AnnData, row: int, x: Tensor) -> str:
    """That the values x (g,) of a cell are too large."""
    text = f"The result for cell {adata.obs_names[row]!r} is not a finite number. "
    if not len(x):  # minified
        return text + "Leave this cell out."
    gene = int(x.abs().argmax())
    return (
        f"{text}Its largest value is {x[gene]:g}, in gene {adata.var_names[gene]!r}. Correct it, or leave the cell out."
    )
