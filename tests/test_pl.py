"""Plots: what is drawn, and that nothing is written to."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mixvi import pl
from tests.model.helpers import fitted


@pytest.fixture
def model(counts):
    model = fitted("GMVAE", counts)
    model.annotate()
    yield model
    plt.close("all")


def test_umap_has_a_panel_for_each_question(model, counts, tmp_path):
    before = set(counts.obsm), set(counts.uns), set(counts.obsp)
    axes = pl.umap(counts, labels="cluster", save=tmp_path / "umap.png")
    assert [ax.get_title() for ax in axes] == ["cluster", "confidence", "cluster"]
    assert (tmp_path / "umap.png").stat().st_size > 10_000
    assert (set(counts.obsm), set(counts.uns), set(counts.obsp)) == before
    assert len(pl.umap(counts, show=False)) == 2


def test_training_draws_the_history(model, tmp_path):
    axes = pl.training(model, show=False)
    assert [ax.get_title() for ax in axes] == ["negative ELBO", "reconstruction loss", "kl z", "kl y", "guide"]
    for ax, term in zip(axes, ("elbo", "reconstruction_loss", "kl_z", "kl_y"), strict=False):
        for line, split in zip(ax.lines, ("train", "validation"), strict=True):
            np.testing.assert_allclose(line.get_ydata(), model.history[f"{term}_{split}"].to_numpy(dtype=float).ravel())
    pl.training(model, save=tmp_path / "training.png")
    assert (tmp_path / "training.png").exists()


def test_an_ae_has_no_kl_to_draw(counts):
    titles = [ax.get_title() for ax in pl.training(fitted("AE", counts), show=False)]
    assert titles == ["negative ELBO", "reconstruction loss"]
