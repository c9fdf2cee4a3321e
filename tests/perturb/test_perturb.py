"""Predictions of perturbed cells against answers that are known."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from sklearn.decomposition import PCA

import mixvi
from mixvi import datasets, perturb
from tests.model.helpers import fitted

TREATMENT = ("condition", "condition 0", "condition 1", "cluster")
FEW = {"max_epochs": 3, "accelerator": "cpu"}


@pytest.fixture
def toy():
    """600 cells in three types; the condition adds the same vector to all of them."""
    return datasets.blobs(600, 30, n_clusters=3, n_conditions=2)


def rows(adata, cell_type, condition):
    return ((adata.obs["cluster"] == cell_type) & (adata.obs["condition"] == condition)).to_numpy()


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


def test_counterfactual_predictor_is_the_models(toy):
    model = fitted("CVAE", toy)
    found = perturb.fit_counterfactual(model, *TREATMENT).predict(toy, "blob 0")
    expected = model.predict_counterfactual(
        toy, "condition 1", indices=np.flatnonzero(rows(toy, "blob 0", "condition 0"))
    )
    np.testing.assert_array_equal(found.X, expected.X)


def test_evaluate_says_which_prediction_is_right(toy):
    real, before = toy[rows(toy, "blob 1", "condition 1")], toy[rows(toy, "blob 1", "condition 0")]
    half = real.n_obs // 2
    table = perturb.evaluate({"right": real[:half], "none": before}, real[half:], before, n_top=10)
    assert table.columns.tolist() == ["prediction", "metric", "genes", "value", "low", "high"]
    wide = table[table["genes"] != "all"].pivot(index="metric", columns="prediction", values="value")
    assert wide.loc["pearson of change", "right"] > 0.99
    assert wide.loc["pearson of change", "none"] == 0
    assert wide.loc["mse", "right"] < wide.loc["mse", "none"] / 10
    distance = table[table["metric"] == "energy distance"].set_index("prediction")["value"]
    assert distance["right"] < distance["none"] / 10
    assert table.eval("low <= value <= high").all()


def test_predictions_are_compared_on_the_scale_of_the_real_cells():
    counts = datasets.blobs(60, 30, kind="count")
    log = ad.AnnData(perturb.expression(counts), var=counts.var)
    table = perturb.evaluate({"counts": counts, "log": log}, counts, counts[:30])
    pd.testing.assert_series_equal(
        *(table[table["prediction"] == name]["value"].reset_index(drop=True) for name in ("counts", "log"))
    )
    means = ad.AnnData(counts.X + 0.5, var=counts.var)
    with pytest.raises(ValueError, match="not on the scale"):
        perturb.evaluate({"means": means}, counts, counts)


def test_draws_that_say_nothing_new_change_no_figure_and_no_interval(toy):
    real, before = toy[rows(toy, "blob 1", "condition 1")], toy[rows(toy, "blob 1", "condition 0")]
    names = [f"{i:02}" for i in range(40)]
    once = ad.AnnData(real.X[:40], obs=pd.DataFrame({"mixvi_control_cell": names}, index=names), var=toy.var)
    many = ad.AnnData(np.repeat(once.X, 3, 0), obs=once.obs.iloc[np.repeat(np.arange(40), 3)], var=toy.var)
    many.obs_names_make_unique()
    tables = [perturb.evaluate({"one": cells}, real[40:], before) for cells in (once, many)]
    pd.testing.assert_frame_equal(*tables)
    once.obs.loc[:, "mixvi_control_cell"] = np.nan  # unsaid: each cell for itself
    pd.testing.assert_frame_equal(perturb.evaluate({"one": once}, real[40:], before), tables[0])
    many.obs["mixvi_control_cell"] = "one"
    with pytest.raises(ValueError, match="'one' has 1 cells"):
        perturb.evaluate({"one": many}, real[40:], before)


def test_draws_of_cells_with_one_name_are_told_apart():
    toy = datasets.blobs(300, 30, n_clusters=2, n_conditions=2, kind="count")
    model = fitted("VAE", toy)
    toy.obs_names = ["same"] * toy.n_obs
    found = perturb.fit_shift(model, *TREATMENT).predict(toy, "blob 0", n_samples=2)
    assert found.obs["mixvi_control_cell"].nunique() == found.n_obs // 2


def test_bootstrap_interval_holds_the_truth(rng):
    """Of 40 repetitions, the 95 % interval of a mean squared difference should cover its expectation in most."""
    hits = 0
    for seed in range(40):
        draw = np.random.default_rng(seed)
        make = lambda n, at: ad.AnnData(draw.normal(size=(n, 5)) + at)  # noqa: B023, E731
        table = perturb.evaluate({"one": make(200, 1.0)}, make(200, 0.0), make(200, 2.0), n_top=5, seed=seed)
        row = table[(table["metric"] == "mse") & (table["genes"] == "all")].iloc[0]
        hits += row["low"] <= 1.0 + 2 / 200 <= row["high"]
    assert hits >= 32


def test_leave_one_out_holds_out_what_it_predicts_and_goes_on_where_it_ended(toy, tmp_path, monkeypatch):
    seen = []
    fit_baseline = perturb._protocol.fit_baseline

    def spy(name, adata, *args, **kwargs):
        seen.append(adata)
        return fit_baseline(name, adata, *args, **kwargs)

    monkeypatch.setattr(perturb._protocol, "fit_baseline", spy)
    settings = {"model": {"linear": True, "n_latent": 3}, "train": FEW, "baselines": ["mean shift"]}
    path = tmp_path / "table.csv"
    first = perturb.leave_one_out(mixvi.AE, toy, *TREATMENT, groups=["blob 0"], path=path, **settings)
    assert rows(seen[0], "blob 0", "condition 1").sum() == 0
    assert rows(seen[0], "blob 0", "condition 0").sum() == rows(toy, "blob 0", "condition 0").sum()
    whole = perturb.leave_one_out(mixvi.AE, toy, *TREATMENT, path=path, **settings)
    assert len(seen) == 3  # blob 0 was there already
    assert set(whole["held_out"]) == {"blob 0", "blob 1", "blob 2"}
    assert set(whole["prediction"]) == {"AE", "mean shift"}
    pd.testing.assert_frame_equal(whole.iloc[: len(first)], first, check_dtype=False)
    assert not any(key.startswith("_scvi") for key in toy.obs)


def test_donors_can_be_held_out(toy):
    toy.obs["donor"] = np.resize(["ann", "bob", "cleo"], 600)
    table = perturb.leave_one_out(
        mixvi.CVAE, toy, *TREATMENT, hold_out_key="donor", groups=["ann"], setup={"batch_key": "condition"},
        model={"n_hidden": 8}, train=FEW, baselines=["mean shift"],
    )  # fmt: skip
    assert set(table["held_out"]) == {"ann"}
    good = table[(table["prediction"] == "mean shift") & (table["metric"] == "pearson of change")]
    assert (good["value"] > 0.95).all()


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
    with pytest.raises(ValueError, match="not two cells"):
        perturb.leave_one_out(mixvi.AE, toy, *TREATMENT, groups=["blob 9"])
    conditioned = fitted("CVAE", toy)
    with pytest.raises(ValueError, match="fit_counterfactual"):
        perturb.fit_shift(conditioned, *TREATMENT)
    with pytest.raises(ValueError, match="transform_batch"):
        perturb.remove_batch(conditioned, "condition", "cluster")
    apart = toy[rows(toy, "blob 0", "condition 0") | rows(toy, "blob 1", "condition 1")].copy()
    with pytest.raises(ValueError, match="nothing to learn the effect from"):
        perturb.fit_baseline("mean shift", apart, *TREATMENT)


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


def test_counts_under_a_likelihood_of_real_values_are_refused():
    toy = datasets.blobs(300, 30, n_clusters=2, n_conditions=2, kind="count")
    model = fitted("AE", toy, linear=True, n_latent=2, train={"max_epochs": 5})
    with pytest.raises(ValueError, match="Log-normalise"):
        perturb.fit_shift(model, *TREATMENT)


def test_files_are_read_where_cells_are_backed(toy, tmp_path):
    toy.write_h5ad(tmp_path / "toy.h5ad")
    backed = ad.read_h5ad(tmp_path / "toy.h5ad", backed="r")
    found = perturb.fit_baseline("mean shift", backed, *TREATMENT).predict(backed, "blob 0")
    np.testing.assert_allclose(found.X, perturb.fit_baseline("mean shift", toy, *TREATMENT).predict(toy, "blob 0").X)
