"""The drawn tree: places of splits and genes of siblings."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mixvi import pl
from mixvi.model._tree import Split
from mixvi.pl import _tree
from tests.model.helpers import fitted


def split(node, left, right, worth, kind="gap"):
    return Split(node, left, right, 20, 10, worth, 1.0, kind, 0.0, 0.01, 0.1, True)


# root first; a split below is worth more than the one above it, one is worth nothing
SPLITS = [
    split("a+b+c+d+e", "a+b", "c+d+e", 300.0), split("c+d+e", "c", "d+e", 190.0), split("d+e", "d", "e", 230.0),
    split("a+b", "a", "b", -2.0, "noise"),
]  # fmt: skip


def test_every_split_stands_apart_from_those_below_it():
    places, end = _tree._places(SPLITS)
    width = max(x for x, _ in places.values()) - end
    for one in SPLITS:
        for side in (one.left, one.right):
            below = places[side][0] if side in places else end
            assert places[one.node][0] - below >= 0.05 * width
    assert places["d+e"][0] == pytest.approx(230**0.5)  # at its worth, as nothing below needs room


def test_the_axis_ends_near_the_splits_where_all_are_far_from_zero():
    far = [split("a+b+c", "a", "b+c", 900.0), split("b+c", "b", "c", 700.0)]
    places, end = _tree._places(far)
    assert 0 < end < 700**0.5
    assert places["a+b+c"][0] - places["b+c"][0] > 0.5 * (places["a+b+c"][0] - end)
    assert _tree._places(far[1:])[1] == 0  # of one split


def test_numbers_are_the_worth_and_lines_reach_the_clusters():
    _, ax = plt.subplots()
    _tree._draw(ax, SPLITS)
    assert {text.get_text() for text in ax.texts} == {"300", "190", "230", "-2"}
    assert sorted(y for line in ax.lines for y in line.get_ydata() if y == int(y)).count(0) == 2
    assert {line.get_linestyle() for line in ax.lines} == {"-", ":"}
    left, right = ax.get_xlim()
    assert left > 300
    assert right == 0
    plt.close("all")


def test_the_tree_is_drawn_in_given_axes_with_a_row_for_each_cluster(counts):
    model = fitted("GMVAE", counts, train={"max_epochs": 60})
    _, own = plt.subplots()
    ax = pl.tree(model, n_markers=0, ax=own, show=False)
    assert ax is own
    rows = [label.get_text().split()[0] for label in ax.get_yticklabels()]
    assert sorted(rows) == sorted(model.cluster_names)
    worth = [one.worth for one in model.tree.splits if one.kept]
    assert {float(text.get_text()) for text in ax.texts} == {
        float(f"{w:.0f}" if abs(w) >= 10 else f"{w:.2g}") for w in worth
    }
    assert np.isfinite(ax.get_xlim()).all()
    plt.close("all")
