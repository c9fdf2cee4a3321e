"""Sphinx configuration."""

import shutil
from importlib.metadata import version as get_version
from pathlib import Path

HERE = Path(__file__).parent
shutil.copytree(HERE.parent / "tutorials", HERE / "tutorials", dirs_exist_ok=True)  # Sphinx reads below itself only


def draw_plates() -> None:
    """Plate diagrams of the four models, from their own factorisation."""
    import mixvi

    cells = mixvi.datasets.blobs(60, 10, n_clusters=3, n_conditions=2)
    for name in ("AE", "VAE", "CVAE", "GMVAE"):
        model = getattr(mixvi, name)
        model.setup_anndata(cells, **({"batch_key": "condition"} if name in ("CVAE", "GMVAE") else {}))
        axes = mixvi.diagrams.plate(model(cells))
        axes.figure.savefig(HERE / f"_static/plate_{name.lower()}.png", dpi=110)


draw_plates()

project = "mixvi"
author = "The mixvi developers"
copyright = f"2026, {author}"
version = release = get_version("mixvi")

extensions = [
    "myst_nb",
    "sphinx_copybutton",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "jupyter_execute"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_title = "mixvi"

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the tests execute the tutorials; here the committed outputs are shown

autodoc_typehints = "none"  # shapes, units and types stand in the docstrings
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
default_role = "any"

# Inventories of other projects would need the network; what they document is not ours to check.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(scvi|torch|lightning|anndata|scanpy|numpy|pandas|scipy|matplotlib|pathlib|collections)\..*"),
    ("py:.*", r"(AnnData|Axes|Path|Sequence|Tensor|ndarray|Callable|Any|optional|abc\..*)"),
]
