"""What is held out is not learned from."""

import numpy as np
import pandas as pd

import mixvi
from mixvi import perturb
from tests.perturb.helpers import TREATMENT, rows

FEW = {"max_epochs": 3, "accelerator": "cpu"}


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
