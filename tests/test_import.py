"""What a user does not need must not wait for it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mixvi

API = Path(__file__).parents[1] / "docs" / "api.md"

HEAVY = {"torch", "scvi", "scanpy", "anndata", "lightning", "matplotlib", "pandas"}


@pytest.mark.parametrize("code", ["import mixvi; dir(mixvi)", "import mixvi.cli"])
def test_import_is_light(code):
    script = f"{code}; import sys; print(sorted({HEAVY!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(("setup", "lines"), [("", 0), ("logging.basicConfig(level='INFO'); ", 1)])
def test_messages_are_shown_once_and_only_where_asked_for(setup, lines):
    script = f"import logging; {setup}import mixvi; logging.getLogger('mixvi.model').info('said')"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (out.stdout + out.stderr).count("said") == lines


def test_every_name_is_there():
    for name in mixvi.__all__:
        assert getattr(mixvi, name) is not None
        assert name in dir(mixvi)
    with pytest.raises(AttributeError, match="no attribute 'PCA'"):
        mixvi.PCA  # noqa: B018


def test_every_documented_name_is_an_attribute():
    """Of a package that no other has loaded before: from the inside out, as imports point."""
    inside_out = ["ops", "cluster", "module", "data", "train", "model", "datasets", "metrics", "diagrams"]
    names = re.findall(r"^   ([\w.]+)$", API.read_text(), re.MULTILINE)
    of = {room: [name for name in names if name.startswith(f"{room}.")] for room in [*inside_out, "perturb", "pl"]}
    of["itself"] = [name for name in names if "." not in name]
    assert len(names) > 100
    assert sorted(name for room in of.values() for name in room) == sorted(names)
    script = f"""
import mixvi, operator, sys
for room, names in {of!r}.items():
    assert f"mixvi.{{room}}" not in sys.modules, room
    for name in names:
        operator.attrgetter(name)(mixvi)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
