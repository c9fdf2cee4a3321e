"""Files that replace earlier ones all at once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a new name in the same folder to write to. At the end the new file takes the place of ``path``.

    If writing fails, an earlier file stays as it was, and the new one is removed.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
