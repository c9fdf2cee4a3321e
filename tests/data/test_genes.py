"""Genes of new cells, matched with those of a model."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from mixvi.data import align_genes, with_genes

NAMES = np.array(["A", "B", "C", "D"])


@pytest.fixture(params=[np.asarray, csr_matrix], ids=["dense", "sparse"])
def cells(request):
    x = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    var = pd.DataFrame({"id": ["g3", "x", "g0", "g1"]}, index=["D", "other", "A", "B"])
    return ad.AnnData(request.param(x), var=var, layers={"twice": request.param(2 * x)})


def dense(matrix):
    return matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix)


def test_genes_have_the_order_of_the_model_and_zeros_where_unseen(cells, caplog):
    before = dense(cells.X).copy()
    found, unseen = align_genes(cells, NAMES)
    np.testing.assert_array_equal(unseen, [False, False, True, False])
    expected = np.stack([before[:, 2], before[:, 3], np.zeros(3), before[:, 0]], 1)
    np.testing.assert_array_equal(dense(found.X), expected)
    assert found.X.dtype == np.float32
    assert found.var_names.tolist() == NAMES.tolist()
    np.testing.assert_array_equal(dense(cells.X), before)
    assert "3 of the model's 4 genes are in the new cells. 1 are unseen; 1 other genes are left out." in caplog.text
    np.testing.assert_array_equal(dense(align_genes(cells, NAMES, "twice").cells.layers["twice"]), 2 * expected)


def test_a_column_can_name_the_genes(cells):
    found, unseen = align_genes(cells, np.array(["g0", "g1"]), gene_key="id")
    assert not unseen.any()
    np.testing.assert_array_equal(dense(found.X), dense(cells.X)[:, 2:])
    with pytest.raises(KeyError, match=r"There is no column 'ids' in \.var; the columns are \['id'\]"):
        align_genes(cells, NAMES, gene_key="ids")


def test_cells_in_a_file_are_read(cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    found, _ = align_genes(ad.read_h5ad(tmp_path / "cells.h5ad", backed="r"), NAMES)
    np.testing.assert_array_equal(dense(found.X), dense(align_genes(cells, NAMES).cells.X))


def test_the_same_genes_need_no_copy(cells):
    assert align_genes(cells, cells.var_names.to_numpy()).cells.X is cells.X


def test_names_that_do_not_match(cells, warned):
    with pytest.raises(ValueError, match=r"None of the model's 2 genes, such as \['P', 'Q'\].*pass it as gene_key"):
        align_genes(cells, np.array(["P", "Q"]))
    align_genes(cells, np.array(["A", "P", "Q"]))
    assert "1 of the model's 3 genes are in the new cells" in warned()
    cells.var_names = ["A", "A", "B", "C"]
    with pytest.raises(ValueError, match=r"has 1 genes of the model more than once, such as 'A'"):
        align_genes(cells, NAMES)


def test_genes_that_the_model_does_not_have_may_repeat_or_have_no_name(cells):
    cells.var["symbol"] = ["D", np.nan, np.nan, "B"]
    found, unseen = align_genes(cells, NAMES, gene_key="symbol")
    assert unseen.tolist() == [True, False, True, False]
    np.testing.assert_array_equal(dense(found.X)[:, [1, 3]], dense(cells.X)[:, [3, 0]])
    with pytest.raises(ValueError, match="There are no cells in the AnnData"):
        align_genes(cells[:0], NAMES)


def test_cells_get_the_genes_of_a_model_and_keep_all_else(cells):
    cells.obs["batch"], cells.obsm["place"], cells.uns["name"] = "a", np.eye(3), "query"
    before = dense(cells.X).copy()
    found = with_genes(cells, NAMES)
    assert found.var_names.tolist() == NAMES.tolist()
    assert found.var["id"].fillna("").tolist() == ["g0", "g1", "", "g3"]
    np.testing.assert_array_equal(dense(found.X), np.stack([before[:, 2], before[:, 3], np.zeros(3), before[:, 0]], 1))
    np.testing.assert_array_equal(dense(found.layers["twice"]), 2 * dense(found.X))
    assert found.obs.equals(cells.obs)
    assert found.uns == cells.uns
    np.testing.assert_array_equal(found.obsm["place"], np.eye(3))
    np.testing.assert_array_equal(dense(cells.X), before)
