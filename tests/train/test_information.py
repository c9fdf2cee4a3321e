"""A net that says most about the cells draws the borders where a graph shows more parts than are wanted."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from mixvi import datasets
from mixvi.cluster import modularity, neighbor_graph
from mixvi.module.nets import Hidden
from mixvi.train import _information
from mixvi.train._information import informed, informed_shares
from tests.model.helpers import fitted

HIDDEN = Hidden(32, 1, 0.0)


@pytest.fixture(scope="module")
def six():
    """Six blobs: three pairs, far from each other."""
    centers = np.repeat([[0, 0, 0], [40, 0, 0], [0, 40, 0]], 2, axis=0) + np.tile([[0, 0, 0], [0, 0, 8]], (3, 1))
    x, y = make_blobs(600, centers=centers, cluster_std=1.0, random_state=0)
    return torch.from_numpy(x).float(), y, neighbor_graph(x)


def test_even_parts_are_found_and_nothing_else_is_touched():
    x, y = make_blobs(400, 5, centers=4, cluster_std=0.5, random_state=1)
    x = torch.from_numpy(x).float()
    torch.manual_seed(3)
    stream = torch.get_rng_state()
    shares = informed(x, 4, HIDDEN)
    assert torch.equal(torch.get_rng_state(), stream)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    assert adjusted_rand_score(y, shares.argmax(1)) > 0.99
    np.testing.assert_array_equal(informed(x, 4, HIDDEN), shares)


def test_the_start_that_says_most_is_kept(six, monkeypatch):
    """Of nets that small changes touch alike, the one whose parts are even and sure; evenness counts most."""
    x, y, _ = six
    pair = torch.from_numpy(y // 2)
    sure = torch.full((600, 3), 1e-6).scatter(1, pair[:, None], 1 - 2e-6)
    uneven, unsure = sure[:, [0, 1, 1]] * torch.tensor([1.0, 0.999, 0.001]), torch.full((600, 3), 1 / 3)
    nets = [uneven / uneven.sum(1, keepdim=True), unsure, sure, unsure]
    given = iter(nets)
    monkeypatch.setattr(_information, "trained", lambda *_: next(given))
    monkeypatch.setattr(_information, "probabilities", lambda net, _: net.numpy())
    monkeypatch.setattr(_information, "adversarial", lambda *_: torch.tensor(0.1))
    np.testing.assert_array_equal(informed(x, 3, HIDDEN), sure.numpy())
    given = iter(nets)
    monkeypatch.setattr(_information, "_change", lambda net, *_: 2.0 * (net is sure))  # but small changes mislead it
    np.testing.assert_array_equal(informed(x, 3, HIDDEN), unsure.numpy())


def test_a_net_is_asked_only_if_the_graph_shows_more_parts(six, monkeypatch):
    x, y, graph = six
    asked = []
    monkeypatch.setattr(
        _information, "informed", lambda x, n_parts, *_: asked.append(n_parts) or np.eye(n_parts)[y % 2]
    )
    assert informed_shares(x, y, graph, HIDDEN) is None  # six
    assert informed_shares(x, np.zeros(600, dtype=int), graph, HIDDEN) is None  # one is one
    assert not asked
    assert informed_shares(x, y % 3, graph, HIDDEN) is None  # a part of three stays empty
    assert asked == [3]


@pytest.mark.parametrize("right", ["net", "graph"])
def test_higher_modularity_without_a_model_decides(six, monkeypatch, right):
    x, y, graph = six
    parts = {True: y // 2, False: np.random.default_rng(0).permutation(y // 2)}
    monkeypatch.setattr(_information, "informed", lambda *_: np.eye(3)[parts[right == "net"]])
    found = informed_shares(x, parts[right == "graph"], graph, HIDDEN)
    if right == "graph":
        assert found is None
    else:
        np.testing.assert_array_equal(found.argmax(1), y // 2)


def test_equal_parts_are_left_as_they_are(six, monkeypatch):
    x, y, graph = six
    monkeypatch.setattr(_information, "informed", lambda *_: np.eye(3)[y // 2])
    assert informed_shares(x, y // 2, graph, HIDDEN) is None


def test_modularity_is_the_textbook_s(six):
    _, y, graph = six
    part = y // 2
    a, ends = graph.toarray(), np.asarray(graph.sum(1)).ravel()
    same = part[:, None] == part
    expected = ((a - np.outer(ends, ends) / a.sum()) * same).sum() / a.sum()
    assert modularity(part, graph) == pytest.approx(expected, rel=1e-5)


def test_the_net_s_parts_place_and_guide_the_components(counts, monkeypatch):
    """Of real values without labels; counts are left to the views they have."""
    blobs = datasets.blobs(300, 10, n_clusters=4)
    truth = blobs.obs["cluster"].cat.codes.to_numpy() % 2
    seen = []

    def net(x, part, *_):
        seen.append(part.max() + 1)
        return np.eye(2)[truth]

    monkeypatch.setattr("mixvi.train._parts.informed_shares", net)
    model = fitted("GMVAE", blobs, {}, train={"max_epochs": 40, "train_size": 1.0}, n_clusters=2)
    assert seen == [2]
    assert adjusted_rand_score(truth, model.predict()) > 0.9
    assert "smooth_train" not in model.history
    fitted("GMVAE", counts, {}, train={"max_epochs": 4}, n_clusters=2)
    blobs.obs["known"] = np.where(np.arange(blobs.n_obs) % 3, "?", blobs.obs["cluster"].astype(str))
    labelled = {"labels_key": "known", "unlabeled_category": "?"}
    fitted("GMVAE", blobs, labelled, train={"max_epochs": 4}, n_clusters=6)
    fitted("GMVAE", blobs, {}, train={"max_epochs": 4}, n_clusters=None)
    assert seen == [2]
