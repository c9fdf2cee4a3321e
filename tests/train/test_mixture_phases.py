"""A VAE at first; then its components have places, and keep their guide over runs, checkpoints and files."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from mixvi import GMVAE
from mixvi.train import MixturePhases
from tests.model.helpers import QUICK, fitted


class Watch(Callback):
    """Notes, in each epoch, whether components are placed, are free and have moved, and the guide."""

    def __init__(self):
        self.placed, self.free, self.loc, self.guides = [], [], [], []

    def on_train_epoch_end(self, trainer, plan):
        prior = plan.module.prior
        self.placed.append(bool(prior.placed))
        self.free.append(all(parameter.requires_grad for parameter in prior.component_parameters()))
        self.loc.append(prior.loc.detach().clone())
        self.guides.append(plan.guide)


def test_phases_follow_each_other(counts):
    watch = Watch()
    model = fitted("GMVAE", counts, train={"max_epochs": 6, "callbacks": [watch]})
    assert watch.placed == watch.free == [False] * 3 + [True] * 3
    assert [guide is not None for guide in watch.guides] == watch.placed
    assert (watch.loc[2] == 0).all()
    k = model.tree.clusters.tree.n_leaves
    assert (watch.loc[5][:k] != watch.loc[3][:k]).any(-1).all()  # every component learns
    assert model.module.prior.active.sum() == k
    assert all(parameter.requires_grad for parameter in model.module.prior.parameters())


def test_pretraining_ends_when_the_held_out_bound_settles(counts, monkeypatch):
    """Joint training is then as long, its learning rate falls to zero, and a given number of epochs is kept."""
    monkeypatch.setattr(GMVAE, "_max_epochs", 40)
    monkeypatch.setattr("mixvi.train._mixture_phases.MIN_PRETRAINING_STEPS", 0)
    rates = []

    class Rates(Callback):
        def on_train_epoch_end(self, trainer, plan):
            rates.append(plan.optimizers().param_groups[0]["lr"])

    watch = Watch()
    monkeypatch.setattr("mixvi.train._mixture_phases.has_settled", lambda bounds, _: len(bounds) == 5)
    model = fitted("GMVAE", counts, train={"max_epochs": None, "callbacks": [watch, Rates()]})
    assert watch.placed == [False] * 5 + [True] * 5
    assert len(model.history["elbo_train"]) == 10
    np.testing.assert_allclose(rates, 4e-3 * np.r_[np.ones(5), 1, 0.8, 0.6, 0.4, 0.2])
    assert len(fitted("GMVAE", counts, train={"max_epochs": 14}).history["elbo_train"]) == 14
    monkeypatch.setattr("mixvi.train._mixture_phases.has_settled", lambda bounds, _: len(bounds) == 3)
    model = fitted("GMVAE", counts, train={"max_epochs": None, "check_val_every_n_epoch": 2})
    assert len(model.history["elbo_train"]) == 12  # three validations take six epochs
    monkeypatch.setattr("mixvi.train._mixture_phases.has_settled", lambda *_: False)
    monkeypatch.setattr(GMVAE, "_max_epochs", 7)
    rates.clear()
    fitted("GMVAE", counts, train={"max_epochs": None, "callbacks": [Rates()]})
    np.testing.assert_allclose(rates, 4e-3 * np.array([1, 1, 1, 1, 0.75, 0.5, 0.25]))  # odd, and all of them


def test_until_then_it_is_the_vae_that_it_contains(counts):
    """The same steps, bit for bit or nearly so: components that all are N(0, I) are one."""
    train = {"max_epochs": 3, "plan_kwargs": {"n_epochs_pretrain": 3, "lr": 1e-3}}
    mixture = fitted("GMVAE", counts, train=train)
    vae = fitted("VAE", counts, train={"max_epochs": 3, "plan_kwargs": {"lr": 1e-3}})
    for term in ("elbo_train", "reconstruction_loss_train"):
        np.testing.assert_allclose(mixture.history[term].astype(float), vae.history[term].astype(float), rtol=1e-4)


def test_a_second_run_goes_on_with_the_same_guide(counts, tmp_path):
    first, second, third = Watch(), Watch(), Watch()
    model = fitted("GMVAE", counts, train={"callbacks": [first]})
    before = model.clusters_
    model.train(**QUICK | {"callbacks": [second]})
    assert all(second.placed)
    model.save(tmp_path / "model")
    again = GMVAE.load(tmp_path / "model", adata=counts, accelerator="cpu")
    again.train(**QUICK | {"callbacks": [third]})
    for watch in (second, third):
        assert all(guide is not None for guide in watch.guides)
        for now, then in zip(watch.guides[0][:2], first.guides[-1][:2], strict=True):
            torch.testing.assert_close(now, then)
    for found in (model.clusters_, again.clusters_):
        np.testing.assert_array_equal(found["part"], before["part"])
        np.testing.assert_array_equal(found["tree"]["pairs"], before["tree"]["pairs"])


def test_a_checkpoint_keeps_what_was_found(counts):
    phases, empty = MixturePhases(clusters=fitted("GMVAE", counts)._clusters()), MixturePhases()
    empty.load_state_dict(MixturePhases().state_dict())
    assert empty.clusters is None
    empty.load_state_dict(phases.state_dict())
    for kept, given in zip(empty.clusters, phases.clusters, strict=True):
        if not isinstance(given, tuple):
            np.testing.assert_equal(kept, given)
    for kept, given in zip(empty.clusters.tree, phases.clusters.tree, strict=True):
        np.testing.assert_array_equal(kept, given)


def test_without_init_there_is_one_cluster(counts, warned, tmp_path):
    model = fitted("GMVAE", counts, n_clusters=None, init=None)
    assert not model.module.prior.placed
    assert "guide_train" not in model.history
    assert (model.predict() == "0").all()
    np.testing.assert_allclose(model.predict(soft=True), 1, rtol=1e-5)
    assert (model.n_clusters, model.cluster_names) == (1, ["0"])
    model.annotate()
    model.save(tmp_path / "model")  # which looks at all members
    again = GMVAE.load(tmp_path / "model", adata=counts, accelerator="cpu")
    assert (again.predict() == "0").all()
    with pytest.raises(ValueError, match="one cluster and no tree"):
        model.tree  # noqa: B018
    assert "Training ended before" not in warned()
    fitted("GMVAE", counts, train={"max_epochs": 1, "plan_kwargs": {"n_epochs_pretrain": 5}})
    assert "Training ended before the clusters were initialised" in warned()


def test_a_users_own_phases_are_used(counts):
    own = MixturePhases(1, init=np.arange(120) % 5, guidance=2.0)
    model = fitted("GMVAE", counts, train={"callbacks": [own]}, n_clusters=None)
    assert sum(isinstance(callback, MixturePhases) for callback in model.trainer.callbacks) == 1
    assert model.n_clusters == 5
    assert own.clusters.init == model.clusters_["init"] == "array"
    assert list(model.history["guide_train"].index) == [1, 2, 3]


def test_no_guidance_leaves_it_to_the_bound(counts):
    model = fitted("GMVAE", counts, guidance=0.0)
    assert model.module.prior.placed
    assert "guide_train" not in model.history


def test_guidance_is_its_weight(counts):
    """The term of the first epoch, at a rate of nothing, is proportional to it."""
    train = {"max_epochs": 2, "train_size": 1.0, "plan_kwargs": {"lr": 1e-9}}
    terms = [
        float(fitted("GMVAE", counts, train=train, guidance=g).history["guide_train"].iloc[0, 0]) for g in (1.0, 3.0)
    ]
    assert terms[1] == pytest.approx(3 * terms[0], rel=0.1)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_confidence_is_the_share_by_two_halves_of_the_counts(counts, monkeypatch, share, caplog):
    monkeypatch.setattr("mixvi.train._mixture_phases.share_right", lambda *_: share)
    model = fitted("GMVAE", counts, train={"max_epochs": 40, "train_size": 1.0})
    confidence = model.predict(soft=True).to_numpy().max(1).mean()
    if share == 1:
        assert model.module.prior.temperature == 1
    else:
        assert confidence == pytest.approx(share, abs=1e-3)
    assert f"two halves of the counts suggest that {100 * share:.0f} % of the assignments are correct" in caplog.text


def test_held_out_labels_say_how_many_are_right(counts, monkeypatch, caplog):
    counts.obs["label"] = np.where(np.arange(120) % 3, "?", counts.obs["cluster"].astype(str))
    monkeypatch.setattr("mixvi.train._initialise.found_share", lambda *_: 0.6)
    train = {"max_epochs": 40, "train_size": 1.0}
    setup = {"labels_key": "label", "unlabeled_category": "?"}
    model = fitted("GMVAE", counts, setup, train, n_clusters=None)
    unknown = (counts.obs["label"] == "?").to_numpy()
    assert model.predict(soft=True)[unknown].to_numpy().max(1).mean() == pytest.approx(0.6, abs=1e-3)
    assert "held-out labels suggest" in caplog.text


def test_labelled_validation_cells_say_more(counts, rng):
    """Three tenths of the labels are wrong, which no one can foresee."""
    shuffled = np.where(rng.random(120) < 0.3, rng.permutation(counts.obs["cluster"]), counts.obs["cluster"])
    counts.obs["label"] = shuffled.astype(str)
    train = {"max_epochs": 150, "train_size": 0.5}
    model = fitted("GMVAE", counts, {"labels_key": "label"}, train, n_clusters=None)
    rows = model.validation_indices
    table = model.predict(indices=rows, soft=True)
    n_right = (table.idxmax(axis=1).to_numpy() == counts.obs["label"].to_numpy()[rows]).sum()
    assert model.module.prior.temperature > 1
    assert table.to_numpy().max(1).mean() == pytest.approx((n_right + 1) / (len(rows) + 2), abs=1e-3)
