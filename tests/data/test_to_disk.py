"""A matrix that comes block by block is, on disk, the matrix that would have been in memory."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from mixvi.data import write_blocks

READ = {".h5ad": ad.read_h5ad, ".zarr": ad.read_zarr}


@pytest.fixture
def whole():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"type": pd.Categorical(rng.choice(["a", "b"], 70))}, index=[f"cell {i}" for i in range(70)])
    var = pd.DataFrame({"mean": rng.random(5)}, index=list("ABCDE"))
    return ad.AnnData(rng.random((70, 5), np.float32), obs, var)


@pytest.mark.parametrize("suffix", READ)
def test_what_is_read_is_what_was_written(tmp_path, whole, suffix):
    path = tmp_path / f"out{suffix}"
    write_blocks(path, ad.AnnData(obs=whole.obs, var=whole.var), np.array_split(whole.X, 4))
    found = READ[suffix](path)
    np.testing.assert_array_equal(found.X, whole.X)
    pd.testing.assert_frame_equal(found.obs, whole.obs)
    pd.testing.assert_frame_equal(found.var, whole.var)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", READ)
def test_what_breaks_off_leaves_nothing(tmp_path, whole, suffix):
    def blocks():
        yield whole.X[:10]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_blocks(tmp_path / f"out{suffix}", ad.AnnData(obs=whole.obs, var=whole.var), blocks())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "message"), [("old.zarr", "exists"), ("a.csv", "must end"), ("no/a.zarr", "folder")])
def test_a_wrong_target_is_refused(tmp_path, whole, name, message):
    (tmp_path / "old.zarr").mkdir()
    with pytest.raises(ValueError, match=message):
        write_blocks(tmp_path / name, ad.AnnData(obs=whole.obs, var=whole.var), [whole.X])
