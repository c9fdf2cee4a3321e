"""Scores of the cells of a query: local outlier factors in the latent space, and the shift of a new batch."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from mixvi import datasets
from mixvi.cluster.outliers import conformal_p, standardise
from mixvi.model._novelty import Novelty, _null
from tests.model.helpers import fitted


def neighbours(cells, n_neighbors=15):
    return NearestNeighbors(n_neighbors=n_neighbors).fit(cells)


@pytest.mark.parametrize("name", ["VAE", "CVAE", "GMVAE"])
def test_p_values_are_ranks_of_local_outlier_factors(name):
    """By scikit-learn's neighbours. Query, reference and held-out cells are as many, so all have 15 neighbours."""
    cells = datasets.blobs(450, 30, n_clusters=2, n_conditions=2, kind="count")
    model = fitted(name, cells[:300].copy(), train={"train_size": 0.5})
    query = cells[300:].copy()
    train, held_out = (np.sort(rows) for rows in (model.train_indices, model.validation_indices))
    reference, known, new = (
        model.get_latent_representation(of, indices=rows)
        for of, rows in ((None, train), (None, held_out), (query, None))
    )

    def score(latent):
        distance, near = neighbours(reference).kneighbors(latent)
        spacing = neighbours(reference).kneighbors()[0].mean(1)[near].mean(1)
        return np.log(distance.mean(1) / np.sqrt(spacing * neighbours(latent).kneighbors()[0].mean(1)))

    depth = np.log(cells.X.sum(1))
    expected = conformal_p(*standardise(score(new), depth[300:], score(known), depth[held_out]))
    np.testing.assert_allclose(model.get_outlier_p(query), expected, atol=1.1 / 151)  # ties may change their order
    if name != "GMVAE":
        model.annotate()
        assert "mixvi_outlier_p" not in model.adata.obs


def test_p_values_do_not_depend_on_how_cells_stream():
    cells = datasets.blobs(400, 30, n_clusters=2, kind="count")
    model = fitted("GMVAE", cells[:300].copy())
    query, novelty = cells[300:].copy(), Novelty(model, cells[300:].copy())
    whole = model.get_outlier_p(query)
    np.testing.assert_allclose(model.get_outlier_p(query, batch_size=7), whole, atol=0.04)
    order = np.random.default_rng(0).permutation(100)
    (encoded,) = model._encode(query, 2, order, novelty)
    np.testing.assert_allclose(encoded.outlier_p, whole[order], atol=0.04)


def test_one_cell_alone_has_a_p_value():
    """There is no spacing of a query of one cell."""
    cells = datasets.blobs(300, 30, n_clusters=2, kind="count")
    model = fitted("GMVAE", cells)
    p = np.concatenate([model.get_outlier_p(indices=[row]) for row in model.validation_indices])
    assert (p > 0).all()
    assert abs((p <= 0.5).mean() - 0.5) < 0.2


def test_a_cell_that_is_passed_twice_is_one_cell():
    cells = datasets.blobs(400, 30, n_clusters=2, kind="count")
    model, rows = fitted("GMVAE", cells), np.arange(100)
    p = model.get_outlier_p(indices=rows)
    np.testing.assert_array_equal(model.get_outlier_p(indices=np.r_[rows, rows[::-1]]), np.r_[p, p[::-1]])
    np.testing.assert_array_equal(model.get_outlier_p(indices=[3, 3]), model.get_outlier_p(indices=[3]).repeat(2))


def test_a_query_of_few_cells_has_uniform_p_values():
    """All cells, of the query and held-out ones, are scored beside the same number of others."""
    cells = datasets.blobs(1800, 30, n_clusters=2, kind="count")
    model, query = fitted("GMVAE", cells[:600].copy(), train={"train_size": 0.5}), cells[600:].copy()
    p = np.concatenate([model.get_outlier_p(query, indices=rows) for rows in np.arange(1200).reshape(-1, 3)])
    assert abs(p.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 400)  # as if cells of one query were equal


def test_each_of_several_new_batches_is_compared_with_its_lower_half():
    """Of a query that is much larger than the sample that gives its spacing."""
    cells = datasets.blobs(1500, 30, n_clusters=2, n_conditions=5, kind="count")
    is_new = (cells.obs["condition"] != cells.obs["condition"].unique()[0]).to_numpy()
    model = fitted("GMVAE", cells[~is_new].copy(), {"batch_key": "condition"}, {"train_size": 0.9})
    novelty = Novelty(model.map(cells[is_new].copy()))
    assert len(novelty.fellows) < 4 * 20
    assert len(novelty.nulls) == 4


def test_a_new_batch_is_compared_with_the_lower_half_of_its_cells():
    """Cells of a known batch, or few cells of a new one, are not corrected."""
    cells = datasets.blobs(900, 30, n_clusters=2, n_conditions=3, kind="count")
    is_new = (cells.obs["condition"] == cells.obs["condition"].unique()[2]).to_numpy()
    model = fitted("GMVAE", cells[~is_new].copy(), {"batch_key": "condition"}, {"max_epochs": 20})
    mapped = model.map(cells[is_new].copy())
    novelty = Novelty(mapped)
    (level,) = np.flatnonzero(~mapped.known_levels_)
    assert set(novelty.nulls) == {level}
    assert np.median(mapped.get_outlier_p()) > 0.4
    assert not Novelty(model).nulls
    assert not Novelty(mapped, indices=np.arange(10)).nulls


def test_the_null_of_a_new_batch_is_that_of_its_lower_half(rng):
    """A fifth of the cells are new, which do not count. Scores that are low already are not raised."""
    usual = rng.normal(size=20_000)
    score = 3 + 2 * rng.normal(size=20_000)
    score[:4000] += 50
    shift, scale = _null(score, usual)
    z = (score - shift) / scale
    level = np.quantile(usual, 0.95)
    assert (z[4000:] > level).mean() < 0.05
    assert (z[:4000] > level).all()
    assert _null(usual / 2 - 1, usual) == (0, 1)
    exact = _null(3 + 2 * usual, usual)
    np.testing.assert_allclose((3 + 2 * usual - exact[0]) / exact[1], usual, atol=1e-9)
