"""Plate diagrams: a model drawn from the factors of its distributions."""

import re
from typing import NamedTuple

import daft
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch

from mixvi.model._base import LatentModel
from mixvi.module.encoders import DeltaEncoder

PLACES = {"x": (1, 0), "z": (1, 1), "c": (0, 0.5), "y": (1, 2), "w": (-0.3, 1.6), "pi": (1, 3.1)}
SYMBOLS = {"pi": r"$\pi$"}
UNIT = 1.6  # of the grid, in daft's own unit
NODE_RADIUS_POINTS = 16
BEND = 0.45  # of the inference arrows: those from c keep to its side


class Graph(NamedTuple):
    """A model's variables and the arrows between them."""

    nodes: frozenset[str]
    observed: frozenset[str]  # y is observed in labelled cells only
    generative: frozenset[tuple[str, str]]  # parent, child
    inference: frozenset[tuple[str, str]]
    computed: frozenset[str]  # no randomness of its own: z of an AE


def graph(model: LatentModel) -> Graph:
    """Variables and arrows of a model, from the factors of its distributions (`mixvi.module.ELBOModule.factors`).

    Parameters
    ----------
    model
        Any model of the package, trained or not.

    Returns
    -------
    `Graph`.
    """
    factors, layout = model.module.factors, model.module.layout
    generative, inference = (frozenset(edge for f in part for edge in _edges(f)) for part in factors)
    nodes = frozenset(name for f in (*factors.generative, *factors.inference) for name in re.findall(r"\w+", f)[1:])
    observed = {"x"} | ({"c"} if layout.n_conditions else set()) | ({"y"} if layout.n_labels else set())
    computed = frozenset({"z"} if isinstance(model.module.encoder, DeltaEncoder) else ())
    return Graph(nodes, frozenset(observed), generative, inference, computed)


def plate(model: LatentModel) -> Axes:
    """Draw the plate diagram of a model.

    Solid arrows belong to the generative model p, dashed arrows to the inference model q. Shaded variables are
    observed; y is observed in labelled cells only. A variable with two rims is a function of others and not random. The
    plate contains the variables that each cell has.

    Parameters
    ----------
    model
        Any model of the package, trained or not.

    Returns
    -------
    The axes, in a new figure (``ax.figure.savefig(...)``).
    """
    variables = graph(model)
    of_a_cell = [PLACES[name] for name in variables.nodes - {"pi"}]
    left, right = (side(x for x, _ in of_a_cell) for side in (min, max))
    top = max(y for _, y in of_a_cell)
    origin = np.array([left - 0.7, -1.0])  # the plate's lower left corner, and a margin
    shape = np.array([right + 1.1, max(PLACES[name][1] for name in variables.nodes) + 0.6]) - origin
    pgm = daft.PGM(shape, origin, grid_unit=UNIT, node_unit=0.9, alternate_style="outer")
    for name in sorted(variables.nodes):
        content = SYMBOLS.get(name, f"${name}$")
        kind = {"observed": name in variables.observed, "alternate": name in variables.computed}
        pgm.add_node(name, content, *PLACES[name], **kind)
    for parent, child in sorted(variables.generative):
        pgm.add_edge(parent, child)
    pgm.add_plate([left - 0.6, -0.9, right - left + 1.6, top + 1.4], label="cells")
    axes = pgm.render()
    for parent, child in sorted(variables.inference):
        bend = -BEND if parent == "c" else 0 if child == "w" else BEND
        start, end = (UNIT * (np.array(PLACES[name]) - origin) for name in (parent, child))
        axes.add_patch(
            FancyArrowPatch(
                start, end, connectionstyle=f"arc3,rad={bend}", linestyle="dashed", arrowstyle="-|>", mutation_scale=10,
                shrinkA=NODE_RADIUS_POINTS, shrinkB=NODE_RADIUS_POINTS, color="black", zorder=5,
            )
        )  # fmt: skip
    return axes


def _edges(factor: str) -> list[tuple[str, str]]:
    """Arrows of one factor: ``"p(x | z, c)"`` has z -> x and c -> x."""
    child, *parents = re.findall(r"\w+", factor)[1:]
    return [(parent, child) for parent in parents]
