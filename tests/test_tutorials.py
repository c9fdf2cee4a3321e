"""Every tutorial runs from top to bottom and shows what it stores; those on cells that do not ship need `data`."""

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
