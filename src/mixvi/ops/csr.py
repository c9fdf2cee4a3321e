"""Matrices of counts, dense or CSR: operations on a minibatch that need not store its zeros.

A matrix (n, g) is a torch tensor of either layout. Functions take both, and a returned matrix keeps the layout.
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
    """Whether a matrix is CSR."""
    return x.layout == torch.sparse_csr


def csr(offset: Tensor, gene: Tensor, value: Tensor, n_genes: int) -> Tensor:
    """CSR matrix of m stored entries.

    Parameters
    ----------
    offset
        (n + 1,) integers: the entries of row i are those from ``offset[i]`` to ``offset[i + 1] - 1``.
    gene
        (m,) integers: column of each entry, of the same dtype as ``offset``.
    value
        (m,) value of each entry.
    n_genes
        Number of columns g.

    Returns
    -------
    (n, g) CSR matrix; invariants are not checked.
    """
    _hear_warning()
    return torch.sparse_csr_tensor(offset, gene, value, (len(offset) - 1, n_genes), check_invariants=False)


@cache
def _hear_warning() -> None:
    """Trigger torch's warning that CSR is in beta, which comes once in a process, and suppress it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.eye(1).to_sparse_csr()


def dense(x: Tensor) -> Tensor:
    """The matrix (n, g) as a dense tensor."""
    if not is_sparse(x):
        return x
    filled = torch.zeros(x.numel(), dtype=x.dtype, device=x.device)
    return filled.scatter_(0, entries(x).flat, x.values()).view(x.shape)


def entries(x: Tensor, dtype: torch.dtype | None = None) -> Entries:
    """Entries of a matrix: the stored ones of CSR, the non-zero ones of a dense tensor.

    Parameters
    ----------
    x
        (n, g) matrix, dense or CSR.
    dtype
        Precision of the values; ``None`` keeps that of x.

    Returns
    -------
    The m entries.
    """
    if is_sparse(x):
        n_entries = x.crow_indices().diff()
        row = torch.arange(len(x), device=x.device).repeat_interleave(n_entries, output_size=len(x.values()))
        gene, value = x.col_indices().long(), x.values()
    else:
        row, gene = x.nonzero(as_tuple=True)
        value = x[row, gene]
    return Entries(row, gene, row * x.shape[1] + gene, value if dtype is None else value.to(dtype))


def map_entries(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function to every entry.

    Parameters
    ----------
    f
        Elementwise function with f(0) = 0.
    x
        (n, g) matrix, dense or CSR.

    Returns
    -------
    (n, g) matrix of the same layout.
    """
    if not is_sparse(x):
        return f(x)
    return csr(x.crow_indices(), x.col_indices(), f(x.values()), x.shape[1])


def totals(x: Tensor) -> Tensor:
    """Sum of each row, (n, 1)."""
    if not is_sparse(x):
        return x.sum(-1, keepdim=True)
    return torch.segment_reduce(x.values(), "sum", offsets=x.crow_indices().long(), initial=0).unsqueeze(-1)


def split(x: Tensor, n_rows: int) -> Iterator[Tensor]:
    """Consecutive blocks of rows.

    Parameters
    ----------
    x
        (n, g) matrix, dense or CSR.
    n_rows
        Number of rows in a block; the last block may have fewer.

    Returns
    -------
    Iterator over blocks of the same layout.
    """
    if not is_sparse(x):
        yield from x.split(n_rows)
        return
    offset, gene, value = x.crow_indices(), x.col_indices(), x.values()
    bounds = [*offset[::n_rows].tolist(), len(value)]  # the only transfer from the device to the host
    for i in range(-(-len(x) // n_rows)):
        part = offset[i * n_rows : (i + 1) * n_rows + 1] - bounds[i]
        yield csr(part, gene[bounds[i] : bounds[i + 1]], value[bounds[i] : bounds[i + 1]], x.shape[1])


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Linear layer x W + b. A sparse x gets no gradient.

    Parameters
    ----------
    x
        (n, g) matrix, dense or CSR.
    weight
        (g, h) weights: the transpose of those of ``torch.nn.functional.linear``.
    bias
        (h,) biases, or ``None``.

    Returns
    -------
    (n, h) dense tensor.
    """
    if not is_sparse(x):
        return dense_linear(x, weight.t(), bias)
    return _SparseLinear.apply(x, weight, bias)


class _SparseLinear(torch.autograd.Function):
    """Forward: sum the weights of the genes of each cell. Backward: sum the gradients of the cells of each gene."""

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
    """Product of the CSR matrix (n, g) of these entries and ``rows`` (g, h)."""
    return embedding_bag(index, rows, offset, mode="sum", per_sample_weights=value.to(rows), include_last_offset=True)


def _by_column(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Entries of a CSR matrix by column: offsets of the columns, rows and values.

    On the CPU this is a counting sort, which is many times faster than torch's conversion.
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
    """Fill in the entries of a CSR matrix by column. ``offset_of`` must be zeros; it gets the starts of columns."""
    for k in range(len(column)):
        offset_of[column[k] + 1] += 1
    at = 0
    for j in range(1, len(offset_of)):  # start of the previous column, for now
        n, offset_of[j] = offset_of[j], at
        at += n
    for i in range(len(offset) - 1):
        for k in range(offset[i], offset[i + 1]):
            j = column[k] + 1
            row_of[offset_of[j]], value_of[offset_of[j]] = i, value[k]
            offset_of[j] += 1
