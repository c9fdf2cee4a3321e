"""Baselines are right where they should be."""

import anndata as ad
import numpy as np
import pytest

from mixvi import perturb
from tests.perturb.helpers import TREATMENT, rows


@pytest.mark.parametrize("name", perturb.BASELINES)
def test_baselines_are_right_where_all_types_answer_alike(toy, name):
    held = rows(toy, "blob 1", "condition 1")
    baseline = perturb.fit_baseline(name, toy[~held], *TREATMENT)
    found = baseline.predict(toy, "blob 1")
    real, before = toy.X[held].mean(0), toy.X[rows(toy, "blob 1", "condition 0")].mean(0)
    error, effect = np.abs(found.X.mean(0) - real).mean(), np.abs(before - real).mean()
    if name == "no change":
        np.testing.assert_array_equal(found.X.mean(0), before)
    else:
        assert error < 0.15 * effect
    if name in ("mean shift", "nearest type's shift", "scaled shift"):  # one vector for all cells of a type
        moved = found.X - toy.X[rows(toy, "blob 1", "condition 0")]
        np.testing.assert_allclose(moved, np.broadcast_to(moved[0], moved.shape), atol=1e-4)


def test_nearest_shift_is_that_of_the_nearest_type(toy):
    toy.X[rows(toy, "blob 2", "condition 1")] += 7
    held = rows(toy, "blob 1", "condition 1")
    seen = toy[~held].copy()
    means = {name: seen.X[rows(seen, name, "condition 0")].mean(0) for name in ("blob 0", "blob 1", "blob 2")}
    nearest = min(("blob 0", "blob 2"), key=lambda name: np.linalg.norm(means[name] - means["blob 1"]))
    found = perturb.fit_baseline("nearest type's shift", seen, *TREATMENT).predict(toy, "blob 1")
    shift = seen.X[rows(seen, nearest, "condition 1")].mean(0) - means[nearest]
    np.testing.assert_allclose(found.X.mean(0), means["blob 1"] + shift, atol=1e-4)


def test_scaled_shift_grows_with_the_size_that_training_types_suggest(toy):
    direction = np.linspace(1, 2, 30)
    for k in range(3):  # the further along the shift a type is before, the further it goes
        toy.X[(toy.obs["cluster"] == f"blob {k}").to_numpy()] = k * direction
        toy.X[rows(toy, f"blob {k}", "condition 1")] += (1 + 0.5 * k) * direction
    seen = toy[~rows(toy, "blob 2", "condition 1")]
    found = perturb.fit_baseline("scaled shift", seen, *TREATMENT).predict(toy, "blob 2")
    np.testing.assert_allclose(found.X[0], (2 + 2) * direction, rtol=1e-3)


def test_cells_without_a_type_are_predicted_too(toy):
    toy.obs["cluster"] = toy.obs["cluster"].where(np.arange(600) % 7 > 0)
    found = perturb.fit_baseline("mean shift", toy, *TREATMENT).predict(toy)
    before = toy[toy.obs["condition"] == "condition 0"]
    assert (np.abs(found.X - before.X).sum(1) > 0.1).all()


def test_files_are_read_where_cells_are_backed(toy, tmp_path):
    toy.write_h5ad(tmp_path / "toy.h5ad")
    backed = ad.read_h5ad(tmp_path / "toy.h5ad", backed="r")
    found = perturb.fit_baseline("mean shift", backed, *TREATMENT).predict(backed, "blob 0")
    np.testing.assert_allclose(found.X, perturb.fit_baseline("mean shift", toy, *TREATMENT).predict(toy, "blob 0").X)
