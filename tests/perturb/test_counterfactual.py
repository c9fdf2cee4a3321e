"""A conditional model as a predictor."""

import numpy as np
import pytest

from mixvi import perturb
from tests.model.helpers import fitted
from tests.perturb.helpers import TREATMENT, rows


def test_counterfactual_predictor_is_the_models(toy):
    model = fitted("CVAE", toy)
    found = perturb.fit_counterfactual(model, *TREATMENT).predict(toy, "blob 0")
    expected = model.predict_counterfactual(
        toy, "condition 1", indices=np.flatnonzero(rows(toy, "blob 0", "condition 0"))
    )
    np.testing.assert_array_equal(found.X, expected.X)


def test_counts_keep_the_noise_of_their_cells_and_are_log_normalised(counts):
    model = fitted("CVAE", counts)
    found = perturb.fit_counterfactual(model, *TREATMENT).predict(counts, "blob 0", n_samples=2, seed=3)
    before = np.flatnonzero(rows(counts, "blob 0", "condition 0"))
    np.testing.assert_array_equal(found.obs["mixvi_control_cell"], np.repeat(counts.obs_names[before], 2))
    assert set(found.obs["condition"]) == {"condition 1"}
    drawn = model.predict_counterfactual(counts, "condition 1", indices=np.repeat(before, 2), give_mean=False, seed=3).X
    np.testing.assert_allclose(found.X, np.log1p(1e4 * drawn / drawn.sum(1, keepdims=True)), rtol=1e-4)


def test_a_condition_that_the_model_does_not_know_is_named(toy):
    model = fitted("CVAE", toy)
    with pytest.raises(ValueError, match="condition='drug' is not known"):
        perturb.fit_counterfactual(model, "condition", "condition 0", "drug", "cluster")
    with pytest.raises(ValueError, match="not conditioned on 'cluster'"):
        perturb.fit_counterfactual(model, "cluster", "blob 0", "blob 1", "cluster")
