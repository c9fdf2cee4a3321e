"""Rows of a matrix, wherever it lies, are those of ``adata[rows].X``."""

import anndata as ad
import numpy as np
import pytest
import torch
from scipy.sparse import csc_matrix, csr_matrix

from mixvi.data._matrix import GAP, DeviceMatrix, HostMatrix, runs
from mixvi.ops.csr import dense, is_sparse

ROWS = np.array([7, 2, 2, 11, 0])


@pytest.fixture
def x(rng):
    return rng.poisson(0.2, (12, 30)).astype(np.float32)


def stored(x, kind, tmp_path):
    """The matrix as scvi-tools' registry hands it over."""
    if kind in ("dense", "csr"):
        return {"dense": x, "csr": csr_matrix(x)}[kind]
    if kind == "integers":
        return csr_matrix(x.astype(np.int64))
    if kind == "csc":
        return csc_matrix(x).tocsr()
    adata = ad.AnnData(csr_matrix(x) if kind == "backed csr" else x)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    return ad.read_h5ad(tmp_path / "cells.h5ad", backed="r").X


KINDS = ["dense", "csr", "csc", "integers", "backed csr", "backed dense"]


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [ROWS, np.arange(3, 9), np.arange(12)])
def test_rows_come_in_the_order_asked_for(x, kind, in_memory, rows, tmp_path):
    matrix = HostMatrix(stored(x, kind, tmp_path), in_memory)
    assert matrix.is_backed == (kind.startswith("backed") and not in_memory)
    found = matrix.rows(rows)
    assert is_sparse(found)  # a fifth is not zero
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(dense(found).numpy(), x[rows])
    on_device = DeviceMatrix(matrix, torch.device("cpu")).rows(rows)
    np.testing.assert_array_equal(dense(on_device).numpy(), x[rows])


@pytest.mark.parametrize("scale", [1, 0.5, 300, 1e6])
def test_full_matrices_stay_dense_and_exact(rng, scale):
    x = (rng.poisson(5, (12, 30)) * scale).astype(np.float32)
    for matrix in (HostMatrix(x, True), DeviceMatrix(HostMatrix(x, True), torch.device("cpu"))):
        found = matrix.rows(ROWS)
        assert not is_sparse(found)
        np.testing.assert_array_equal(found.numpy(), x[ROWS])


@pytest.mark.parametrize(
    ("scale", "dtype"), [(1, torch.uint8), (-1, torch.int16), (300, torch.int16), (0.5, torch.float32)]
)
def test_the_device_holds_the_smallest_numbers_that_are_exact(x, scale, dtype):
    matrix = DeviceMatrix(HostMatrix(csr_matrix(x * np.float32(scale)), True), torch.device("cpu"))
    assert matrix._value.dtype == dtype
    assert matrix._gene.dtype == torch.int16
    np.testing.assert_array_equal(dense(matrix.rows(ROWS)).numpy(), x[ROWS] * np.float32(scale))


def test_the_users_matrix_is_not_changed(x):
    csr = csr_matrix(x)
    before = csr.copy()
    HostMatrix(csr, True).rows(ROWS).values().mul_(0)
    HostMatrix(csr, True).rows(np.arange(12)).values().mul_(0)
    np.testing.assert_array_equal(csr.toarray(), before.toarray())
    HostMatrix(full := x + 1, True).rows(np.arange(12)).mul_(0)
    np.testing.assert_array_equal(full, x + 1)


@pytest.mark.parametrize("in_memory", [False, True])
def test_entries_that_come_twice_or_out_of_order_are_summed_and_left_alone(in_memory):
    gene = np.array([2, 0, 2, 1] * 3, dtype=np.int32)
    matrix = csr_matrix((np.ones(12, dtype=np.float32), gene, np.array([0, 4, 8, 12])), shape=(3, 40))
    for rows in (np.arange(3), np.array([2, 0])):
        found = HostMatrix(matrix, in_memory).rows(rows)
        assert len(found.values()) == 3 * len(rows)
        np.testing.assert_array_equal(dense(found).numpy(), matrix.toarray()[rows])
    np.testing.assert_array_equal(matrix.indices, gene)


def test_runs_hold_all_rows_and_little_more(rng):
    rows = np.sort(rng.choice(1000, 200, replace=False))
    first, after, place = runs(rows)
    read = np.concatenate([np.arange(a, b) for a, b in zip(first, after, strict=True)])
    np.testing.assert_array_equal(read[place], rows)
    assert (first[1:] - after[:-1] >= GAP).all()
