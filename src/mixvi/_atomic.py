"""Files that replace earlier ones all at once."""

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


@contextmanager
def replacing(*paths: Path) -> Iterator[list[Path]]:
    """Give a new name beside each path to write to. At the end the new files take the places of ``paths``, in order.

    All of them are on the disk before the first takes its place. If writing fails, earlier files stay as they were, and
    the new ones are removed. So are those that a killed process left.
    """
    new = [path.with_name(f".{path.name}.{os.getpid()}.new") for path in paths]
    for path in paths:
        _remove_left(path)
    try:
        yield new
        for one in new:
            with one.open("rb+") as file:
                os.fsync(file.fileno())
        for one, path in zip(new, paths, strict=True):
            one.replace(path)
        for folder in {path.parent for path in paths}:
            with suppress(OSError):  # Windows opens no folder
                number = os.open(folder, os.O_RDONLY)
                os.fsync(number)
                os.close(number)
    finally:
        for one in new:
            one.unlink(missing_ok=True)


def _remove_left(path: Path) -> None:
    """Remove new files for a path whose process is no more."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.new"):
        process = left.suffixes[-2][1:]
        if process.isdecimal() and len(process) < 10 and not psutil.pid_exists(int(process)):
            left.unlink(missing_ok=True)
