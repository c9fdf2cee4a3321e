"""Plots: what is drawn, and that nothing is written to."""

import itertools
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from mixvi import datasets, pl
from tests.model.helpers import build, fitted

TITLES = ["negative ELBO", "reconstruction", "KL of z", "KL of y, the cluster", "guide"]


def test_training_draws_the_history(model, tmp_path):
    axes = pl.training(model, show=False)
    assert [ax.get_title().strip() for ax in axes] == TITLES
    for ax, term in zip(axes, ("elbo", "reconstruction_loss", "kl_z", "kl_y"), strict=False):
        *lines, placed = ax.lines
        for line, split in zip(lines, ("train", "validation"), strict=True):
            np.testing.assert_allclose(line.get_ydata(), model.history[f"{term}_{split}"].to_numpy(dtype=float).ravel())
        assert placed.get_xdata()[0] == model.history["guide_train"].index[0]
    pl.training(model, save=tmp_path / "training.png")
    assert (tmp_path / "training.png").exists()


def test_what_is_not_there_yet_is_said(counts):
    with pytest.raises(ValueError, match="call model.train"):
        pl.training(build("VAE", counts))
    with pytest.raises(ValueError, match=r"no .obsm\['X_other'\]; call model.annotate"):
        pl.umap(counts, key="other")
    assert not plt.get_fignums()


def test_an_ae_has_no_kl_to_draw(counts):
    titles = [ax.get_title().strip() for ax in pl.training(fitted("AE", counts), show=False)]
    assert titles == TITLES[:2]


def test_weights_are_those_of_the_prior_and_bars_those_of_the_cells(model):
    ax = pl.weights(model, show=False)
    sizes = [(model.predict() == name).mean() for name in model.cluster_names]
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], sizes)
    dots = ax.lines[0].get_xdata()
    weight, below = (
        model.module.prior.log_weights().exp().detach().numpy(),
        model.tree.clusters.groups(model.n_clusters),
    )
    np.testing.assert_allclose(dots, [weight[group].sum() for group in below], rtol=1e-5)
    assert sum(dots) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("n", [2, 40])
def test_weights_of_many_long_names_can_be_read(n):
    names = [f"CD4+/CD45RA+ naive T cells, group {k}" for k in range(n)]
    prior = SimpleNamespace(log_weights=lambda: torch.zeros(n).log_softmax(0))
    model = SimpleNamespace(
        cluster_names=names, predict=lambda: np.repeat(names, 3), module=SimpleNamespace(prior=prior),
        clusters_={}, tree=SimpleNamespace(clusters=SimpleNamespace(groups=lambda n: [[k] for k in range(n)])),
    )  # fmt: skip
    ax = pl.weights(model, show=False)
    ax.figure.canvas.draw()
    bars = [bar.get_window_extent() for bar in ax.patches]
    assert min(bar.height for bar in bars) > 12  # pixels
    assert min(bar.width for bar in bars) > 150
    labels = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert min(label.x0 for label in labels) >= 0
    assert all(below.y1 <= above.y0 + 1 for above, below in itertools.pairwise(labels))


def test_confusion_has_a_row_of_shares_for_each_label(model, counts):
    ax = pl.confusion(counts, "cluster", show=False)
    shares = ax.images[0].get_array()
    np.testing.assert_allclose(shares.sum(1), 1)
    assert (np.diff(shares.argmax(1)) >= 0).all()
    rows = [label.get_text() for label in ax.get_yticklabels()]
    assert sorted(rows) == sorted(counts.obs["cluster"].unique())
    first = counts.obs["mixvi"][counts.obs["cluster"] == rows[0]]
    assert shares[0, 0] == pytest.approx((first == ax.get_xticklabels()[0].get_text()).mean())
    with pytest.raises(KeyError, match="no column 'cell_type'"):
        pl.confusion(counts, "cell_type")
    with pytest.raises(ValueError, match="holds fractions"):
        pl.confusion(counts, "mixvi_confidence")


def test_images_are_means_and_draws_of_each_cluster(tmp_path):
    digits = datasets.digits()
    model = fitted("GMVAE", digits, train={"max_epochs": 20})
    axes = pl.images(model, n_samples=3, show=False)
    assert axes.shape == (3, 4)
    drawn = model.sample(pl._models.MEAN_OF, component="1", seed=0, give_mean=True).X
    np.testing.assert_allclose(axes[1, 0].images[0].get_array(), drawn.mean(0).reshape(8, 8), rtol=1e-5)
    np.testing.assert_allclose(axes[1, 2].images[0].get_array(), drawn[1].reshape(8, 8), rtol=1e-5)
    assert pl.images(fitted("VAE", digits, train={"max_epochs": 2}), show=False).shape == (1, 9)
    with pytest.raises(ValueError, match="64 pixels do not fill 8 x 9"):
        pl.images(model, shape=(8, 9))
