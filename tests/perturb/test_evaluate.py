"""Figures of predictions say which is right, and how sure that is."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from mixvi import datasets, perturb
from tests.perturb.helpers import rows


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
