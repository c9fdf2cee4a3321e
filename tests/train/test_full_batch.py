"""Cells are standardised for the fit, and the model that comes out is one of the cells as they are."""

from functools import partial

import pytest
import torch

from mixvi._warnings import MixviWarning
from mixvi.module import AEModule, Cells, CVAEModule, Layout, VAEModule
from mixvi.module.likelihoods import Normal
from mixvi.module.nets import Hidden
from mixvi.train import _full_batch, fit_full_batch, use_data_units

N, G, D = 60, 8, 3
LINEAR = Hidden(n_layers=0)


@pytest.fixture
def cells():
    """Correlated genes of different scale, far from 0, and two conditions."""
    x = torch.randn(N, G).double() @ torch.randn(G, G).double() * torch.logspace(-2, 2, G) + 100
    c = torch.nn.functional.one_hot(torch.arange(N) % 2, 2).double()
    return Cells(x=x, seen=x, library=x[:, :1], c=c, y=x[:, :0], stored=x[:, :0])


def elbo(module, cells):
    log_px, terms = module.bound(cells)
    return log_px - sum(terms.annealed.values())


@pytest.mark.parametrize("most", [5_000, 1])
def test_whitening_maps_cells_and_weights_alike(cells, most, monkeypatch):
    """With all genes, or one by one where there are too many: above 5,000, which a test has not."""
    monkeypatch.setattr(_full_batch, "MAX_GENES_TO_WHITEN", most)
    centred, w = cells.x - cells.x.mean(0), torch.randn(D, G).double()
    to_white, whiten, from_white = _full_batch._whitening(centred, centred.square().mean().sqrt())
    torch.testing.assert_close(to_white(w) @ whiten(centred).T, w @ centred.T)
    torch.testing.assert_close(from_white(to_white(w)), w)
    white = whiten(centred)
    covariance = white.T @ white / N
    torch.testing.assert_close(covariance.diagonal().max(), torch.tensor(1.0).double(), atol=0.2, rtol=0)
    spread = torch.linalg.eigvalsh(covariance)
    before = torch.linalg.eigvalsh(centred.T @ centred / N)
    assert spread[-1] / spread[0] < 1e-3 * before[-1] / before[0]


@pytest.mark.parametrize("cls", [VAEModule, CVAEModule])
def test_standardised_cells_have_the_bound_of_the_cells_and_weights_come_back(cells, cls):
    module = cls(Layout(G, batch_levels=2) if cls is CVAEModule else Layout(G), Normal, D, LINEAR).double()
    with torch.no_grad():
        module.encoder.log_scale.weight.zero_()  # of cells around 100, the scale would leave its range
        module.encoder.loc.weight.mul_(0.01)
    expected, before = elbo(module, cells).detach(), [p.detach().clone() for p in module.parameters()]
    with _full_batch._standardised(module, cells, fresh=False) as (standard, log_scale):
        torch.testing.assert_close(elbo(module, standard) - G * log_scale, expected)
        torch.testing.assert_close(standard.x.mean(0), torch.zeros(G).double())
        torch.testing.assert_close(standard.x.square().mean(), torch.tensor(1.0).double())
    torch.testing.assert_close(elbo(module, cells), expected)
    for found, wanted in zip(module.parameters(), before, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_weights_of_minibatches_are_converted_to_the_unit_of_the_data(cells):
    module = VAEModule(Layout(G), Normal, D, LINEAR).double()
    cells = cells._replace(x=cells.x + 3, seen=cells.x + 3)
    module.likelihood.measure(cells.x)

    def read():
        return cells._replace(seen=module.likelihood.prepare(cells.x))

    expected, evidence, loadings = (
        elbo(module, read()), module.exact_log_evidence(cells), module.likelihood.loadings.clone()
    )  # fmt: skip
    use_data_units(module, fresh=False)
    assert module.likelihood.unit == 1
    torch.testing.assert_close(elbo(module, read()), expected)
    torch.testing.assert_close(module.exact_log_evidence(cells), evidence)
    torch.testing.assert_close(module.likelihood.loc.weight, loadings)


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_sigma_is_set_to_its_best_value_if_it_is_learned(cells, sigma):
    module = VAEModule(Layout(G), partial(Normal, sigma=sigma), D, LINEAR).double()
    before = module.likelihood.log_sigma.item()
    _full_batch._match_noise(module, cells)
    if sigma is not None:
        assert module.likelihood.log_sigma.item() == before
        return
    best = elbo(module, cells).mean()
    for change in (-0.02, 0.02):
        module.likelihood.log_sigma.data.add_(change)
        assert elbo(module, cells).mean() < best
        module.likelihood.log_sigma.data.sub_(change)


def test_history_is_the_bound_of_the_cells_and_does_not_fall(cells):
    module = VAEModule(Layout(G), Normal, D, LINEAR).double()
    history = fit_full_batch(module, cells)
    assert set(history) == {"elbo_train", "reconstruction_loss_train", "kl_z_train"}
    loss = history["elbo_train"]["elbo_train"].to_numpy()
    assert loss[-1] == pytest.approx(-elbo(module, cells).mean().item(), rel=1e-6)
    assert (loss[1:] <= loss[:-1] + 1e-9).all()
    whole = history["reconstruction_loss_train"].to_numpy() + history["kl_z_train"].to_numpy()
    assert whole.ravel() == pytest.approx(loss)


def test_a_gene_without_variance_does_not_matter(cells):
    x = torch.cat([cells.x, torch.full((N, 1), 7.0).double()], 1)
    module = AEModule(Layout(G + 1), partial(Normal, sigma=1.0), D, LINEAR).double()
    fit_full_batch(module, cells._replace(x=x, seen=x))
    found = module.decode(module.encode(cells._replace(seen=x)).loc, cells).mean
    torch.testing.assert_close(found[:, -1], x[:, -1])
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_a_fit_ends_when_it_is_told_to_and_says_when_it_did_not_converge(cells):
    module = VAEModule(Layout(G), Normal, D, LINEAR).double()
    with pytest.warns(MixviWarning, match="did not converge in 1 epochs"):
        assert len(fit_full_batch(module, cells, max_epochs=1, tolerance=0.0)["elbo_train"]) == 1
    ended = fit_full_batch(VAEModule(Layout(G), Normal, D, LINEAR).double(), cells, stop=lambda: True)
    assert len(ended["elbo_train"]) == 1
