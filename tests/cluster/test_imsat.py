"""A net that says most about the cells."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from torch import nn

from mixvi.cluster import imsat as module
from mixvi.cluster.imsat import imsat
from mixvi.cluster.vat import adversarial


class Features(nn.Sequential):
    """One hidden layer."""

    n_out = 32

    def __init__(self):
        super().__init__(nn.Linear(5, self.n_out), nn.BatchNorm1d(self.n_out), nn.ReLU())


def test_even_clusters_are_found_and_nothing_else_is_touched():
    x, y = make_blobs(400, 5, centers=4, cluster_std=0.5, random_state=1)
    torch.manual_seed(3)
    stream = torch.get_rng_state()
    shares = imsat(torch.from_numpy(x).float(), 4, Features)
    assert torch.equal(torch.get_rng_state(), stream)
    assert shares.shape == (400, 4)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    assert adjusted_rand_score(y, shares.argmax(1)) > 0.99


def test_the_same_seed_gives_the_same_bits(monkeypatch):
    monkeypatch.setattr(module, "MIN_STEPS", 20)
    monkeypatch.setattr(module, "MAX_STEPS_A_START", 20)
    x, shares = torch.randn(100, 5), []
    for seed in (5, 5, 6):
        torch.manual_seed(len(shares))  # the caller's stream does not matter
        shares.append(imsat(x, 3, Features, seed))
    first, second, other = shares
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.fixture
def nets():
    """Probabilities (600, 3) that are sure and even, sure and uneven, or unsure."""
    sure = torch.full((600, 3), 1e-6).scatter(1, torch.arange(600)[:, None] % 3, 1 - 2e-6)
    uneven = sure[:, [0, 1, 1]] * torch.tensor([1.0, 0.999, 0.001])
    return {"sure": sure, "uneven": uneven / uneven.sum(1, keepdim=True), "unsure": torch.full((600, 3), 1 / 3)}


@pytest.mark.parametrize(("misled", "taken"), [([], "sure"), (["sure"], "unsure"), (["sure", "unsure"], "uneven")])
def test_the_start_with_the_smallest_loss_is_kept(nets, monkeypatch, misled, taken):
    """Even and sure clusters say most, and evenness counts most; but small changes must not mislead the net."""
    given = iter([nets["uneven"], nets["unsure"], nets["sure"], nets["unsure"]])
    monkeypatch.setattr(module, "trained", lambda *_: next(given))
    monkeypatch.setattr(module, "probabilities", lambda net, _: net.numpy())
    monkeypatch.setattr(module, "_divergence", lambda net, *_: 2.0 * any(net is nets[name] for name in misled))
    np.testing.assert_array_equal(imsat(torch.zeros(600, 5), 3, Features), nets[taken].numpy())


def test_what_a_net_minimises_is_what_chooses_between_starts(monkeypatch):
    """On one batch of all cells: the same value up to the random direction from which the worst change is found."""
    x, losses = torch.randn(200, 5), []

    def untrained(x, n_parts, hidden, rng, n_steps, loss):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 3, bias=False), nn.LogSoftmax(-1))
        losses.append(loss(net).item())
        return net

    monkeypatch.setattr(module, "trained", untrained)
    monkeypatch.setattr(module, "STARTS", 1)
    p = imsat(x, 3, Features).astype(float)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 3, bias=False), nn.LogSoftmax(-1))
    mean = p.mean(0)
    information = -(p * np.log(p)).sum(1).mean() + 4 * (mean * np.log(mean)).sum()
    change = adversarial(net, net, x).item()
    assert losses[0] == pytest.approx(change + 0.1 * information, abs=0.2 * change)
    assert module._divergence(net, x, 0) == pytest.approx(change, rel=0.2)


def test_starts_are_compared_on_the_same_changes():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(5, 3), nn.LogSoftmax(-1)), torch.randn(700, 5)
    found = []
    for seed in (1, 1, 2):
        stream = torch.manual_seed(len(found)).get_state()
        with torch.no_grad():  # a caller's setting does not stop it
            found.append(module._divergence(net, x, seed))
        assert torch.equal(torch.get_rng_state(), stream)
    assert found[0] == found[1] != found[2]
