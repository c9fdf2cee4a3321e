"""A net that small changes do not mislead has its say where held-out labels are for it."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.stats import entropy
from sklearn.datasets import make_blobs
from torch import nn
from torch.nn.functional import log_softmax

from mixvi import datasets
from mixvi.cluster import neighbor_graph
from mixvi.module.nets import Hidden, Trunk
from mixvi.train import _smooth
from mixvi.train._smooth import RADIUS, Evidence, Learned, Net, adversarial, learn_classes, smooth
from tests.model.helpers import fitted


@pytest.fixture
def trunk():
    torch.manual_seed(0)
    return Trunk(5, 2, Hidden(32, 2, 0.1), discounts=True)


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
    return torch.from_numpy(x).float(), y, labels


def test_labels_and_guess_are_learned_and_nothing_else_is_touched(two, trunk):
    x, y, labels = two
    wrong = np.where(np.arange(400) % 10 == 3, 1 - y, y)  # a tenth of the guess
    torch.manual_seed(3)
    stream = torch.get_rng_state()
    before = deepcopy(trunk.state_dict())
    shares, state = smooth(Evidence(x, labels, wrong), 2, trunk)
    assert torch.equal(torch.get_rng_state(), stream)
    torch.testing.assert_close(trunk.state_dict(), before, rtol=0, atol=0)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    assert (shares.argmax(1) == y).mean() > 0.97
    assert set(state) == set(trunk.bare().state_dict())
    np.testing.assert_array_equal(smooth(Evidence(x, labels, wrong), 2, trunk).shares, shares)


def test_nets_go_on_from_the_encoder_without_conditions_and_dropout(two, trunk, monkeypatch):
    x, _, labels = two
    trunk(x, torch.zeros(400, 2))  # running means of its own
    monkeypatch.setattr(_smooth, "trained", lambda x, k, hidden, *_: Net(hidden(), nn.Linear(32, k)).eval())
    _, state = smooth(Evidence(x, labels, np.full(400, -1)), 2, trunk)
    assert all(torch.equal(value, trunk.state_dict()[name]) for name, value in state.items())
    assert {layer.dropout.p for layer in trunk.bare().layers} == {0.0}


def test_the_encoder_sees_what_the_net_sees(trunk):
    x, c = torch.randn(40, 5), torch.randn(40, 2)
    trunk.layers[0].effects.normal_()
    bare = Trunk(5, 0, Hidden(32, 2, 0.0))
    bare(x, c[:, :0])
    trunk.follow(bare.state_dict())
    discounted = x - c @ trunk.layers[0].effects
    torch.testing.assert_close(trunk.eval()(x, c)[:, :32], bare.eval()(discounted, c[:, :0]))


def test_nets_that_learn_classes_are_sure_but_not_of_counts(two, trunk, monkeypatch):
    x, _, labels = two
    sure = smooth(Evidence(x, labels, np.full(400, -1)), 2, trunk).shares
    counted = smooth(Evidence(x, labels, np.full(400, -1), is_count=True), 2, trunk).shares
    monkeypatch.setattr(_smooth, "DOUBT", 0.0)
    unsure = smooth(Evidence(x, labels, np.full(400, -1)), 2, trunk).shares
    assert entropy(sure, axis=1).mean() < 0.8 * entropy(unsure, axis=1).mean()
    np.testing.assert_array_equal(counted, unsure)


def test_nets_speak_of_cells_whose_guess_they_have_not_learned(two, trunk, monkeypatch):
    """Each cell is left out of the guess of the net that speaks for it, and of no other; labels are for all nets.

    Without a guess, one net speaks for all.
    """
    x, y, labels = two
    learned = []

    class Says(nn.Module):
        def __init__(self, k):
            super().__init__()
            self.trunk, self.log_p = trunk, torch.eye(2)[k].log()

        def forward(self, cells):
            return self.log_p.expand(len(cells), 2)

    def net(evidence, *_):
        learned.append(evidence)
        return Says(len(learned) - 1)

    monkeypatch.setattr(_smooth, "_learned", net)
    shares = smooth(Evidence(x, labels, y), 2, trunk).shares
    left_out = np.stack([evidence.guess < 0 for evidence in learned], axis=1)
    np.testing.assert_array_equal(shares, left_out)
    np.testing.assert_array_equal(left_out.sum(0), 200)
    for evidence in learned:
        np.testing.assert_array_equal(evidence.labels, labels)
        np.testing.assert_array_equal(evidence.guess[evidence.guess >= 0], y[evidence.guess >= 0])
    learned.clear()
    shares = smooth(Evidence(x, labels, np.full(400, -1)), 2, trunk).shares
    assert len(learned) == 1
    np.testing.assert_array_equal(shares[:, 0], 1)


def test_held_out_labels_choose_the_source(two, trunk, monkeypatch):
    x, y, labels = two
    graph = neighbor_graph(x.numpy())
    asked = []

    def net(evidence, n_parts, trunk, seed=0, share=1.0):
        asked.append((evidence, share))
        alone = (evidence.guess < 0).all()
        return Learned(np.eye(2)[y if alone == (expected == "labels") else 1 - y], {})

    monkeypatch.setattr(_smooth, "smooth", net)
    for graph_says, expected in ((1 - y, "labels"), (1 - y, "both"), (y, "graph")):
        asked.clear()
        monkeypatch.setattr(_smooth, "partition_with_classes", lambda *_, part=graph_says, **__: (part, None))
        if expected == "graph":
            monkeypatch.setattr(_smooth, "smooth", lambda *_, **__: Learned(np.eye(2)[1 - y], {}))
        found, share_right = learn_classes(Evidence(x, labels, graph_says), graph, 2, trunk)
        assert (found is None) == (expected == "graph")
        assert share_right == 1.0
        if found is not None:
            np.testing.assert_array_equal(found.shares.argmax(1), y)
            chosen, share = asked[-1]
            assert share == 1.0
            assert (chosen.guess < 0).all() == (expected == "labels")
            held_out = [(evidence.labels >= 0).sum() for evidence, share in asked if share < 1]
            assert held_out == [16, 16]  # of 20


@pytest.mark.parametrize(
    ("n_labels", "right", "is_nested", "expected"),
    [
        (80, (9, 9, 9), True, "both"), (80, (8, 9, 8), True, "both"), (80, (8, 10, 8), True, "labels"),
        (80, (9, 6, 10), True, "both"), (250, (50, 50, 50), True, "both"), (255, (51, 51, 51), True, "labels"),
        (1000, (180, 180, 180), True, "labels"), (1000, (180, 177, 180), True, "both"),
        (1000, (180, 180, 180), False, "both"), (1000, (180, 190, 191), True, "labels"),
        (1000, (180, 178, 200), True, "graph"), (5000, (960, 946, 958), True, "labels"),
    ],
)  # fmt: skip
def test_few_labels_need_the_guess_and_its_lead_must_be_sure(monkeypatch, trunk, n_labels, right, is_nested, expected):
    """Of a fifth of the labels, nets with the guess, those without it and the graph find so many: the same ones, or
    labels alone lead to others."""
    x, y = torch.randn(6000, 8), np.arange(6000) % 2
    labels = np.where(np.arange(6000) < n_labels, y, -1)
    source, asked = dict(zip(("both", "labels", "graph"), right, strict=True)), []

    def says(name, evidence):
        out = np.flatnonzero((labels >= 0) & (evidence < 0))
        missed = out[source[name] :] if is_nested or name != "labels" else out[: len(out) - source[name]]
        classes = y.copy()
        classes[missed] = 1 - y[missed]
        return classes

    def net(evidence, *_):
        asked.append("labels" if (evidence.guess < 0).all() else "both")
        return Learned(np.eye(2)[says(asked[-1], evidence.labels)], {})

    monkeypatch.setattr(_smooth, "smooth", net)
    monkeypatch.setattr(_smooth, "partition_with_classes", lambda graph, rest, *_, **__: (says("graph", rest), None))
    found, share_right = learn_classes(Evidence(x, labels, y), csr_matrix((6000, 6000)), 2, trunk)
    assert (found is None) == (expected == "graph")
    assert share_right == source[expected] / (n_labels / 5)
    assert expected in (asked[-1], "graph")


def test_few_labels_and_labels_of_all_cells_leave_it_at_the_graph(two, trunk):
    x, y, labels = two
    graph = neighbor_graph(x.numpy())
    few = np.where(np.arange(400) % 100, -1, y)
    for known in (few, y):
        assert learn_classes(Evidence(x, known, y), graph, 2, trunk) == (None, None)


def test_without_values_the_graph_alone_is_asked(two, trunk):
    x, y, labels = two
    graph = neighbor_graph(x.numpy())
    assert learn_classes(Evidence(None, labels, y), graph, 2, trunk) == (None, 1.0)
    drawn = np.where(np.arange(400) % 4, -1, np.random.default_rng(0).integers(2, size=400))
    found, share_right = learn_classes(Evidence(None, drawn, y), graph, 2, trunk)
    assert found is None
    assert 0.1 < share_right < 0.9  # of twenty labels that say nothing


def test_a_learned_guess_guides_and_stays_outside_the_bound(counts, monkeypatch):
    counts.obs["label"] = np.where(np.arange(120) % 3, "?", counts.obs["cluster"].astype(str))
    setup = {"labels_key": "label", "unlabeled_category": "?"}
    model = fitted("GMVAE", counts, setup, train={"max_epochs": 10}, n_clusters=None)
    history = {key: values.to_numpy(dtype=float).ravel() for key, values in model.history.items()}
    assert (history["smooth_train"] >= 0).all()
    assert "smooth_validation" not in history
    whole = sum(history[f"{term}_train"] for term in ("reconstruction_loss", "kl_z", "kl_y"))
    np.testing.assert_allclose(history["elbo_train"], whole, rtol=1e-5)
    monkeypatch.setattr("mixvi.train._parts.learn_classes", lambda *_: (None, None))
    plain = fitted("GMVAE", counts, setup, train={"max_epochs": 10}, n_clusters=None)
    assert "smooth_train" not in plain.history


def test_the_only_label_of_a_class_is_not_asked_for_and_an_empty_part_keeps_its_cells(two, trunk, monkeypatch):
    x, y, labels = two
    rare, graph_says = labels.copy(), y.copy()
    rare[1] = 2
    graph_says[[1, 2, 3]] = 2
    graph_says[4:7] = 3
    asked = []

    def net(evidence, n_parts, *_):
        asked.append(evidence.labels)
        return Learned(np.eye(n_parts, dtype=np.float32)[y], {})

    monkeypatch.setattr(_smooth, "smooth", net)
    shares = learn_classes(Evidence(x, rare, graph_says), neighbor_graph(x.numpy()), 3, trunk)[0].shares
    assert all((seen == 2).sum() == 1 for seen in asked)
    np.testing.assert_array_equal(shares.argmax(1), np.where(graph_says < 2, y, graph_says))


def test_a_net_does_not_overrule_labels(counts, monkeypatch):
    counts.obs["label"] = np.where(np.arange(120) % 3, "?", counts.obs["cluster"].astype(str))
    seen = []

    def always_first(evidence, *_):
        seen.append(evidence)
        return Learned(np.eye(evidence.guess.max() + 1, dtype=np.float32)[np.zeros(120, dtype=int)], {}), 0.5

    monkeypatch.setattr("mixvi.train._parts.learn_classes", always_first)
    setup = {"labels_key": "label", "unlabeled_category": "?"}
    model = fitted("GMVAE", counts, setup, train={"max_epochs": 2, "train_size": 1.0}, n_clusters=3)
    assert "smooth_train" in model.history
    known = np.bincount(seen[0].labels[seen[0].labels >= 0]) / 120
    weights = model.module.prior.log_weights().exp().detach().numpy()
    np.testing.assert_allclose(weights, [known[0] + 2 / 3, *known[1:]], atol=0.05)


def test_the_encoder_goes_on_from_the_net(counts, monkeypatch):
    """Its hidden layers are those of the net, and the learning rate falls as theirs did."""
    counts.obs["label"] = np.where(np.arange(120) % 3, "?", counts.obs["cluster"].astype(str))
    setup = {"labels_key": "label", "unlabeled_category": "?", "batch_key": "condition"}
    given = []

    def net(evidence, graph, n_classes, trunk, *_):
        state = {name: value + 0.1 for name, value in trunk.bare().state_dict().items() if value.is_floating_point()}
        given.append(state)
        return Learned(np.eye(n_classes, dtype=np.float32)[np.arange(120) % n_classes], state), 1.0

    monkeypatch.setattr("mixvi.train._parts.learn_classes", net)
    train = {"max_epochs": 6, "train_size": 1.0, "plan_kwargs": {"lr": 1e-9}}
    model = fitted("GMVAE", counts, setup, train=train, n_clusters=None)
    rates = [group["lr"] for group in model.trainer.optimizers[0].param_groups]
    np.testing.assert_allclose(rates, 1e-9 / 3)  # in the last of three epochs
    steps = {int(state["step"]) for state in model.trainer.optimizers[0].state.values()}
    assert steps == {3}  # of the optimizer since then; what it did before is forgotten
    found = model.module.encoder.trunk.state_dict()
    for name, value in given[0].items():
        if "running" not in name:
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


def test_nets_see_like_cells_of_two_batches_as_like(monkeypatch):
    """What conditions add is taken off: the batch no longer tells, in the middle of a cluster."""
    cells = datasets.blobs(300, 30, n_clusters=2, n_conditions=2, kind="count")
    batch, blob = (cells.obs[key].cat.codes.to_numpy() for key in ("condition", "cluster"))
    cells.obs["label"] = np.where(np.arange(300) % 3, "?", cells.obs["cluster"].astype(str))
    seen = []
    monkeypatch.setattr("mixvi.train._parts.learn_classes", lambda evidence, *_: (seen.append(evidence.x), None))
    setup = {"labels_key": "label", "unlabeled_category": "?", "batch_key": "condition"}
    model = fitted("GMVAE", cells, setup, train={"max_epochs": 2, "train_size": 1.0}, n_clusters=2)
    assert seen[0].shape == cells.shape

    def apart(x):
        return np.mean(
            [np.linalg.norm(np.subtract(*(x[(batch == b) & (blob == k)].mean(0) for b in (0, 1)))) for k in (0, 1)]
        )

    raw = model.module.likelihood.prepare(torch.as_tensor(cells.X, dtype=torch.float32))
    assert apart(seen[0].numpy()) < 0.3 * apart(raw.numpy())
