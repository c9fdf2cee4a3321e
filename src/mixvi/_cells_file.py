"""Files of cells that the commands read and write."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData


def check_files(inputs: list[Path], outputs: list[Path], folders: list[Path], force: bool) -> None:
    """Check the files of a command before it starts.

    Parameters
    ----------
    inputs
        Files or folders to read.
    outputs
        Files to write.
    folders
        Folders to write, which must be new.
    force
        Whether files may be replaced.

    Raises
    ------
    ValueError
        If an input does not exist; if an output exists or has no folder; if one path would be written twice, or is in
        an input.
    """
    for path in inputs:
        if not path.exists():
            raise ValueError(f"{path} does not exist.")
    for target in outputs:
        if target.is_dir() or (target.exists() and not force):
            raise ValueError(f"{target} exists already; choose another name or pass --force to overwrite a file.")
    for target in folders:
        if target.exists():
            raise ValueError(f"{target} exists already; choose another name for the folder.")
    read, written = ([path.resolve() for path in paths] for paths in (inputs, [*outputs, *folders]))
    for target in written:
        if any(target == path or path in target.parents for path in read):
            raise ValueError(f"{target} is what the command reads; choose another name for the result.")
        if written.count(target) > 1:
            raise ValueError(f"{target} would be written twice; choose different names.")
        if not target.parent.is_dir():
            raise ValueError(f"{target.parent} is not a folder; create it first.")


def check_folder(folder: Path | None, option: str, others: list[Path]) -> None:
    """Check a folder that a command may make, before it starts.

    Parameters
    ----------
    folder
        It may exist; ``None`` if the user asks for none.
    option
        That names it.
    others
        Other paths to write.

    Raises
    ------
    ValueError
        If it is or will be a file, or in one, or another folder to write.
    """
    for part in [] if folder is None else [folder, *folder.parents]:
        if part.exists() and not part.is_dir():
            raise ValueError(f"{part} is a file; {option} must name a folder, new or existing.")
        if part.resolve() in [other.resolve() for other in others]:
            raise ValueError(f"{part} is another result of the command; {option} must name a folder of its own.")


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
        Number of genes; ``None``, or at least as many as there are, returns ``cells`` itself. Genes without any count
        are never among them.
    layer
        Layer with counts; ``None`` is ``.X``.
    batch_key
        Column of ``.obs`` with batches, within which genes are ranked; ``None`` for one batch.

    Raises
    ------
    ValueError
        If the values are not counts, ``n_genes`` is below 1, names of genes repeat, or cells have no batch.
    """
    import numpy as np
    import scanpy as sc

    from mixvi._checks import check_whole
    from mixvi.data import check_layer, check_present, describe

    check_whole("--n-top-genes", n_genes, none="all genes")
    if n_genes is None or n_genes >= cells.n_vars:
        return cells
    check_layer(cells, layer, "pass --layer with the name of the counts")
    check_present(cells.obs, [] if batch_key is None else [batch_key])
    if batch_key is not None and cells.obs[batch_key].isna().any():
        raise ValueError(f"{cells.obs[batch_key].isna().sum():,} cells have no {batch_key!r}; remove them.")
    if not cells.var_names.is_unique:
        twice = cells.var_names[cells.var_names.duplicated()].unique().tolist()
        raise ValueError(f"--n-top-genes needs gene names that are unique, and some occur twice: {twice[:5]}.")
    values: Any = cells.X if layer is None else cells.layers[layer]
    if describe(values, "the values", cells.obs_names, cells.var_names).kind != "count":
        raise ValueError("--n-top-genes ranks genes by raw counts, and these values are not counts; leave it out.")
    cells = cells[:, np.asarray(values.sum(0)).ravel() > 0].copy()
    if n_genes >= cells.n_vars:
        return cells
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

    from mixvi.data import annotation_keys, own_keys

    if source is target:
        return
    for attribute, key in own_keys(target, key_added):  # of an earlier run
        del getattr(target, attribute)[key]
    for attribute, key in annotation_keys(source, key_added):
        values = getattr(source, attribute)[key]
        if attribute == "varm":
            whole = np.full((target.n_vars, values.shape[1]), np.nan)
            whole[target.var_names.get_indexer(source.var_names)] = values
            values = whole
        getattr(target, attribute)[key] = values
    target.uns[key_added] = source.uns[key_added]
