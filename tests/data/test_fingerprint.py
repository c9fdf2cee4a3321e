"""A fingerprint is of the values and of their order."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from mixvi.data import _fingerprint, column_fingerprint, fingerprint, same_values


def test_a_fingerprint_is_of_values_not_of_storage():
    x = np.random.default_rng(0).poisson(1.0, (50, 20)).astype(np.float32)
    same = [csr_matrix(x), csc_matrix(x), x.astype(np.int64), x.astype(np.float64), np.asfortranarray(x)]
    assert all(same_values(fingerprint(other), fingerprint(x)) for other in same)
    assert not same_values(fingerprint(x[:, ::-1]), fingerprint(x))
    assert not same_values(fingerprint(x[:40]), fingerprint(x))
    assert fingerprint(np.zeros((0, 3))).shape == (0, 4)


def test_small_values_beside_a_large_one_are_seen(rng):
    x = rng.poisson(1.0, (20, 10)).astype(np.float64)
    x[:, 0] = 1e9
    other = x.copy()
    other[:, 1:] = 0
    for form in (np.asarray, csr_matrix):
        assert not same_values(fingerprint(form(other)), fingerprint(x))


def test_some_rows_of_a_file_are_compared(rng, tmp_path):
    x = rng.poisson(1.0, (250, 10)).astype(np.float32)
    for form in (np.asarray, csr_matrix):
        path = tmp_path / f"{form.__name__}.h5ad"
        ad.AnnData(form(x)).write_h5ad(path)
        file = ad.read_h5ad(path, backed="r").X
        assert fingerprint(file).shape == (100, 4)
        assert same_values(fingerprint(file), fingerprint(x))
        assert same_values(fingerprint(x), fingerprint(file))
        assert not same_values(fingerprint(file), fingerprint(2 * x))


def test_a_column_is_known_by_its_values():
    names = np.array(["b", "a", "b"])
    same = [pd.Series(names, dtype=dtype) for dtype in (object, "string", "category")]
    same.append(pd.Series(pd.Categorical(names, ["b", "x", "a"])))
    assert len(set(map(column_fingerprint, same))) == 1
    numbers = pd.Series([1.0, 2.0, 3.0])
    others = [pd.Series(names[::-1][1:].tolist() + ["b"]), numbers, numbers * 2, numbers[::-1]]
    assert len({column_fingerprint(column) for column in [*same, *others]}) == 5


@pytest.mark.parametrize("form", [np.asarray, csr_matrix])
def test_one_count_more_and_one_that_moves_are_seen(form, rng, monkeypatch):
    """Also of a cell of a million counts, and where the matrix is read in blocks."""
    x = rng.poisson(3.0, (40, 20)).astype(np.float32)
    x[:, 0] = 1e6 - 100
    before = fingerprint(form(x))
    monkeypatch.setattr(_fingerprint, "AT_ONCE", 7 * 20)
    assert same_values(fingerprint(form(x)), before)
    for cell, gene in rng.integers((40, 19), size=(20, 2)):
        more, moved = x.copy(), x.copy()
        more[cell, gene] += 2
        moved[cell, [gene, gene + 1]] += [20, -20]  # the total stays
        assert not same_values(fingerprint(form(more)), before)
        assert not same_values(fingerprint(form(moved)), before)
    x[3, 4] = np.nan
    assert not same_values(fingerprint(form(x)), before)
