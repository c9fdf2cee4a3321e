"""The tree over clusters, with what each split is worth and the genes that tell it."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mixvi.model._markers import best_markers
from mixvi.pl._figure import check_given, finish, literal

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE
    from mixvi.model._tree import Split

STYLES: dict[str, Literal["-", "--", ":"]] = {"gap": "-", "grade": "--", "noise": ":", "": "-"}
SPLIT_KINDS = {
    "gap": "gap: few cells between",
    "grade": "grade: many cells between",
    "noise": "noise: no significant difference",
}
ROOM = 0.07  # of the axis, at least, between a split and those below it


def tree(
    model: "GMVAE",
    n_clusters: int | None = None,
    n_markers: int = 3,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Path | None = None,
) -> Axes:
    """Draw the tree over the clusters, each with its name, its number of cells and its best marker genes.

    The number at each split is its worth in nats per cell, as in ``model.tree.table``. The axis has a square-root
    scale. The position of a split is its worth. If splits below it have the same or a higher worth, it is drawn left of
    them. A solid line is a gap. A dashed line is a grade: many cells lie between both sides. A dotted line is noise. A
    model without counts has no worth; its numbers are 1 / connectivity.

    Parameters
    ----------
    model
        A trained GMVAE.
    n_clusters
        Cut the tree into so many clusters; ``None`` cuts it where the model does.
    n_markers
        Number of genes beside each cluster; 0 leaves them out. A gene is chosen if it is higher in the cluster than in
        all other cells and also higher than in the cluster's sibling in the tree. The larger of the two p-values ranks
        the genes. They are not all significant; ``model.markers()`` has the p-values.
    ax
        Where to draw; ``None`` makes a figure.
    show
        Show the figure; ``None`` shows it if it is not saved.
    save
        File to write.

    Returns
    -------
    The axes, with one row for each cluster.
    """
    check_given(model, "tree", "a trained GMVAE")
    whole, n_clusters = model.tree, n_clusters or model.n_clusters
    names = list(model.predict(n_clusters=n_clusters, soft=True))  # columns of the table
    drawn = whole if n_clusters == model.n_clusters else type(whole)(whole.clusters, names)
    splits = [split for split in drawn.splits if split.kept]
    rows = _order(splits) or names
    labels = _labels(rows, splits, best_markers(model, n_clusters, n_markers))
    with literal():
        if ax is None:
            width = 5.5 + 0.075 * max(map(len, labels))
            _, ax = plt.subplots(figsize=(width, 1.2 + 0.32 * len(rows)), layout="constrained")
        _decorate(ax, labels, splits)
        if splits:
            _draw(ax, splits)
        finish(show, save, ax)
    return ax


def _labels(rows: list[str], splits: "list[Split]", genes: dict[str, list[str]]) -> list[str]:
    """Name, number of cells and genes of each cluster."""
    sizes = {side: n for s in splits for side, n in ((s.left, s.cells_left), (s.right, s.cells_right))}
    return [f"{name}  ({sizes[name]:,})  {', '.join(genes.get(name, []))}" if sizes else name for name in rows]


def _decorate(ax: Axes, labels: list[str], splits: "list[Split]") -> None:
    """Names of clusters on the right, title of the axis, and legend."""
    ax.set_yticks(range(len(labels)), labels)
    ax.yaxis.tick_right()
    ax.set_ylim(len(labels) - 0.5, -0.5)
    with_counts = bool(splits) and not np.isnan(splits[0].worth)
    quantity = "worth of the split, nats per cell" if with_counts else "1 / connectivity of the split"
    ax.set_xlabel(f"{quantity} (read the numbers; positions are approximate)")
    ax.spines[["left", "top", "right"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    kinds = [kind for kind in SPLIT_KINDS if any(split.kind == kind for split in splits)]
    if kinds:
        lines = [Line2D([], [], color="0.3", linestyle=STYLES[kind], label=SPLIT_KINDS[kind]) for kind in kinds]
        ax.legend(
            handles=lines, frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=len(kinds)
        )


def _draw(ax: Axes, splits: "list[Split]") -> None:
    """Brackets from the clusters, on the right, to the root, on the left."""
    places, end = _places(splits)
    row = {name: i for i, name in enumerate(_order(splits))}
    for split in splits:
        x, y = places[split.node]
        ends = [places[side] if side in places else (end, row[side]) for side in (split.left, split.right)]
        xs, ys = [ends[0][0], x, x, ends[1][0]], [ends[0][1], ends[0][1], ends[1][1], ends[1][1]]
        ax.plot(np.square(xs), ys, color="0.3", linestyle=STYLES[split.kind], lw=1.2)
        own = _worth(split)
        number = f"{own:.0f}" if abs(own) >= 10 else f"{own:.2g}"
        ax.annotate(
            number, (x**2, y), (-2, 1.5), textcoords="offset points", ha="right", va="bottom", fontsize="x-small"
        )
    left = max(x for x, _ in places.values())
    ax.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
    ax.set_xlim((left + ROOM * (left - end)) ** 2, end**2)


def _places(splits: "list[Split]") -> tuple[dict[str, tuple[float, float]], float]:
    """Square root of the worth, and row, of each node that is split; and the square root where the axis ends.

    The axis ends at 0, or nearer to the splits if all of them are far from 0.
    """
    row = {name: i for i, name in enumerate(_order(splits))}
    root = {split.node: max(_worth(split), 0) ** 0.5 for split in splits}
    least, most = min(root.values()), max(root.values())
    end = max(0.0, least - 0.4 * (most - least)) if most > least else 0.0
    room = ROOM * ((most - end) or 1)
    places: dict[str, tuple[float, float]] = {}
    for split in reversed(splits):  # from the clusters up
        below = [places[side] if side in places else (end, row[side]) for side in (split.left, split.right)]
        x = max([root[split.node], *(other + room for other, _ in below)])
        places[split.node] = x, float(np.mean([y for _, y in below]))
    return places, end


def _worth(split: "Split") -> float:
    """What the axis shows of a split."""
    return 1 / max(split.connectivity, 1e-3) if np.isnan(split.worth) else split.worth


def _order(splits: "list[Split]") -> list[str]:
    """Clusters from the top down, each side of a split together."""
    sides = {split.node: (split.left, split.right) for split in splits}

    def below(name: str) -> list[str]:
        return [leaf for side in sides[name] for leaf in below(side)] if name in sides else [name]

    return below(splits[0].node) if splits else []
