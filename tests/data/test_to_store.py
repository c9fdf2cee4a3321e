"""Entries of a store are those of its blocks; what a model writes is tested in tests/model/test_store.py."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

from mixvi.data import Entries, check_store, write_entries


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_blocks_become_entries(tmp_path, zarr_format):
    """Both formats that anndata writes."""
    path = tmp_path / "cells.zarr"
    with ad.settings.override(zarr_write_format=zarr_format):
        AnnData(csr_matrix(np.eye(5, dtype=np.float32)), obs=pd.DataFrame({"a": range(5)}, list("vwxyz"))).write_zarr(
            path
        )
    check_store(path, "new")
    kind = pd.CategoricalDtype(["p", "q"])
    blocks = [
        Entries({"new": pd.Categorical(["q"] * n, dtype=kind)}, {"X_new": np.full((n, 2), n, np.float32)})
        for n in (2, 3)
    ]
    write_entries(path, "new", blocks, {"model": "M", "version": "1", "settings": {}}, {"PCs_new": np.ones((5, 2))})
    found = ad.read_zarr(path)
    assert list(found.obs["a"]) == list(range(5))
    assert list(found.obs["new"]) == ["q"] * 5
    assert list(found.obs["new"].cat.categories) == ["p", "q"]
    np.testing.assert_array_equal(found.obsm["X_new"][:, 0], [2, 2, 3, 3, 3])
    assert set(found.uns["new"]["keys"]) == {"obs/new", "obsm/X_new", "varm/PCs_new"}
    check_store(path, "new")  # its own
    with pytest.raises(ValueError, match="already has .'a'., which is not from mixvi"):
        check_store(path, "a")


def test_a_store_must_be_a_folder(tmp_path):
    with pytest.raises(ValueError, match="cells.zarr is not a folder on this machine"):
        check_store(tmp_path / "cells.zarr", "new")
