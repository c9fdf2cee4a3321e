"""What the components start from: what is looked at, who has the last word, and the M-step of a mixture."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from mixvi.consensus import Placed
from mixvi.module._elbo import Layout
from mixvi.module._gmvae import GMVAEModule
from mixvi.module.likelihoods import LIKELIHOODS
from mixvi.module.mixtures import GaussianMixture
from mixvi.module.nets import Hidden, Trunk
from mixvi.train import _parts
from mixvi.train._parts import Parts, Seen, find_parts, look
from mixvi.train._smooth import Learned

N, G, D, K = 60, 8, 3, 3
SHARE_FOUND = 0.77  # of all labels, by the graph


def looked_at(rng, likelihood="nb", n_conditions=0, n_labels=2):
    """What is seen of cells of a module, the first twenty of them labelled; and the module and the cells."""
    layout = Layout(G, batch_levels=n_conditions, n_labels=n_labels)
    module = GMVAEModule(layout, LIKELIHOODS[likelihood], K, D, Hidden(8, 1, 0.0)).eval()
    label = np.where(np.arange(N) < 20, np.arange(N) % 2, 2)[:, None]
    tensors = {"X": rng.poisson(2.0, (N, G)), "labels": label, "batch": rng.integers(max(n_conditions, 1), size=(N, 1))}
    cells = module.read({key: torch.as_tensor(value).float() for key, value in tensors.items()})
    with torch.no_grad():
        return look(module, N, lambda of: list(of(cells))), module, cells


def test_what_is_looked_at(rng):
    seen, module, cells = looked_at(rng)
    torch.testing.assert_close(seen.loc, module.encode(cells).loc)
    np.testing.assert_array_equal(seen.labels, np.where(np.arange(N) < 20, np.arange(N) % 2, -1))
    np.testing.assert_array_equal(seen.counts.toarray(), cells.x)
    torch.testing.assert_close(seen.values, cells.seen)
    assert seen.is_count


@pytest.mark.parametrize(("likelihood", "n_conditions"), [("nb", 2), ("normal", 0)])
def test_counts_are_looked_at_where_they_are_counts_and_no_condition_shifts_them(rng, likelihood, n_conditions):
    seen, *_ = looked_at(rng, likelihood, n_conditions)
    assert seen.counts is None
    assert seen.values.shape == (N, G)
    assert seen.is_count == (likelihood == "nb")


def test_too_many_values_are_not_looked_at(rng, monkeypatch):
    monkeypatch.setattr(_parts, "MAX_VALUES", N * G - 1)
    seen, *_ = looked_at(rng)
    assert seen.counts is None
    assert seen.values is None


def test_moments_are_those_of_a_mixture_of_normals(rng):
    """Mean and variance of draws from the posteriors of a part; a class without cells stands for all."""
    part = np.repeat([0, 1, 3, -1], 15)
    loc, variance = (torch.as_tensor(values) for values in (rng.normal(size=(N, D)), rng.random((N, D))))
    mean, scale, weight = Parts(part, np.zeros((N, 4)), None, None).moments(loc, variance)
    assert weight.tolist() == [0.25, 0.25, 1.0, 0.25]
    draws = loc + variance.sqrt() * torch.as_tensor(rng.normal(size=(20_000, N, D)))
    for k, cells in enumerate((part == 0, part == 1, part > -2, part == 3)):
        of_part = draws[:, torch.as_tensor(cells)].reshape(-1, D)
        torch.testing.assert_close(mean[k], of_part.mean(0), atol=0.02, rtol=0)
        torch.testing.assert_close(scale[k], of_part.std(0), atol=0.02, rtol=0)


@pytest.fixture
def placing(monkeypatch):
    """Three parts by the graph, and two other partitions that agree on 0.8 and 0.6 of the cells."""
    part = np.arange(N) % K
    others = [np.where(np.arange(N) < n_off, (part + 1) % K, part) for n_off in (12, 24)]
    monkeypatch.setattr(_parts, "place", lambda *_: Placed(part.copy(), csr_matrix((N, N)), others, SHARE_FOUND))
    return part


def seen_of(rng, labels, is_count=True):
    return Seen(torch.zeros(N, D), labels, None, torch.as_tensor(rng.normal(size=(N, G))), is_count)


def placed(seen, n_labels, guided=True):
    return find_parts(
        seen, Layout(G, n_labels=n_labels), GaussianMixture(K, D), Trunk(G, 0, Hidden(8, 1, 0.0)), guided, 0
    )


def test_without_labels_other_partitions_say_how_far_to_trust_it(rng, placing):
    parts = placed(seen_of(rng, np.full(N, -1)), 0)
    np.testing.assert_array_equal(parts.of, placing)
    assert parts.accuracy == pytest.approx(0.7)
    assert parts.trunk is None


def test_a_net_that_draws_its_own_borders_is_compared_with_all(rng, placing, monkeypatch):
    moved = np.where(np.arange(N) < 6, (placing + 1) % K, placing)
    monkeypatch.setattr(_parts, "informed_shares", lambda *_: np.eye(K)[moved])
    parts = placed(seen_of(rng, np.full(N, -1), is_count=False), 0)
    np.testing.assert_array_equal(parts.of, moved)
    assert parts.accuracy == pytest.approx((0.9 + 0.7 + 0.9) / 3)  # the graph's own parts are another partition now


def test_of_few_labels_all_are_asked_on_the_graph(rng, placing, monkeypatch):
    monkeypatch.setattr(_parts, "learn_classes", lambda *_: (None, 0.9))
    seen = seen_of(rng, np.where(np.arange(N) < 20, 2, -1))
    assert placed(seen, K).accuracy == SHARE_FOUND
    monkeypatch.setattr(_parts, "ENOUGH", 5)
    assert placed(seen, K).accuracy == SHARE_FOUND
    monkeypatch.setattr(_parts, "ENOUGH", 4)  # a fifth of the labels
    assert placed(seen, K).accuracy == 0.9


@pytest.mark.parametrize("guided", [True, False])
def test_labels_have_the_last_word_and_nets_guide(rng, placing, monkeypatch, guided):
    labels = np.where(np.arange(N) < 20, 2, -1)
    asked = []

    def learned(evidence, *_):
        asked.append(evidence)
        return Learned(np.tile(np.float32([0.6, 0.3, 0.1]), (N, 1)), {"a": torch.zeros(1)}) if guided else None, 0.9

    monkeypatch.setattr(_parts, "learn_classes", learned)
    monkeypatch.setattr(_parts, "ENOUGH", 4)
    parts = placed(seen_of(rng, labels), K, guided)
    assert (asked[0].x is not None) == guided
    assert (parts.trunk is not None) == guided
    np.testing.assert_array_equal(parts.of, np.where(labels == 2, 2, 0 if guided else placing))
    np.testing.assert_array_equal(parts.shares[:20], np.eye(K)[labels[:20]])
    np.testing.assert_allclose(parts.shares[20:], [[0.6, 0.3, 0.1]] * 40 if guided else np.eye(K)[placing[20:]])
    assert parts.accuracy == 0.9
