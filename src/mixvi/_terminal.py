"""Output of a command: messages of mixvi, and errors in one line."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def terminal() -> Iterator[None]:
    """Show only the progress bar and messages of mixvi."""
    import warnings

    from mixvi._tell import quiet

    os.environ.setdefault("MPLBACKEND", "Agg")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads make torch ten times slower on busy cores
    import lightning.pytorch  # noqa: F401  (it sets its own log level when imported)

    mixvi, handler = logging.getLogger("mixvi"), logging.StreamHandler()
    handler.addFilter(lambda line: not line.getMessage().startswith("Stopped by"))  # and how to go on in Python
    handler.addFilter(_Once())
    mixvi.addHandler(handler)
    level = mixvi.level
    mixvi.setLevel(logging.INFO)
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _stop) if in_main_thread else None
    try:
        with quiet("lightning.pytorch", "lightning.fabric"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of mixvi are in its log
            yield
    finally:
        mixvi.removeHandler(handler)
        mixvi.setLevel(level)
        if before is not None:
            signal.signal(signal.SIGTERM, before)


class _Once(logging.Filter):
    """Lets each warning pass once."""

    def __init__(self):
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is new, or no warning."""
        is_new = record.levelno < logging.WARNING or record.getMessage() not in self.seen
        self.seen.add(record.getMessage())
        return is_new


def _stop(number: int, frame: object) -> None:
    """SIGTERM, which batch systems send at the end of the time, ends the command as Ctrl-C does."""
    raise SystemExit(128 + number)


@contextmanager
def errors_as_lines() -> Iterator[None]:
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
