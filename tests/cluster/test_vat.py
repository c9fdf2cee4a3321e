"""Nets that small changes do not mislead, and how they choose between labels alone and a guess."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.datasets import make_blobs
from torch import nn
from torch.nn.functional import log_softmax
from torch.optim.optimizer import register_optimizer_step_post_hook

from mixvi.cluster import vat
from mixvi.cluster.label_spreading import held_out
from mixvi.cluster.vat import RADIUS, Net, adversarial, cross_fit, learn_classes, probabilities, trained


class Features(nn.Sequential):
    """One hidden layer."""

    n_out = 16

    def __init__(self):
        super().__init__(nn.Linear(5, self.n_out), nn.BatchNorm1d(self.n_out), nn.ReLU(), nn.Dropout(0.1))


@pytest.fixture
def quick(monkeypatch):
    """A tenth of the steps. Their least number is a constant, with which these tests would take minutes."""
    monkeypatch.setattr(vat, "MIN_STEPS", 50)


@pytest.fixture(scope="module")
def two():
    """Two blobs (400, 5), the blob of each cell, and labels for one cell in twenty."""
    x, y = make_blobs(400, 5, centers=2, cluster_std=1.5, random_state=1)
    return torch.from_numpy(x).float(), y, np.where(np.arange(400) % 20, -1, y)


UNKNOWN = np.full(400, -1)


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


def test_its_gradient_is_that_of_the_changed_cells_alone():
    """p(y | x) is held fixed: with respect to the bias, the gradient of the mean KL is the mean of q - p."""
    torch.manual_seed(0)
    net, x, seen = nn.Linear(5, 3).double(), torch.randn(30, 5, dtype=torch.float64), []

    def log_p(cells):
        seen.append(log_softmax(net(cells), -1))
        return seen[-1]

    adversarial(log_p, net, x).backward()
    p, _, q = (log.detach().exp() for log in seen)
    torch.testing.assert_close(net.bias.grad, (q - p).mean(0))
    assert net.bias.grad.abs().max() > 0


def test_running_means_take_no_note_and_nothing_drops_out():
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    adversarial(lambda x: log_softmax(net(x), -1), net, torch.randn(20, 5))
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    alike = torch.zeros(20, 5)  # without dropout nothing differs, and changes have no length
    assert adversarial(lambda x: log_softmax(net(x), -1), net, alike) == 0
    assert net[2].p == 0.5
    net(torch.randn(20, 5))
    assert not torch.equal(net[1].running_mean, before["1.running_mean"])


def test_running_means_are_kept_even_where_the_net_fails():
    net = nn.Sequential(nn.BatchNorm1d(5), nn.Dropout(0.5))

    def fails(x):
        raise RuntimeError("in the net")

    with pytest.raises(RuntimeError, match="in the net"):
        adversarial(fails, net, torch.randn(20, 5))
    assert net[0].track_running_stats
    assert net[1].p == 0.5


def test_labels_and_guess_are_learned_and_nothing_else_is_touched(two):
    x, y, labels = two
    wrong = np.where(np.arange(400) % 10 == 3, 1 - y, y)  # a tenth of the guess
    torch.manual_seed(3)
    stream = torch.get_rng_state()
    shares, state = cross_fit(x, labels, wrong, 2, hidden=Features, is_count=False)
    assert torch.equal(torch.get_rng_state(), stream)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    assert (shares.argmax(1) == y).mean() > 0.97
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in Features().state_dict().items()
    }


def test_the_same_seed_gives_the_same_bits(two, quick):
    x, y, labels = two
    shares = []
    for seed in (5, 5, 6):
        torch.manual_seed(len(shares))  # the caller's stream does not matter
        shares.append(cross_fit(x, labels, y, 2, hidden=Features, is_count=True, seed=seed)[0])
    first, second, other = shares
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_one_label_a_class_is_enough_beside_a_rough_guess(two, quick):
    """A guess that is wrong for a fifth of the cells is corrected, as it is not learned by heart."""
    x, y, _ = two
    labels, rng = UNKNOWN.copy(), np.random.default_rng(0)
    labels[[np.flatnonzero(y == k)[0] for k in (0, 1)]] = 0, 1
    rough = np.where(rng.random(400) < 0.2, 1 - y, y)
    shares, _ = cross_fit(x, labels, rough, 2, hidden=Features, is_count=True)
    assert (rough == y).mean() < 0.85
    assert (shares.argmax(1) == y).mean() > 0.95


def test_nets_are_sure_of_single_cells_but_not_of_counts(two):
    x, _, labels = two
    sure, counted = (
        cross_fit(x, labels, UNKNOWN, 2, hidden=Features, is_count=is_count)[0] for is_count in (False, True)
    )
    assert entropy(sure, axis=1).mean() < 0.8 * entropy(counted, axis=1).mean()


class Memory(nn.Sequential):
    """A hidden layer that can learn cells without structure by heart."""

    n_out = 64

    def __init__(self):
        super().__init__(nn.Linear(200, self.n_out), nn.ReLU())


@pytest.fixture(scope="module")
def noise():
    """Cells without structure (400, 200), and one of two classes for each, by chance."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(400, 200, generator=generator), np.random.default_rng(0).integers(2, size=400)


def test_nets_speak_of_cells_whose_guess_they_have_not_seen(noise):
    """A net learns a guess by chance by heart, but not for the cells it is asked."""
    x, chance = noise

    def right(labels, guess):
        return (cross_fit(x, labels, guess, 2, hidden=Memory, is_count=True)[0].argmax(1) == chance).mean()

    assert right(UNKNOWN, chance) < 0.6
    assert right(chance, UNKNOWN) > 0.95  # labels are seen by each net


def test_held_out_labels_are_not_seen(noise):
    """Neither as labels nor as part of a guess: if they were, a net that learns by heart would find them all."""
    x, chance = noise
    labels = np.where(np.arange(400) % 4, chance, -1)
    learned = learn_classes(x, labels, chance, 2, Memory, is_count=True)
    assert learned.accuracy < 0.8  # 60 labels are held out: 4.6 standard errors above chance
    assert (learned.shares.argmax(1) == chance)[labels >= 0].mean() > 0.95  # in the end each label is used


class Nothing(nn.Identity):
    """No hidden layer."""

    n_out = 1


@pytest.mark.parametrize(("n", "share", "n_steps"), [(400, 1.0, 500), (12_800, 1.0, 1000), (100_000, 0.1, 470)])
def test_a_trial_takes_a_share_of_the_steps(n, share, n_steps):
    taken, unknown = [], np.full(n, -1)
    counter = register_optimizer_step_post_hook(lambda *_: taken.append(1))
    try:
        cross_fit(torch.zeros(n, 1), unknown, unknown, 2, hidden=Nothing, is_count=True, share=share)
    finally:
        counter.remove()
    assert len(taken) == n_steps


def test_a_net_is_the_mean_of_its_last_steps():
    """Weights that move by Adam's rate in each step, down a constant slope: 0.001 in the first half, then less and
    less, so that they have gone 0.75 n steps in the end and the mean lags behind by little."""
    x, n_steps = torch.randn(50, 5), 200
    start = []

    def hidden():
        features = nn.Linear(5, 3)
        features.n_out = 3
        start.append(features.weight.detach().clone())
        return features

    net = trained(x, 2, hidden, np.random.default_rng(0), n_steps, lambda net: net.hidden.weight.sum())
    moved = (start[0] - net.hidden.weight.detach()) / vat.LEARNING_RATE
    rates = np.minimum(1, 2 - 2 * np.arange(n_steps) / n_steps)
    mean, place = None, 0.0
    for step, rate in enumerate(rates):
        place += rate
        kept = min(1 - 1 / (0.1 * n_steps), (step + 1) / (step + 10))
        mean = place if step == 0 else kept * mean + (1 - kept) * place
    torch.testing.assert_close(moved, torch.full((3, 5), mean), rtol=1e-3, atol=0)
    assert 0.95 * rates.sum() < mean < rates.sum()
    assert not net.training


def test_batch_norms_know_the_mean_of_all_cells(two):
    x, _, _ = two
    net = trained(x, 2, Features, np.random.default_rng(0), 20, lambda net: -net(x)[:, 0].mean())
    torch.testing.assert_close(net.hidden[1].running_mean, net.hidden[0](x).mean(0), rtol=1e-4, atol=1e-4)


def test_probabilities_are_those_of_the_net_in_any_number_of_batches(two):
    x, _, _ = two
    net = Net(Features(), 3).eval()
    assert len(x) > vat.BATCH_SIZE
    np.testing.assert_allclose(probabilities(net, x), net(x).detach().exp().numpy(), rtol=1e-5)


@pytest.mark.parametrize(("name", "is_guided"), [("right", True), ("wrong", False), ("new part", True)])
def test_held_out_labels_choose_whether_to_use_the_guess(two, quick, name, is_guided):
    """In a tie, and if there are parts beyond the classes, the guess is used."""
    x, y, _ = two
    labels = np.where(np.arange(400) % 5, -1, y)
    new = np.where(np.arange(400) < 100, 2, 1 - y)
    guess = {"right": y, "wrong": 1 - y, "new part": new}[name]
    seen = []

    def guess_of(rest):
        seen.append(rest)
        return guess

    learned = learn_classes(x, labels, guess, 2, Features, is_count=True, guess_of=guess_of)
    (rest,), (out, *_) = seen, held_out(labels)
    np.testing.assert_array_equal(np.flatnonzero(rest != labels), out)
    assert (rest[out] == -1).all()
    used = guess if is_guided else UNKNOWN
    expected, state = cross_fit(x, labels, used, guess.max() + 1, hidden=Features, is_count=True)
    np.testing.assert_array_equal(learned.shares, expected)
    torch.testing.assert_close(learned.state, state, rtol=0, atol=0)
    assert (learned.accuracy > 0.9) == (name != "new part")  # of which labels alone know nothing


@pytest.mark.parametrize("n_labels", [0, 3, 400])
def test_without_labels_to_hold_out_the_guess_is_used(two, quick, n_labels):
    """With three labels or none, all of one class, only the guess knows the other class."""
    x, y, _ = two
    labels = UNKNOWN.copy()
    rows = np.argsort(y, kind="stable")[:n_labels]
    labels[rows] = y[rows]
    learned = learn_classes(x, labels, y, 2, Features, is_count=True)
    assert learned.accuracy is None
    assert (learned.shares.argmax(1) == y).mean() > 0.85


def test_the_only_label_of_a_class_is_not_held_out_and_no_part_of_the_guess_is_lost(two):
    x, y, labels = two
    rare, guess, seen = labels.copy(), y.copy(), []
    rare[1] = 2
    guess[[1, 2, 3]] = 2
    guess[4] = 3  # one net alone learns of it, and is not asked for it
    guess[7:9] = -1

    def guess_of(rest):
        seen.append(rest)
        return guess

    shares = learn_classes(x, rare, guess, 3, Features, is_count=True, guess_of=guess_of).shares
    assert [(rest == 2).sum() for rest in seen] == [1]
    fitted, _ = cross_fit(x, rare, guess, 4, hidden=Features, is_count=True)
    kept = np.setdiff1d(np.arange(4), fitted.argmax(1))
    assert len(kept), "the nets lose no part here"
    found = shares.argmax(1)
    np.testing.assert_array_equal(found[np.isin(guess, kept)], guess[np.isin(guess, kept)])
    np.testing.assert_array_equal(found[~np.isin(guess, kept)], fitted.argmax(1)[~np.isin(guess, kept)])
