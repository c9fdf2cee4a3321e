"""Pictures of a report show the model's cells and genes."""

import matplotlib.pyplot as plt
import numpy as np
import torch

from mixvi import datasets
from mixvi.model._markers import best_markers
from mixvi.report import _figures
from tests.model.helpers import fitted


def test_some_cells_are_those_of_the_model(monkeypatch):
    monkeypatch.setattr(_figures, "MAX_PICTURED", 50)
    cells = datasets.blobs(120, 30, n_clusters=3, n_conditions=2, kind="count")
    model = fitted("GMVAE", cells, train={"max_epochs": 40})
    table = model.predict(soft=True)
    some = _figures.some_cells(model, table, "condition")
    rows = some.uns["rows"]
    assert len(np.unique(rows)) == some.n_obs == 50
    np.testing.assert_allclose(some.obsm["X_mixvi"], model.get_latent_representation()[rows], atol=1e-5)
    np.testing.assert_array_equal(some.obs["mixvi"].astype(str), model.predict()[rows])
    np.testing.assert_array_equal(some.obs["batch"].astype(str), cells.obs["condition"].astype(str).to_numpy()[rows])
    before = plt.get_fignums()
    genes = best_markers(model, 3, 5)
    pictures = [
        _figures.dots(model, some, genes),
        _figures.batches(some),
        _figures.confidence(table),
    ]
    assert all(one.data.startswith("data:image/png") for one in pictures)
    assert plt.get_fignums() == before


def test_the_predictive_check_sees_a_model_that_does_not_fit():
    cells = datasets.blobs(200, 30, n_clusters=3, n_conditions=2, kind="count")
    model = fitted("GMVAE", cells, train={"max_epochs": 60})
    rows, state = np.arange(0, 200, 2), torch.get_rng_state()
    _, (zeros, variance) = _figures.predictive(model, rows)
    assert torch.equal(torch.get_rng_state(), state)
    x = np.asarray(cells.X)[rows]
    np.testing.assert_allclose(zeros[0], (x == 0).mean(0))
    np.testing.assert_allclose(variance[0], x.var(0), rtol=1e-5)
    fits = np.abs(zeros[0] - zeros[1]).mean()
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.mul_(3)  # not what was trained
    _, (zeros, _) = _figures.predictive(model, rows)
    assert fits < 0.1 < 1.5 * np.abs(zeros[0] - zeros[1]).mean()


def test_without_markers_there_is_no_dot_plot():
    model = fitted("GMVAE", datasets.blobs(120, 10, n_clusters=3))
    some = _figures.some_cells(model, model.predict(soft=True), None)
    assert _figures.dots(model, some, {}) is None
