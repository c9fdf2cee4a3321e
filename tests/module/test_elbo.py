"""The bound: reading a minibatch, and the loss that training descends."""

import numpy as np
import pytest
import torch
from scvi import REGISTRY_KEYS

from mixvi.module import AEModule, Cells, CVAEModule, GMVAEModule, Layout, VAEModule
from mixvi.module.likelihoods import NegativeBinomial, Normal
from mixvi.module.nets import Hidden
from tests.module.bounds import HIDDEN, D, G, N, negative_elbo, ready


def test_read_builds_every_part_of_the_conditions(tensors):
    layout = Layout(G, batch_levels=2, covariate_levels=(3, 2), n_continuous=2, n_labels=3)
    cells = ready(VAEModule(layout, NegativeBinomial, D, HIDDEN)).read(tensors)
    assert layout.n_conditions == cells.c.shape[1] == 2 + 3 + 2 + 2
    batch, first, second, continuous = cells.c.split([2, 3, 2, 2], dim=-1)
    np.testing.assert_array_equal(batch.argmax(-1), np.arange(N) % 2)
    np.testing.assert_array_equal(first.argmax(-1), np.arange(N) % 3)
    np.testing.assert_array_equal(second.argmax(-1), np.arange(N) % 2)
    torch.testing.assert_close(continuous, tensors[REGISTRY_KEYS.CONT_COVS_KEY].double())
    np.testing.assert_array_equal(cells.y.sum(-1), [1, 1, 1, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(cells.y[[0, 1, 2]].argmax(-1), [0, 1, 2])
    torch.testing.assert_close(cells.library, cells.x.sum(-1, keepdim=True))
    torch.testing.assert_close(cells.seen, cells.x.log1p())


def test_nothing_registered_is_width_zero(tensors):
    cells = ready(VAEModule(Layout(G), NegativeBinomial, D, HIDDEN)).read(tensors)
    assert cells.c.shape == (N, 0)
    assert cells.y.shape == (N, 0)


def test_a_size_factor_replaces_the_total(tensors):
    tensors[REGISTRY_KEYS.SIZE_FACTOR_KEY] = torch.rand(N, 1)
    cells = ready(VAEModule(Layout(G, size_factor=True), NegativeBinomial, D, HIDDEN)).read(tensors)
    torch.testing.assert_close(cells.library, tensors[REGISTRY_KEYS.SIZE_FACTOR_KEY].double())


@pytest.mark.parametrize("cls", [AEModule, VAEModule])
def test_minified_cells_have_the_posterior_that_was_stored(tensors, cls):
    """The encoder sees zeros then, so all but the stored moments and the total is unknown."""
    module = ready(cls(Layout(G), NegativeBinomial, D, HIDDEN))
    cells = module.read(tensors)
    assert cells.stored.shape == (N, 0)
    qz, x = module.encode(cells), tensors[REGISTRY_KEYS.X_KEY]
    small = module.read({
        REGISTRY_KEYS.X_KEY: torch.zeros_like(x),
        REGISTRY_KEYS.LATENT_QZM_KEY: qz.loc, REGISTRY_KEYS.LATENT_QZV_KEY: qz.scale**2,
        REGISTRY_KEYS.OBSERVED_LIB_SIZE: x.sum(1, keepdim=True),
    })  # fmt: skip
    again = module.encode(small)
    assert type(again) is type(qz)
    torch.testing.assert_close(again.loc, qz.loc)
    torch.testing.assert_close(again.scale, qz.scale)
    torch.testing.assert_close(module.decode(again.loc, small).mean, module.decode(qz.loc, cells).mean)


def test_weight_scales_annealed_terms_only(tensors):
    layout = Layout(G, n_labels=3)
    module = ready(GMVAEModule(layout, NegativeBinomial, 4, D, HIDDEN))
    module.prior.place(torch.randn(4, D), torch.rand(4, D) + 0.5, torch.full((4,), 0.25))
    losses = {}
    for weight in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        losses[weight] = module(tensors, loss_kwargs={"kl_weight": weight})[2]
    out = losses[1.0]
    kl = sum(out.kl_local.values()).mean()
    assert set(out.kl_local) == {"kl_z", "kl_y"}
    torch.testing.assert_close(losses[1.0].loss - losses[0.0].loss, kl)
    torch.testing.assert_close(losses[0.5].loss - losses[0.0].loss, kl / 2)
    reconstruction = out.reconstruction_loss["reconstruction_loss"].mean()
    torch.testing.assert_close(losses[0.0].loss, reconstruction + out.extra_metrics["label"])


@pytest.mark.parametrize("n_samples", [1, 6])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_what_training_descends_is_the_bound(tensors, n_samples, weight):
    """Value and gradient of `objective` against the bound written out at the same draws of z."""
    module = ready(CVAEModule(Layout(G, batch_levels=2), NegativeBinomial, D, HIDDEN))
    cells = module.read(tensors)
    parameters = list(module.parameters())
    torch.manual_seed(0)
    loss = module.objective(cells, n_samples, kl_weight=weight).loss
    torch.manual_seed(0)
    qz = module.encode(cells)
    z = qz.rsample() if n_samples == 1 else qz.rsample((n_samples,))
    log_px = module.decode(z, cells).log_prob(cells.x).sum(-1)
    pz = torch.distributions.Normal(torch.zeros(D).double(), 1)
    if n_samples == 1:
        bound = log_px - weight * torch.distributions.kl_divergence(qz, pz).sum(-1)
    else:
        log_w = log_px + weight * (pz.log_prob(z) - qz.log_prob(z)).sum(-1)
        bound = log_w.exp().mean(0).log()
    torch.testing.assert_close(loss, -bound.mean())
    for a, b in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(-bound.mean(), parameters), strict=True):
        torch.testing.assert_close(a, b)


def test_prior_of_the_weights_counts_once_for_all_cells(tensors):
    module = ready(GMVAEModule(Layout(G), NegativeBinomial, 3, D, HIDDEN, concentration=2.0))
    with torch.no_grad():
        module.prior.logits.copy_(torch.tensor([0.0, 1.0, 2.0]))
    losses = []
    for n_obs in (1, 100):
        torch.manual_seed(0)
        losses.append(module(tensors, loss_kwargs={"n_obs": n_obs})[2].loss)
    torch.testing.assert_close(losses[0] - losses[1], -0.99 * module.prior.log_density())


def test_bound_and_loss_agree(tensors):
    module = ready(CVAEModule(Layout(G, batch_levels=2), NegativeBinomial, D, HIDDEN))
    loss = negative_elbo(module, tensors)
    torch.manual_seed(0)
    log_px, terms = module.bound(module.read(tensors))
    torch.testing.assert_close(loss, (-log_px + sum(terms.annealed.values())).mean())


def test_many_samples_share_one_code_path(tensors):
    module = ready(VAEModule(Layout(G), NegativeBinomial, D, HIDDEN))
    inference = module.inference(module.read(tensors), n_samples=5)
    assert inference["z"].shape == (5, N, D)
    assert module.generative(inference["z"], inference["cells"])["px"].mean.shape == (5, N, G)


def test_a_module_without_hidden_layers_is_linear_in_its_latent():
    module = ready(VAEModule(Layout(G, n_continuous=1), Normal, D, Hidden(n_layers=0)))
    tensors = {REGISTRY_KEYS.X_KEY: torch.randn(N, G).double(), REGISTRY_KEYS.CONT_COVS_KEY: torch.zeros(N, 1)}
    cells = module.read(tensors)
    mean = lambda z: module.decode(z, cells).mean  # noqa: E731
    a, b, zero = torch.randn(N, D).double(), torch.randn(N, D).double(), torch.zeros(N, D).double()
    torch.testing.assert_close(mean(a + b) - mean(zero), mean(a) + mean(b) - 2 * mean(zero))


def test_importance_weighted_loss_is_the_log_mean_of_the_weights(tensors):
    layout = Layout(G, n_labels=3)
    module = ready(GMVAEModule(layout, NegativeBinomial, 4, D, HIDDEN))
    module.prior.place(torch.randn(4, D), torch.rand(4, D) + 0.5, torch.full((4,), 0.25))
    torch.manual_seed(0)
    out = module(tensors, inference_kwargs={"n_samples": 6})[2]
    torch.manual_seed(0)
    bound = module.log_weights(module.read(tensors), 6).exp().mean(0).log()
    torch.testing.assert_close(out.loss, -bound.mean() + out.extra_metrics["label"])
    reconstruction, kl = (out.reconstruction_loss["reconstruction_loss"], out.kl_local["kl_local"])
    torch.testing.assert_close(reconstruction + kl, -bound)


def test_one_importance_sample_is_the_elbo_on_average(tensors):
    module = ready(VAEModule(Layout(G), NegativeBinomial, D, HIDDEN))
    cells = module.read(tensors)
    log_w = module.log_weights(cells, 20_000)
    elbos = torch.stack(
        [log_px - terms.annealed["kl_z"] for log_px, terms in (module.bound(cells) for _ in range(2000))]
    )
    error = (log_w.var(0) / len(log_w) + elbos.var(0) / len(elbos)).sqrt()
    assert ((log_w.mean(0) - elbos.mean(0)).abs() <= 5 * error).all()


def test_exact_expectation_of_a_linear_decoder_is_the_mean_over_samples():
    module = ready(VAEModule(Layout(G, n_continuous=2), Normal, D, Hidden(n_layers=0)))
    x = torch.randn(N, G).double()
    cells = Cells(x=x, seen=x, library=x[:, :1], c=torch.randn(N, 2).double(), y=x[:, :0], stored=x[:, :0])
    qz = module.encode(cells)
    z = qz.sample((20_000,))
    sampled = module.decode(z, cells).log_prob(x).sum(-1)  # (s, n)
    exact = module.likelihood.log_prob(z, cells, qz)
    assert ((sampled.mean(0) - exact).abs() <= 5 * sampled.std(0) / len(sampled) ** 0.5).all()
