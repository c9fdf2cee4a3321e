"""Cells in zarr stores are those of the AnnData they were written from, and the stores stay as they are."""

import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csc_matrix

from mixvi import GMVAE
from mixvi.data import _zarr, from_zarr, to_zarr
from mixvi.data._matrix import HostMatrix
from mixvi.data._support import describe
from mixvi.ops.csr import dense
from tests.data.helpers import checksums

pytest.importorskip("annbatch", reason="needs the packages of mixvi[large]")
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.mark.parametrize("which", ["one", "three"])
@pytest.mark.parametrize(
    "rows",
    [np.array([7, 119, 7, 50, 0]), np.arange(40, 60), np.arange(120)[::-1], slice(10, 90), np.arange(120) % 3 == 0, 5],
    ids=["any", "run", "reversed", "slice", "mask", "single"],
)
def test_rows_are_those_of_the_anndata(cells, stores, which, rows, monkeypatch):
    monkeypatch.setattr(_zarr, "SECTION", 16)
    opened = from_zarr(stores[which])
    np.testing.assert_array_equal(opened.X[rows].toarray(), cells.X[rows].toarray())
    np.testing.assert_array_equal(opened[rows].X.toarray(), cells[rows].X.toarray())
    np.testing.assert_array_equal(opened[rows, [3, 1]].X.toarray(), cells[rows, [3, 1]].X.toarray())
    if isinstance(rows, np.ndarray) and rows.dtype != bool:
        np.testing.assert_array_equal(dense(HostMatrix(opened.X, False).rows(rows)).numpy(), cells.X[rows].toarray())


@pytest.mark.parametrize("which", ["one", "three"])
def test_what_is_opened_has_obs_var_and_a_matrix_on_disk(cells, stores, which):
    opened = from_zarr(stores[which])
    assert list(opened.obs_names) == list(cells.obs_names)
    assert list(opened.var_names) == list(cells.var_names)
    for key in cells.obs:
        assert list(opened.obs[key]) == list(cells.obs[key])
    assert opened.obs["condition"].dtype == "category"
    assert isinstance(opened.X, _zarr.ZarrMatrix)
    assert opened.copy().X is opened.X
    np.testing.assert_array_equal(opened.to_memory().obs_names, cells.obs_names)
    np.testing.assert_array_equal(opened.X.to_memory().toarray(), cells.X.toarray())
    assert list(from_zarr(stores[which], obs_columns=["condition"]).obs) == ["condition"]
    assert describe(opened.X, "X", opened.obs_names, opened.var_names) == describe(
        cells.X, "X", cells.obs_names, cells.var_names
    )


def test_names_of_cells_are_made_unique(stores):
    twice = from_zarr([stores["one"], stores["one"]])
    assert twice.shape == (240, 30)
    assert twice.obs_names.is_unique


@pytest.mark.parametrize("which", ["one", "three"])
def test_cells_can_be_numbered_instead_of_named(cells, stores, which, tmp_path):
    opened = from_zarr(stores[which], obs_names=False)
    assert isinstance(opened.obs_names, pd.RangeIndex)
    np.testing.assert_array_equal(fit(opened, "stream"), fit(from_zarr(stores[which]), "stream"))
    for key in cells.obs:
        assert list(opened.obs[key]) == list(cells.obs[key])
    in_memory = opened[:].copy()
    in_memory.write_h5ad(tmp_path / "numbered.h5ad")
    assert list(ad.read_h5ad(tmp_path / "numbered.h5ad").obs_names) == [str(i) for i in range(120)]


def test_cells_are_numbered_where_their_names_were_repeated(stores, tmp_path):
    to_zarr([tmp_path / "0.h5ad"] * 2, tmp_path / "twice.zarr", progress=False)
    named = from_zarr(tmp_path / "twice.zarr")
    assert named.obs_names.is_unique
    assert list(from_zarr(tmp_path / "twice.zarr", obs_names=False).obs_names) == list(range(len(named)))


@pytest.mark.parametrize("which", ["one", "three"])
def test_a_model_annotates_and_leaves_the_store_alone(cells, stores, which, tmp_path):
    before = checksums(tmp_path)
    opened = from_zarr(stores[which])
    GMVAE.setup_anndata(opened, batch_key="condition", labels_key="cluster", unlabeled_category="none")
    model = GMVAE(opened, n_clusters=3)
    model.train(4, data_path="stream", **QUIET)
    model.annotate()
    assert opened.obsm["X_mixvi"].shape[0] == len(opened.obs["mixvi"]) == 120
    model.save(tmp_path / "model")
    again = GMVAE.load(tmp_path / "model", adata=opened)
    np.testing.assert_array_equal(again.get_latent_representation(), opened.obsm["X_mixvi"])
    np.testing.assert_allclose(again.get_latent_representation(cells), opened.obsm["X_mixvi"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.get_latent_representation(from_zarr(stores["one"])), opened.obsm["X_mixvi"])
    assert checksums(tmp_path) == before


def fit(adata, data_path):
    torch.manual_seed(0)
    np.random.seed(0)
    GMVAE.setup_anndata(adata, batch_key="condition")
    model = GMVAE(adata, n_clusters=3)
    model.train(3, data_path=data_path, **QUIET)
    return model.get_latent_representation()


def test_the_same_cells_train_the_same_model_wherever_they_lie(cells, stores, tmp_path):
    one = fit(from_zarr(stores["one"]), "stream")
    np.testing.assert_array_equal(fit(from_zarr(stores["three"]), "stream"), one)
    np.testing.assert_array_equal(fit(ad.read_h5ad(tmp_path / "all.h5ad", backed="r"), "stream"), one)
    np.testing.assert_array_equal(fit(from_zarr(stores["one"]), "resident"), fit(cells, "resident"))


def test_what_streams_from_disk_is_said(stores, caplog):
    with caplog.at_level("INFO", logger="mixvi"):
        fit(from_zarr(stores["one"]), "resident")
        assert "read from disk" not in caplog.text
        fit(from_zarr(stores["one"]), "auto")  # it would fit
    assert caplog.text.count("read from disk") == 1


def test_what_cannot_be_opened_is_named(cells, stores, tmp_path):
    cells[:, ::-1].copy().write_h5ad(tmp_path / "other.h5ad")
    to_zarr(tmp_path / "other.h5ad", tmp_path / "other.zarr", progress=False)
    with pytest.raises(ValueError, match=r"other.zarr has gene 'gene 29' in place 0, where .*all.zarr has 'gene 0'"):
        from_zarr([stores["one"], tmp_path / "other.zarr"])
    cells[:, :7].copy().write_h5ad(tmp_path / "few.h5ad")
    with pytest.raises(ValueError, match="few.h5ad has 7 genes where .*all.h5ad has 30"):
        to_zarr([tmp_path / "all.h5ad", tmp_path / "few.h5ad"], tmp_path / "new.zarr")
    cells.X = csc_matrix(cells.X)
    cells.write_zarr(tmp_path / "csc.zarr")
    cells.write_h5ad(tmp_path / "csc.h5ad")
    with pytest.raises(ValueError, match="csc.zarr has 'X' as 'csc_matrix'"):
        from_zarr(tmp_path / "csc.zarr")
    with pytest.raises(ValueError, match="csc.h5ad has 'X' by columns"):
        to_zarr(tmp_path / "csc.h5ad", tmp_path / "new.zarr")
    with pytest.raises(FileNotFoundError, match="no zarr store at .*nowhere.zarr"):
        from_zarr(tmp_path / "nowhere.zarr")
    with pytest.raises(KeyError, match="has no columns .*'depth'.*'cluster'"):
        from_zarr(stores["one"], obs_columns=["depth"])
    with pytest.raises(KeyError, match="has no 'layers/raw'"):
        from_zarr(stores["one"], layer="raw")
    with pytest.raises(ValueError, match="no store"):
        from_zarr([])
    assert not list(tmp_path.glob("new*"))


def test_the_missing_extra_is_named(stores, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "annbatch", None)
    with pytest.raises(ImportError, match=r'from_zarr needs annbatch; pip install "mixvi\[large\]"'):
        from_zarr(stores["one"])
    with pytest.raises(ImportError, match="to_zarr needs annbatch"):
        to_zarr(tmp_path / "0.h5ad", tmp_path / "new.zarr")
