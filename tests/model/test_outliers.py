"""P-values of new cells, and prediction sets."""

import anndata as ad
import numpy as np
import pytest

import mixvi
from mixvi import datasets
from mixvi.model._outliers import is_new, new_groups
from tests.model.helpers import fitted


@pytest.fixture(scope="module")
def four():
    """Cells of four kinds; the first three are the reference."""
    cells = datasets.blobs(2400, 30, n_clusters=4, kind="count")
    kind = cells.obs["cluster"].to_numpy().astype(str)
    return cells[kind != "blob 3"].copy(), cells[kind == "blob 3"].copy()


@pytest.fixture(scope="module")
def model(four):
    return fitted("GMVAE", four[0].copy(), train={"max_epochs": 60, "train_size": 0.5})


def test_known_cells_have_uniform_p_values_and_a_new_kind_low_ones(model, four):
    p = model.get_outlier_p(indices=model.validation_indices)
    for level in (0.05, 0.2, 0.5):
        assert abs((p <= level).mean() - level) < 0.02
    assert np.median(model.get_outlier_p(four[1])) < 0.05


def test_annotate_writes_p_values_and_names_new_cells(model, four):
    known, new = four[0][:200].copy(), four[1][:100].copy()
    cells = ad.concat([known, new])
    cells.obs_names_make_unique()
    model.annotate(cells, new_at=0.2)
    p = cells.obs["mixvi_outlier_p"].to_numpy()
    np.testing.assert_allclose(p, model.get_outlier_p(cells), rtol=1e-6)
    called = cells.obs["mixvi"].astype(str).str.startswith("new ").to_numpy()
    np.testing.assert_array_equal(called, is_new(p, 0.2))
    assert called[200:].mean() > 0.5 > 0.25 > called[:200].mean()
    np.testing.assert_array_equal(cells.obs["mixvi"][~called].astype(str), model.predict(cells)[~called])
    model.annotate(cells)
    assert set(cells.obs["mixvi"]) <= {"0", "1", "2"}


def test_groups_of_new_cells_have_names_of_their_own(rng):
    latent = np.concatenate([rng.normal(size=(60, 3)), 20 + rng.normal(size=(40, 3))])
    groups = new_groups(latent, ["0", "new 0"])
    assert groups.categories.tolist() == [f"new {k + 1}" for k in range(len(groups.categories))]
    sizes = groups.value_counts()
    assert (np.diff(sizes.to_numpy()) <= 0).all()
    assert not set(groups[:60]) & set(groups[60:])


def test_the_false_discovery_rate_is_that_of_benjamini_and_hochberg():
    p = np.array([0.001, 0.02, 0.03, 0.9])
    assert is_new(p, 0.05).tolist() == [True, True, True, False]
    assert is_new(p, 0.01).tolist() == [True, False, False, False]


def test_sets_of_labelled_classes_hold_the_right_one(four):
    rng = np.random.default_rng(0)
    cells = four[0].copy()
    mixed = np.where(rng.random(cells.n_obs) < 0.3, rng.permutation(cells.obs["cluster"]), cells.obs["cluster"])
    cells.obs["noisy"] = mixed  # labels that no model can know for sure
    model = fitted("GMVAE", cells[::2].copy(), {"labels_key": "noisy"}, {"max_epochs": 40, "train_size": 0.5})
    test, label = cells[1::2].copy(), mixed[1::2]
    for coverage in (0.6, 0.8):
        sets = model.predict_set(test, coverage=coverage, level=0.0)
        held = sets.to_numpy()[np.arange(len(sets)), sets.columns.get_indexer(label)]
        assert abs(held.mean() - coverage) < 0.07
    assert not model.predict_set(test, coverage=0.6, level=0.3)[model.get_outlier_p(test) < 0.3].any(axis=None)


def test_sets_without_labels_sum_up_probabilities(model):
    p, sets = model.predict(soft=True).to_numpy(), model.predict_set(coverage=0.8, level=0.0).to_numpy()
    sums = (p * sets).sum(1)
    assert (sums >= 0.8 - 1e-6).all()
    least = np.where(sets, p, 2).min(1)
    assert (sums - least < 0.8).all()  # without the least likely member it would be too small


def test_what_is_remembered_goes_with_the_model(model, tmp_path, four):
    model.save(tmp_path / "model")
    loaded = mixvi.GMVAE.load(tmp_path / "model", adata=False)
    np.testing.assert_allclose(loaded.get_outlier_p(four[1]), model.get_outlier_p(four[1]), rtol=1e-4)


def test_minified_cells_have_the_same_p_values():
    model = fitted("GMVAE", datasets.blobs(300, 30, n_clusters=2, kind="count"))
    p = model.get_outlier_p()
    model.minify_adata()
    np.testing.assert_allclose(model.get_outlier_p(), p, atol=0.04)


def test_a_level_below_the_least_p_value_is_warned_of(counts, warned):
    model = fitted("GMVAE", counts, train={"train_size": 0.7})
    assert not (model.get_outlier_p() < 1 / 37).any()
    model.predict_set(level=0.01)
    assert "No p-value can be below level=0.01: with 36 held-out cells, the lowest is 0.027." in warned()


def test_bad_arguments(model, counts):
    few = fitted("GMVAE", counts)
    few.held_out_ = None
    with pytest.raises(ValueError, match="They need 20 validation cells or more"):
        few.get_outlier_p()
    with pytest.raises(ValueError, match=r"level=0\.2; it must be a finite number .* below 0\.1"):
        model.predict_set(level=0.2)
    with pytest.raises(ValueError, match=r"coverage=1; it must be a finite number above 0 and below 1"):
        model.predict_set(coverage=1)
    with pytest.raises(ValueError, match=r"new_at=2; it must be"):
        model.annotate(new_at=2)
    with pytest.raises(ValueError, match=r"new_at=0\.1 belongs to the clusters of a GMVAE"):
        model.annotate(clustering="leiden", new_at=0.1)


def test_held_out_cells_are_those_of_the_last_fit(counts):
    counts.X = counts.X.astype(np.float32) / 7
    model = fitted("VAE", counts, train={"train_size": 0.7, "batch_size": 64}, linear=True, likelihood="normal")
    assert model.held_out_ is not None
    model.train(max_epochs=2, enable_progress_bar=False)  # fits all cells at once, so none is held out
    with pytest.raises(ValueError, match="They need 20 validation cells or more"):
        model.get_outlier_p()
