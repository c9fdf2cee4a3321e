"""Every tutorial runs from top to bottom; those on real cells that do not ship need the marker `data`."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NEED_DATA = {"perturbation", "integration"}
TUTORIALS = [
    pytest.param(path, marks=pytest.mark.data if path.stem in NEED_DATA else [])
    for path in sorted((Path(__file__).parents[1] / "tutorials").glob("*.ipynb"))
]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs(path, tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel draws into the notebook
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in shown)
