"""A net that says most about the cells."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from torch import nn

from mixvi.cluster import imsat as module
from mixvi.cluster.imsat import _judged, _loss, imsat
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


@pytest.fixture
def quick(monkeypatch):
    """A fifth of the steps. Their least number is a constant, with which these tests would take minutes."""
    monkeypatch.setattr(module, "MIN_STEPS", 100)
    monkeypatch.setattr(module, "MAX_STEPS_A_START", 100)


def test_the_same_seed_gives_the_same_bits(quick):
    x, shares = torch.randn(100, 5), []
    for seed in (5, 5, 6):
        torch.manual_seed(len(shares))  # the caller's stream does not matter
        shares.append(imsat(x, 3, Features, seed))
    first, second, other = shares
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("good", [0, 3])
def test_the_start_with_the_smallest_loss_is_kept(quick, good):
    """All others are blind: they cannot tell one cell from another."""
    x, y = make_blobs(400, 5, centers=4, cluster_std=0.5, random_state=1)
    made = []

    def hidden():
        made.append(Features())
        if len(made) - 1 != good:
            made[-1].insert(0, nn.Threshold(torch.inf, 0.0))
        return made[-1]

    shares = imsat(torch.from_numpy(x).float(), 4, hidden)
    assert len(made) == 4
    assert adjusted_rand_score(y, shares.argmax(1)) > 0.5  # of a blind one: 0


class Waves(nn.Module):
    """Cell x belongs to class x mod 3, as surely as the scale is large, or to 0 or 1 if it is uneven."""

    def __init__(self, scale, uneven=False):
        super().__init__()
        self.scale, self.uneven = scale, uneven

    def forward(self, x):
        logits = (2 * torch.pi / 3 * (x - torch.arange(3))).cos()
        if self.uneven:
            logits = torch.cat([logits[:, :1], torch.full_like(x, 0.25), torch.full_like(x, -9.0)], 1)
        return (self.scale * logits).log_softmax(-1)


def test_even_and_sure_clusters_that_small_changes_do_not_mislead_are_best():
    """Evenness counts most. Cells are at whole numbers, small changes go up to 0.25, and borders are at 0.5."""
    x = torch.arange(600.0)[:, None]
    sure, unsure, uneven = Waves(100.0), Waves(0.0), Waves(100.0, uneven=True)
    worth = [_judged(net, x, 0) for net in (sure, unsure, uneven)]
    size = np.log(3), np.log(3), np.log(3) - 2 / 3 * np.log(2)
    np.testing.assert_allclose(worth, [-0.4 * size[0], 0.1 * np.log(3) - 0.4 * size[1], -0.4 * size[2]], atol=1e-3)
    assert worth == sorted(worth)
    assert _judged(sure, x + 0.3, 0) > 1


def test_what_a_net_minimises_is_what_chooses_between_starts():
    """On one batch of all cells: the same value up to the random direction from which the worst change is found."""
    torch.manual_seed(0)
    x, net = torch.randn(200, 5), nn.Sequential(nn.Linear(5, 3, bias=False), nn.LogSoftmax(-1))
    p = net(x).detach().exp().numpy().astype(float)
    mean = p.mean(0)
    information = -(p * np.log(p)).sum(1).mean() + 4 * (mean * np.log(mean)).sum()
    change = adversarial(net, net, x).item()
    for found in (_loss(net, x, np.random.default_rng(0)).item(), _judged(net, x, 0)):
        assert found == pytest.approx(change + 0.1 * information, abs=0.2 * change)


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
