"""Plots: what is drawn, and that nothing is written to."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mixvi import datasets, pl
from tests.model.helpers import build, fitted


@pytest.fixture
def model(counts):
    model = fitted("GMVAE", counts, train={"max_epochs": 60})
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


def test_what_is_not_there_yet_is_said(counts):
    with pytest.raises(ValueError, match="call model.train"):
        pl.training(build("VAE", counts))
    with pytest.raises(ValueError, match=r"no .obsm\['X_other'\]; call model.annotate"):
        pl.umap(counts, key="other")
    assert not plt.get_fignums()


@pytest.mark.parametrize(("draw", "said"), [
    (pl.umap, "an AnnData that"), (pl.confusion, "an AnnData that"), (pl.training, "a trained model"),
    (pl.weights, "a trained GMVAE"),
    (pl.images, "images by a trained model"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_said(draw, said, model, counts):
    takes_cells = draw in (pl.umap, pl.confusion)
    wrong = model if takes_cells else counts
    with pytest.raises(TypeError, match=f"got {type(wrong).__name__}; it draws {said}"):
        draw(wrong, labels="cluster") if takes_cells else draw(wrong)
    assert not plt.get_fignums()


def test_a_name_has_one_colour_in_all_panels(model, counts):
    """Of three clusters that are called as the labels are, and of a label that is no cluster."""
    names = dict(zip(counts.obs["mixvi"].cat.categories, ["a", "b", "c"], strict=True))
    counts.obs["mixvi"] = counts.obs["mixvi"].cat.rename_categories(names)
    counts.obs["label"] = np.where(np.arange(120) < 5, "A", counts.obs["mixvi"].astype(str))
    axes = pl.umap(counts, labels="label", show=False)
    shown = [
        {
            text.get_text(): tuple(handle.get_facecolor()[0])
            for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
        }
        for legend in (axes[0].get_legend(), axes[2].get_legend())
    ]
    assert shown[0] == {name: shown[1][name] for name in "abc"}
    assert len(set(shown[1].values())) == 4


def test_a_file_is_no_truth(model):
    with pytest.raises(ValueError, match="save=True is no file"):
        pl.weights(model, save=True)


def test_an_ae_has_no_kl_to_draw(counts):
    titles = [ax.get_title() for ax in pl.training(fitted("AE", counts), show=False)]
    assert titles == ["negative ELBO", "reconstruction loss"]


def test_weights_are_those_of_the_prior_and_bars_those_of_the_cells(model):
    ax = pl.weights(model, show=False)
    sizes = [(model.predict() == name).mean() for name in model.cluster_names]
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], sizes)
    dots = ax.lines[0].get_ydata()
    weight, below = model.module.prior.log_weights().exp().detach().numpy(), model._clusters().groups(model.n_clusters)
    np.testing.assert_allclose(dots, [weight[group].sum() for group in below], rtol=1e-5)
    assert sum(dots) == pytest.approx(1, abs=1e-5)


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
