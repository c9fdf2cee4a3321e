"""Deep embedded clustering: against ClustPy on the same weights, and what it does to a model."""

import copy

import numpy as np
import pytest
import torch
from clustpy.deep.dec import _dec_compression_loss_fn, _dec_compression_value, _dec_predict
from sklearn.metrics import adjusted_rand_score

import mixvi
from mixvi import datasets
from mixvi._refine import clustering_loss, soft_assignment, target_distribution
from mixvi._warnings import MixviWarning
from mixvi.data import CellsDataset
from tests.model.helpers import build, fitted


@pytest.fixture
def blobs():
    return datasets.blobs(400, 30, n_clusters=4, seed=1)


@pytest.fixture
def model(blobs):
    return fitted("AE", blobs, train={"max_epochs": 30, "plan_kwargs": {"lr": 5e-3}})


def test_the_loss_is_that_of_clustpy_on_the_same_weights(model):
    z = torch.as_tensor(model.get_latent_representation())
    gradients, start = [], z[::100].clone()

    def gradient(loss, *of):
        return torch.autograd.grad(loss, of)

    z, ours, theirs = z.requires_grad_(), start.clone().requires_grad_(), start.clone().requires_grad_()
    q, q_theirs = soft_assignment(z, ours), _dec_predict(theirs, z, 1.0, None)
    torch.testing.assert_close(q, q_theirs)
    p = target_distribution(q).detach()
    torch.testing.assert_close(p, _dec_compression_value(q_theirs).detach())
    gradients = gradient(clustering_loss(p, q).mean(), z, ours)
    expected = gradient(_dec_compression_loss_fn(q_theirs, p), z, theirs)
    for found, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-8)


def test_clusters_are_found_and_the_model_stays_as_it_was(model, blobs):
    before = model.get_latent_representation()
    refined = mixvi.refine(model, 4, update_interval=4, progress=False)
    np.testing.assert_array_equal(model.get_latent_representation(), before)
    assert refined.model.history is not model.history
    assert adjusted_rand_score(blobs.obs["cluster"], refined.predict()) > 0.95
    sizes = [int((refined.predict() == name).sum()) for name in "0123"]
    assert sizes == sorted(sizes, reverse=True)
    assert refined.history["changed"].iloc[-1] < 0.001
    new = datasets.blobs(100, 30, n_clusters=4, seed=1)
    table = refined.predict(new, soft=True)
    assert table.shape == (100, 4)
    np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-5)


def test_row_17_weight_zero_is_the_plain_autoencoder_bit_for_bit(model):
    """Batch norm and dropout included: the pull takes part in nothing but the gradient."""
    plain = copy.deepcopy(model.module).train()
    dataset = CellsDataset(model.adata_manager, torch.device("cpu"), resident=False)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
    torch.manual_seed(0)
    for _ in range(3):
        for rows in torch.randperm(400).split(64):
            optimizer.zero_grad()
            plain.objective(plain.read(dataset[rows.numpy()])).loss.backward()
            optimizer.step()
    refined = mixvi.refine(model, 4, gamma=0.0, max_epochs=3, tol=0.0, lr=1e-3, batch_size=64, progress=False)
    for name, found in refined.model.module.state_dict().items():
        assert torch.equal(found, plain.state_dict()[name]), name
    other = mixvi.refine(model, 4, gamma=0.1, max_epochs=3, tol=0.0, lr=1e-3, batch_size=64, progress=False)
    assert not torch.equal(other.model.module.encoder.loc.weight, plain.encoder.loc.weight)


def test_clusters_are_drawn_together(model):
    def confidence(gamma):
        refined = mixvi.refine(model, 4, gamma=gamma, tol=0.0, max_epochs=40, lr=5e-3, progress=False)
        return refined.predict(soft=True).max(axis=1).mean()

    assert confidence(10.0) > confidence(1.0) > confidence(0.0)


def test_the_same_seed_gives_the_same_clusters(model):
    first, second = (mixvi.refine(model, 3, max_epochs=2, seed=4, progress=False) for _ in range(2))
    np.testing.assert_array_equal(first.centers, second.centers)
    np.testing.assert_array_equal(first.model.get_latent_representation(), second.model.get_latent_representation())


def test_it_stops_when_few_cells_change_or_says_that_they_still_do(model):
    assert len(mixvi.refine(model, 3, update_interval=2, tol=1.1, progress=False).history) == 1
    assert len(mixvi.refine(model, 3, update_interval=2, tol=1.0, progress=False).history) == 2
    with pytest.warns(MixviWarning, match="max_epochs"):
        found = mixvi.refine(model, 3, update_interval=2, tol=0.0, max_epochs=2, progress=False)
    assert len(found.history) == 2


def test_annotate_writes_what_a_mixture_writes(model, blobs):
    refined = mixvi.refine(model, 4, max_epochs=2, progress=False)
    refined.annotate()
    np.testing.assert_array_equal(blobs.obs["mixvi"], refined.predict())
    np.testing.assert_array_equal(blobs.obsm["X_mixvi"], refined.model.get_latent_representation())
    np.testing.assert_allclose(blobs.obsm["mixvi_probabilities"].max(axis=1), blobs.obs["mixvi_confidence"])
    refined.annotate()
    assert blobs.uns["mixvi"]["refined_clusters"] == 4
    assert repr(refined).startswith(f"Refined {type(model).__name__}: 4 clusters")


def test_what_cannot_be_refined_is_refused(model, blobs):
    with pytest.raises(ValueError, match="takes a trained AE, VAE or CVAE"):
        mixvi.refine(fitted("GMVAE", blobs), 3)
    for wrong in (1, 401, 2.5):
        with pytest.raises(ValueError, match="whole number between 2 and 400"):
            mixvi.refine(model, wrong)
    for wrong in ({"gamma": -1.0}, {"batch_size": 1}, {"max_epochs": 0}, {"update_interval": 0}, {"lr": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}=.*; it must be a"):
            mixvi.refine(model, 3, **wrong)
    with pytest.raises(RuntimeError, match="not trained"):
        mixvi.refine(build("VAE", blobs), 3)
