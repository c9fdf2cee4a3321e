"""Files that a command keeps when it is stopped, or when the disk is full."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mixvi._atomic import replacing

if TYPE_CHECKING:
    from anndata import AnnData

    from mixvi.model._base import LatentModel


@contextmanager
def naming_checkpoints(folder: Path) -> Iterator[None]:
    """If training is stopped, name the checkpoint that it left."""
    before = set(folder.glob("training-*.ckpt"))
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        for checkpoint in set(folder.glob("training-*.ckpt")) - before:
            typer.echo(f"mixvi: stopped. To continue, repeat the command with --resume {checkpoint}", err=True)
        raise


@contextmanager
def keeping(model: "LatentModel", out: Path) -> Iterator[None]:
    """Save a trained model if what follows fails or is stopped, and say so after the first error.

    Parameters
    ----------
    model
        A trained model.
    out
        File that the command writes; the model is saved beside it.
    """
    try:
        yield
    except OSError as first:
        raise OSError(f"{first} {_saved(model, out)}") from first
    except BaseException:
        saved = _saved(model, out)
        typer.echo(f"mixvi: {saved[0].lower()}{saved[1:]}", err=True)
        raise


def _saved(model: "LatentModel", out: Path) -> str:
    """Save a model beside a file, and say where it is."""
    folder = out.parent / f"{out.stem}-model-{datetime.now():%Y%m%d-%H%M%S-%f}"
    try:
        model.save(folder)
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()
        return f"The trained model could not be saved either ({error}). Free some space, and run the command again."
    return f"The trained model is in {folder}; read it with mixvi.{type(model).__name__}.load()."


def write(adata: "AnnData", out: Path) -> None:
    """Write the file whole or not at all, so that an interruption does not damage an old one.

    Parameters
    ----------
    adata, out
        Cells, and the file for them.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    try:
        with replacing(out) as [new]:
            adata.write_h5ad(new)
    except (OSError, RuntimeError) as error:  # h5py raises either one on a full disk
        number = getattr(error, "errno", None)  # h5py's own message goes on for lines
        raise OSError(f"{out} could not be written: {os.strerror(number) if number else error}.") from error
