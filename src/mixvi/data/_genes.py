"""Cells with other genes than a model: genes are matched by name."""

import logging
from typing import NamedTuple, cast

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, issparse

from mixvi._warnings import warn

logger = logging.getLogger(__name__)

FEW = 0.5  # share of the genes below which a user should look at the names


class Aligned(NamedTuple):
    """Cells with the genes of a model, in its order."""

    cells: AnnData  # n x g; values of unseen genes are 0; copies, except a matrix that needs no change
    unseen: np.ndarray  # (g,) whether the cells lack a gene


def align_genes(adata: AnnData, names: np.ndarray, layer: str | None = None, gene_key: str | None = None) -> Aligned:
    """Match the genes of cells with those of a model by name. Further genes are left out.

    Parameters
    ----------
    adata
        n cells x any genes; not changed.
    names
        (g,) names of the model's genes.
    layer
        Layer with the values; ``None`` is ``.X``.
    gene_key
        Column of ``.var`` with the names that the model knows; ``None`` is ``.var_names``.

    Returns
    -------
    The cells, and the genes that they lack.

    Raises
    ------
    ValueError
        If there are no cells, no gene matches, or a gene of the model occurs twice.
    KeyError
        If there is no such column of ``.var``.
    """
    if gene_key is not None and gene_key not in adata.var:
        raise KeyError(f"There is no column {gene_key!r} in .var; the columns are {list(adata.var.columns)}.")
    if adata.n_obs == 0:
        raise ValueError("There are no cells in the AnnData; check your filters.")
    found = pd.Index((adata.var_names if gene_key is None else adata.var[gene_key]).astype(str))
    wanted = pd.Index(np.asarray(names).astype(str))
    where = ".var_names" if gene_key is None else f".var[{gene_key!r}]"
    if len(twice := found[found.isin(wanted) & found.duplicated()]):
        raise ValueError(
            f"{where} has {len(twice):,} genes of the model more than once, such as {twice[0]!r}. Keep one of each, or "
            "add up their counts."
        )
    column = _places(found, wanted)
    unseen = column < 0
    if unseen.all():
        raise ValueError(
            f"None of the model's {len(wanted):,} genes, such as {list(wanted[:3])}, is in {where}, which has "
            f"{list(found[:3])}. If .var has {'a' if gene_key is None else 'another'} column "
            "with these names, pass it as gene_key."
        )
    message = "%d of the model's %d genes are in the new cells. %d are unseen; %d other genes are left out."
    numbers = (~unseen).sum(), len(wanted), unseen.sum(), len(found) - (~unseen).sum()
    (warn(message % numbers) if unseen.mean() > FEW else logger.info(message, *numbers))
    is_same = np.array_equal(column, np.arange(adata.n_vars))
    cells = adata.to_memory() if adata.isbacked and not is_same else adata
    matrix = cells.X if layer is None else cells.layers[layer]
    matrix = matrix if is_same else _columns(matrix, column)
    layers = {} if layer is None else {layer: matrix}
    var = pd.DataFrame(index=pd.Index(np.asarray(names)))
    return Aligned(ad.AnnData(matrix if layer is None else None, adata.obs.copy(), var, layers=layers), unseen)


def with_genes(adata: AnnData, names: np.ndarray) -> AnnData:
    """Cells with the genes of a model, in its order, and with all else that they have.

    Parameters
    ----------
    adata
        n cells x any genes; not changed.
    names
        (g,) names of the model's genes. Values of those that the cells lack are 0 in all layers.

    Notes
    -----
    ``.raw``, ``.varm`` and ``.varp`` are left out.
    """
    cells = adata.to_memory() if adata.isbacked else adata
    column = _places(cells.var_names.astype(str), pd.Index(np.asarray(names).astype(str)))
    var = cast(pd.DataFrame, cells.var).iloc[column[column >= 0]]
    flags = dict.fromkeys(var.select_dtypes("bool"), "boolean")  # which can be missing
    var = var.astype(flags).reindex(pd.Index(names))
    return ad.AnnData(
        None if cells.X is None else _columns(cells.X, column), cells.obs.copy(), var,
        layers={key: _columns(matrix, column) for key, matrix in cells.layers.items() if key is not None},
        obsm=dict(cells.obsm), obsp=dict(cells.obsp), uns=dict(cells.uns),
    )  # fmt: skip


def _places(found: pd.Index, wanted: pd.Index) -> np.ndarray:
    """Where each wanted gene is found first; -1 for those that are not."""
    first = ~found.duplicated()
    return pd.Series(np.flatnonzero(first), found[first]).reindex(wanted, fill_value=-1).to_numpy()


def _columns(matrix, column: np.ndarray):
    """Columns (n, g) of a matrix; zeros where ``column`` is -1."""
    seen = np.flatnonzero(column >= 0)
    if not issparse(matrix):
        out = np.zeros((matrix.shape[0], len(column)), matrix.dtype)
        out[:, seen] = matrix[:, column[seen]]
        return out
    place = csr_matrix((np.ones(len(seen), matrix.dtype), (column[seen], seen)), (matrix.shape[1], len(column)))
    return csr_matrix(matrix @ place, dtype=matrix.dtype)
