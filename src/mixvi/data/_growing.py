"""Arrays and matrices of a zarr store that grow block by block, so that only a few blocks are in memory."""

import numpy as np
from scipy.sparse import csr_matrix

CHUNK_ROWS, SHARD_CHUNKS = 64, 256  # rows decoded together, and how many such chunks a file holds: 16,384 rows


class Growing:
    """A growing zarr array (m, ...). Values are written in whole shards.

    Parameters
    ----------
    group
        An open group.
    name
        Name of the array in it.
    dtype
        Dtype of its values.
    chunk
        Number of rows that are decoded together.
    shape
        Shape of a row.
    """

    def __init__(self, group, name: str, dtype, chunk: int, shape: tuple[int, ...] = ()):
        self.shard = chunk * SHARD_CHUNKS
        whole = (self.shard, *shape)
        parts = {"chunks": (chunk, *shape), "shards": whole} if group.metadata.zarr_format == 3 else {"chunks": whole}
        self.array = group.create_array(name, shape=(0, *shape), dtype=dtype, **parts)
        self.array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        self.waiting: list[np.ndarray] = []

    def append(self, values: np.ndarray) -> None:
        """Add rows (n, ...)."""
        self.waiting.append(values.astype(self.array.dtype, copy=False))
        if sum(map(len, self.waiting)) >= self.shard:
            whole = np.concatenate(self.waiting)
            n = len(whole) - len(whole) % self.shard
            self._write(whole[:n])
            self.waiting = [whole[n:].copy()]

    def close(self) -> None:
        """Write the rows that still wait."""
        if self.waiting:
            self._write(np.concatenate(self.waiting))

    def _write(self, values: np.ndarray) -> None:
        start = self.array.shape[0]
        self.array.resize((start + len(values), *self.array.shape[1:]))
        self.array[start:] = values


class GrowingCSR:
    """A growing CSR matrix in the format of anndata. The number of values of each row is in memory, 8 bytes a row.

    Parameters
    ----------
    group
        An open group.
    name
        Name of the matrix in it.
    dtype
        Dtype of its values.
    """

    def __init__(self, group, name: str, dtype):
        self.group, self.dtype, self.shape = group.create_group(name), dtype, [0, 0]
        self.n_entries = [np.zeros(1, np.int64)]
        self.parts: list[Growing] = []

    def append(self, block: csr_matrix) -> None:
        """Add rows; the first block gives the size of the chunks."""
        if not self.parts:
            chunk = max(CHUNK_ROWS * block.nnz // max(block.shape[0], 1), 1024)
            kinds = {"data": self.dtype, "indices": np.int32}
            self.parts = [Growing(self.group, name, dtype, chunk) for name, dtype in kinds.items()]
        for part, values in zip(self.parts, (block.data, block.indices), strict=True):
            part.append(values)
        self.n_entries.append(np.diff(block.indptr))
        self.shape = [self.shape[0] + block.shape[0], block.shape[1]]

    def close(self) -> None:
        """Write what still waits, and the row offsets."""
        for part in self.parts:
            part.close()
        self.group.create_array("indptr", data=np.cumsum(np.concatenate(self.n_entries), dtype=np.int64))
        self.group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": self.shape})
