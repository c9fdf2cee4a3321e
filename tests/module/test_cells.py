"""A minibatch of cells: labels, parts and dense matrices; and the width of what is registered."""

import torch

from mixvi.module import Cells, Layout
from mixvi.ops.csr import dense


def test_conditions_are_as_wide_as_all_their_columns():
    layout = Layout(30, batch_levels=2, covariate_levels=(3, 4), n_continuous=1, n_labels=5, size_factor=True)
    assert layout.n_conditions == 2 + 3 + 4 + 1
    assert layout.without_conditions() == Layout(30, n_labels=5, size_factor=True)
    assert layout.without_conditions().n_conditions == 0


def test_a_label_is_its_number_and_minus_one_where_there_is_none(cells):
    y = torch.tensor([[0.0, 0, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0]])
    assert cells._replace(y=y).label.tolist() == [2, -1, 0, 1]
    assert cells.label.tolist() == [-1] * 4  # without labels


def test_parts_are_the_cells_in_order(cells):
    sparse = cells._replace(x=cells.x.round().to_sparse_csr())
    parts = list(sparse.split(3))
    assert [len(part.x) for part in parts] == [3, 1]
    for found, whole in zip(zip(*parts, strict=True), sparse, strict=True):
        torch.testing.assert_close(torch.cat([dense(values) for values in found]), dense(whole))


def test_filled_matrices_are_dense_and_one_matrix_stays_one(cells):
    x = cells.x.round().to_sparse_csr()
    filled = Cells(x=x, seen=x, library=cells.library, c=cells.c, y=cells.y, stored=cells.stored).filled()
    assert filled.seen is filled.x
    torch.testing.assert_close(filled.x, cells.x.round())
    filled = Cells(
        x=x, seen=cells.seen.to_sparse_csr(), library=cells.library, c=cells.c, y=cells.y, stored=cells.stored
    ).filled()
    torch.testing.assert_close(filled.seen, cells.seen)
