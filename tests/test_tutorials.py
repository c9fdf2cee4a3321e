"""Every tutorial runs from top to bottom and shows what it stores; those on cells that do not ship need `data`."""

import runpy
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NEED_DATA = {"perturbation", "integration", "new-cells"}
TUTORIALS = [
    pytest.param(path, marks=pytest.mark.data if path.stem in NEED_DATA else [])
    for path in sorted((Path(__file__).parents[1] / "tutorials").glob("*.ipynb"))
]


def is_log(text):
    """Whether a text has lines of a log only; rich indents those that go on."""
    return bool(text) and all(
        "INFO" in line or line.startswith("   ") or not line.strip() for line in text.splitlines()
    )


def shown(notebook):
    """Kinds of output of each cell, in their order: printed text, tables, pictures. Warnings and logs are left out."""
    return [
        list(dict.fromkeys(
            " ".join(sorted(output["data"])) if "data" in output else output["name"]
            for output in cell.get("outputs", []) if output.get("name") != "stderr" and not is_log(output.get("text"))
        ))
        for cell in notebook.cells
    ]  # fmt: skip


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs(path, tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel draws into the notebook
    stored, notebook = (nbformat.read(path, as_version=4) for _ in range(2))
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert shown(notebook) == shown(stored), "the stored outputs are of other code: run the notebook anew and save it"
    assert any("image/png" in kinds for cell in shown(notebook) for kinds in cell)


@pytest.mark.parametrize(("stored", "new", "n_differences"), [
    ("trained for \x1b[1;36m10\x1b[0m epochs in \x1b[1;36m2.2\x1b[0m s.", "trained for 10 epochs in 31 s.", 0),
    ("trained for 11 epochs", "trained for 10 epochs", 1),
    ("[10000.     9999.999 10000.   ]", "[10000. 9999.999 10000.001]", 0),
    ("0.732 of 1,797 cells", "0.741  of 1,790 cells", 0),
    ("0.732 of 1,797 cells", "0.79 of 1,500 clusters", 3),
    ("a gap, 0.0% confused", "a gap", 1),
    ("fits:  50%|##   | 1/2 [00:04<00:04,  4.20s/it]\ndone", "done", 0),
])  # fmt: skip
def test_text_that_is_stale_is_noticed(stored, new, n_differences):
    """By `.ci/tutorials`."""
    script = runpy.run_path(str(Path(__file__).parents[1] / ".ci" / "tutorials"))
    assert len(script["differences"](stored, new)) == n_differences
