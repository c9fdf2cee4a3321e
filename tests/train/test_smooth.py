"""A net that small changes do not mislead has its say where held-out labels are for it."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.datasets import make_blobs
from torch import nn
from torch.nn.functional import log_softmax

from mixvi.cluster import neighbor_graph
from mixvi.module.nets import Hidden
from mixvi.train import _smooth
from mixvi.train._smooth import RADIUS, Evidence, adversarial, best_shares, smooth
from tests.model.helpers import fitted

HIDDEN = Hidden(32, 1, 0.0)


def test_the_change_is_the_worst_of_its_length():
    """Of a linear map onto two classes, the worst change is along the difference of their weights."""
    torch.manual_seed(0)
    net, x = nn.Linear(5, 2).double(), torch.randn(40, 5, dtype=torch.float64)
    apart = torch.cdist(x, x).fill_diagonal_(torch.inf).amin(1, keepdim=True)
    along = net.weight[0] - net.weight[1]
    p = log_softmax(net(x), -1)
    both = [log_softmax(net(x + sign * RADIUS * apart * along / along.norm()), -1) for sign in (1, -1)]
    divergence = torch.stack([(p.exp() * (p - q)).sum(-1) for q in both])
    found = adversarial(lambda x: log_softmax(net(x), -1), net, x)
    assert 0.99 * divergence.amin(0).mean() < found <= divergence.amax(0).mean() * (1 + 1e-9)
    assert found.requires_grad


def test_running_means_take_no_note_and_nothing_drops_out():
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    adversarial(lambda x: log_softmax(net(x), -1), net, torch.randn(20, 5))
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    x = torch.zeros(20, 5)  # all alike: without dropout nothing differs
    assert adversarial(lambda x: log_softmax(net(x), -1), net, x) == 0
    assert net[2].p == 0.5
    net(torch.randn(20, 5))
    assert not torch.equal(net[1].running_mean, before["1.running_mean"])


@pytest.fixture
def two():
    x, y = make_blobs(400, 5, centers=2, cluster_std=1.5, random_state=1)
    labels = np.where(np.arange(400) % 20, -1, y)
    return csr_matrix(x.astype(np.float32)), y, labels


def test_labels_and_guess_are_learned_and_nothing_else_is_touched(two):
    x, y, labels = two
    wrong = np.where(np.arange(400) % 10 == 3, 1 - y, y)  # a tenth of the guess
    torch.manual_seed(3)
    stream = torch.get_rng_state()
    shares = smooth(Evidence(x, labels, wrong), 2, HIDDEN)
    assert torch.equal(torch.get_rng_state(), stream)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    assert (shares.argmax(1) == y).mean() > 0.97
    np.testing.assert_array_equal(smooth(Evidence(x, labels, wrong), 2, HIDDEN), shares)


def test_held_out_labels_choose_the_source(two, monkeypatch):
    x, y, labels = two
    graph = neighbor_graph(x.toarray())
    asked = []

    def net(evidence, n_parts, hidden, seed=0, share=1.0):
        asked.append((evidence, share))
        alone = (evidence.guess < 0).all()
        return np.eye(2)[y if alone == (expected == "labels") else 1 - y]

    monkeypatch.setattr(_smooth, "smooth", net)
    for graph_says, expected in ((1 - y, "labels"), (1 - y, "both"), (y, "graph")):
        asked.clear()
        monkeypatch.setattr(_smooth, "partition_with_classes", lambda *_, part=graph_says, **__: part)
        if expected == "graph":
            monkeypatch.setattr(_smooth, "smooth", lambda *_, **__: np.eye(2)[1 - y])
        shares = best_shares(Evidence(x, labels, graph_says), graph, 2, HIDDEN)
        assert (shares is None) == (expected == "graph")
        if shares is not None:
            np.testing.assert_array_equal(shares.argmax(1), y)
            chosen, share = asked[-1]
            assert share == 1.0
            assert (chosen.guess < 0).all() == (expected == "labels")
            held_out = [(evidence.labels >= 0).sum() for evidence, share in asked if share < 1]
            assert held_out == [16, 16]  # of 20


def test_few_labels_and_labels_of_all_cells_leave_it_at_the_graph(two):
    x, y, labels = two
    graph = neighbor_graph(x.toarray())
    few = np.where(np.arange(400) % 100, -1, y)
    for known in (few, y):
        assert best_shares(Evidence(x, known, y), graph, 2, HIDDEN) is None


def test_a_learned_guess_guides_and_stays_outside_the_bound(counts, monkeypatch):
    counts.obs["label"] = np.where(np.arange(120) % 3, "?", counts.obs["cluster"].astype(str))
    setup = {"labels_key": "label", "unlabeled_category": "?"}
    model = fitted("GMVAE", counts, setup, train={"max_epochs": 10}, n_clusters=None)
    history = {key: values.to_numpy(dtype=float).ravel() for key, values in model.history.items()}
    assert (history["smooth_train"] >= 0).all()
    assert "smooth_validation" not in history
    whole = sum(history[f"{term}_train"] for term in ("reconstruction_loss", "kl_z", "kl_y"))
    np.testing.assert_allclose(history["elbo_train"], whole, rtol=1e-5)
    monkeypatch.setattr("mixvi.train._plan.best_shares", lambda *_: None)
    plain = fitted("GMVAE", counts, setup, train={"max_epochs": 10}, n_clusters=None)
    assert "smooth_train" not in plain.history


@pytest.mark.parametrize("swallowed", [False, True])
def test_a_net_neither_overrules_labels_nor_swallows_parts(counts, monkeypatch, swallowed):
    counts.obs["label"] = np.where(np.arange(120) % 3, "?", counts.obs["cluster"].astype(str))
    counts.obs.loc[counts.obs["cluster"] == "blob 2", "label"] = "?"
    n_parts = []

    def always_first(evidence, *_):
        n_parts.append(evidence.guess.max() + 1)
        return np.eye(3, dtype=np.float32)[np.where((evidence.guess < 2) | swallowed, 0, 2)]

    monkeypatch.setattr("mixvi.train._plan.best_shares", always_first)
    setup = {"labels_key": "label", "unlabeled_category": "?"}
    model = fitted("GMVAE", counts, setup, train={"max_epochs": 2, "train_size": 1.0}, n_clusters=3)
    assert n_parts == [3]
    assert ("smooth_train" in model.history) != swallowed
    weights = model.module.prior.log_weights().exp()
    assert weights.min() > 0.01
    assert weights.max() < 0.9
