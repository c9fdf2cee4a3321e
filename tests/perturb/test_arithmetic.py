"""Steps in the latent space against answers that are known."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from mixvi import perturb
from tests.model.helpers import fitted
from tests.perturb.helpers import TREATMENT, rows


@pytest.mark.parametrize("balance", [True, False])
def test_linear_ae_is_pca_and_vector_arithmetic(toy, balance):
    model = fitted("AE", toy, linear=True, n_latent=4, train={"max_epochs": 200})
    shift = perturb.fit_shift(model, *TREATMENT, balance=balance)
    found = shift.predict(toy, "blob 1")
    pca = PCA(4).fit(toy.X)
    z = pca.transform(toy.X)
    types = sorted(set(toy.obs["cluster"])) if balance else [slice(None)]
    cells = [toy.obs["cluster"].to_numpy() == name if balance else np.ones(600, bool) for name in types]
    stimulated = (toy.obs["condition"] == "condition 1").to_numpy()
    delta = np.mean([z[c & stimulated].mean(0) - z[c & ~stimulated].mean(0) for c in cells], axis=0)
    expected = pca.inverse_transform(z[rows(toy, "blob 1", "condition 0")] + delta)
    np.testing.assert_allclose(found.X, expected, atol=2e-3)
    assert found.obs_names.equals(toy.obs_names[rows(toy, "blob 1", "condition 0")])
    assert set(found.obs["condition"]) == {"condition 1"}


def test_without_a_step_predicted_cells_are_the_control_cells(counts):
    model = fitted("VAE", counts)
    shift = perturb.fit_shift(model, *TREATMENT)
    still = perturb.Shift(model, shift.treatment, np.zeros_like(shift.delta), {}).predict(counts, n_samples=2)
    control = counts[counts.obs["condition"] == "condition 0"]
    np.testing.assert_allclose(still.X, np.repeat(perturb.expression(control), 2, axis=0), rtol=1e-5, atol=1e-6)
    moved = shift.predict(counts)
    assert (perturb.expression(control) != moved.X).any()


def test_balance_counts_types_and_not_cells(toy):
    toy.X[rows(toy, "blob 0", "condition 1")] += 5  # one type answers otherwise
    few = toy[~(rows(toy, "blob 0", "condition 0") | rows(toy, "blob 0", "condition 1")) | (np.arange(600) % 4 == 0)]
    model = fitted("AE", few.copy(), linear=True, n_latent=4, train={"max_epochs": 200})
    balanced, pooled = (perturb.fit_shift(model, *TREATMENT, balance=balance) for balance in (True, False))
    np.testing.assert_allclose(balanced.delta, np.mean(list(balanced.by_type.values()), axis=0), rtol=1e-6)
    odd = balanced.by_type["blob 0"]
    assert np.linalg.norm(balanced.delta - odd) < np.linalg.norm(pooled.delta - odd)


def test_a_local_step_is_each_types_own_where_types_answer_otherwise(toy):
    for k in range(3):
        toy.X[rows(toy, f"blob {k}", "condition 1")] += 3 * k
    model = fitted("AE", toy, linear=True, n_latent=4, train={"max_epochs": 200})
    shift, local = (perturb.fit_shift(model, *TREATMENT, local=local) for local in (False, True))
    for k in range(3):
        real = toy.X[rows(toy, f"blob {k}", "condition 1")].mean(0)
        errors = [np.abs(one.predict(toy, f"blob {k}").X.mean(0) - real).mean() for one in (shift, local)]
        assert errors[1] < 0.3 * errors[0] or k == 1  # the one in the middle takes the mean step


def test_batches_are_removed_type_by_type(toy):
    alone = rows(toy, "blob 2", "condition 1")
    toy = toy[~alone].copy()  # only one batch has blob 2
    model = fitted("AE", toy, linear=True, n_latent=4, train={"max_epochs": 200})
    found, z = perturb.remove_batch(model, "condition", "cluster"), model.get_latent_representation()
    for name in ("blob 0", "blob 1"):
        means = [found.obsm["X_mixvi"][rows(toy, name, f"condition {k}")].mean(0) for k in (0, 1)]
        np.testing.assert_allclose(*means, atol=1e-4)
    kept = rows(toy, "blob 2", "condition 0")
    np.testing.assert_array_equal(found.obsm["X_mixvi"][kept], z[kept])
    np.testing.assert_allclose(found.X[kept], model.get_reconstruction()[kept], atol=1e-4)


def test_every_cell_takes_its_own_step_in_blocks_too(toy):
    """1,400 rows are decoded in two blocks."""
    model = fitted("AE", toy, linear=True, n_latent=4, train={"max_epochs": 200})
    steps, indices = np.random.default_rng(0).normal(size=(1400, 4)), np.resize(np.arange(600), 1400)
    found = perturb._arithmetic.decoded(model, toy, indices, steps)
    expected = model.get_latent_representation(indices=indices) + steps
    np.testing.assert_allclose(found["X_mixvi"], expected, rtol=1e-4, atol=1e-4)


def test_local_steps_are_balanced_too(toy):
    """The step of a type of few cells counts as much as that of others: with two types, a plane through both."""
    toy.X[rows(toy, "blob 0", "condition 1")] += 5
    few = toy[(toy.obs["cluster"] != "blob 0") | (np.arange(600) % 4 == 0)].copy()
    model = fitted("AE", few, linear=True, n_latent=2, train={"max_epochs": 200})
    odd = perturb.fit_shift(model, *TREATMENT).by_type["blob 0"]
    z = model.get_latent_representation(indices=np.flatnonzero(rows(few, "blob 0", "condition 0"))).mean(0)
    errors = [
        np.linalg.norm(perturb.fit_shift(model, *TREATMENT, balance=balance, local=True).local.predict(z[None]) - odd)
        for balance in (True, False)
    ]
    assert errors[0] < errors[1]


def test_models_that_do_not_draw_give_each_cell_once(toy):
    model = fitted("VAE", toy)
    found = perturb.fit_shift(model, *TREATMENT).predict(toy, "blob 0", n_samples=5)
    assert found.n_obs == rows(toy, "blob 0", "condition 0").sum()
