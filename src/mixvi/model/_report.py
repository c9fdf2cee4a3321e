"""The report on a model: a method of a GMVAE, which takes it from here."""

from pathlib import Path
from typing import TYPE_CHECKING

from mixvi._atomic import replacing
from mixvi._checks import check_whole
from mixvi.data import check_present
from mixvi.model.registration import registered
from mixvi.model.streaming import check_trained
from mixvi.model.unchanged import check_cells

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE


def report(
    model: "GMVAE",
    path: str | Path,
    batch_key: str | None = None,
    n_clusters: int | None = None,
    overwrite: bool = False,
) -> None:
    """Write one HTML page on what was fitted and found: map, tree, markers, probabilities, and what not to trust.

    The page needs no network and no other file. Pictures have at most 10,000 random cells. The AnnData is not changed.

    Parameters
    ----------
    path
        File to write, such as ``"report.html"``.
    batch_key
        Column of ``.obs`` with batches, to look at in each cluster; ``None`` takes the registered one.
    n_clusters
        Where to cut the tree; ``None`` where the model does.
    overwrite
        Replace the file if it exists.

    Raises
    ------
    ValueError
        If the model has no clusters or not the cells of its training, or the file exists.
    RuntimeError
        If the model is not trained.
    KeyError
        If there is no such column.
    """
    check_trained(model)
    model._clusters()
    registered(model, None)
    check_cells(model, "report()")
    path = Path(path)
    if path.is_dir() or (path.exists() and not overwrite):
        raise ValueError(f"{path} exists already; pass another name, or overwrite=True to replace a file.")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent} is not a folder; create it first.")
    check_whole("n_clusters", n_clusters, none="that of the model")
    n_clusters = n_clusters or model.n_clusters
    batch_key = batch_key or model.registry_["setup_args"]["batch_key"]
    if batch_key is not None:
        check_present(model.adata.obs, [batch_key])
    from mixvi.report import page  # which needs matplotlib

    text = page(model, batch_key, n_clusters)
    with replacing(path) as [new]:
        new.write_text(text, encoding="utf-8")
