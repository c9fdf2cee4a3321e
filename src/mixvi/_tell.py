"""The lines that training always shows: at its start, at its end, and where it is stopped."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

logger = logging.getLogger(__name__)

_is_untold = ContextVar("_is_untold", default=False)


def tell(message: str, level: int = logging.INFO) -> None:
    """Log a line that is shown unless the user turned messages of this level off.

    The logger ``mixvi`` shows it if the user configured logging. Otherwise the logger of scvi-tools shows it, which
    prints in notebooks and terminals. ``scvi.settings.verbosity = "WARNING"`` turns it off there, and
    ``logging.getLogger("mixvi").setLevel("WARNING")`` everywhere. A line of level ``WARNING`` is still shown then, also
    if warnings are ignored, as is usual in notebooks.

    Parameters
    ----------
    message
        The line.
    level
        ``logging.INFO``; or ``logging.WARNING`` for what would be lost with the line, such as the name of a new file.
    """
    if _is_untold.get() and level < logging.WARNING:
        return
    if logger.isEnabledFor(level) and _has_handler():
        logger.log(level, message)
    elif logging.getLogger("mixvi").level <= level:
        logging.getLogger("scvi").log(level, message)


@contextmanager
def untold() -> Iterator[None]:
    """Keep `tell` silent, where one call trains many models."""
    token = _is_untold.set(True)
    try:
        yield
    finally:
        _is_untold.reset(token)


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Show warnings and errors of other packages, but no announcements, until the end.

    Parameters
    ----------
    *names
        Loggers whose level is the usual one, ``INFO`` or not set. Those that the user set otherwise stay as they are.
    """
    loggers = [one for one in map(logging.getLogger, names) if one.level in (logging.NOTSET, logging.INFO)]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`")  # of torch, about Lightning 2.6
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


def _has_handler() -> bool:
    """Whether what `logger` logs is shown anywhere."""
    one: logging.Logger | None = logger
    while one is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in one.handlers):
            return True
        one = one.parent if one.propagate else None
    return False
