"""Cells are no surer of their components, on average, than they are found to be right."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

import mixvi
from mixvi.classes import share_found
from mixvi.train import _temperature
from mixvi.train._smooth import Learned
from mixvi.train._temperature import HOTTEST, temperature
from tests.model.helpers import QUICK, build, fitted

LONG = {"max_epochs": 120, "plan_kwargs": {"lr": 5e-3}}
PARTLY = {"labels_key": "label", "unlabeled_category": "?"}


@pytest.fixture
def log_p(rng):
    return log_softmax(2 * rng.normal(size=(20_000, 5)), axis=1)


def test_mean_confidence_is_the_share_that_is_right(log_p):
    sharp = log_softmax(3 * log_p, axis=1)
    for right in (0.3, 0.6, 0.8):
        p = softmax(sharp / temperature(sharp, right), axis=1)
        assert p.max(1).mean() == pytest.approx(right, abs=1e-4)
        np.testing.assert_array_equal(p.argmax(1), log_p.argmax(1))


def test_it_is_the_temperature_that_labels_drawn_from_known_probabilities_would_choose(log_p, rng):
    """Labels are drawn from p; of p^3, renormalised, the temperature that is most likely of them is 3, and it is found
    from the share alone that is right."""
    label = (np.exp(log_p).cumsum(1) < rng.random((len(log_p), 1))).sum(1)
    sharp = log_softmax(3 * log_p, axis=1)
    found = temperature(sharp, (label == log_p.argmax(1)).mean())
    assert found == pytest.approx(3, rel=0.05)
    loss = [log_loss(label, softmax(sharp / t, axis=1)) for t in (0.8 * found, found, 1.25 * found)]
    assert loss[1] < min(loss[0], loss[2])


def test_it_never_makes_cells_surer_and_stays_finite(log_p):
    assert temperature(log_p, 0.99) == 1.0
    assert temperature(log_p, 0.1) == HOTTEST  # five even shares are surer than that
    assert temperature(log_p * np.nan, 0.5) == 1.0
    assert temperature(np.zeros((5, 1)), 0.5) == 1.0  # of one component


@pytest.fixture
def trained(counts, monkeypatch):
    """On labels of a third of the cells; nets found 0.6 of those held out."""
    counts.obs["label"] = np.where(np.arange(120) % 3, "?", counts.obs["cluster"].astype(str))

    def learned(evidence, graph, n_classes, trunk, *_):
        return Learned(np.eye(n_classes, dtype=np.float32)[evidence.guess], trunk.bare().state_dict()), 0.6

    monkeypatch.setattr("mixvi.train._parts.learn_classes", learned)
    monkeypatch.setattr("mixvi.train._parts.ENOUGH", 8)
    return fitted("GMVAE", counts, PARTLY, LONG | {"train_size": 1.0}, n_clusters=None)


def test_cells_without_a_label_are_as_sure_as_held_out_labels_are_right(trained, counts, tmp_path):
    unknown = (counts.obs["label"] == "?").to_numpy()
    assert trained.predict(soft=True)[unknown].to_numpy().max(1).mean() == pytest.approx(0.6, abs=1e-3)
    trained.save(tmp_path / "model")
    again = mixvi.GMVAE.load(tmp_path / "model", adata=counts, accelerator="cpu")
    np.testing.assert_allclose(again.predict(soft=True), trained.predict(soft=True), atol=1e-6)


def test_what_was_found_holds_for_a_model_that_is_trained_further(trained, counts):
    before = trained.module.prior.temperature.item()
    trained.train(**(QUICK | {"max_epochs": 30, "train_size": 1.0}))
    assert trained.module.prior.temperature.item() != before
    unknown = (counts.obs["label"] == "?").to_numpy()
    assert trained.predict(soft=True)[unknown].to_numpy().max(1).mean() == pytest.approx(0.6, abs=1e-3)


def test_without_labels_cells_are_as_sure_as_other_partitions_agree(counts, monkeypatch, caplog):
    monkeypatch.setattr("mixvi.train._parts.agreement", lambda part, others: 0.7 if len(others) == 6 else None)
    model = fitted("GMVAE", counts, train=LONG | {"train_size": 1.0})
    assert "other ways to cluster agreed on 70 % of cells" in caplog.text
    assert model.predict(soft=True).to_numpy().max(1).mean() == pytest.approx(0.7, abs=1e-3)


def test_labelled_validation_cells_say_more(counts, rng, monkeypatch, caplog):
    """Four fifths of the cells have a label, three tenths a wrong one, which no one can foresee."""
    shuffled = np.where(rng.random(120) < 0.3, rng.permutation(counts.obs["cluster"]), counts.obs["cluster"])
    counts.obs["label"] = np.where(np.arange(120) % 5, shuffled.astype(str), "?")
    monkeypatch.setattr(_temperature, "ENOUGH", 30)
    model = fitted("GMVAE", counts, PARTLY, LONG | {"train_size": 0.5}, n_clusters=None)
    rows = model.validation_indices[counts.obs["label"].iloc[model.validation_indices] != "?"]
    assert len(rows) > 40
    table = model.predict(indices=rows, soft=True)
    right = (table.idxmax(axis=1).to_numpy() == counts.obs["label"].to_numpy()[rows]).mean()
    assert model.module.prior.temperature > 1
    share = share_found(right * len(rows), len(rows))
    assert table.to_numpy().max(1).mean() == pytest.approx(share, abs=1e-3)
    assert f"about {100 * share:.0f} % of cells of these classes are named rightly" in caplog.text
    monkeypatch.setattr(_temperature, "ENOUGH", 100)
    monkeypatch.setattr(_temperature, "SOME", 100)
    model.module.prior.accuracy.fill_(torch.nan)  # as where there were too few labels to hold some out
    model.train(**(QUICK | {"train_size": 0.5}))
    assert model.module.prior.temperature == 1  # what was found of other weights does not stay
    assert "may be too sure" in caplog.text


def test_where_all_cells_have_labels_some_of_validation_cells_are_asked(counts, rng):
    shuffled = np.where(rng.random(120) < 0.3, rng.permutation(counts.obs["cluster"]), counts.obs["cluster"])
    counts.obs["label"] = shuffled.astype(str)
    again = fitted("GMVAE", counts, {"labels_key": "label"}, LONG | {"train_size": 0.5}, n_clusters=None)
    rows = again.validation_indices
    assert 20 <= len(rows) < 100
    table = again.predict(indices=rows, soft=True)
    n_right = (table.idxmax(axis=1).to_numpy() == counts.obs["label"].to_numpy()[rows]).sum()
    assert again.module.prior.temperature > 1
    assert table.to_numpy().max(1).mean() == pytest.approx(share_found(n_right, len(rows)), abs=1e-3)


def test_it_is_left_alone_where_no_cell_is_without_a_label(trained, counts, caplog):
    counts.obs["label"] = counts.obs["cluster"].astype(str)
    again = build("GMVAE", counts, {"labels_key": "label"}, n_clusters=None)
    again.module.load_state_dict(trained.module.state_dict())
    assert not again.module.prior.accuracy.isnan()
    again.train(**(QUICK | {"train_size": 1.0}))
    assert again.module.prior.temperature == 1
    assert "may be too sure" in caplog.text
    np.testing.assert_allclose(again.predict(soft=True).sum(1), 1, rtol=1e-5)


def test_one_cluster_is_sure_of_every_cell(counts, caplog):
    counts.X = np.log1p(counts.X)  # of which there are no other partitions
    model = fitted("GMVAE", counts, train=QUICK, n_clusters=1)
    assert (model.predict(soft=True) == 1).all(axis=None)
    assert "may be too sure" not in caplog.text
