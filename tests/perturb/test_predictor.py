"""Scale, draws and names of predicted cells, and what cannot be learned."""

import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import mixvi
from mixvi import datasets, perturb
from tests.model.helpers import fitted
from tests.perturb.helpers import TREATMENT, rows


def test_predictions_of_counts_are_log_normalised_draws():
    toy = datasets.blobs(300, 30, n_clusters=2, n_conditions=2, kind="count")
    model = fitted("VAE", toy)
    found = perturb.fit_shift(model, *TREATMENT).predict(toy, "blob 0", n_samples=3)
    before = toy[rows(toy, "blob 0", "condition 0")]
    assert found.n_obs == 3 * before.n_obs
    assert found.obs_names.is_unique
    np.testing.assert_array_equal(found.obs["mixvi_control_cell"], np.repeat(before.obs_names, 3))
    np.testing.assert_allclose(np.expm1(found.X).sum(1), 1e4, rtol=1e-4)
    log = before.copy()
    sc.pp.normalize_total(log, target_sum=1e4)
    sc.pp.log1p(log)
    np.testing.assert_allclose(perturb.expression(before), log.X, rtol=1e-5)
    again = perturb.fit_shift(model, *TREATMENT).predict(toy, "blob 0", n_samples=3)
    np.testing.assert_array_equal(found.X, again.X)
    baseline = perturb.fit_baseline("no change", toy, *TREATMENT).predict(toy, "blob 0")
    np.testing.assert_allclose(baseline.X, log.X, rtol=1e-5)


def test_draws_of_cells_with_one_name_are_told_apart():
    toy = datasets.blobs(300, 30, n_clusters=2, n_conditions=2, kind="count")
    model = fitted("VAE", toy)
    toy.obs_names = ["same"] * toy.n_obs
    found = perturb.fit_shift(model, *TREATMENT).predict(toy, "blob 0", n_samples=2)
    assert found.obs["mixvi_control_cell"].nunique() == found.n_obs // 2


def test_what_cannot_be_learned_is_said(toy):
    model = fitted("VAE", toy)
    with pytest.raises(ValueError, match="No cell has condition='drug'"):
        perturb.fit_shift(model, "condition", "condition 0", "drug", "cluster")
    with pytest.raises(KeyError, match="no column 'type'"):
        perturb.fit_shift(model, "condition", "condition 0", "condition 1", "type")
    with pytest.raises(ValueError, match="No cell of cluster='blob 9'"):
        perturb.fit_shift(model, *TREATMENT).predict(toy, "blob 9")
    with pytest.raises(ValueError, match="not a baseline"):
        perturb.fit_baseline("magic", toy, *TREATMENT)
    with pytest.raises(ValueError, match="other genes"):
        perturb.evaluate({"one": toy[:, ::-1]}, toy, toy)
    with pytest.raises(ValueError, match="at least two cells"):
        perturb.leave_one_out(mixvi.AE, toy, *TREATMENT, groups=["blob 9"])
    conditioned = fitted("CVAE", toy)
    with pytest.raises(ValueError, match="fit_counterfactual"):
        perturb.fit_shift(conditioned, *TREATMENT)
    with pytest.raises(ValueError, match="transform_batch"):
        perturb.remove_batch(conditioned, "condition", "cluster")
    apart = toy[rows(toy, "blob 0", "condition 0") | rows(toy, "blob 1", "condition 1")].copy()
    with pytest.raises(ValueError, match="nothing to learn the effect from"):
        perturb.fit_baseline("mean shift", apart, *TREATMENT)


def test_a_layer_is_looked_at_instead_of_x(toy):
    moved = toy.copy()
    moved.layers["values"], moved.X = toy.X.copy(), np.zeros_like(toy.X)
    plain, layered = (
        perturb.fit_baseline("mean shift", cells, *TREATMENT, layer=layer).predict(cells, "blob 0")
        for cells, layer in ((toy, None), (moved, "values"))
    )
    np.testing.assert_array_equal(plain.X, layered.X)
    one, two = (
        perturb.evaluate({"a": plain}, cells[:50], cells[50:], layer)["value"]
        for cells, layer in ((toy, None), (moved, "values"))
    )
    pd.testing.assert_series_equal(one, two)


def test_counts_under_a_likelihood_of_real_values_are_refused():
    toy = datasets.blobs(300, 30, n_clusters=2, n_conditions=2, kind="count")
    model = fitted("AE", toy, linear=True, n_latent=2, train={"max_epochs": 5})
    with pytest.raises(ValueError, match="Log-normalise"):
        perturb.fit_shift(model, *TREATMENT)
