"""Diagrams show the factorisation of each model: no arrow too many, none too few."""

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Ellipse, FancyArrow, FancyArrowPatch

from mixvi import diagrams

from .model.helpers import build

X, ZX, XZ = "x z", {"z>x"}, {"x>z"}
MIXTURE = {"pi>y", "y>z", "z>x"}
CONDITION, COVARIATES = {"batch_key": "condition"}, {"categorical_covariate_keys": ["condition"]}
LABELS = {"labels_key": "cluster"}
# model, registered, settings: variables, observed, arrows of p, arrows of q, by hand from the docs
CASES = [
    ("AE", {}, {}, "x z", "x", ZX, XZ),
    ("VAE", {}, {}, "x z", "x", ZX, XZ),
    ("CVAE", CONDITION, {}, "x z c", "x c", ZX | {"c>x"}, XZ | {"c>z"}),
    ("CVAE", CONDITION, {"learned_prior": True}, "x z c", "x c", ZX | {"c>x", "c>z"}, XZ | {"c>z"}),
    ("GMVAE", {}, {}, "x z y pi", "x", MIXTURE, XZ | {"x>y"}),
    ("GMVAE", LABELS, {}, "x z y pi", "x y", MIXTURE, XZ | {"x>y"}),
    ("GMVAE", CONDITION, {}, "x z y pi c", "x c", MIXTURE | {"c>x"}, XZ | {"x>y", "c>z", "c>y"}),
    ("GMVAE", COVARIATES | LABELS, {}, "x z y pi c", "x y c", MIXTURE | {"c>x"}, XZ | {"x>y", "c>z", "c>y"}),
    ("GMVAE", {}, {"hierarchical": True}, "x z y w pi", "x", MIXTURE | {"w>z"}, XZ | {"x>y", "x>w"}),
    (
        "GMVAE", CONDITION | LABELS, {"hierarchical": True}, "x z y w pi c", "x y c", MIXTURE | {"w>z", "c>x"},
        XZ | {"x>y", "x>w", "c>z", "c>y", "c>w"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "setup", "settings", "nodes", "observed", "generative", "inference"), CASES)
def test_the_diagram_is_the_factorisation(counts, name, setup, settings, nodes, observed, generative, inference):
    model = build(name, counts, setup, **settings)
    found = diagrams.graph(model)
    assert found.nodes == set(nodes.split())
    assert found.observed == set(observed.split())
    assert {f"{parent}>{child}" for parent, child in found.generative} == generative
    assert {f"{parent}>{child}" for parent, child in found.inference} == inference
    assert found.computed == ({"z"} if name == "AE" else set())
    axes = diagrams.plate(model)
    drawn = axes.get_children()
    ellipses = [shape for shape in drawn if isinstance(shape, Ellipse)]
    assert len({tuple(shape.center) for shape in ellipses}) == len(found.nodes)
    shaded = {tuple(shape.center) for shape in ellipses if to_rgb(shape.get_facecolor()[:3]) != (1.0, 1.0, 1.0)}
    assert len(shaded) == len(found.observed)
    assert sum(isinstance(shape, FancyArrow) for shape in drawn) == len(generative)
    dashed = [shape for shape in drawn if isinstance(shape, FancyArrowPatch)]
    assert len(dashed) == len(inference)
    assert all(shape.get_linestyle() in ("--", "dashed") for shape in dashed)
    plt.close(axes.figure)
