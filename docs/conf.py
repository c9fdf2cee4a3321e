"""Sphinx configuration."""

import os
import shutil
import sys
from importlib.metadata import version as get_version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import public_api  # noqa: E402

shutil.copytree(HERE.parent / "tutorials", HERE / "tutorials", dirs_exist_ok=True)  # Sphinx reads below itself only
shutil.rmtree(HERE / "generated", ignore_errors=True)  # pages of names that are gone


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
PUBLIC_NAMES = public_api.public_names()

project = "mixvi"
author = "The mixvi developers"
copyright = f"2026, {author}"
version = release = get_version("mixvi")

extensions = [
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",  # after napoleon
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_build", "jupyter_execute"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
templates_path = ["_templates"]
html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_title = "mixvi"
html_theme_options = {"show_navbar_depth": 1, "show_toc_level": 2}

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the tests execute the tutorials; here the committed outputs are shown

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"

autosummary_generate = True
# `any` references would also find pages whose file has the name of the object
autosummary_filename_map = {name: name.replace(".", "-") for name in public_api.names_of(HERE / "api.md")}
autosummary_context = {"own_members": public_api.members}
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
default_role = "any"
toc_object_entries_show_parents = "hide"
always_use_bars_union = True  # `str | None`
typehints_defaults = "comma"


def typehints_formatter(annotation, config):
    """Link a class of mixvi under its public name; all other types are shown as usual."""
    if getattr(annotation, "__name__", "") == "ConditionalMixin":
        return ":py:class:`~mixvi.CVAE` | :py:class:`~mixvi.GMVAE`"
    name = PUBLIC_NAMES.get(annotation) if isinstance(annotation, type) else None
    return name and f":py:class:`~{name}`"


# Links into other projects need their inventories, and these need the network. They are read on Read the Docs only:
# an inventory that cannot be reached is a warning, and would end the build elsewhere.
if "READTHEDOCS" in os.environ:
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "anndata": ("https://anndata.readthedocs.io/en/stable", None),
        "lightning": ("https://lightning.ai/docs/pytorch/stable", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "pandas": ("https://pandas.pydata.org/docs", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable", None),
        "scipy": ("https://docs.scipy.org/doc/scipy", None),
        "scvi-tools": ("https://docs.scvi-tools.org/en/stable", None),
        "sklearn": ("https://scikit-learn.org/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }

# Every reference inside mixvi must resolve. Without inventories, those into other packages cannot.
nitpicky = True
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(anndata|collections|lightning|matplotlib|numpy|os|pandas|pathlib|scanpy|scipy|scvi|signal|sparse|torch|typing)\..*",
    ),
    ("py:data", "Ellipsis|True|False"),
]
suppress_warnings = ["config.cache"]  # functions in this file


def setup(app):
    """Docstrings pass through `public_api`."""
    app.connect("autodoc-process-docstring", public_api.edit, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", public_api.publish, priority=900)
