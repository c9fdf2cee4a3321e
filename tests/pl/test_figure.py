"""What all plots begin and end with."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mixvi import pl
from mixvi.pl._figure import finish, grid


@pytest.mark.parametrize(("draw", "said"), [
    (pl.umap, "an AnnData that"), (pl.confusion, "an AnnData that"), (pl.training, "a trained model"),
    (pl.weights, "a trained GMVAE"),
    (pl.images, "images by a trained model"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_said(draw, said, model, counts):
    takes_cells = draw in (pl.umap, pl.confusion)
    wrong = model if takes_cells else counts
    with pytest.raises(TypeError, match=f"got {type(wrong).__name__}; it draws {said}"):
        draw(wrong, labels="cluster") if takes_cells else draw(wrong)
    assert not plt.get_fignums()


def test_a_file_is_no_truth(model):
    with pytest.raises(ValueError, match="save=True is no file"):
        pl.weights(model, save=True)


@pytest.mark.parametrize(("n", "shape"), [(1, (1, 1)), (3, (1, 3)), (4, (2, 3)), (7, (3, 3))])
def test_a_grid_has_as_many_panels_as_asked_for(n, shape):
    axes = grid(n, 3, (2.0, 1.5), extra=1.0)
    figure = plt.gcf()
    assert figure.axes == axes
    assert len(axes) == n
    assert axes[0].get_subplotspec().get_gridspec().get_geometry() == shape
    np.testing.assert_allclose(figure.get_size_inches(), (2 * shape[1] + 1, 1.5 * shape[0]))
    plt.close(figure)


def test_a_figure_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path, (figure, ax) = tmp_path / "figure.pdf", plt.subplots()
    finish(False, path, ax)
    whole = path.read_bytes()
    assert whole.startswith(b"%PDF")

    def stopped(self, name, **kwargs):
        name.write_text("half a figure")
        raise KeyboardInterrupt

    monkeypatch.setattr(type(figure), "savefig", stopped)
    with pytest.raises(KeyboardInterrupt):
        finish(False, path, ax)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [whole]
    plt.close("all")


@pytest.mark.parametrize(
    ("show", "save", "is_shown", "is_open"),
    [(None, False, True, True), (None, True, False, False), (True, True, True, True), (False, False, False, True)],
)
def test_a_figure_is_shown_unless_it_is_saved(show, save, is_shown, is_open, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    figure, ax = plt.subplots()
    _, other = plt.subplots()  # the current figure is not the one that is meant
    finish(show, tmp_path / "figure.png" if save else None, ax)
    assert bool(shown) == is_shown
    assert (tmp_path / "figure.png").exists() == save
    assert plt.fignum_exists(figure.number) == is_open
    assert plt.fignum_exists(other.figure.number)
    plt.close("all")


def test_a_file_without_an_ending_is_a_png(tmp_path):
    _, ax = plt.subplots()
    finish(False, str(tmp_path / "figure"), ax)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    plt.close("all")
