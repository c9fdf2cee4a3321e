"""Plots of predictions show what they say."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mixvi import datasets, metrics, perturb, pl
from mixvi.metrics import Trio, moments
from tests.model.helpers import fitted
from tests.perturb.helpers import TREATMENT


@pytest.fixture
def cells():
    """A model, predicted, observed and control cells."""
    toy = datasets.blobs(300, 20, n_clusters=2, n_conditions=2)
    model = fitted("AE", toy)
    one = toy[toy.obs["cluster"] == "blob 0"]
    observed, control = (one[one.obs["condition"] == f"condition {k}"].copy() for k in (1, 0))
    return model, perturb.fit_shift(model, *TREATMENT).predict(toy, "blob 0"), observed, control


def test_means_are_plotted_with_their_agreement(cells, tmp_path):
    _, predicted, observed, control = cells
    ax = pl.predicted_means(predicted, observed, control, n_names=3, save=tmp_path / "means.png")
    points = ax.collections[0].get_offsets()
    np.testing.assert_allclose(points, np.stack([predicted.X.mean(0), observed.X.mean(0)], 1), rtol=1e-5, atol=1e-5)
    r2 = metrics.r2_of_means(Trio(*(moments(one.X) for one in (predicted, observed, control))))
    assert f"R2 = {r2:.3f}" in ax.get_legend_handles_labels()[1][0]
    top = metrics.de_genes(moments(observed.X), moments(control.X), 3)
    assert {text.get_text() for text in ax.texts} == set(observed.var_names[top])
    assert (tmp_path / "means.png").stat().st_size > 0


def test_latent_map_and_violin_show_three_kinds_of_cells(cells):
    model, predicted, observed, control = cells
    ax = pl.perturbed_latent(model, predicted, observed, control, show=False)
    assert sum(len(points.get_offsets()) for points in ax.collections) >= predicted.n_obs + observed.n_obs
    ax = pl.gene_violin("gene 3", predicted, observed, control, show=False)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["control", "predicted", "stimulated"]
    plt.close("all")
    with pytest.raises(ValueError, match="no gene 'ISG15'"):
        pl.gene_violin("ISG15", predicted, observed, control)


def test_what_cannot_be_compared_is_said(cells):
    model, predicted, observed, control = cells
    for draw in (pl.predicted_means, lambda *several: pl.gene_violin("gene 3", *several)):
        with pytest.raises(TypeError, match="got DataFrame; it draws AnnDatas of predicted, real and control cells"):
            draw(predicted, observed.to_df(), control)
        with pytest.raises(ValueError, match="different genes"):
            draw(predicted, observed[:, ::-1], control)
    with pytest.raises(TypeError, match="got AnnData; it draws the latent space of a trained model"):
        pl.perturbed_latent(predicted, predicted, observed, control)
    with pytest.raises(ValueError, match="have no .obsm"):
        pl.perturbed_latent(model, observed, observed, control)
    assert not plt.get_fignums()
