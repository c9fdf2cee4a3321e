"""The command line. Commands import heavy packages themselves, so --help is fast."""

import sys
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixvi._cells_file import carry_results, check_files, check_folder, most_variable, read_cells
from mixvi._keep import keeping, naming_checkpoints, write
from mixvi._terminal import errors_as_lines, terminal

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import Series

    from mixvi.model._base import LatentModel

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


FIGURES = ("umap.png", "training.png")
CHECKPOINT_MINUTES = 10


class Model(StrEnum):
    """The models by their command-line names."""

    ae = "ae"
    vae = "vae"
    cvae = "cvae"
    gmvae = "gmvae"


def _version(asked: bool) -> None:
    if asked:
        from mixvi import __version__

        typer.echo(f"mixvi {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show version.")] = False,
) -> None:
    """Structure in single cells: latent-variable models whose clusters have calibrated probabilities."""


Seed = Annotated[int, typer.Option(help="Seed of all random draws.")]
Epochs = Annotated[
    int | None,
    typer.Option(help="Passes over the cells.", show_default="400, gmvae at most 100, fewer above 20,000 cells"),
]
Cells = Annotated[
    Path, typer.Argument(metavar="IN", help="Cells: an .h5ad file, or an .h5 file or folder of Cell Ranger.")
]
Out = Annotated[Path, typer.Option(help="File for the annotated cells.", metavar="OUT.h5ad")]
Key = Annotated[str, typer.Option(help="Name of the results in the AnnData.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]
Figures = Annotated[Path | None, typer.Option(help="Folder for a UMAP and the training curve as PNG.")]


@app.command("demo")
def _demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("mixvi-demo"),
    max_epochs: Epochs = None,
    seed: Seed = 0,
) -> None:
    """Cluster 700 real blood cells, which the package contains, and draw figures of the result."""
    with errors_as_lines():
        check_folder(out, "--out", [])
    with errors_as_lines(), terminal():
        from mixvi import GMVAE, datasets

        adata = datasets.pbmc68k_reduced()
        typer.echo("Peripheral blood cells (Zheng 2017), which come with the package.")
        with TemporaryDirectory() as folder:  # a run of seconds needs no checkpoint
            model = _train(GMVAE, adata, {"layer": "counts"}, {}, max_epochs, seed, Path(folder))
        _annotate(adata, model)
        out.mkdir(parents=True, exist_ok=True)
        write(adata, out / "pbmc68k_reduced.h5ad")
        _report(adata, model, labels="cell_type", figures=out)
        model.report(out / "report.html", overwrite=True)  # type: ignore[attr-defined]  # it is a GMVAE
        typer.echo(f"Wrote {out}/: pbmc68k_reduced.h5ad, {', '.join(FIGURES)}, report.html")


@app.command("fit")
def _fit(
    path: Cells,
    out: Out,
    model: Annotated[Model, typer.Option(help="The model.")] = Model.gmvae,
    layer: Annotated[str | None, typer.Option(help="Layer with the values to model.", show_default=".X")] = None,
    batch_key: Annotated[str | None, typer.Option(help="Column of .obs with batch or condition.")] = None,
    labels_key: Annotated[str | None, typer.Option(help="Column of .obs with known classes (gmvae).")] = None,
    unlabeled_category: Annotated[str | None, typer.Option(help="Its value for cells without a class.")] = None,
    n_clusters: Annotated[int | None, typer.Option(help="Number of clusters (gmvae).", show_default="found")] = None,
    n_latent: Annotated[int, typer.Option(help="Dimensions of the latent space.")] = 10,
    likelihood: Annotated[str, typer.Option(help="auto, nb, zinb, poisson, bernoulli or normal.")] = "auto",
    n_top_genes: Annotated[
        int | None, typer.Option(help="Fit the most variable genes only.", show_default="all genes", min=1)
    ] = None,
    key_added: Key = "mixvi",
    figures: Figures = None,
    report: Annotated[Path | None, typer.Option(help="HTML page on the result (gmvae).", metavar="FILE.html")] = None,
    save_model: Annotated[Path | None, typer.Option(help="New folder for the trained model.")] = None,
    max_epochs: Epochs = None,
    seed: Seed = 0,
    resume: Annotated[Path | None, typer.Option(help="Checkpoint that an interrupted run left.")] = None,
    force: Force = False,
) -> None:
    """Fit a model to the cells of a file, and write cells, latent means and clusters to another file."""
    with errors_as_lines():
        files, folders = [out, *([] if report is None else [report])], [] if save_model is None else [save_model]
        check_folder(figures, "--figures", [*files, *folders])
        drawn = [figures / name for name in FIGURES] if figures is not None and figures.is_dir() else []
        check_files([path], [*files, *drawn], folders, force)
        if resume is not None and not resume.is_file():
            raise ValueError(f"{resume} does not exist; pass the checkpoint that the interrupted run named.")
        for option, value in (("--n-clusters", n_clusters), ("--report", report)):
            if value is not None and model is not Model.gmvae:
                raise ValueError(f"{option} is for gmvae only; leave it out, and {model} takes Leiden clusters.")
    with errors_as_lines(), terminal():
        import mixvi

        whole = read_cells(path)
        typer.echo(f"Read {path}.")
        adata = most_variable(whole, n_top_genes, layer, batch_key)
        setup = {"layer": layer, "batch_key": batch_key, "labels_key": labels_key}
        setup["unlabeled_category"] = unlabeled_category
        settings = {"n_latent": n_latent, "likelihood": likelihood}
        if model is Model.gmvae:
            settings["n_clusters"] = n_clusters
        cls = getattr(mixvi, model.upper())
        with naming_checkpoints(out.parent):
            fitted = _train(cls, adata, setup, settings, max_epochs, seed, out.parent, key_added, resume)
        with keeping(fitted, out):
            _annotate(adata, fitted, key_added)
            carry_results(adata, whole, key_added)
            write(whole, out)
            typer.echo(f"Wrote {out}")
            if save_model is not None:
                fitted.save(save_model)
                typer.echo(f"Wrote {save_model}/")
            _report(adata, fitted, labels=None, figures=figures, key=key_added)
            if figures is not None:
                typer.echo(f"Wrote {figures}/: {', '.join(FIGURES)}")
            if report is not None:
                fitted.report(report, overwrite=force)  # type: ignore[attr-defined]  # a GMVAE, as was checked
                typer.echo(f"Wrote {report}")


@app.command("predict")
def _predict(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a saved model.")],
    path: Cells,
    out: Out,
    gene_key: Annotated[str | None, typer.Option(help="Column of .var with the model's gene names.")] = None,
    new_at: Annotated[
        float | None, typer.Option(help="False discovery rate at which cells are called new (gmvae).")
    ] = None,
    key_added: Key = "mixvi",
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Map new cells on a saved model, and write cells, latent means, clusters and p-values to another file."""
    with errors_as_lines():
        from mixvi._checks import check_number, check_whole

        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder; pass one that model.save() or --save-model wrote.")
        check_files([path, folder], [out], [], force)
        check_whole("--seed", seed, 0, 2**32 - 1)
        check_number("--new-at", new_at, above=0, below=1, none="no new cells")
    with errors_as_lines(), terminal():
        import scvi

        import mixvi
        from mixvi.data import check_free

        scvi.settings.seed = seed
        name = mixvi.VAE.load_registry(str(folder))["model_name"]
        model = getattr(mixvi, name).load(str(folder), adata=False)
        cells = read_cells(path)
        check_free(cells, key_added)
        mapped = model.map(cells, gene_key)
        mapped.annotate(cells, key_added, **({} if new_at is None else {"new_at": new_at}))
        write(cells, out)
        if key_added in cells.obs:
            typer.echo(cells.obs[key_added].value_counts().to_string())
        typer.echo(f"Wrote {out}")


def _train(
    cls, adata: "AnnData", setup: dict, settings: dict, max_epochs: int | None, seed: int, folder: Path,
    key: str = "mixvi", resume: Path | None = None,
) -> "LatentModel":  # fmt: skip
    """Train a model. An interruption leaves a checkpoint in the folder."""
    import scvi

    from mixvi._checks import check_whole
    from mixvi.data import check_free
    from mixvi.train import ProgressLines

    check_whole("--seed", seed, 0, 2**32 - 1)  # as NumPy takes
    check_free(adata, key)  # fail before the training, not after it
    scvi.settings.seed = seed
    cls.setup_anndata(adata, **setup)
    model = cls(adata, **settings)
    logging_dir, scvi.settings.logging_dir = scvi.settings.logging_dir, folder
    kwargs: dict = {} if resume is None else {"ckpt_path": str(resume)}
    if not sys.stdout.isatty():  # a bar that is drawn anew would fill a log
        kwargs |= {"enable_progress_bar": False, "callbacks": [ProgressLines(typer.echo)]}
    try:
        model.train(max_epochs, checkpoint_minutes=CHECKPOINT_MINUTES, **kwargs)
    except OSError as error:  # the first training also writes what numba compiles
        raise OSError(
            f"The training stopped, because a file could not be written: {error}. Free some space."
        ) from error
    finally:
        scvi.settings.logging_dir = logging_dir
    return model


def _annotate(adata: "AnnData", model: "LatentModel", key: str = "mixvi") -> None:
    """Annotate the cells, and print what was found."""
    clusters = getattr(model, "clusters_", None)
    model.annotate(key_added=key, clustering=None if hasattr(model, "clusters_") else "leiden")
    sizes = adata.obs[key].value_counts(sort=False)
    sizes = sizes[sizes > 0]
    if clusters is not None:
        typer.echo(model.tree)
        _summarise(model, adata, sizes, key)
    typer.echo(f"Found {len(sizes)} clusters of {sizes.min():,} to {sizes.max():,} cells.")


def _summarise(model: "LatentModel", adata: "AnnData", sizes: "Series", key: str) -> None:
    """Print a line for each cluster: cells, mean confidence and marker genes."""
    from mixvi.model._markers import best_markers

    genes = best_markers(model, len(model.cluster_names))  # type: ignore[attr-defined, arg-type]
    obs: Any = adata.obs
    confidence = obs.groupby(key, observed=True)[f"{key}_confidence"].mean()
    width = max(len("cluster"), *map(len, map(str, sizes.index)))
    typer.echo(f"{'cluster':<{width}}  {'cells':>9}  confidence  marker genes")
    for name, n in sizes.items():
        typer.echo(f"{name:<{width}}  {n:>9,}  {confidence[name]:>10.2f}  {', '.join(genes.get(str(name), []))}")


def _report(
    adata: "AnnData", model: "LatentModel", labels: str | None, figures: Path | None, key: str = "mixvi"
) -> None:
    """Print the agreement with known labels, and draw the figures."""
    if labels is not None:
        from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

        ari = adjusted_rand_score(adata.obs[labels], adata.obs[key])
        nmi = normalized_mutual_info_score(adata.obs[labels], adata.obs[key])
        typer.echo(f"Agreement with the shipped labels: ARI {ari:.2f}, NMI {nmi:.2f} (1 is perfect, 0 is chance).")
    if figures is not None:
        from mixvi import pl

        figures.mkdir(parents=True, exist_ok=True)
        pl.umap(adata, key, labels, save=figures / "umap.png")
        pl.training(model, save=figures / "training.png")
