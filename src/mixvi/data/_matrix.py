"""The registered matrix in memory, in a file or on the device, and its rows as tensors."""

import numpy as np
import torch
from anndata.abc import CSRDataset
from scipy.sparse import csr_matrix, issparse, vstack
from torch import Tensor

from mixvi.ops.csr import csr, is_sparse

MAX_SPARSE = 0.3  # share of non-zero entries below which CSR is faster; benchmarks/throughput.py measures it
LOOK = 4096  # rows from which the share is estimated
GAP = 8  # unwanted rows between two wanted ones that are read too, as one read is faster than two


class HostMatrix:
    """A matrix (n, g) in memory, dense or sparse, or backed by a file.

    Parameters
    ----------
    matrix
        (n, g) NumPy array, SciPy sparse matrix, or matrix in a file that anndata opened.
    in_memory
        Whether to read a file into memory, and to store a matrix of mostly zeros as CSR.
    """

    def __init__(self, matrix, in_memory: bool):
        if in_memory and not isinstance(matrix, np.ndarray) and not issparse(matrix):
            matrix = matrix[:] if hasattr(matrix, "chunks") else matrix.to_memory()
        self.is_backed = not isinstance(matrix, np.ndarray) and not issparse(matrix)
        self.n_rows, self.n_genes = matrix.shape
        some = matrix[: min(LOOK, self.n_rows)]
        self.density = (some.nnz if issparse(some) else np.count_nonzero(some)) / max(np.prod(some.shape), 1)
        if in_memory and self.density < MAX_SPARSE:
            matrix = csr_matrix(matrix)  # CSR is not copied
        self._matrix = matrix

    def rows(self, index: np.ndarray) -> Tensor:
        """Rows with the given numbers (m,), in that order: float32 (m, g), CSR if that is faster."""
        if self.is_backed:  # files are read in rising order, each row once
            once, place = np.unique(index, return_inverse=True)
            block = read_rows(self._matrix, once)[place]
        elif len(index) and (np.diff(index) == 1).all():
            block = self._matrix[index[0] : index[-1] + 1].copy()  # a slice of an array shares the user's memory
        else:
            block = self._matrix[index]
        if self.density >= MAX_SPARSE:
            return _aligned(_float(block if isinstance(block, np.ndarray) else block.toarray()))
        block = csr_matrix(block)
        block.sum_duplicates()  # if a row of CSR has a gene twice, its value is the sum
        offset, gene = (torch.from_numpy(part.astype(np.int32, copy=False)) for part in (block.indptr, block.indices))
        return csr(offset, gene, _aligned(_float(block.data)), self.n_genes)


class DeviceMatrix:
    """A matrix (n, g) on a GPU, in the smallest dtype that represents it exactly.

    Parameters
    ----------
    matrix
        (n, g) matrix to copy, from memory or a file.
    device
        The GPU.
    """

    def __init__(self, matrix: HostMatrix, device: torch.device):
        self.n_rows, self.n_genes = matrix.n_rows, matrix.n_genes
        blocks = [
            matrix.rows(np.arange(start, min(start + LOOK, self.n_rows))) for start in range(0, self.n_rows, LOOK)
        ]
        self.sparse = is_sparse(blocks[0])
        values = [block.values() if self.sparse else block for block in blocks]
        dtype = _smallest(values)
        self._value = torch.cat([value.to(device, dtype) for value in values])
        if self.sparse:
            gene_type = torch.int16 if self.n_genes < 2**15 else torch.int32
            self._gene = torch.cat([block.col_indices().to(device, gene_type) for block in blocks])
            n_entries = torch.cat([block.crow_indices().diff() for block in blocks])
            self._offset = torch.cat([n_entries.new_zeros(1), n_entries]).cumsum(0).to(device)  # int64

    def rows(self, index: np.ndarray) -> Tensor:
        """Rows with the given numbers (m,), in that order: float32 (m, g), dense or CSR."""
        rows = torch.from_numpy(index).to(self._value.device)
        if not self.sparse:
            return self._value[rows].float()
        start = self._offset[rows]
        n_entries = self._offset[rows + 1] - start
        offset = torch.cat([n_entries.new_zeros(1), n_entries.cumsum(0)])
        total = int(offset[-1])
        place = torch.arange(total, device=rows.device)
        place += (start - offset[:-1]).repeat_interleave(n_entries, output_size=total)
        return csr(offset.int(), self._gene[place].int(), self._value[place].float(), self.n_genes)


def runs(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group rising row numbers (m,) into runs, each of which is one read of a file.

    Returns
    -------
    First row (r,) of each run, the row (r,) after its last, and the position (m,) of each row in the stacked runs.
    """
    cut = np.flatnonzero(np.diff(rows) > GAP) + 1
    first = rows[np.concatenate([[0], cut])]
    after = rows[np.concatenate([cut, [len(rows)]]) - 1] + 1
    before = np.cumsum(after - first) - (after - first)  # rows that earlier runs hold
    run = np.searchsorted(first, rows, side="right") - 1
    return first, after, rows - first[run] + before[run]


def n_bytes(matrix: HostMatrix) -> float:
    """Upper bound of the bytes that the matrix takes on a device."""
    cells = float(matrix.n_rows) * matrix.n_genes
    return cells * 4 if matrix.density >= MAX_SPARSE else cells * matrix.density * 8


def read_rows(matrix, rows: np.ndarray) -> np.ndarray | csr_matrix:
    """Rows of a matrix in a file.

    Parameters
    ----------
    matrix
        (n, g) matrix in a file that anndata opened.
    rows
        (m,) rising row numbers.
    """
    if not isinstance(matrix, CSRDataset) or matrix.backend != "hdf5" or not len(rows):
        block = matrix[rows]
        return csr_matrix(block) if issparse(block) else block
    parts = []
    for some in np.array_split(rows, -(-len(rows) // LOOK)):  # bounds the unwanted rows in memory
        first, after, place = runs(some)
        parts.append(vstack([matrix[a:b] for a, b in zip(first, after, strict=True)], "csr")[place])
    return csr_matrix(vstack(parts, "csr"))


def _aligned(values: np.ndarray) -> Tensor:
    """A copy in memory that torch aligns. Matrix products of other memory are sometimes rounded in another way."""
    return torch.from_numpy(values).clone()


def _float(values: np.ndarray) -> np.ndarray:
    return np.require(values, np.float32, ["C", "W"])


def _smallest(values: list[Tensor]) -> torch.dtype:
    whole = all(bool((value == value.floor()).all()) for value in values)
    low, high = (
        min(float(value.min()) for value in values if value.numel()),
        max(float(value.max()) for value in values if value.numel()),
    )
    if whole and low >= 0 and high < 2**8:
        return torch.uint8
    return torch.int16 if whole and low >= -(2**15) and high < 2**15 else torch.float32
