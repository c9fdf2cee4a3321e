"""A fingerprint of values and columns, to see whether they were changed in place."""

import hashlib

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, issparse

from mixvi.data._matrix import read_rows

AT_ONCE = 10_000_000  # values in double precision: 80 MB
COUNT_TOLERANCE = 1e-6  # relative to a cell's total: one count of a million
N_ROWS_OF_FILE = 100  # rows of a file


def fingerprint(matrix) -> np.ndarray:
    """Total of each cell's absolute values, and sum of its values with a random weight for each gene.

    Both are also given for x / sqrt(1 + |x|), so that small values are seen beside a large one. The fingerprint does
    not depend on how the matrix is stored. It changes with any value, and with the order of cells or genes.

    Parameters
    ----------
    matrix
        (n, g) dense or sparse values.

    Returns
    -------
    (n, 4) sums. Of a matrix in a file with more than 100 rows, they are (100, 4), of rows at equal distances.
    """
    n, n_genes = matrix.shape
    if not (issparse(matrix) or isinstance(matrix, np.ndarray)):
        matrix = read_rows(matrix, _some(n))
        n = len(_some(n))
    weight = np.random.default_rng(0).uniform(0.5, 1.5, n_genes)
    rows, size, sums = csr_matrix(matrix) if issparse(matrix) else matrix, max(AT_ONCE // max(n_genes, 1), 1), []
    for start in range(0, n, size):
        block = rows[start : start + size].astype(np.float64)
        with np.errstate(invalid="ignore"):  # of infinite values, which other checks refuse
            both = [block, block.multiply(_shrinkage(block)) if issparse(block) else block * _shrinkage(block)]
        found = [part for x in both for part in (abs(x).sum(axis=1), x @ weight)]
        sums.append(np.stack([np.asarray(part).ravel() for part in found], 1))
    return np.concatenate([np.zeros((0, 4)), *sums])


def same_values(now: np.ndarray, then: np.ndarray) -> bool:
    """Whether two fingerprints are of the same values. If one is of a file, the rows of both are compared.

    Parameters
    ----------
    now, then
        Of as many cells; see `fingerprint`.
    """
    if len(now) != len(then):
        now, then = (part if len(part) == N_ROWS_OF_FILE else part[_some(len(part))] for part in (now, then))
    if now.shape != then.shape:
        return False
    return bool((np.abs(now - then) <= COUNT_TOLERANCE * then[:, [0, 0, 2, 2]]).all())  # NaN is no value


def column_fingerprint(column: pd.Series) -> str:
    """A text that depends on the values of a column and their order, and not on the order of its categories.

    Parameters
    ----------
    column
        (n,) values.
    """
    return hashlib.sha256(pd.util.hash_pandas_object(column, index=False).to_numpy().tobytes()).hexdigest()


def _some(n: int) -> np.ndarray:
    """Up to 100 of n rows, at equal distances."""
    return np.linspace(0, max(n - 1, 0), min(n, N_ROWS_OF_FILE)).astype(int)


def _shrinkage(block):
    """1 / sqrt(1 + |x|), of a sparse matrix at its entries."""
    if not issparse(block):
        return 1 / np.sqrt(1 + abs(block))
    block.sum_duplicates()
    return csr_matrix((1 / np.sqrt(1 + abs(block.data)), block.indices, block.indptr), block.shape)
