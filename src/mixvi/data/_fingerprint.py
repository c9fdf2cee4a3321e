"""A fingerprint of the values of a matrix, to see whether they were changed in place."""

import numpy as np
from scipy.sparse import csr_matrix, issparse

AT_ONCE = 10_000_000  # values in double precision: 80 MB
COUNT_TOLERANCE = 1e-6  # relative to a cell's total: one count of a million


def fingerprint(matrix) -> np.ndarray | None:
    """Total of each cell's absolute values, and sum of its values with a random weight for each gene.

    It does not depend on how the matrix is stored. It changes with any value, and with the order of cells or genes.

    Parameters
    ----------
    matrix
        (n, g) dense or sparse values.

    Returns
    -------
    (n, 2) sums; ``None`` for a matrix in a file, which is not read.
    """
    if not (issparse(matrix) or isinstance(matrix, np.ndarray)):
        return None
    n, n_genes = matrix.shape
    weight = np.random.default_rng(0).uniform(0.5, 1.5, n_genes)
    rows, size, sums = csr_matrix(matrix) if issparse(matrix) else matrix, max(AT_ONCE // max(n_genes, 1), 1), []
    for start in range(0, n, size):
        block = rows[start : start + size].astype(np.float64)
        sums.append(np.stack([np.asarray(abs(block).sum(axis=1)).ravel(), np.asarray(block @ weight).ravel()], 1))
    return np.concatenate([np.zeros((0, 2)), *sums])


def same_values(now: np.ndarray, then: np.ndarray) -> bool:
    """Whether two fingerprints are of the same values.

    Parameters
    ----------
    now, then
        (n, 2) each; see `fingerprint`.
    """
    return now.shape == then.shape and bool(
        (np.abs(now - then) <= COUNT_TOLERANCE * then[:, :1]).all()
    )  # NaN is no value
