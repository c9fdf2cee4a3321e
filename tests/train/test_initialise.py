"""Each named choice of ``init``, and the M-step that components start from."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

from mixvi import datasets
from mixvi.cluster import Partition, agglomerate, imsat, vat
from mixvi.train._initialise import Wanted, _moments
from tests.model.helpers import fitted

LONG = {"max_epochs": 100, "batch_size": 32}


@pytest.fixture
def real():
    return datasets.blobs(200, 10, n_clusters=3)


def leaves_of(model):
    """Leaf of each cell that was partitioned, and rows."""
    clusters = model._clusters()
    return clusters.part, clusters.rows


def test_moments_are_those_of_a_mixture_of_normals(rng):
    """Mean and variance of draws from the posteriors of a part; a class without cells stands for all."""
    n, d = 60, 3
    part = np.repeat([0, 1, 3, -1], 15)
    loc, variance = (torch.as_tensor(values) for values in (rng.normal(size=(n, d)), rng.random((n, d))))
    graph = csr_matrix((n, n))
    partition = Partition(part, np.zeros((n, 4)), graph, agglomerate(part, graph), {})
    mean, scale, weight = _moments(partition, loc, variance)
    assert weight.tolist() == [0.25, 0.25, 1.0, 0.25]
    draws = loc + variance.sqrt() * torch.as_tensor(rng.normal(size=(20_000, n, d)))
    for k, cells in enumerate((part == 0, part == 1, part > -2, part == 3)):
        of_part = draws[:, torch.as_tensor(cells)].reshape(-1, d)
        torch.testing.assert_close(mean[k], of_part.mean(0), atol=0.02, rtol=0)
        torch.testing.assert_close(scale[k], of_part.std(0), atol=0.02, rtol=0)


def test_choices_have_names():
    assert Wanted("n2d").name == "n2d"
    assert Wanted(np.zeros(3)).name == "array"
    assert Wanted(len).name == "len"


def test_parts_that_are_given_are_the_leaves(counts):
    """As an array, as a column, as a function; all of them are clusters, and nothing of their worth is said."""
    given = counts.obs["cluster"]
    for init in (given.to_numpy(), given.astype(str).tolist(), "cluster"):
        model = fitted("GMVAE", counts, train=LONG, n_clusters=None, init=init)
        part, rows = leaves_of(model)
        assert adjusted_rand_score(given.iloc[rows], part) == 1
        assert model.n_clusters == 3
        assert np.isnan(model.tree.table["worth"]).all()
        assert adjusted_rand_score(given, model.predict()) > 0.9


def test_a_function_sees_latent_means(counts):
    seen = []

    def halves(z):
        seen.append(z)
        return z[:, 0] > np.median(z[:, 0])

    model = fitted("GMVAE", counts, train={"train_size": 1.0}, n_clusters=None, init=halves)
    assert [z.shape for z in seen] == [(120, 3)]
    assert model._clusters().init == "halves"
    part, _ = leaves_of(model)
    assert adjusted_rand_score(halves(seen[0]), part) == 1
    with pytest.raises(ValueError, match=r"init=<lambda> gave an array of shape \(3,\); it must give one part"):
        fitted("GMVAE", counts, init=lambda z: [0, 1, 2], n_clusters=None)


def test_n2d(real):
    model = fitted("GMVAE", real, train=LONG, init="n2d")
    part, rows = leaves_of(model)
    assert model.n_clusters == 3
    assert adjusted_rand_score(real.obs["cluster"].iloc[rows], part) > 0.95
    assert adjusted_rand_score(real.obs["cluster"], model.predict()) > 0.95


def test_imsat(real, monkeypatch):
    monkeypatch.setattr(imsat, "STARTS", 1)
    monkeypatch.setattr(imsat, "MIN_STEPS", 300)
    real.obs["batch"] = (np.arange(200) % 2).astype(str)
    for setup in ({}, {"batch_key": "batch"}):
        model = fitted("GMVAE", real, setup, train=LONG, init="imsat")
        part, rows = leaves_of(model)
        assert adjusted_rand_score(real.obs["cluster"].iloc[rows], part) > 0.95
        assert "smooth_train" not in model.history


@pytest.fixture
def labelled(counts):
    counts.obs["label"] = np.where(np.arange(120) % 3, "?", counts.obs["cluster"].astype(str))
    return counts, {"labels_key": "label", "unlabeled_category": "?"}


def test_vat_learns_from_labels_and_stays_outside_the_bound(labelled, monkeypatch):
    monkeypatch.setattr(vat, "MIN_STEPS", 100)
    cells, setup = labelled
    model = fitted("GMVAE", cells, setup, LONG, n_clusters=None, init="vat")
    history = {key: values.to_numpy(dtype=float).ravel() for key, values in model.history.items()}
    assert (history["smooth_train"] >= 0).all()
    assert "smooth_validation" not in history
    whole = sum(history[f"{term}_train"] for term in ("reconstruction_loss", "kl_z", "kl_y"))
    np.testing.assert_allclose(history["elbo_train"], whole, rtol=1e-5)
    unknown = (cells.obs["label"] == "?").to_numpy()
    assert (model.predict()[unknown] == cells.obs["cluster"][unknown]).mean() > 0.95
    assert "smooth_train" not in fitted("GMVAE", cells, setup, n_clusters=None).history


def test_the_encoder_goes_on_from_the_net(labelled, monkeypatch):
    """Its hidden layers are those of the net, and the learning rate falls as theirs did.

    A stand-in gives the weights, because those of a real net are not kept.
    """
    cells, setup = labelled
    given = []

    def net(x, labels, guess, n_classes, hidden, **_):
        state = {name: value + 0.1 for name, value in hidden().state_dict().items() if value.is_floating_point()}
        given.append(state)
        return vat.Learned(np.eye(n_classes, dtype=np.float32)[np.arange(120) % n_classes], state, 0.9)

    monkeypatch.setattr(vat, "learn_classes", net)
    train = {"max_epochs": 6, "train_size": 1.0, "plan_kwargs": {"lr": 1e-9}}
    model = fitted("GMVAE", cells, setup | {"batch_key": "condition"}, train, n_clusters=None, init="vat")
    rates = [group["lr"] for group in model.trainer.optimizers[0].param_groups]
    np.testing.assert_allclose(rates, 1e-9 / 3)  # in the last of three epochs
    steps = {int(state["step"]) for state in model.trainer.optimizers[0].state.values()}
    assert steps == {3}  # of the optimizer since then; what it did before is forgotten
    found = model.module.encoder.trunk.state_dict()
    for name, value in given[0].items():
        if "running" not in name:
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


def test_a_net_does_not_overrule_labels(labelled, monkeypatch):
    """A real net learns the labels, so that a stand-in contradicts them."""
    cells, setup = labelled

    def always_first(x, labels, guess, n_classes, hidden, **_):
        return vat.Learned(np.eye(n_classes)[np.zeros(len(labels), int)], hidden().state_dict(), 0.5)

    monkeypatch.setattr(vat, "learn_classes", always_first)
    model = fitted("GMVAE", cells, setup, {"max_epochs": 2, "train_size": 1.0}, n_clusters=None, init="vat")
    part, _ = leaves_of(model)
    known = (cells.obs["label"] != "?").to_numpy()
    np.testing.assert_array_equal(np.array(model._classes())[part[known]], cells.obs["label"][known])
    assert (part[~known] == 0).all()
    assert model._clusters().accuracy == 0.5


def test_nets_see_like_cells_of_two_batches_as_like(monkeypatch):
    """What conditions add is taken off: the batch no longer tells, in the middle of a cluster.

    A stand-in notes what nets read, which nothing else shows.
    """
    cells = datasets.blobs(300, 30, n_clusters=2, n_conditions=2, kind="count")
    batch, blob = (cells.obs[key].cat.codes.to_numpy() for key in ("condition", "cluster"))
    cells.obs["label"] = np.where(np.arange(300) % 3, "?", cells.obs["cluster"].astype(str))
    seen = []

    def net(x, labels, guess, n_classes, hidden, **_):
        seen.append(x)
        return vat.Learned(np.eye(n_classes)[guess], hidden().state_dict(), None)

    monkeypatch.setattr(vat, "learn_classes", net)
    setup = {"labels_key": "label", "unlabeled_category": "?", "batch_key": "condition"}
    model = fitted("GMVAE", cells, setup, {"max_epochs": 2, "train_size": 1.0}, n_clusters=2, init="vat")
    assert seen[0].shape == cells.shape

    def apart(x):
        return np.mean(
            [np.linalg.norm(np.subtract(*(x[(batch == b) & (blob == k)].mean(0) for b in (0, 1)))) for k in (0, 1)]
        )

    raw = model.module.likelihood.prepare(torch.as_tensor(cells.X, dtype=torch.float32))
    assert apart(seen[0].numpy()) < 0.3 * apart(raw.numpy())
