"""Maps of the cells: panels, coordinates and colours."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from mixvi import pl


def test_umap_has_a_panel_for_each_question(model, counts, tmp_path):
    before = set(counts.obsm), set(counts.uns), set(counts.obsp)
    axes = pl.umap(counts, labels="cluster", save=tmp_path / "umap.png")
    assert [ax.get_title() for ax in axes] == ["cluster", "confidence", "cluster"]
    assert (tmp_path / "umap.png").stat().st_size > 10_000
    assert (set(counts.obsm), set(counts.uns), set(counts.obsp)) == before
    assert len(pl.umap(counts, show=False)) == 2


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
