"""CSR against dense, function by function."""

import pytest
import torch

from mixvi.ops import csr as rows
from tests.ops.helpers import as_csr


@pytest.fixture
def x():
    """12 cells x 9 genes, a third of them zero, one cell empty."""
    x = torch.poisson(torch.rand(12, 9) * 2)
    x[3] = 0
    return x


def test_csr_and_dense_say_the_same(x):
    sparse = as_csr(x)
    assert rows.is_sparse(sparse)
    assert not rows.is_sparse(x)
    torch.testing.assert_close(rows.dense(sparse), x)
    torch.testing.assert_close(rows.totals(sparse), rows.totals(x))
    torch.testing.assert_close(rows.dense(rows.map_entries(torch.log1p, sparse)), rows.map_entries(torch.log1p, x))
    for found, expected in zip(rows.entries(sparse), rows.entries(x), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("n", [1, 5, 6, 12, 20])
def test_parts_are_the_rows_in_order(x, n):
    parts = [rows.dense(part) for part in rows.split(as_csr(x), n)]
    assert [len(part) for part in parts] == [len(part) for part in x.split(n)]
    torch.testing.assert_close(torch.cat(parts), x)


def test_linear_map_of_csr_has_the_value_and_the_gradients_of_the_dense_one(x):
    weight = torch.randn(9, 4, requires_grad=True)
    bias = torch.randn(4, requires_grad=True)
    upstream = torch.randn(12, 4)
    found, expected = rows.linear(as_csr(x), weight, bias), rows.linear(x, weight, bias)
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad(found, (weight, bias), upstream),
        torch.autograd.grad(expected, (weight, bias), upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_linear_map_of_csr_against_finite_differences(x):
    sparse, weight = as_csr(x.double()), torch.randn(9, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: rows.linear(sparse, w, None), weight)
