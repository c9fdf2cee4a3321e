"""A file is replaced as a whole, or stays as it was."""

import pytest

from mixvi._atomic import replacing


def test_the_new_file_takes_the_place_of_the_old_one_at_the_end(tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("old")
    with replacing(path) as new:
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
        with replacing(path) as new:
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
