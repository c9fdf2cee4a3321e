"""The command line: `mixvi demo` and `mixvi fit`. Commands import heavy packages themselves, so --help is fast."""

import os
import signal
import sys
import threading
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from mixvi._keep import keeping, naming_checkpoints, write

if TYPE_CHECKING:
    from anndata import AnnData

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
Figures = Annotated[Path | None, typer.Option(help="Folder for a UMAP and the training curve as PNG.")]


@app.command("demo")
def _demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("mixvi-demo"),
    max_epochs: Epochs = None,
    seed: Seed = 0,
) -> None:
    """Cluster 700 real blood cells, which the package contains, and draw figures of the result."""
    with _errors_as_lines():
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out} is a file; --out must name a folder, new or existing.")
    with _errors_as_lines(), _terminal():
        from mixvi import GMVAE, datasets

        adata = datasets.pbmc68k_reduced()
        typer.echo("Peripheral blood cells (Zheng 2017), which come with the package.")
        with TemporaryDirectory() as folder:  # a run of seconds needs no checkpoint
            model = _train(GMVAE, adata, {"layer": "counts"}, {}, max_epochs, seed, Path(folder))
        _annotate(adata, model)
        out.mkdir(parents=True, exist_ok=True)
        write(adata, out / "pbmc68k_reduced.h5ad")
        _report(adata, model, labels="cell_type", figures=out)
        typer.echo(f"Wrote {out}/: pbmc68k_reduced.h5ad, {', '.join(FIGURES)}")


@app.command("fit")
def _fit(
    path: Annotated[Path, typer.Argument(metavar="IN.h5ad", help="AnnData of cells x genes.")],
    out: Annotated[Path, typer.Option(help="File for the annotated cells.", metavar="OUT.h5ad")],
    model: Annotated[Model, typer.Option(help="The model.")] = Model.gmvae,
    layer: Annotated[str | None, typer.Option(help="Layer with the values to model.", show_default=".X")] = None,
    batch_key: Annotated[str | None, typer.Option(help="Column of .obs with batch or condition.")] = None,
    labels_key: Annotated[str | None, typer.Option(help="Column of .obs with known classes (gmvae).")] = None,
    unlabeled_category: Annotated[str | None, typer.Option(help="Its value for cells without a class.")] = None,
    n_clusters: Annotated[int | None, typer.Option(help="Number of clusters (gmvae).", show_default="found")] = None,
    n_latent: Annotated[int, typer.Option(help="Dimensions of the latent space.")] = 10,
    likelihood: Annotated[str, typer.Option(help="auto, nb, zinb, poisson, bernoulli or normal.")] = "auto",
    key_added: Annotated[str, typer.Option(help="Name of the results in the AnnData.")] = "mixvi",
    figures: Figures = None,
    max_epochs: Epochs = None,
    seed: Seed = 0,
    resume: Annotated[Path | None, typer.Option(help="Checkpoint that an interrupted run left.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.h5ad if it exists.")] = False,
) -> None:
    """Fit a model to the cells of a file, and write cells, latent means and clusters to another file."""
    with _errors_as_lines():
        _check_files(path, out, figures, resume, force)
        if n_clusters is not None and model is not Model.gmvae:
            raise ValueError(f"--n-clusters is for gmvae only; leave it out, and {model} takes Leiden clusters.")
    with _errors_as_lines(), _terminal():
        import mixvi

        adata = _read(path)
        typer.echo(f"Read {path}.")
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
            write(adata, out)
        typer.echo(f"Wrote {out}")
        _report(adata, fitted, labels=None, figures=figures, key=key_added)
        if figures is not None:
            typer.echo(f"Wrote {figures}/: {', '.join(FIGURES)}")


def _check_files(path: Path, out: Path, figures: Path | None, resume: Path | None, force: bool) -> None:
    """Raise a ValueError if a file to read does not exist, or one to write does or has no folder."""
    if figures is not None and figures.exists() and not figures.is_dir():
        raise ValueError(f"{figures} is a file; --figures must name a folder, new or existing.")
    drawn = [] if figures is None else [figures / name for name in FIGURES]
    for target in (out, *drawn):
        if target.is_dir() or (target.exists() and not force):
            raise ValueError(f"{target} exists already; choose another name or pass --force to overwrite a file.")
    if not out.parent.is_dir():
        raise ValueError(f"{out.parent} is not a folder; create it first.")
    if not path.is_file():
        raise ValueError(f"{path} does not exist.")
    if resume is not None and not resume.is_file():
        raise ValueError(f"{resume} does not exist; pass the checkpoint that the interrupted run named.")
    if out.exists() and out.samefile(path):
        raise ValueError(f"{path} would be overwritten by its own result; choose another name for --out.")


def _read(path: Path) -> "AnnData":
    import anndata as ad

    try:
        return ad.read_h5ad(path)
    except Exception as error:  # anndata and h5py raise many types of errors
        raise ValueError(f"{path} cannot be read as an .h5ad file: {error}") from error


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
    if clusters is not None:
        typer.echo(model.tree)
    sizes = adata.obs[key].value_counts()
    sizes = sizes[sizes > 0]
    typer.echo(f"Found {len(sizes)} clusters of {sizes.min():,} to {sizes.max():,} cells.")


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


@contextmanager
def _terminal():
    """Show only the progress bar and messages of mixvi."""
    import logging
    import warnings

    from mixvi._tell import quiet
    from mixvi._warnings import MixviWarning

    os.environ.setdefault("MPLBACKEND", "Agg")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads make torch ten times slower on busy cores
    import lightning.pytorch  # noqa: F401  (it sets its own log level when imported)

    mixvi, handler = logging.getLogger("mixvi"), logging.StreamHandler()
    mixvi.addHandler(handler)
    level = mixvi.level
    mixvi.setLevel(logging.INFO)
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _stop) if in_main_thread else None
    try:
        with quiet("lightning.pytorch", "lightning.fabric"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("default", MixviWarning)
            warnings.filterwarnings("ignore", "Stopped by", MixviWarning)  # it tells how to continue in Python
            warnings.showwarning = lambda message, *_: typer.echo(f"mixvi: {message}", err=True)
            yield
    finally:
        mixvi.removeHandler(handler)
        mixvi.setLevel(level)
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: object) -> None:
    """SIGTERM, which batch systems send at the end of the time, ends the command as Ctrl-C does."""
    raise SystemExit(128 + number)


@contextmanager
def _errors_as_lines():
    """Report a wrong input as one line on standard error and exit code 1, without a traceback."""
    try:
        yield
    except (ValueError, KeyError, OSError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        typer.echo(f"mixvi: {message}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as interruption:
        typer.echo("mixvi: stopped; an .h5ad is written whole or not at all.", err=True)
        raise typer.Exit(130) from interruption
