"""A file is replaced as a whole, or stays as it was."""

import subprocess
import sys

import pytest

from mixvi._atomic import replacing


def test_the_new_file_takes_the_place_of_the_old_one_at_the_end(tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("old")
    with replacing(path) as [new]:
        assert new.parent == path.parent  # one file system: a rename there is all or nothing
        new.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_breaks_off_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "model.pt"
    path.write_text("old")

    def write():
        with replacing(path) as [new]:
            new.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


def test_a_file_that_was_never_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "model.pt"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fails", ["second", "disk", None])
def test_two_files_are_replaced_together(tmp_path, monkeypatch, fails):
    """Both are written and on the disk before the first takes its place."""
    paths = [tmp_path / "model.pt", tmp_path / "adata.h5ad"]
    for path in paths:
        path.write_text("old")

    def full(number):
        raise OSError(28, "No space left on device")

    def write():
        with replacing(*paths) as new:
            new[0].write_text("new")
            if fails == "second":
                raise OSError(28, "No space left on device")
            new[1].write_text("new")
            assert [path.read_text() for path in paths] == ["old", "old"]
            if fails == "disk":
                monkeypatch.setattr("mixvi._atomic.os.fsync", full)

    if fails is None:
        write()
    else:
        with pytest.raises(OSError, match="No space"):
            write()
    assert [path.read_text() for path in paths] == ["old" if fails else "new"] * 2
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_what_killed_processes_left_is_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = tmp_path / "a[1].h5ad"
    kept = [f".{path.name}.1.new", f".{path.name}.x.new", f".{path.name}.{10**14}.new", f".b.h5ad.{ended.pid}.new"]
    for name in [*kept, f".{path.name}.{ended.pid}.new"]:
        (tmp_path / name).write_text("half")
    with replacing(path) as [new]:
        new.write_text("new")
    assert {file.name for file in tmp_path.iterdir()} == {*kept, path.name}
