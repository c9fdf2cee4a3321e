"""What grew block by block is what was appended, in both formats of zarr."""

import anndata as ad
import numpy as np
import pytest
import zarr
from scipy.sparse import csr_matrix, vstack

from mixvi.data._growing import Growing, GrowingCSR


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_an_array_grows(tmp_path, rng, zarr_format, shape, monkeypatch):
    monkeypatch.setattr("mixvi.data._growing.SHARD_CHUNKS", 2)
    group = zarr.open_group(tmp_path / "new.zarr", mode="w", zarr_format=zarr_format)
    growing = Growing(group, "values", np.float32, 4, shape)
    blocks = [rng.normal(size=(n, *shape)) for n in (3, 20, 0, 8, 1)]
    for block in blocks:
        growing.append(block)
    growing.close()
    found = ad.io.read_elem(zarr.open_group(tmp_path / "new.zarr")["values"])
    np.testing.assert_array_equal(found, np.concatenate(blocks).astype(np.float32))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_sparse_matrix_grows(tmp_path, rng, zarr_format):
    group = zarr.open_group(tmp_path / "new.zarr", mode="w", zarr_format=zarr_format)
    growing = GrowingCSR(group, "m", np.float32)
    blocks = [csr_matrix(rng.normal(size=(n, 7)) * (rng.random((n, 7)) < 0.5)) for n in (3, 20, 1)]
    for block in blocks:
        growing.append(block)
    growing.close()
    found = ad.io.read_elem(zarr.open_group(tmp_path / "new.zarr")["m"])
    np.testing.assert_allclose(found.toarray(), vstack(blocks).toarray(), rtol=1e-6)
