"""The values of the cells: a likelihood that can describe them, and where raw counts are."""

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from scipy.sparse import csr_matrix

import mixvi
from tests.model.helpers import MODELS, build, fitted


def test_counts_of_which_some_are_negative_are_said(counts, warned, recwarn):
    counts.X[3, 4] = -1
    build("VAE", counts)
    assert "adata.X holds whole numbers, some below 0. If they are counts, correct the negative ones: 1 (" in warned()
    recwarn.clear()
    build("VAE", ad.AnnData(counts.X / 2, obs=counts.obs))
    assert "correct the negative" not in warned()


@pytest.mark.parametrize(("far", "is_said"), [(0, False), (1e3, False), (1e9, True), (-1e9, True)])
def test_differences_that_single_precision_loses_are_said(rng, warned, far, is_said):
    """A gene that differs by rounding only, or not at all, is no reason to warn, and float32 has lost it already."""
    values = rng.normal(size=(120, 6))
    values[:, :2] = 0.3
    values[::2, 1] += 1e-16
    values[:, 3] += far
    build("VAE", ad.AnnData(values.astype(np.float32)), likelihood="normal")
    assert "single precision" not in warned()
    for form in (np.asarray, csr_matrix):
        build("VAE", ad.AnnData(form(values)), likelihood="normal")
    said = "adata.X has 1 genes, such as '3', whose values are large and hardly differ between cells"
    assert (said in warned()) == is_said


@pytest.mark.parametrize("change", [sc.pp.log1p, sc.pp.scale])
@pytest.mark.parametrize("where", ["raw", "counts", "umi"])
def test_raw_counts_beside_real_values_are_pointed_to(counts, warned, recwarn, change, where):
    if where == "raw":
        counts.raw = counts.copy()
    else:
        counts.layers[where] = counts.X.copy()
    change(counts)
    counts.layers["change"] = counts.X.copy()
    build("VAE", counts)
    name = "adata.raw.X" if where == "raw" else f"adata.layers['{where}']"
    assert f"adata.X has no counts, but {name} seems to have raw counts. To model them, call setup_a" in warned()
    assert "'change'" not in warned()
    recwarn.clear()
    if where != "raw":
        build("VAE", counts, {"layer": where})
        assert "seems to have" not in warned()


def test_auto_says_in_one_line_what_it_took(counts, caplog):
    build("VAE", counts)
    lines = [record.message for record in caplog.records if record.name.startswith("mixvi")]
    assert lines == ["VAE took likelihood='nb', because adata.X holds raw counts (non-negative whole numbers)."]


@pytest.mark.parametrize("name", MODELS)
def test_a_likelihood_that_cannot_fit_the_data(name, counts):
    counts.layers["scaled"] = counts.X - counts.X.mean(0)
    with pytest.raises(ValueError, match=r"layers\['scaled'\] has negative entries.*'cell 0'"):
        build(name, counts, {"layer": "scaled"}, likelihood="nb")
    with pytest.raises(ValueError, match="'negbin' is not known.*'nb'"):
        build(name, counts, likelihood="negbin")
    counts.X[3] = 0
    with pytest.raises(ValueError, match="1 cells without any count .*'cell 3'"):
        build(name, counts)
    counts.X[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN.*'cell 3', gene 'gene 4'"):
        build(name, counts)
    with pytest.raises(ValueError, match="0 genes"):
        build(name, counts[:, :0].copy())


def test_size_factors_that_would_be_ignored(counts):
    counts.obs["sf"] = 1.0
    with pytest.raises(ValueError, match="size_factor_key would be ignored under likelihood='normal'"):
        build("VAE", counts, {"size_factor_key": "sf"}, likelihood="normal")
    with pytest.raises(ValueError, match="beside size factors"):
        fitted("VAE", counts, {"size_factor_key": "sf"}).get_reconstruction(library_size=1e4)
    with pytest.raises(ValueError, match="is one name; pass a list"):
        mixvi.CVAE.setup_anndata(counts, categorical_covariate_keys="condition")
