"""A fingerprint is of the values and of their order."""

import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from mixvi.data import _fingerprint, fingerprint, same_values


def test_a_fingerprint_is_of_values_not_of_storage():
    x = np.random.default_rng(0).poisson(1.0, (50, 20)).astype(np.float32)
    same = [csr_matrix(x), csc_matrix(x), x.astype(np.int64), x.astype(np.float64), np.asfortranarray(x)]
    assert all(same_values(fingerprint(other), fingerprint(x)) for other in same)
    assert not same_values(fingerprint(x[:, ::-1]), fingerprint(x))
    assert not same_values(fingerprint(x[:40]), fingerprint(x))
    assert fingerprint(np.zeros((0, 3))).shape == (0, 2)
    assert fingerprint("a matrix in a file") is None


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
