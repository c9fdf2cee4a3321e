"""What a model writes into an AnnData: its own, all of it, and such that files can hold it."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import mixvi
from tests.model.helpers import fitted


def test_annotations_of_an_earlier_call_go(counts):
    model = fitted("GMVAE", counts)
    model.annotate()
    model.annotate(clustering="leiden")
    assert "mixvi_confidence" not in counts.obs
    assert "mixvi_probabilities" not in counts.obsm


@pytest.mark.parametrize("name", ["AE", "VAE", "CVAE"])
def test_annotate_with_leiden(name, counts):
    model = fitted(name, counts)
    model.annotate()
    assert counts.obsm["X_mixvi"].shape == (120, 3)
    assert "mixvi" not in counts.obs
    model.annotate(clustering="leiden")
    sizes = counts.obs["mixvi"].value_counts(sort=False)
    assert list(sizes.index) == [str(k) for k in range(len(sizes))]
    assert sizes.is_monotonic_decreasing
    assert counts.uns["mixvi"]["model"] == name
    assert counts.uns["mixvi"]["version"] == mixvi.__version__
    assert counts.uns["mixvi"]["likelihood"] == model.likelihood_
    with pytest.raises(ValueError, match="'louvain' is not known"):
        model.annotate(clustering="louvain")


def test_annotate_leaves_what_is_not_its_own(counts):
    model = fitted("GMVAE", counts)
    counts.obs["mine"] = "precious"
    counts.uns["leiden"] = {"params": 1}
    for key in ("mine", "leiden"):
        with pytest.raises(ValueError, match="not from mixvi; nothing was written"):
            model.annotate(key_added=key)
    assert set(counts.obs["mine"]) == {"precious"}
    assert "X_mine" not in counts.obsm
    model.annotate()
    model.annotate()  # its own it may renew


@pytest.mark.parametrize("write", ["write_h5ad", "write_zarr"])
def test_annotations_survive_a_file(write, counts, tmp_path):
    model = fitted("GMVAE", counts)
    model.annotate()
    getattr(counts, write)(tmp_path / "cells")
    again = (ad.read_h5ad if write == "write_h5ad" else ad.read_zarr)(tmp_path / "cells")
    assert list(again.obs["mixvi"]) == list(counts.obs["mixvi"])
    np.testing.assert_array_equal(again.obsm["X_mixvi"], counts.obsm["X_mixvi"])
    np.testing.assert_array_equal(again.obsm["mixvi_probabilities"], counts.obsm["mixvi_probabilities"])
    assert again.uns["mixvi"]["model"] == "GMVAE"
    assert again.uns["mixvi"]["settings"]["n_latent"] == 3
    model.annotate(again)


def test_annotate_writes_clusters_and_how_sure_they_are(model, blobs):
    model.annotate()
    table = blobs.obsm["mixvi_probabilities"]
    np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-5)
    assert list(table.index) == list(blobs.obs_names)
    assert isinstance(blobs.obs["mixvi"].dtype, pd.CategoricalDtype)
    np.testing.assert_array_equal(blobs.obs["mixvi"], table.columns[table.to_numpy().argmax(1)])
    np.testing.assert_allclose(blobs.obs["mixvi_confidence"], table.max(axis=1))
    p = table.to_numpy(dtype=float)
    entropy = -(p * np.log(np.clip(p, 1e-300, 1))).sum(1)
    np.testing.assert_allclose(blobs.obs["mixvi_entropy"], entropy, atol=1e-5)
    np.testing.assert_array_equal(model.predict(), blobs.obs["mixvi"])
    sc.pp.neighbors(blobs, use_rep="X_mixvi")
    sc.tl.umap(blobs, maxiter=5)
    sc.pl.umap(blobs, color="mixvi", show=False)


@pytest.mark.parametrize(
    "names",
    ["T/NK B C", "CD4/CD8 CD4|CD8 C", "_index B C", ". .. C", ["", "B", " "], ["new 0", "0", "1"], ["a\n", "b", "ä"]],
)
def test_names_survive_files(blobs, tmp_path, names):
    names = names.split() if isinstance(names, str) else names
    blobs.obs["known"] = np.array(names)[blobs.obs["cluster"].cat.codes.to_numpy()]
    model = fitted("GMVAE", blobs, {"labels_key": "known"}, n_clusters=None)
    model.annotate()
    blobs.write_h5ad(tmp_path / "cells.h5ad")
    blobs.write_zarr(tmp_path / "cells.zarr")
    for cells in (ad.read_h5ad(tmp_path / "cells.h5ad"), ad.read_zarr(tmp_path / "cells.zarr")):
        assert set(cells.obs["mixvi"].cat.categories) == set(names)
        columns = cells.obsm["mixvi_probabilities"].columns
        assert len(set(columns)) == 3
        assert set(names) - set(columns) == {name for name in names if "/" in name or name in ("", ".", "..", "_index")}


@pytest.mark.parametrize("key", ["a/b", "", ".", 0, None])
def test_a_key_that_files_cannot_hold_is_refused(model, key):
    before = model.adata.copy()
    with pytest.raises(ValueError, match="key_added=.* cannot be a name in a file"):
        model.annotate(key_added=key)
    assert list(model.adata.obsm) == list(before.obsm)


def test_annotate_replaces_only_what_it_wrote(counts):
    model = fitted("VAE", counts)
    model.annotate()
    model.annotate()
    counts.obs["mixvi"] = counts.obs["mixvi_confidence"] = 1
    with pytest.raises(ValueError, match="already has .*mixvi.* which is not from mixvi; nothing was written"):
        model.annotate()
    assert (counts.obs["mixvi_confidence"] == 1).all()
    for other in (5, np.zeros((2, 2)), {"a": 1}):
        counts.uns["k"] = other
        with pytest.raises(ValueError, match="already has 'k', which is not from mixvi"):
            model.annotate(key_added="k")


def test_a_column_that_the_model_reads_is_not_replaced(counts):
    fitted("GMVAE", counts).annotate()
    counts.obs["mixvi"] = counts.obs["cluster"].astype(str)  # corrected by hand
    model = fitted("GMVAE", counts, {"labels_key": "mixvi"})
    with pytest.raises(ValueError, match=r"reads column \.obs\['mixvi'\]; choose another key_added"):
        model.annotate()
    model.annotate(key_added="found")
    assert len(model.predict()) == counts.n_obs
