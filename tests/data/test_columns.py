"""Columns of .obs, rows, and stand-ins for new cells."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import mixvi
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
    numbers = pd.DataFrame({"b": [0.0, 1.0]})
    check_levels(numbers, {"b": np.array([0, 1])})
    with pytest.raises(ValueError, match=r"\[False, True\].*not trained on.*\[0, 1\]"):
        check_levels(numbers.astype(bool), {"b": np.array([0, 1])})


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


@pytest.mark.parametrize("setup", [{"batch_key": "b"}, {"categorical_covariate_keys": ["b"]}, {"labels_key": "b"}])
def test_text_and_numbers_in_a_column_are_refused_with_the_cure(counts, setup):
    counts.obs["b"] = np.array(["x", 1], dtype=object)[np.arange(counts.n_obs) % 2]
    with pytest.raises(ValueError, match=r"obs\['b'\] mixes values of type int and str; make them one kind: .*astype"):
        mixvi.GMVAE.setup_anndata(counts, **setup)


def test_names_of_columns_are_texts_and_unique(counts):
    counts.obs[0] = "x"
    with pytest.raises(ValueError, match="0 is not the name of a column; pass a text"):
        mixvi.GMVAE.setup_anndata(counts, batch_key=0)
    counts.obs.columns = ["b", "b", *counts.obs.columns[2:]]
    with pytest.raises(ValueError, match=r".obs has 2 columns 'b'; rename or drop all but one"):
        mixvi.GMVAE.setup_anndata(counts, batch_key="b")


@pytest.mark.parametrize("values", [pd.cut(np.arange(120), 3), pd.date_range("2026-01-01", periods=120)])
def test_values_that_files_cannot_hold_are_refused(counts, values):
    counts.obs["b"] = values
    with pytest.raises(ValueError, match=r"obs\['b'\] has values such as .*make them text: .*astype\(str\)"):
        mixvi.CVAE.setup_anndata(counts, batch_key="b")


def test_size_factors_beyond_single_precision_are_refused(counts):
    counts.obs["size"] = np.where(np.arange(counts.n_obs) == 3, 1e300, 1.0)
    with pytest.raises(ValueError, match=r"obs\['size'\] has NaN, infinite or too large values in 1 of"):
        mixvi.VAE.setup_anndata(counts, size_factor_key="size")
