"""Names that files can hold, and entries that are mixvi's own."""

from itertools import product

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from mixvi.data import annotation_keys, check_free, file_names, is_writable, own_columns, own_keys

OWN = {"model": "VAE", "version": "0", "settings": {}}


def test_names_of_columns_stay_apart_and_can_be_written():
    """All lists of three different names, of which some become alike when they are changed."""
    long = "x" * 300
    for names in product(
        ["a/b", "a|b", "a|b'", "_index", "'_index'", ".", "a", "zarr.json", long, f"{long}/"], repeat=3
    ):
        if len(set(names)) < 3:
            continue
        found = file_names(names)
        assert len(set(found)) == 3
        assert not any(
            "/" in name or name in ("", ".", "..", "_index", "zarr.json") or len(name) > 250 for name in found
        )
        kept = [name for name in names if "/" not in name and name not in (".", "_index", "zarr.json", long)]
        assert [name for name, given in zip(found, names, strict=True) if given in kept] == kept


NAMES = ["a/b", "zarr.json", ".zattrs", "x" * 300, "\u00e9" * 200, "..", "_index", "a"]


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_files_hold_the_names(counts, tmp_path, kind):
    table = pd.DataFrame(np.ones((120, len(NAMES))), counts.obs_names, file_names(NAMES))
    counts.obsm["table"] = table
    getattr(counts, f"write_{kind}")(tmp_path / "cells")
    assert list(getattr(ad, f"read_{kind}")(tmp_path / "cells").obsm["table"]) == list(table)
    assert [name for name in NAMES if is_writable(name)] == ["a"]
    assert not is_writable("a\0b")
    assert not is_writable("\ud800")


def with_results(cells, key="mixvi"):
    """Cells with all that a GMVAE writes, but for `.uns`."""
    cells.obsm[f"X_{key}"] = np.zeros((120, 2))
    cells.obsm[f"{key}_probabilities"] = pd.DataFrame({"0": np.ones(120)}, cells.obs_names)
    cells.obs[key] = pd.Categorical(["0"] * 120)
    cells.obs[f"{key}_confidence"] = cells.obs[f"{key}_entropy"] = 1.0
    return cells


def test_results_without_uns_are_known_by_their_names_and_types(counts):
    """As `anndata.concat` leaves them."""
    bare = counts.copy()
    for key in ("mixvi", "mine"):
        assert len(own_keys(with_results(counts, key), key)) == 5
        check_free(counts, key)
    both = ad.concat([counts, counts], index_unique="-")
    assert own_keys(both, "mixvi") == annotation_keys(both, "mixvi") != []
    bare.obsm["X_mixvi"] = bare.obsm["X_pca"] = np.zeros((120, 2))  # of a model without clusters, and of another tool
    check_free(bare, "mixvi")
    with pytest.raises(ValueError, match="'X_pca'.*not from mixvi"):
        check_free(bare, "pca")


@pytest.mark.parametrize("foreign", ["mixvi", "mixvi_confidence", "probabilities", "uns", "entropy"])
def test_columns_of_others_among_results_stay(counts, foreign):
    with_results(counts)
    if foreign == "uns":
        counts.uns["mixvi"] = {"params": {}}  # of sc.tl.leiden(key_added="mixvi")
    elif foreign == "probabilities":
        counts.obsm["mixvi_probabilities"] = np.zeros((120, 1))
    elif foreign == "entropy":
        del counts.obs["mixvi_entropy"]
    else:
        counts.obs[foreign] = "of the user"
    assert own_keys(counts, "mixvi") == []
    with pytest.raises(ValueError, match="not from mixvi; nothing was written"):
        check_free(counts, "mixvi")


def test_columns_come_without_those_of_scvi_and_with_names_of_their_own(counts):
    counts.obs["_scvi_batch"] = 0
    found = own_columns(counts, np.array([5, 3, 5]))
    assert list(found) == ["cluster", "condition"]
    assert list(found.index) == ["cell 5-0", "cell 3-1", "cell 5-2"]
    np.testing.assert_array_equal(found["cluster"], counts.obs["cluster"].iloc[[5, 3, 5]])
    assert list(own_columns(counts, np.array([5, 3])).index) == ["cell 5", "cell 3"]
    found["cluster"] = "changed"
    assert "changed" not in set(counts.obs["cluster"])


def test_only_what_an_earlier_call_wrote_is_taken_back(counts):
    check_free(counts, "mixvi")
    counts.obsm["X_mixvi"] = np.zeros((120, 2))
    counts.obs["mixvi"] = "0"
    there = [("obs", "mixvi"), ("obsm", "X_mixvi")]
    assert annotation_keys(counts, "mixvi") == there
    assert own_keys(counts, "mixvi") == []
    with pytest.raises(ValueError, match=r"already has \['mixvi', 'X_mixvi'\].*nothing was written"):
        check_free(counts, "mixvi")
    counts.uns["mixvi"] = OWN | {"keys": ["obsm/X_mixvi"]}  # the column is the user's
    assert own_keys(counts, "mixvi") == there[1:]
    with pytest.raises(ValueError, match=r"already has \['mixvi'\]"):
        check_free(counts, "mixvi")
    counts.uns["mixvi"] = OWN | {"keys": ["obs/mixvi", "obsm/X_mixvi"]}
    assert own_keys(counts, "mixvi") == there
    check_free(counts, "mixvi")
    check_free(counts, "other")
