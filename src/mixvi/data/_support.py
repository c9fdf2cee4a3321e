"""The values of a matrix, and the likelihoods that can describe them."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_matrix, issparse

ROWS_AT_ONCE = 4096  # rows of a matrix that are read together
LARGEST = float(np.finfo(np.float32).max)  # models compute in single precision

AUTO = {"count": "nb", "unit": "bernoulli", "real": "normal"}
MEANING = {
    "count": "raw counts (non-negative whole numbers)",
    "unit": "values in [0, 1]",
    "real": "real values",
}


class Find(NamedTuple):
    """Entries of one kind: their number, and value and position of the first."""

    number: int
    value: float
    cell: str
    gene: str

    def __str__(self) -> str:
        return f"{self.number:,} (the first is {self.value:g} in cell {self.cell!r}, gene {self.gene!r})"


class Support(NamedTuple):
    """The values of a matrix.

    Attributes
    ----------
    where
        Its name in the AnnData, such as ``adata.layers['counts']``.
    negative, fraction, above_one
        Entries that are below 0, are no whole number, or are above 1; ``None`` if there are none.
    empty
        Number of cells with zeros only, and the name of the first.
    """

    where: str
    negative: Find | None
    fraction: Find | None
    above_one: Find | None
    empty: tuple[int, str]

    @property
    def kind(self) -> str:
        """``"unit"`` for entries in [0, 1], ``"count"`` for other whole numbers from 0 on, else ``"real"``."""
        if self.negative is None and self.above_one is None:
            return "unit"
        return "count" if self.negative is None and self.fraction is None else "real"


def check_dtype(matrix, where: str) -> None:
    """Check that a matrix has numbers of a kind that models read.

    Parameters
    ----------
    matrix
        (n, g) values, or ``None``.
    where
        Name of the matrix, for messages.

    Raises
    ------
    ValueError
        If there is no matrix, or its values are of another kind.
    """
    if matrix is None:
        raise ValueError(f"{where} is None; name the layer that has the values: setup_anndata(adata, layer=...).")
    if np.ma.isMaskedArray(matrix):
        raise ValueError(f"{where} is a masked array; fill it, for example {where} = {where}.filled(0).")
    if hasattr(matrix, "dask"):
        raise ValueError(
            f"{where} is a dask array. Load it with adata = adata.to_memory(), or open a zarr store with "
            "mixvi.data.from_zarr."
        )
    dtype = np.dtype(matrix.dtype)
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or dtype == np.float16 or not dtype.isnative:
        raise ValueError(
            f"{where} has dtype {dtype.str!r}; models read whole numbers, float32 and float64. "
            f"Convert it: {where} = {where}.astype('float32')."
        )


def describe(matrix, where: str, cell_names, gene_names) -> Support:
    """Check every entry once, block by block.

    Parameters
    ----------
    matrix
        (n, g) values: dense, sparse, or backed by a file.
    where
        Name of the matrix, for messages.
    cell_names, gene_names
        (n,) and (g,) names, for messages.

    Returns
    -------
    The values that it has.

    Raises
    ------
    ValueError
        If there is no cell or no gene, or an entry is NaN, infinite, or too large for single precision.
    """
    n, g = matrix.shape
    if n == 0 or g == 0:
        raise ValueError(
            f"{where} has {n} cells and {g} genes; a model needs at least one of each. Check your filters."
        )
    kinds = {
        "not finite": lambda v: ~(abs(v) <= LARGEST),  # also NaN
        "negative": lambda v: v < 0,
        "fraction": lambda v: v != np.floor(v),
        "above_one": lambda v: v > 1,
    }
    found: dict[str, Find | None] = dict.fromkeys(kinds)
    n_empty, first_empty = 0, ""
    for start, block in _blocks(matrix):
        for kind, wrong in kinds.items():
            count, row, column, value = _first(block, wrong)
            if (earlier := found[kind]) is not None:
                found[kind] = earlier._replace(number=earlier.number + count)
            elif count:
                found[kind] = Find(count, value, str(cell_names[start + row]), str(gene_names[column]))
        empty = np.flatnonzero(np.asarray(abs(block).sum(axis=1)).ravel() == 0)
        if len(empty):
            first_empty = first_empty or str(cell_names[start + empty[0]])
            n_empty += len(empty)
    if n_empty == n:
        raise ValueError(f"All values of {where} are 0, so there is nothing to learn. Pass the layer that has values.")
    if found["not finite"] is not None:
        raise ValueError(
            f"{where} has NaN, infinite or too large entries: {found['not finite']}. No likelihood can describe them; "
            "remove these cells or genes, or redo the step that made them (a division by zero, a log of 0)."
        )
    return Support(where, found["negative"], found["fraction"], found["above_one"], (n_empty, first_empty))


def choose_likelihood(support: Support, linear: bool = False) -> tuple[str, str]:
    """The likelihood for ``"auto"``.

    Parameters
    ----------
    support
        The values of the data.
    linear
        Whether the model is linear, and therefore needs a normal likelihood.

    Returns
    -------
    Name of the likelihood, and a sentence with the reason.
    """
    if linear:
        advice = "; it holds raw counts, so log-normalise them first" if support.kind == "count" else ""
        return "normal", f"likelihood='normal', because a linear model is the PCA of {support.where}{advice}."
    likelihood = AUTO[support.kind]
    return likelihood, f"likelihood={likelihood!r}, because {support.where} holds {MEANING[support.kind]}."


def check_support(support: Support, likelihood: str, needs: str) -> None:
    """Check that a likelihood can describe the data.

    Parameters
    ----------
    support
        The values of the data.
    likelihood
        Name of the likelihood, for the message.
    needs
        Values that it can describe: ``"count"``, ``"unit"`` or ``"real"``.

    Raises
    ------
    ValueError
        If it cannot describe them, or if counts have a cell with zeros only.
    """
    asked = f"likelihood={likelihood!r} needs {MEANING[needs]}, but {support.where} has"
    instead = "or choose likelihood='normal', which describes any real values."
    counts = "Pass the raw counts (setup_anndata(layer=...)), "
    if needs == "count":
        if support.negative is not None:
            raise ValueError(f"{asked} negative entries: {support.negative}. {counts}{instead}")
        if support.fraction is not None:
            raise ValueError(f"{asked} entries that are no whole number: {support.fraction}. {counts}{instead}")
        if support.empty[0]:
            raise ValueError(
                f"{support.where} has {support.empty[0]:,} cells without any count (the first is "
                f"{support.empty[1]!r}); likelihood={likelihood!r} needs a count in every cell. Remove these cells "
                "with sc.pp.filter_cells(adata, min_counts=1), or keep genes that they express."
            )
    if needs == "unit" and (wrong := support.negative or support.above_one) is not None:
        raise ValueError(f"{asked} other entries: {wrong}. Divide by the largest possible value, {instead}")


def _blocks(matrix) -> Iterator[tuple[int, np.ndarray]]:
    """Number of the first row, and rows, of each block."""
    if issparse(matrix):
        matrix = matrix.tocsr()
    for start in range(0, matrix.shape[0], ROWS_AT_ONCE):
        block = matrix[start : start + ROWS_AT_ONCE]
        if issparse(block):
            block.sum_duplicates()  # of the copy: if a row has a gene twice, its value is the sum
        yield start, block


def _first(block, wrong: Callable[[np.ndarray], np.ndarray]) -> tuple[int, int, int, float]:
    """Number of wrong entries in a block; row, column and value of the first. Zeros are never wrong."""
    values = block.data if issparse(block) else np.asarray(block)
    mask = wrong(values)
    count = int(np.count_nonzero(mask))
    if not count:
        return 0, 0, 0, 0.0
    cells = coo_matrix(block)
    at = np.flatnonzero(wrong(cells.data))[0]
    return count, int(cells.row[at]), int(cells.col[at]), float(cells.data[at])
