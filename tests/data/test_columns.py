"""Columns of .obs, rows, and stand-ins for new cells."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from mixvi.data import as_positions, check_columns, check_levels, stand_in

OBS = pd.DataFrame({"batch": ["a", "b", None], "age": [1.0, np.inf, 2.0], "sf": [1.0, 0.0, 2.0]}, index=list("xyz"))
ARGS = dict.fromkeys(
    ["layer", "batch_key", "size_factor_key", "labels_key", "unlabeled_category"]
    + ["categorical_covariate_keys", "continuous_covariate_keys"]
)


def test_columns_say_what_is_wrong_and_where():
    with pytest.raises(KeyError, match="no column 'donor'.*batch"):
        check_columns(OBS, ["donor"])
    with pytest.raises(ValueError, match="'batch'.*missing values in 1 of 3 cells .*'z'"):
        check_columns(OBS, ["batch"])
    with pytest.raises(ValueError, match="not numeric"):
        check_columns(OBS, ["batch"], numeric=True)
    with pytest.raises(ValueError, match="NaN, infinite or too large.*'y'"):
        check_columns(OBS, ["age"], numeric=True)
    with pytest.raises(ValueError, match="0 or less.*'y'"):
        check_columns(OBS, ["sf"], numeric=True, positive=True)
    check_columns(OBS, ["sf"], numeric=True)


def test_levels_that_the_model_never_saw():
    with pytest.raises(ValueError, match=r"\['b'\].*not trained on.*\['a'\]"):
        check_levels(OBS.iloc[:2], {"batch": np.array(["a"])})
    check_levels(OBS.iloc[:2], {"batch": np.array(["a", "b"])})


def test_positions():
    np.testing.assert_array_equal(as_positions(None, 3), [0, 1, 2])
    np.testing.assert_array_equal(as_positions([2, 0, 2, -1], 3), [2, 0, 2, 2])
    np.testing.assert_array_equal(as_positions([True, False, True], 3), [0, 2])
    for wrong in ([], [3], [0.5], [[0]], ["a"]):
        with pytest.raises(ValueError, match="indices"):
            as_positions(wrong, 3)


def test_a_stand_in_holds_the_values_and_nothing_else():
    cells = ad.AnnData(np.eye(3, dtype=np.float32), obs=OBS.copy(), layers={"counts": np.ones((3, 3))})
    before = cells.copy()
    found = stand_in(cells, cells.var_names, ARGS | {"layer": "counts", "size_factor_key": "sf"}, "unlabeled")
    assert list(found.obs) == ["sf"]
    np.testing.assert_array_equal(found.layers["counts"], before.layers["counts"])
    found = stand_in(cells, cells.var_names, ARGS | {"labels_key": "cell_type"}, "unlabeled")
    assert set(found.obs["cell_type"]) == {"unlabeled"}
    assert np.shares_memory(found.X, cells.X)
    pd.testing.assert_frame_equal(cells.obs, before.obs)


def test_a_stand_in_needs_the_genes_of_the_model():
    cells = ad.AnnData(np.eye(3, dtype=np.float32), obs=OBS.copy())
    with pytest.raises(ValueError, match="lack 1 of the model's 4 genes, such as .'new'."):
        stand_in(cells, np.array(["0", "1", "2", "new"]), ARGS, "unlabeled")
    with pytest.raises(ValueError, match="another order"):
        stand_in(cells, np.array(["0", "2", "1"]), ARGS, "unlabeled")
    with pytest.raises(KeyError, match="no layer 'counts'"):
        stand_in(cells, cells.var_names, ARGS | {"layer": "counts"}, "unlabeled")
