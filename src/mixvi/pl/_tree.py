"""The tree over clusters, with what each split is worth and the genes that tell it."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mixvi.pl._figure import check_given, finish

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE
    from mixvi.model._tree import Split

STYLES = {"gap": "-", "grade": "--", "noise": ":", "": "-"}


def tree(
    model: "GMVAE",
    n_clusters: int | None = None,
    n_markers: int = 3,
    ax: Axes | None = None,
    show: bool | None = None,
    save: Path | None = None,
) -> Axes:
    """Draw the tree over the clusters, each with its size and its best marker genes.

    A split stands at its worth, in nats a cell, or left of it where those below need the room. A solid line is a gap, a
    dashed one a grade (cells stand between both sides), a dotted one noise. Without counts, a split stands at the
    inverse of its connectivity.

    Parameters
    ----------
    model
        A trained GMVAE.
    n_clusters
        Cut the tree into so many clusters; ``None`` cuts it where the model does.
    n_markers
        Genes beside each cluster, from ``model.markers(versus="rest")``; 0 leaves them out.
    ax
        Where to draw; ``None`` makes a figure.
    show
        Show the figure; by default if it is not saved.
    save
        File to write.
    """
    check_given(model, "tree", "a trained GMVAE")
    whole, n_clusters = model.tree, n_clusters or model.n_clusters
    names = model.predict(n_clusters=n_clusters, soft=True).columns.tolist()
    drawn = whole if n_clusters == model.n_clusters else type(whole)(whole.clusters, names)
    splits = [split for split in drawn.splits if split.kept]
    sizes = {side: n for s in splits for side, n in ((s.left, s.cells_left), (s.right, s.cells_right))}
    if ax is None:
        _, ax = plt.subplots(figsize=(7.5, 1.2 + 0.32 * len(names)), layout="constrained")
    if splits:
        _draw(ax, splits)
    genes = _markers(model, n_clusters, n_markers)
    rows = _order(splits) or names
    labels = [f"{name}  ({sizes[name]:,})  {', '.join(genes.get(name, []))}" if sizes else name for name in rows]
    ax.set_yticks(range(len(rows)), labels)
    ax.yaxis.tick_right()
    ax.set_ylim(len(rows) - 0.5, -0.5)
    with_counts = bool(splits) and not np.isnan(splits[0].worth)
    ax.set_xlabel("worth of the split, nats a cell" if with_counts else "1 / connectivity")
    ax.spines[["left", "top", "right"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    kinds = [kind for kind in ("gap", "grade", "noise") if any(split.kind == kind for split in splits)]
    if kinds:
        lines = [Line2D([], [], color="0.3", linestyle=STYLES[kind], label=kind) for kind in kinds]
        ax.legend(handles=lines, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=len(kinds))
    finish(show, save, ax)
    return ax


def _draw(ax: Axes, splits: "list[Split]") -> None:
    """Brackets from the leaves, on the right, to the root, on the left."""
    row = {name: i for i, name in enumerate(_order(splits))}
    height = {}
    for split in reversed(splits):  # from the leaves up; a split stands to the left of those below it
        own = 1 / max(split.connectivity, 1e-3) if np.isnan(split.worth) else max(split.worth, 0.1)
        below = [height[side][0] for side in (split.left, split.right) if side in height]
        x = max([own, *(1.15 * other for other in below)])
        ys = [height[side][1] if side in height else row[side] for side in (split.left, split.right)]
        height[split.node] = (x, float(np.mean(ys)))
        split_x = [height[side][0] if side in height else None for side in (split.left, split.right)]
        for y, start in zip(ys, split_x, strict=True):
            ax.plot([x, start if start is not None else 0], [y, y], color="0.3", linestyle=STYLES[split.kind], lw=1.2)
        ax.plot([x, x], ys, color="0.3", linestyle=STYLES[split.kind], lw=1.2)
        ax.annotate(
            f"{own:.0f}" if own >= 10 else f"{own:.2g}", (x, np.mean(ys)), (-3, 0), textcoords="offset points",
            ha="right", va="center", fontsize="x-small", color="0.3", bbox={"fc": "white", "ec": "none", "pad": 0.8},
        )  # fmt: skip
    least = min(x for x, _ in height.values())
    ax.set_xscale("symlog", linthresh=least / 2)
    ax.set_xlim(max(x for x, _ in height.values()) * 1.6, 0)


def _order(splits: "list[Split]") -> list[str]:
    """Clusters from the top down, each side of a split together."""
    sides = {split.node: (split.left, split.right) for split in splits}

    def below(name: str) -> list[str]:
        return [leaf for side in sides[name] for leaf in below(side)] if name in sides else [name]

    return below(splits[0].node) if splits else []


def _markers(model: "GMVAE", n_clusters: int, n_markers: int) -> dict[str, list[str]]:
    """The genes that are higher in each cluster than in the rest, by name."""
    if n_markers == 0 or n_clusters < 2 or not len(model.clusters_["overdispersion"]) or model.adata is None:
        return {}
    table = model.markers(n_clusters, versus="rest")
    table = table[table["log2_fold_change"] > 0]
    return {name: rows["gene"].head(n_markers).tolist() for name, rows in table.groupby("cluster", sort=False)}
