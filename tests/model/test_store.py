"""What is written into a store is what `annotate` writes, and a store that is not finished stays as it was."""

from itertools import count
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy.sparse import csr_matrix

from mixvi.data import _growing, _to_store, from_zarr, to_zarr
from mixvi.model import store
from mixvi.train import _observe
from tests.data.helpers import checksums
from tests.model.helpers import fitted

pytest.importorskip("annbatch", reason="needs the packages of mixvi[large]")


@pytest.fixture
def paths(counts, tmp_path, monkeypatch):
    """120 cells in two stores: one of mixvi, one of anndata. Blocks and shards are small."""
    monkeypatch.setattr(_growing, "SHARD_CHUNKS", 1)
    monkeypatch.setattr(_to_store, "DENSE_CHUNK_ROWS", 16)
    monkeypatch.setattr(_observe, "EVALUATION_BATCH", 12)
    counts.X = csr_matrix(counts.X)
    counts[:70].copy().write_h5ad(tmp_path / "0.h5ad")
    to_zarr(tmp_path / "0.h5ad", tmp_path / "0.zarr", progress=False)
    counts[70:].copy().write_zarr(tmp_path / "1.zarr")
    with pytest.warns(zarr.errors.ZarrUserWarning):
        zarr.consolidate_metadata(tmp_path / "1.zarr")
    return [tmp_path / "0.zarr", tmp_path / "1.zarr"]


def model_of(paths, name="GMVAE", train=None, **settings):
    return fitted(name, from_zarr(paths), train={"train_size": 0.7} | (train or {}), **settings)


def read(paths):
    """All stores as one AnnData."""
    parts = [ad.read_zarr(path) for path in paths]
    together = ad.concat(parts, uns_merge="same")
    together.obs_names = from_zarr(paths).obs_names
    return together


@pytest.mark.parametrize("n_clusters", [None, 2])
def test_the_stores_get_what_annotate_writes(paths, n_clusters):
    model = model_of(paths, setup={"batch_key": "condition"})
    before = read(paths)
    model.annotate_store(key_added="found", n_clusters=n_clusters, n_probabilities=99)
    cells = model.adata
    assert "found" not in cells.obs
    model.annotate(key_added="found", n_clusters=n_clusters)
    written = read(paths)
    assert list(written.obs["found"]) == list(cells.obs["found"])
    assert list(written.obs["found"].cat.categories) == list(cells.obs["found"].cat.categories)
    one_rank = 1.01 / (len(model.validation_indices) + 1)  # a held-out cell ties with itself, up to rounding
    for end, atol in (("_confidence", 1e-6), ("_entropy", 1e-6), ("_outlier_p", one_rank)):
        np.testing.assert_allclose(written.obs[f"found{end}"], cells.obs[f"found{end}"], rtol=1e-5, atol=atol)
    np.testing.assert_allclose(written.obsm["X_found"], cells.obsm["X_found"], rtol=1e-5, atol=1e-6)
    table = cells.obsm["found_probabilities"].to_numpy()
    np.testing.assert_allclose(written.obsm["found_probabilities"].toarray(), table, rtol=1e-5, atol=1e-7)
    one = ad.read_zarr(paths[0])
    pd.testing.assert_frame_equal(one.uns["found"]["tree"], cells.uns["found"]["tree"], check_dtype=False)
    assert set(one.uns["found"]["keys"]) == set(cells.uns["found"]["keys"])
    assert (written.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(written.obs[before.obs.columns], before.obs)
    assert list(from_zarr(paths).obs["found"]) == list(cells.obs["found"])  # the next model can use them


def test_blocks_are_small(paths, monkeypatch):
    """No table of all cells is made: what is written comes in minibatches."""
    sizes, write = [], store.write_entries

    def counting(path, key, blocks, *others):
        def counted():
            for block in blocks:
                sizes.append({len(block.obs["mixvi"]), *(values.shape[0] for values in block.obsm.values())})
                yield block

        write(path, key, counted(), *others)

    monkeypatch.setattr(store, "write_entries", counting)
    model_of(paths).annotate_store()
    assert all(len(size) == 1 for size in sizes)
    assert max(map(max, sizes)) <= _observe.EVALUATION_BATCH
    assert sum(map(sum, sizes)) == 120


def test_only_the_largest_probabilities_are_kept(paths):
    model = model_of(paths, n_clusters=4, train={"max_epochs": 8})
    model.annotate_store(n_probabilities=2)
    p = model.predict(soft=True).to_numpy()
    found = read(paths).obsm["mixvi_probabilities"]
    assert found.nnz == 2 * 120
    np.testing.assert_allclose(np.sort(found.toarray())[:, -2:], np.sort(p)[:, -2:], rtol=1e-5, atol=1e-7)
    assert (found.toarray().argmax(1) == p.argmax(1)).all()


@pytest.mark.parametrize(("name", "settings"), [("CVAE", {}), ("AE", {"linear": True, "likelihood": "normal"})])
def test_models_without_clusters_write_their_latent(paths, name, settings):
    model = model_of(paths, name, **settings)
    model.annotate_store()
    written = read(paths)
    np.testing.assert_allclose(written.obsm["X_mixvi"], model.get_latent_representation(), rtol=1e-5, atol=1e-6)
    assert "mixvi" not in written.obs
    if settings:
        np.testing.assert_allclose(ad.read_zarr(paths[1]).varm["PCs_mixvi"], model.principal_components().axes)


def test_new_cells_can_be_in_a_store(paths):
    model = model_of(paths[0])
    model.annotate_store(from_zarr(paths[1]))
    assert "mixvi" not in ad.read_zarr(paths[0]).obs
    expected = model.predict(ad.read_zarr(paths[1]))
    assert list(ad.read_zarr(paths[1]).obs["mixvi"]) == list(expected)


def test_own_results_are_renewed_and_others_left(paths, tmp_path):
    model = model_of(paths)
    before = checksums(tmp_path)
    with pytest.raises(ValueError, match="already has .'cluster'., which is not from mixvi"):
        model.annotate_store(key_added="cluster")
    assert checksums(tmp_path) == before
    model.annotate_store()
    model.held_out_ = None
    model.annotate_store(n_clusters=2)
    written = read(paths)
    assert "mixvi_outlier_p" not in written.obs
    assert set(written.obs["mixvi"].cat.categories) == {"0", "1"}


@pytest.mark.parametrize("earlier", [False, True])
def test_a_store_that_is_stopped_at_any_moment_is_whole(paths, tmp_path, monkeypatch, earlier):
    """Each move fails once. Then cells and columns are as before, and the next call writes all."""
    model, path = model_of(paths[1]), paths[1]
    if earlier:
        model.annotate_store(n_clusters=2)
    before, rename, expected = ad.read_zarr(path), Path.rename, list(model.predict())
    for last in count():
        left = iter(range(last))

        def stopped(self, target, left=left):
            if next(left, None) is None:
                raise RuntimeError("killed")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", stopped)
        try:
            model.annotate_store()
        except RuntimeError:
            now = ad.read_zarr(path)
            assert (now.X != before.X).nnz == 0
            theirs = [key for key in before.obs if not key.startswith("mixvi")]
            pd.testing.assert_frame_equal(now.obs[theirs], before.obs[theirs])
            monkeypatch.setattr(Path, "rename", rename)
            model.annotate_store()
            assert list(ad.read_zarr(path).obs["mixvi"]) == expected
        else:
            break
    assert last > 6
    assert not list(tmp_path.glob("*unfinished*"))


def test_an_error_on_the_way_changes_nothing(paths, tmp_path, monkeypatch):
    model = model_of(paths)
    before, largest = checksums(tmp_path), store._largest
    calls = count()

    def fails(*args):
        if next(calls) == 3:
            raise RuntimeError("disk full")
        return largest(*args)

    monkeypatch.setattr(store, "_largest", fails)
    with pytest.raises(RuntimeError, match="disk full"):
        model.annotate_store()
    assert checksums(tmp_path) == before


def test_cells_in_memory_are_refused(counts, paths):
    model = model_of(paths)
    for cells in (counts, from_zarr(paths)[:50]):
        with pytest.raises(ValueError, match="from_zarr did not open these cells. Use annotate"):
            model.annotate_store(cells)
    with pytest.raises(ValueError, match="n_probabilities=0"):
        model.annotate_store(n_probabilities=0)
