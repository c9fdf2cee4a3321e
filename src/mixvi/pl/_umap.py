"""UMAP of the latent space."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes

from mixvi.data import check_present
from mixvi.pl._figure import check_given, finish, grid, literal

logger = logging.getLogger(__name__)


def umap(
    adata: AnnData,
    key: str = "mixvi",
    labels: str | None = None,
    show: bool | None = None,
    save: Path | None = None,
    *,
    color: str | Sequence[str] | None = None,
    ax: Axes | None = None,
) -> list[Axes]:
    """UMAP of the cells, coloured by cluster, by confidence and by known labels.

    If ``.obsm["X_umap"]`` exists, its coordinates are drawn, even if they do not come from the latent space. If not,
    the layout is computed from the latent space and not kept. To compute the layout of the latent space once and keep
    it, call ``sc.pp.neighbors(adata, use_rep="X_mixvi")`` and ``sc.tl.umap(adata)`` before.

    Parameters
    ----------
    adata
        n cells, annotated by ``model.annotate()``. It is not written to.
    key
        The ``key_added`` of that call.
    labels
        Column of ``.obs`` to compare with. It gets a panel of its own, after the others.
    show
        Show the figure; ``None`` shows it if it is not saved.
    save
        File to write.
    color
        One or several columns of ``.obs`` or genes, one panel each. Values of genes are those of ``.raw`` if it has
        the gene, else of ``.X``. ``None`` draws the clusters and their confidence.
    ax
        Where to draw a single panel; ``None`` makes a figure. With ``ax`` and without ``color``, only the clusters
        are drawn.

    Returns
    -------
    One axes for each panel.

    Raises
    ------
    ValueError
        If nothing of that key was annotated, or ``ax`` is given for several panels.
    KeyError
        If there is no such column or gene.
    """
    check_given(adata, "obsm", "an AnnData that model.annotate() has written to")
    if f"X_{key}" not in adata.obsm:
        raise ValueError(
            f"There is no .obsm['X_{key}']; call model.annotate(adata) first, or name its key_added as key. "
            f"There are {list(adata.obsm)}."
        )
    panels = _panels(adata, key, labels, color, ax is not None)
    values = _values(adata, [panel for panel in panels if panel is not None])
    cells = _placed(adata, key, values)
    _color_alike(cells, [panel for panel in panels if panel is not None and panel in (key, labels)])
    axes = [ax] if ax is not None else grid(len(panels), 3, (4.6, 4.2), extra=1.5)
    titles = {None: "latent space", key: "cluster", f"{key}_confidence": "confidence"}
    with literal():
        for one, panel in zip(axes, panels, strict=True):
            sc.pl.umap(cells, color=panel, ax=one, show=False, frameon=False, title=titles.get(panel, panel))
        finish(show, save, axes[0])
    return axes


def _panels(
    adata: AnnData, key: str, labels: str | None, color: str | Sequence[str] | None, single: bool
) -> list[str | None]:
    """What to colour by, one entry for each panel; ``None`` is a panel without colours."""
    check_present(adata.obs, [labels] if labels else [])
    if color is None:
        panels: list[str | None] = [key] if single else [key, f"{key}_confidence"]
        panels = [panel for panel in panels if panel in adata.obs]
    else:
        panels = [color] if isinstance(color, str) else list(color)
    if labels and (color is not None or not single or not panels):
        panels.append(labels)
    panels = panels or [None]
    if single and len(panels) > 1:
        raise ValueError(f"ax holds one panel, and there are {len(panels)}: {panels}. Leave out ax, or give one color.")
    return panels


def _values(adata: AnnData, names: Sequence[str]) -> pd.DataFrame:
    """Columns of ``.obs``, and expression of genes, of each cell: one column a name."""
    values = {}
    for name in names:
        in_raw = adata.raw is not None and name in adata.raw.var_names
        if name in adata.obs:
            values[name] = adata.obs[name]
        elif in_raw or name in adata.var_names:
            values[name] = sc.get.obs_df(adata, [name], use_raw=in_raw)[name]
        else:
            raise KeyError(f"{name!r} is neither a column of .obs nor a gene of this AnnData.")
    return pd.DataFrame(values, index=adata.obs_names)


def _placed(adata: AnnData, key: str, values: pd.DataFrame) -> AnnData:
    """A new AnnData with values, colours and coordinates (n, 2) of each cell."""
    cells = AnnData(np.asarray(adata.obsm[f"X_{key}"]), obs=values)
    for name in {f"{name}_colors" for name in values} & set(adata.uns):
        cells.uns[name] = list(adata.uns[name])
    if "X_umap" in adata.obsm:
        logger.info("The plot shows .obsm['X_umap'], which need not come from the latent space.")
        cells.obsm["X_umap"] = np.asarray(adata.obsm["X_umap"])
    else:
        sc.pp.neighbors(cells, use_rep="X")
        sc.tl.umap(cells)
    return cells


def _color_alike(cells: AnnData, keys: Sequence[str]) -> None:
    """Give each name one colour, where columns share some names; colours that the user chose are kept."""
    keys = [key for key in keys if not pd.api.types.is_numeric_dtype(cells.obs[key])]
    kinds = {key: list(cells.obs[key].astype("category").cat.categories) for key in keys}
    names = list(dict.fromkeys(name for kind in kinds.values() for name in kind))
    if len(names) == sum(map(len, kinds.values())):
        return
    palettes = (sc.pl.palettes.default_20, sc.pl.palettes.default_28, sc.pl.palettes.default_102)
    palette = next((palette for palette in palettes if len(palette) >= len(names)), palettes[-1])
    colors = dict(zip(names, palette, strict=False))
    for key, kind in kinds.items():
        colors |= zip(kind, cells.uns.get(f"{key}_colors", []), strict=False)
    for key, kind in kinds.items():
        cells.uns[f"{key}_colors"] = [colors.get(name, "0.5") for name in kind]
