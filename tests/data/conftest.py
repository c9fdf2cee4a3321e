"""Cells as they lie in memory, and in stores on disk."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from mixvi.data import to_zarr


@pytest.fixture
def cells(counts):
    """120 cells as CSR, with their values doubled in a layer."""
    counts.X = csr_matrix(counts.X)
    counts.layers["twice"] = counts.X * 2
    return counts


@pytest.fixture
def stores(cells, tmp_path):
    """The cells in one store, in three, and as .h5ad."""
    parts = np.split(np.arange(120), [50, 51])
    for i, rows in enumerate(parts):
        cells[rows].copy().write_h5ad(tmp_path / f"{i}.h5ad")
        to_zarr(tmp_path / f"{i}.h5ad", tmp_path / f"{i}.zarr", progress=False)
    to_zarr([tmp_path / f"{i}.h5ad" for i in range(3)], tmp_path / "all.zarr", progress=False)
    cells.write_h5ad(tmp_path / "all.h5ad")
    return {"one": tmp_path / "all.zarr", "three": [tmp_path / f"{i}.zarr" for i in range(3)]}
