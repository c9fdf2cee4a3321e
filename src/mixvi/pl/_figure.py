"""First and last steps that all plots share."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from mixvi._atomic import replacing


def check_given(value: object, attribute: str, wanted: str) -> None:
    """Raise a TypeError if ``value`` lacks the attribute: this plot draws ``wanted`` and nothing else."""
    if not hasattr(value, attribute):
        raise TypeError(f"This plot got {type(value).__name__}; it draws {wanted}.")


def literal():
    """A context in which names are drawn as they are: ``$`` starts no formula."""
    return plt.rc_context({"text.parse_math": False})


def grid(n: int, n_columns: int, size: tuple[float, float], extra: float = 0) -> list[Axes]:
    """A new figure of n panels of that size (width, height) in inches, with ``extra`` inches of width for legends."""
    columns, rows = min(n, n_columns), -(-n // n_columns)
    figsize = (size[0] * columns + extra, size[1] * rows)
    _, axes = plt.subplots(rows, columns, figsize=figsize, layout="constrained", squeeze=False)
    panels = list(axes.ravel())
    for unused in panels[n:]:
        unused.remove()
    return panels[:n]


def finish(show: bool | None, save: Path | None, ax: Axes | None = None) -> None:
    """Save or show the figure of the axes, or the current figure. By default, show it if it is not saved."""
    if save is True:
        raise ValueError("save=True is no file; give its name, such as save='figure.png'.")
    figure = plt.gcf() if ax is None else ax.figure.figure  # also where the axes are in a part of a figure
    if save:
        path = Path(save)
        path = path if path.suffix else path.with_suffix(f".{plt.rcParams['savefig.format']}")  # as matplotlib has it
        with replacing(path) as [new]:
            figure.savefig(new, dpi=120, format=path.suffix[1:])
    if show or (show is None and not save):
        plt.show()
    elif save:
        plt.close(figure)
