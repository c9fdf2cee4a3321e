"""Rows of a matrix, dense or CSR: what a minibatch of counts needs without ever filling in its zeros.

A matrix (n, g) is a torch tensor of either layout. Functions here take both, and keep it where they return a matrix.
"""

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag
from torch.nn.functional import linear as dense_linear


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
    _hear_warning()
    return torch.sparse_csr_tensor(offset, gene, value, (len(offset) - 1, n_genes), check_invariants=False)


@cache
def _hear_warning() -> None:
    """Torch warns once in a process that CSR is in beta: let this be here, unheard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.eye(1).to_sparse_csr()


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
    return _SparseLinear.apply(x, weight, bias)


class _SparseLinear(torch.autograd.Function):
    """A gather and sum of the weights of the genes a cell has; backwards, of the cells a gene is in."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x)
        h = _bags(x.crow_indices(), x.col_indices(), x.values(), weight)
        return h if bias is None else h.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (x,) = ctx.saved_tensors
        by_weight = _bags(*_by_column(x), grad.contiguous())  # (g, h)
        return None, by_weight, grad.sum(0) if ctx.needs_input_grad[2] else None


def _bags(offset: Tensor, index: Tensor, value: Tensor, rows: Tensor) -> Tensor:
    """The CSR matrix of these entries, (n, g), times rows (g, h)."""
    return embedding_bag(index, rows, offset, mode="sum", per_sample_weights=value.to(rows), include_last_offset=True)


def _by_column(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Entries of a CSR matrix by column: where columns start, rows and values.

    On the CPU by a counting sort, which is many times faster than torch's.
    """
    if x.device.type != "cpu":
        columns = x.to_sparse_csc()
        return columns.ccol_indices(), columns.row_indices(), columns.values()
    offset, column, value = x.crow_indices(), x.col_indices(), x.values()
    found = offset.new_zeros(x.shape[1] + 1), torch.empty_like(column), torch.empty_like(value)
    _sort_by_column(*(part.numpy() for part in (offset, column, value, *found)))
    return found


@njit(cache=True)
def _sort_by_column(offset, column, value, offset_of, row_of, value_of):
    """Fill in the entries of a CSR matrix column by column: where columns start in zeros, rows and values."""
    for k in range(len(column)):
        offset_of[column[k] + 1] += 1
    at = 0
    for j in range(1, len(offset_of)):  # where the column before starts, for now
        n, offset_of[j] = offset_of[j], at
        at += n
    for i in range(len(offset) - 1):
        for k in range(offset[i], offset[i + 1]):
            j = column[k] + 1
            row_of[offset_of[j]], value_of[offset_of[j]] = i, value[k]
            offset_of[j] += 1
