"""Names that files can hold, and entries that are mixvi's own."""

from itertools import product

import numpy as np
import pytest

from mixvi.data import annotation_keys, check_free, file_names, own_columns, own_keys

OWN = {"model": "VAE", "version": "0", "settings": {}}


def test_names_of_columns_stay_apart_and_can_be_written():
    """All lists of three different names, of which some become alike when they are changed."""
    for names in product(["a/b", "a|b", "a|b'", "_index", "'_index'", ".", "a"], repeat=3):
        if len(set(names)) < 3:
            continue
        found = file_names(names)
        assert len(set(found)) == 3
        assert not any("/" in name or name in ("", ".", "..", "_index") for name in found)
        kept = [name for name in names if "/" not in name and name not in (".", "_index")]
        assert [name for name, given in zip(found, names, strict=True) if given in kept] == kept


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
