"""Classes by name, in one order whatever the cells, and one category for cells without a class."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scvi.data.fields import CategoricalObsField

from mixvi.data import LabelsField, UnusedField


def of(values):
    """Cells that have these labels, as a table of .obs with one gene."""
    obs = pd.DataFrame({"type": values}, index=[str(i) for i in range(len(values))])
    return ad.AnnData(np.ones((len(values), 1), np.float32), obs=obs)


@pytest.mark.parametrize(
    ("values", "no_label", "classes", "codes"),
    [
        (["b", "a", "?", "b"], "?", ["a", "b"], [1, 0, 2, 1]),
        (["b", "a", "a"], "?", ["a", "b"], [1, 0, 0]),  # all have a class
        (pd.Categorical(["b", "a"], categories=["z", "b", "a"]), "?", ["a", "b"], [1, 0]),  # "z" does not occur
        ([10, 9, -1], -1, ["10", "9"], [0, 1, 2]),  # as text
        ([True, False, True], "?", ["False", "True"], [1, 0, 1]),
    ],
)
def test_classes_are_those_that_occur_and_no_label_is_the_last(values, no_label, classes, codes):
    cells, field = of(values), LabelsField("labels", "type", no_label)
    state = field.register_field(cells)
    assert list(state["categorical_mapping"]) == [*classes, str(no_label)]
    assert state["original_key"] == "type"
    assert cells.obs["_scvi_labels"].tolist() == codes
    assert cells.obs["type"].tolist() == list(values)


def test_other_cells_get_the_codes_of_the_first():
    field = LabelsField("labels", "type", "?")
    state = field.register_field(of(["a", "b", "c", "?"]))
    for values, codes in ((["c", "?", "c"], [2, 3, 2]), (pd.Categorical(["b", "c"]), [1, 2])):
        cells = of(values)
        field.transfer_field(state, cells)
        assert cells.obs["_scvi_labels"].tolist() == codes
    bare = of(["a", "b"])
    del bare.obs["type"]
    again = field.transfer_field(state, bare)
    assert bare.obs["_scvi_labels"].tolist() == [3, 3]
    assert list(again["categorical_mapping"]) == list(state["categorical_mapping"])
    field.validate_field(bare)  # its codes are there


@pytest.mark.parametrize("missing", [None, np.nan, "e", 7])
def test_cells_without_a_label_that_the_model_knows_are_unlabelled(missing, warned):
    field = LabelsField("labels", "type", "?")
    state = field.register_field(of(["a", "nan", "None", "?"]))
    assert warned() == ""
    for values in (["a", missing, "nan"], pd.Categorical(["a", missing, "nan"])):
        cells = of(values)
        before = cells.obs["type"].copy()
        field.transfer_field(state, cells)
        assert cells.obs["_scvi_labels"].tolist() == [1, 3, 2]
        pd.testing.assert_series_equal(cells.obs["type"], before)
    said = str(missing) if missing in ("e", 7) else "missing label"
    assert f"missing or that the model does not know, such as {said!r}, in 1 of 3 cells" in warned()


def test_a_column_that_is_not_there_is_an_error():
    with pytest.raises(KeyError, match="kind"):
        LabelsField("labels", "kind", "?").register_field(of(["a"]))


def test_a_column_without_a_use_is_one_category():
    """The registry has what `scvi.model.SCVI` registers without batches."""
    ours, theirs = of(["a", "b"] * 3), of(["a", "b"] * 3)
    state = UnusedField("batch").register_field(ours)
    expected = CategoricalObsField("batch", None).register_field(theirs)
    assert {key: list(value) for key, value in state.items()} == {key: list(value) for key, value in expected.items()}
    pd.testing.assert_series_equal(ours.obs["_scvi_batch"], theirs.obs["_scvi_batch"])
    one = of(["a"])  # scvi-tools warns of so few
    assert UnusedField("batch").transfer_field(state, one) == state
    assert one.obs["_scvi_batch"].tolist() == [0]
