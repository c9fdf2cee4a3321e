"""Files of cells that the commands read and write."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData


def check_files(path: Path, out: Path, targets: list[Path], force: bool) -> None:
    """Check the files of a command before it starts.

    Parameters
    ----------
    path
        File or folder to read.
    out
        File for the cells.
    targets
        Other files to write.
    force
        Whether files may be replaced.

    Raises
    ------
    ValueError
        If what is to be read does not exist, or what is to be written exists or has no folder.
    """
    for target in (out, *targets):
        if target.is_dir() or (target.exists() and not force):
            raise ValueError(f"{target} exists already; choose another name or pass --force to overwrite a file.")
    if not out.parent.is_dir():
        raise ValueError(f"{out.parent} is not a folder; create it first.")
    if not path.exists():
        raise ValueError(f"{path} does not exist.")
    if out.exists() and out.samefile(path):
        raise ValueError(f"{path} would be overwritten by its own result; choose another name for --out.")


def read_cells(path: Path) -> "AnnData":
    """Cells of an ``.h5ad`` file, of an ``.h5`` file of Cell Ranger, or of a folder with ``matrix.mtx``.

    Parameters
    ----------
    path
        File or folder. Genes of Cell Ranger that share a name get a number.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    import anndata as ad
    import scanpy as sc

    is_anndata = path.is_file() and path.suffix != ".h5"
    read = ad.read_h5ad if is_anndata else sc.read_10x_h5 if path.is_file() else sc.read_10x_mtx
    try:
        cells = read(path)
    except Exception as error:  # anndata, scanpy and h5py raise many types of errors
        kind = "an .h5ad file" if is_anndata else "an .h5 file or a folder with matrix.mtx of Cell Ranger"
        raise ValueError(f"{path} cannot be read as {kind}: {error}") from error
    if not is_anndata:
        cells.var_names_make_unique()
    return cells


def most_variable(cells: "AnnData", n_genes: int | None, layer: str | None, batch_key: str | None) -> "AnnData":
    """The cells with their most variable genes only, by Pearson residuals.

    Parameters
    ----------
    cells
        n cells x any genes; not changed.
    n_genes
        Number of genes; ``None``, or at least as many as there are, returns ``cells`` itself.
    layer
        Layer with counts; ``None`` is ``.X``.
    batch_key
        Column of ``.obs`` with batches, within which genes are ranked; ``None`` for one batch.

    Raises
    ------
    ValueError
        If the values are not counts, or ``n_genes`` is below 1.
    """
    import scanpy as sc

    from mixvi._checks import check_whole
    from mixvi.data import check_layer, check_present
    from mixvi.perturb import is_counts

    check_whole("--n-top-genes", n_genes, none="all genes")
    if n_genes is None or n_genes >= cells.n_vars:
        return cells
    check_layer(cells, layer, "pass --layer with the name of the counts")
    check_present(cells.obs, [] if batch_key is None else [batch_key])
    if not is_counts(cells, layer):
        raise ValueError("--n-top-genes ranks genes by raw counts, and these values are not counts; leave it out.")
    found = sc.experimental.pp.highly_variable_genes(
        cells, n_top_genes=n_genes, layer=layer, batch_key=batch_key, inplace=False
    )
    return cells[:, found["highly_variable"].to_numpy()].copy()


def carry_results(source: "AnnData", target: "AnnData", key_added: str) -> None:
    """Write what ``annotate`` wrote into one AnnData into another one of the same cells.

    Parameters
    ----------
    source
        Annotated cells, with some of the genes.
    target
        The same cells with all genes. Genes that ``source`` lacks have missing values in ``.varm``.
    key_added
        Name of the results.
    """
    import numpy as np

    from mixvi.data import annotation_keys

    if source is target:
        return
    for attribute, key in annotation_keys(source, key_added):
        values = getattr(source, attribute)[key]
        if attribute == "varm":
            whole = np.full((target.n_vars, values.shape[1]), np.nan)
            whole[target.var_names.get_indexer(source.var_names)] = values
            values = whole
        getattr(target, attribute)[key] = values
    target.uns[key_added] = source.uns[key_added]
