"""Rows of a matrix, dense or CSR: what a minibatch of counts needs without ever filling in its zeros.

A matrix (n, g) is a torch tensor of either layout. Functions here take both, and keep it where they return a matrix.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag
from torch.nn.functional import linear as dense_linear

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


class Entries(NamedTuple):
    """The m entries of a matrix (n, g) that are not zero, row by row."""

    row: Tensor  # (m,)
    gene: Tensor  # (m,)
    flat: Tensor  # (m,) row * g + gene
    value: Tensor  # (m,)


def is_sparse(x: Tensor) -> bool:
    """Whether x is CSR."""
    return x.layout == torch.sparse_csr


def csr(offset: Tensor, gene: Tensor, value: Tensor, n_genes: int) -> Tensor:
    """CSR matrix (n, g) from offset (n + 1,), gene (m,) and value (m,)."""
    return torch.sparse_csr_tensor(offset, gene, value, (len(offset) - 1, n_genes), check_invariants=False)


def dense(x: Tensor) -> Tensor:
    """X with its zeros, (n, g)."""
    if not is_sparse(x):
        return x
    filled = torch.zeros(x.numel(), dtype=x.dtype, device=x.device)
    return filled.scatter_(0, entries(x).flat, x.values()).view(x.shape)


def entries(x: Tensor) -> Entries:
    """What of x is not zero."""
    if is_sparse(x):
        n_entries = x.crow_indices().diff()
        row = torch.arange(len(x), device=x.device).repeat_interleave(n_entries, output_size=len(x.values()))
        gene, value = x.col_indices().long(), x.values()
    else:
        row, gene = x.nonzero(as_tuple=True)
        value = x[row, gene]
    return Entries(row, gene, row * x.shape[1] + gene, value)


def map_entries(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """F of every entry, for an f with f(0) = 0."""
    if not is_sparse(x):
        return f(x)
    return csr(x.crow_indices(), x.col_indices(), f(x.values()), x.shape[1])


def totals(x: Tensor) -> Tensor:
    """Sum of each row, (n, 1)."""
    if not is_sparse(x):
        return x.sum(-1, keepdim=True)
    return torch.segment_reduce(x.values(), "sum", offsets=x.crow_indices().long(), initial=0).unsqueeze(-1)


def split(x: Tensor, n_rows: int) -> Iterator[Tensor]:
    """Consecutive parts of n_rows rows; the last may be smaller."""
    if not is_sparse(x):
        yield from x.split(n_rows)
        return
    offset, gene, value = x.crow_indices(), x.col_indices(), x.values()
    bounds = [*offset[::n_rows].tolist(), len(value)]  # the only word from the device to the host
    for i in range(-(-len(x) // n_rows)):
        part = offset[i * n_rows : (i + 1) * n_rows + 1] - bounds[i]
        yield csr(part, gene[bounds[i] : bounds[i + 1]], value[bounds[i] : bounds[i + 1]], x.shape[1])


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """X W + b for data x (n, g), weight (g, h), bias (h,): (n, h). There is no gradient for a sparse x."""
    if not is_sparse(x):
        return dense_linear(x, weight.t(), bias)
    h = _SparseLinear.apply(x, weight)
    return h if bias is None else h + bias


class _SparseLinear(torch.autograd.Function):
    """A gather and sum of the weights of the genes a cell has; backwards, of the cells a gene is in."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _bags(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (x,) = ctx.saved_tensors
        return None, _bags(_transpose(x), grad.contiguous())  # (g, h)


def _bags(x: Tensor, rows: Tensor) -> Tensor:
    """X rows, (n, g) x (g, h)."""
    return embedding_bag(
        x.col_indices(), rows, x.crow_indices(), mode="sum",
        per_sample_weights=x.values().to(rows), include_last_offset=True,
    )  # fmt: skip


def _transpose(x: Tensor) -> Tensor:
    """X^T as CSR, on the CPU by a counting sort, which is many times faster than torch's."""
    if x.device.type != "cpu":
        columns = x.to_sparse_csc()
        return csr(columns.ccol_indices(), columns.row_indices(), columns.values(), len(x))
    offset, gene, value = x.crow_indices(), x.col_indices(), x.values()
    parts = offset.new_zeros(x.shape[1] + 1), torch.empty_like(gene), torch.empty_like(value)
    _sort_by_column(*(part.numpy() for part in (offset, gene, value, *parts)))
    return csr(*parts, len(x))


@njit(cache=True)
def _sort_by_column(offset, column, value, offset_of, row, value_of):
    """Fill in the entries of a CSR matrix column by column: where columns start in zeros, rows and values."""
    for j in column:
        offset_of[j + 1] += 1
    offset_of[1:] = np.cumsum(offset_of)[:-1]  # where each column starts, for now one place late
    for i in range(len(offset) - 1):
        for k in range(offset[i], offset[i + 1]):
            at = offset_of[column[k] + 1]
            row[at], value_of[at] = i, value[k]
            offset_of[column[k] + 1] += 1
