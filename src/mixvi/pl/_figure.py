"""What all plots begin and end with."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes


def check_given(value: object, attribute: str, wanted: str) -> None:
    """Raise a TypeError where something else than ``wanted``, which has that attribute, is to be drawn."""
    if not hasattr(value, attribute):
        raise TypeError(f"This plot got {type(value).__name__}; it draws {wanted}.")


def finish(show: bool | None, save: Path | None, ax: Axes | None = None) -> None:
    """Save or show the figure of the axes, or the current one: by default show it if it is not saved."""
    if save is True:
        raise ValueError("save=True is no file; give its name, such as save='figure.png'.")
    figure = plt.gcf() if ax is None else ax.figure
    if save:
        figure.savefig(save, dpi=120)
    if show or (show is None and not save):
        plt.show()
    elif save:
        plt.close(figure)
