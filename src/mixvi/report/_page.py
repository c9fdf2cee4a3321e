"""Parts of the page, and how they become HTML."""

import base64
import re
from datetime import date
from importlib.resources import files
from io import BytesIO
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
from jinja2 import Environment
from matplotlib.axes import Axes

from mixvi._version import __version__

DPI = 110
NUMBER = re.compile(r"[-+]?[\d,.]*%?")


class Picture(NamedTuple):
    """A figure inside the page."""

    alt: str  # what it shows, for those who cannot see it
    data: str  # PNG as a data URI


class Table(NamedTuple):
    """A table of texts."""

    columns: list[tuple[str, bool]]  # name, and whether values are numbers
    rows: list[list[str]]


class Section(NamedTuple):
    """A part of the page under a heading."""

    id: str
    title: str
    texts: list[str]
    pictures: list[Picture] = []
    table: Table | None = None
    warnings: list[str] = []


def picture(ax: Axes, alt: str) -> Picture:
    """The figure of the axes as a picture. The figure is closed."""
    file, figure = BytesIO(), ax.figure.figure
    figure.savefig(file, format="png", dpi=DPI, facecolor="white", bbox_inches="tight")
    plt.close(figure)
    return Picture(alt, "data:image/png;base64," + base64.b64encode(file.getvalue()).decode())


def table(frame: pd.DataFrame) -> Table:
    """A table of numbers and texts; missing values are empty.

    Parameters
    ----------
    frame
        Columns with the names to show. Floats are shown with three digits. Columns of numbers are aligned right.

    Returns
    -------
    The table, without the index.
    """
    rows = [[_text(value) for value in row] for row in frame.itertuples(index=False)]
    numbers = [all(NUMBER.fullmatch(text) for text in column) for column in zip(*rows, strict=True)]
    return Table(list(zip(map(str, frame.columns), numbers, strict=True)), rows)


def html(title: str, facts: list[tuple[str, str]], sections: list[Section]) -> str:
    """The page. All texts are escaped.

    Parameters
    ----------
    title
        Heading of the page.
    facts
        Numbers at the top, each with what it is.
    sections
        The parts below, in their order.

    Returns
    -------
    HTML that needs no other file.
    """
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("mixvi.report").joinpath("page.html").read_text(encoding="utf-8")
    )
    return template.render(
        title=title, facts=facts, sections=sections, version=__version__, date=date.today().isoformat()
    )


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
