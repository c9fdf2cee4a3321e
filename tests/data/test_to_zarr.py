"""Files that are converted to one zarr store."""

import anndata as ad
import numpy as np
import pytest

from mixvi.data import _growing, _to_zarr, from_zarr, to_zarr
from tests.data.helpers import checksums

pytest.importorskip("annbatch", reason="needs the packages of mixvi[large]")


@pytest.mark.parametrize("dense_file", [False, True])
def test_the_converter_writes_a_layer_in_whole_shards(cells, tmp_path, monkeypatch, dense_file):
    monkeypatch.setattr(_to_zarr, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(_growing, "SHARD_CHUNKS", 1)
    if dense_file:
        cells.layers["twice"] = cells.layers["twice"].toarray()
    cells.write_h5ad(tmp_path / "cells.h5ad")
    to_zarr([tmp_path / "cells.h5ad"] * 3, tmp_path / "cells.zarr", layer="twice", progress=False)
    written = ad.read_zarr(tmp_path / "cells.zarr")  # anndata's own reader knows it
    np.testing.assert_array_equal(written.X.toarray(), np.tile(cells.X.toarray() * 2, (3, 1)))
    assert len([path for path in (tmp_path / "cells.zarr" / "X" / "data").rglob("*") if path.is_file()]) > 3
    assert not list(tmp_path.glob("*unfinished*"))
    assert (from_zarr(tmp_path / "cells.zarr").X[:].data % 2 == 0).all()


def test_nothing_is_overwritten(stores, tmp_path):
    before = checksums(tmp_path)
    with pytest.raises(ValueError, match="all.zarr exists"):
        to_zarr(tmp_path / "0.h5ad", stores["one"])
    assert checksums(tmp_path) == before
