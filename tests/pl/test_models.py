"""Plots: what is drawn, and that nothing is written to."""

import itertools
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

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


TITLES = ["negative ELBO", "reconstruction", "KL of z", "KL of y, the cluster", "guide"]


def test_coordinates_of_the_user_are_drawn(model, counts, rng):
    counts.obsm["X_umap"] = rng.normal(size=(120, 2))
    axes = pl.umap(counts, color=["cluster", "gene 3"], show=False)
    assert [ax.get_title() for ax in axes] == ["cluster", "gene 3"]
    points = axes[1].collections[0]
    order = np.argsort(counts[:, "gene 3"].X.ravel(), kind="stable")  # scanpy draws high values last
    np.testing.assert_array_equal(np.sort(points.get_array()), counts.X[order, 3])
    drawn, own = (np.asarray(xy)[np.lexsort(np.asarray(xy).T)] for xy in (points.get_offsets(), counts.obsm["X_umap"]))
    np.testing.assert_array_equal(drawn, own)


def test_umap_draws_one_panel_in_given_axes(model, counts):
    figure, own = plt.subplots()
    assert pl.umap(counts, ax=own, show=False) == [own]
    assert own.get_title() == "cluster"
    assert sum(len(points.get_offsets()) for points in own.collections) >= 120
    assert plt.get_fignums() == [figure.number]
    plt.close(figure)
    with pytest.raises(ValueError, match="ax holds one panel, and there are 2"):
        pl.umap(counts, color=["cluster", "mixvi"], ax=own)
    with pytest.raises(KeyError, match="'ISG15' is neither a column of .obs nor a gene"):
        pl.umap(counts, color="ISG15")
    assert not plt.get_fignums()


def test_genes_are_those_of_raw_where_it_has_them(model, counts):
    counts.raw = counts.copy()
    counts.X = counts.X * 0
    points = pl.umap(counts, color="gene 3", show=False)[0].collections[0]
    np.testing.assert_array_equal(np.sort(points.get_array()), np.sort(counts.raw.X[:, 3]))


def test_colours_that_the_user_chose_are_kept(model, counts):
    counts.obs["cluster"] = counts.obs["cluster"].cat.rename_categories(["0", "1", "2"])
    counts.uns["cluster_colors"] = ["#ff0000", "#00ff00", "#0000ff"]
    axes = pl.umap(counts, labels="cluster", show=False)
    for ax in (axes[0], axes[2]):
        shown = [to_hex(handle.get_facecolor()[0]) for handle in ax.get_legend().legend_handles]
        assert shown == counts.uns["cluster_colors"]


def test_training_draws_the_history(model, tmp_path):
    axes = pl.training(model, show=False)
    assert [ax.get_title().strip() for ax in axes] == TITLES
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
    titles = [ax.get_title().strip() for ax in pl.training(fitted("AE", counts), show=False)]
    assert titles == TITLES[:2]


def test_weights_are_those_of_the_prior_and_bars_those_of_the_cells(model):
    ax = pl.weights(model, show=False)
    sizes = [(model.predict() == name).mean() for name in model.cluster_names]
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], sizes)
    dots = ax.lines[0].get_xdata()
    weight, below = model.module.prior.log_weights().exp().detach().numpy(), model._clusters().groups(model.n_clusters)
    np.testing.assert_allclose(dots, [weight[group].sum() for group in below], rtol=1e-5)
    assert sum(dots) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("n", [2, 40])
def test_weights_of_many_long_names_can_be_read(n):
    names = [f"CD4+/CD45RA+ naive T cells, group {k}" for k in range(n)]
    prior = SimpleNamespace(log_weights=lambda: torch.zeros(n).log_softmax(0))
    model = SimpleNamespace(
        cluster_names=names, predict=lambda: np.repeat(names, 3), module=SimpleNamespace(prior=prior),
        _component_index=lambda name: [names.index(name)],
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
