"""What a matrix holds, and what each likelihood says to it."""

import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

import mixvi
from mixvi.data import check_dtype, check_support, choose_likelihood, describe

CELLS, GENES = [f"c{i}" for i in range(4)], [f"g{j}" for j in range(3)]
COUNTS = np.array([[0, 2, 1], [3, 0, 0], [1, 0, 0], [0, 0, 9]], dtype=np.float32)
FORMATS = [np.asarray, csr_matrix, csc_matrix]


def look(x, where="adata.X"):
    return describe(x, where, CELLS, GENES)


@pytest.mark.parametrize("form", FORMATS)
def test_auto_takes_what_the_values_are(form):
    for values, kind, likelihood in (
        (COUNTS, "count", "nb"),
        (COUNTS / 9, "unit", "bernoulli"),
        (COUNTS > 0, "unit", "bernoulli"),
        (COUNTS - 1, "real", "normal"),
        (np.log1p(COUNTS), "real", "normal"),
    ):
        support = look(form(values.astype(np.float32)))
        assert support.kind == kind
        name, why = choose_likelihood(support)
        assert name == likelihood
        assert "\n" not in why
        assert "adata.X" in why


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_entries_that_no_likelihood_can_describe(form, bad):
    x = COUNTS.copy()
    x[2, 1] = x[3, 0] = bad
    with pytest.raises(ValueError, match=r"NaN, infinite or too large entries: 2 .*'c2', gene 'g1'"):
        look(form(x))


@pytest.mark.parametrize("form", FORMATS)
def test_counts_asked_of_other_values(form):
    with pytest.raises(
        ValueError, match=r"negative entries: 7 \(the first is -1 in cell 'c0', gene 'g0'\).*raw counts"
    ):
        check_support(look(form(COUNTS - 1)), "nb", "count")
    with pytest.raises(ValueError, match=r"no whole number: 4 \(the first is 0.5 in cell 'c0', gene 'g2'\)"):
        check_support(look(form(COUNTS * np.float32(0.5))), "poisson", "count")


def test_number_of_fractions_is_exact():
    support = look(csr_matrix(COUNTS / 2))
    assert support.fraction.number == int(np.sum((COUNTS / 2) % 1 != 0))


def test_a_cell_without_counts():
    x = COUNTS.copy()
    x[[1, 2]] = 0
    with pytest.raises(ValueError, match=r"2 cells without any count \(the first is 'c1'\).*filter_cells"):
        check_support(look(csr_matrix(x)), "nb", "count")
    check_support(look(csr_matrix(x)), "normal", "real")  # a row of zeros is a value like any other


def test_bernoulli_asked_of_counts():
    with pytest.raises(ValueError, match=r"'bernoulli' needs values in \[0, 1\].*2 in cell 'c0', gene 'g1'.*Divide"):
        check_support(look(COUNTS, "adata.layers['counts']"), "bernoulli", "unit")


@pytest.mark.parametrize("shape", [(0, 3), (4, 0)])
def test_nothing_to_learn_from(shape):
    with pytest.raises(ValueError, match=f"{shape[0]} cells and {shape[1]} genes"):
        look(np.zeros(shape))


def test_blocks_are_put_together(monkeypatch):
    monkeypatch.setattr("mixvi.data._support.ROWS_AT_ONCE", 2)
    x = COUNTS.copy()
    x[0, 0], x[3, 1] = -1, -2
    support = look(csr_matrix(x))
    assert (support.negative.number, support.negative.cell, support.negative.gene) == (2, "c0", "g0")
    x[1] = x[2] = 0
    assert look(csr_matrix(x)).empty == (2, "c1")


@pytest.mark.parametrize("kind", [np.float16, ">f4", ">i4", object, str, complex])
def test_values_of_other_kinds_are_refused_with_the_cure(counts, kind):
    counts.X = np.asarray(counts.X).astype(kind)
    with pytest.raises(ValueError, match=r"adata.X has dtype '.*'; models read .*Convert it: adata.X = adata.X.astype"):
        mixvi.VAE.setup_anndata(counts)


def test_values_that_are_missing_or_masked_are_refused(counts):
    with pytest.raises(ValueError, match=r"adata.X is a masked array; fill it, for example adata.X = adata.X.filled"):
        check_dtype(np.ma.masked_array(counts.X, counts.X == 0), "adata.X")
    del counts.X
    with pytest.raises(ValueError, match="adata.X is None; name the layer"):
        mixvi.VAE.setup_anndata(counts)


def test_values_beyond_single_precision_are_refused(counts):
    counts.X = np.asarray(counts.X, dtype=np.float64)
    counts.X[3, 2] = 1e39
    mixvi.VAE.setup_anndata(counts)
    with pytest.raises(ValueError, match="NaN, infinite or too large entries: 1 .*1e\\+39 in cell"):
        mixvi.VAE(counts)
