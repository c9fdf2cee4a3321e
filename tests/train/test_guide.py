"""The graph's word on each cell reaches that cell, whatever the order, and stays outside the bound."""

import numpy as np
import pytest
import torch

from mixvi._warnings import MixviWarning
from mixvi.train._guide import Guide, tell_of_moved
from tests.model.helpers import fitted


def test_weights_find_their_cells():
    shares = torch.tensor([[1.0, 0, 0], [0, 0, 0], [1, 0, 0], [0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
    guide = Guide.to_shares(torch.tensor([2, 5, 7, 9, 10, 12]), shares, weight=4.0)
    asked = torch.tensor([[9], [1], [7], [5], [2], [12], [100]])
    expected = torch.zeros(7, 3)
    rare = (5 / 3) ** 0.5  # three components, of 3, 1 and 1 cells
    expected[0, :2] = torch.tensor([2.0, 2 * rare])
    expected[2, 0] = expected[4, 0] = 4.0
    expected[5, 2] = 4 * rare
    torch.testing.assert_close(guide.of(asked), expected)


def test_guidance_starts_when_components_are_placed_and_is_no_part_of_the_bound(counts):
    model = fitted("GMVAE", counts, train={"max_epochs": 10, "plan_kwargs": {"n_epochs_pretrain": 6}})
    history = {key: values.to_numpy(dtype=float).ravel() for key, values in model.history.items()}
    assert list(model.history["guide_train"].index) == [6, 7, 8, 9]
    assert "guide_validation" not in history
    whole = sum(history[f"{term}_train"] for term in ("reconstruction_loss", "kl_z", "kl_y"))
    np.testing.assert_allclose(history["elbo_train"], whole, rtol=1e-5)
    plain = fitted("GMVAE", counts, train={"max_epochs": 4}, guidance=0.0)
    assert "guide_train" not in plain.history


def test_labelled_cells_are_guided_to_their_class_whatever_the_graph_says(counts, monkeypatch):
    counts.obs["label"] = counts.obs["cluster"].astype(str)
    wrong = counts.obs_names[:3]
    counts.obs.loc[wrong, "label"] = [
        {"blob 0": "blob 1", "blob 1": "blob 2", "blob 2": "blob 0"}[a] for a in counts.obs.loc[wrong, "label"]
    ]
    counts.obs.loc[counts.obs_names[60:], "label"] = "?"
    given, to_shares = [], Guide.to_shares

    def spy(rows, shares, *args):
        given.append((rows.numpy(), shares.numpy()))
        return to_shares(rows, shares, *args)

    monkeypatch.setattr(Guide, "to_shares", spy)
    setup = {"labels_key": "label", "unlabeled_category": "?"}
    model = fitted("GMVAE", counts, setup, train={"train_size": 1.0}, n_clusters=None)
    ((rows, shares),) = given
    labels = counts.obs["label"].to_numpy()[rows]
    own = np.stack([labels == name for name in model.cluster_names], 1)
    np.testing.assert_array_equal(shares[labels != "?"][:, :3], own[labels != "?"])
    assert (shares[:, 3:] == 0).all()  # room for more components
    assert (shares[labels == "?"].max(1) > 0).all()


def test_no_label_is_left_to_train_on(counts):
    counts.obs["label"] = ["blob 0"] + ["?"] * 119
    split = {"external_indexing": [np.arange(10, 120), np.arange(10), np.arange(0)]}
    setup, train = {"labels_key": "label", "unlabeled_category": "?"}, {"datasplitter_kwargs": split}
    assert fitted("GMVAE", counts, setup, train, n_clusters=None).cluster_names == ["blob 0"]


def test_guided_components_keep_to_the_parts_they_were_placed_on(counts):
    def agreement(guidance):
        train = {"max_epochs": 40, "plan_kwargs": {"n_epochs_pretrain": 10}}
        model = fitted("GMVAE", counts, train=train, n_clusters=6, guidance=guidance)
        return float(model.history["guide_train"].iloc[-1, 0]) / guidance

    assert agreement(20.0) < agreement(1e-3)


def test_guidance_can_be_set_for_one_training(counts):
    def trained(guidance, plan):
        return fitted("GMVAE", counts, train={"max_epochs": 4, "plan_kwargs": plan}, guidance=guidance).module

    weights = [list(trained(*given).parameters()) for given in ((5.0, {"guidance": 0}), (0.0, {}), (5.0, {}))]
    equal = [all(map(torch.equal, weights[0], other)) for other in weights[1:]]
    assert equal == [True, False]


def test_labelled_cells_in_other_clusters_are_told_and_many_are_a_warning(caplog, recwarn):
    labels = np.repeat([0, 1, -1], [90, 10, 50])
    part = np.maximum(labels, 0)
    part[:15] = 2
    with caplog.at_level("INFO", "mixvi"):
        tell_of_moved(part, labels)
    assert "15 of 100 labelled cells are more likely in another cluster" in caplog.text
    assert not recwarn
    few_of_all, many_of_all = part.copy(), part.copy()
    few_of_all[90:96] = 0
    many_of_all[:21] = 2
    for part, n in ((few_of_all, 1), (many_of_all, 0)):
        with pytest.warns(MixviWarning, match=f"In {n} of the classes .* mixvi warns if they are more than 20% of"):
            tell_of_moved(part, labels)
