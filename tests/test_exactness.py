"""Rows 1 to 17 of the table "What is exactly true": linear models against linear algebra, in double precision.

Rows 18 to 20, which need no fit, stand with the parts they are about, in tests/module.
"""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch.nn.functional import one_hot

from mixvi._refine import clustering_loss, soft_assignment, target_distribution
from mixvi.module import AEModule, Cells, CVAEModule, GMVAEModule, Layout, VAEModule
from mixvi.module.encoders import SCALE_FLOOR
from mixvi.module.likelihoods import Normal
from mixvi.module.nets import Hidden
from mixvi.train import fit_full_batch

N, G, D = 400, 12, 4
EIGENVALUES = np.array([6.0, 4.0, 2.5, 1.6, *(0.9 * 0.93 ** np.arange(G - D))])
LINEAR = Hidden(n_layers=0)


def spectral_data(seed=0):
    """Centred cells (N, G) whose covariance (1 / N) has exactly these eigenvalues, and its eigenvectors."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((N, G))
    left, _ = np.linalg.qr(x - x.mean(0))
    axes, _ = np.linalg.qr(rng.standard_normal((G, G)))
    return torch.as_tensor(left * np.sqrt(EIGENVALUES * N) @ axes.T), axes


def as_cells(x, c=None, y=None):
    return Cells(
        x=x, seen=x, library=x.sum(-1, keepdim=True), c=x[:, :0] if c is None else c, y=x[:, :0], stored=x[:, :0]
    )


def fit(module, cells, **settings):
    torch.manual_seed(1)
    module = module.double()
    fit_full_batch(module, cells, tolerance=1e-15, **settings)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def fitted_ae(cells, **settings):
    return fit(AEModule(Layout(G), partial(Normal, sigma=1.0), D, LINEAR), cells, **settings)


def fitted_vae(cells, sigma=None, **settings):
    return fit(VAEModule(Layout(G), partial(Normal, sigma=sigma), D, LINEAR), cells, **settings)


def decoder(module):
    return module.likelihood.loc.weight[:, :D].detach().numpy()


def best_log_evidence(eigenvalues, d=D):
    """Row 7: nats a cell at the maximum of probabilistic PCA."""
    s2 = eigenvalues[d:].mean()
    n_dims = len(eigenvalues)
    return -0.5 * (n_dims * np.log(2 * np.pi) + np.log(eigenvalues[:d]).sum() + (n_dims - d) * np.log(s2) + n_dims)


def elbo(module, cells):
    log_px, terms = module.bound(cells)
    return (log_px - sum(terms.annealed.values())).detach().numpy()


@pytest.fixture(scope="module")
def data():
    x, axes = spectral_data()
    return as_cells(x), axes


@pytest.fixture(scope="module")
def ae(data):
    return fitted_ae(data[0])


@pytest.fixture(scope="module")
def vae(data):
    return fitted_vae(data[0])


@pytest.fixture
def solved(data):
    """A VAE whose parameters are the closed-form solution of probabilistic PCA, posterior included."""
    cells, axes = data
    module = VAEModule(Layout(G), Normal, D, LINEAR).double()
    top, s2 = EIGENVALUES[:D], EIGENVALUES[D:].mean()
    w = axes[:, :D] * np.sqrt(top - s2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.likelihood.loc.weight.copy_(torch.as_tensor(w))
        module.likelihood.log_sigma.fill_(np.log(s2) / 2)
        module.encoder.loc.weight.copy_(torch.as_tensor((w / top).T))  # M = diag(top)
        module.encoder.log_scale.bias.copy_(torch.as_tensor(np.log(np.sqrt(s2 / top) - SCALE_FLOOR)))
    return module


def test_row_1_linear_ae_leaves_the_discarded_eigenvalues(data, ae):
    cells, _ = data
    rebuilt = ae.decode(ae.encode(cells).loc, cells).mean
    error = (cells.x - rebuilt).square().sum(-1).mean().item()
    assert error == pytest.approx(EIGENVALUES[D:].sum(), rel=1e-6)


def test_rows_1_and_2_in_single_precision(data, ae):
    """What a user has: the weights after training are float32."""
    cells, axes = data
    single, cells = copy.deepcopy(ae).float(), Cells(*(values.float() for values in cells))
    rebuilt = single.decode(single.encode(cells).loc, cells).mean
    error = (cells.x - rebuilt).square().sum(-1).mean().item()
    assert error == pytest.approx(EIGENVALUES[D:].sum(), rel=1e-4)
    assert subspace_angles(decoder(single), axes[:, :D]).max() < 1e-3


def test_row_2_linear_ae_spans_the_principal_subspace_but_not_its_axes(data, ae):
    _, axes = data
    assert subspace_angles(decoder(ae), axes[:, :D]).max() < 1e-4
    columns = decoder(ae) / np.linalg.norm(decoder(ae), axis=0)
    assert np.abs(columns.T @ axes[:, :D]).max(1).min() < 0.99


def test_row_3_linear_ae_rebuilds_as_pca_does(data, ae):
    cells, axes = data
    top = axes[:, :D]
    assert np.linalg.norm(decoder(ae) @ ae.encoder.loc.weight.numpy() - top @ top.T) < 1e-4
    rebuilt = ae.decode(ae.encode(cells).loc, cells).mean.numpy()
    pca = PCA(D).fit(cells.x.numpy())
    expected = pca.inverse_transform(pca.transform(cells.x.numpy()))
    assert np.linalg.norm(rebuilt - expected) < 1e-4


def test_row_4_axes_and_order_come_from_the_rebuilt_cells(data, ae):
    """The row says "from the reconstruction map": a projection has d singular values 1 and shows no order."""
    cells, axes = data
    of_the_map = np.linalg.svd(decoder(ae) @ ae.encoder.loc.weight.numpy(), compute_uv=False)
    np.testing.assert_allclose(of_the_map, np.r_[np.ones(D), np.zeros(G - D)], atol=1e-5)
    rebuilt = ae.decode(ae.encode(cells).loc, cells).mean.numpy()
    _, singular, found = np.linalg.svd(rebuilt - rebuilt.mean(0), full_matrices=False)
    assert np.abs((found[:D] * axes[:, :D].T).sum(1)).min() > 0.9999
    np.testing.assert_allclose(singular[:D] ** 2 / N, EIGENVALUES[:D], rtol=1e-5)


def test_row_5_l2_penalty_ties_encoder_to_decoder_and_shrinks(data):
    cells, axes = data
    a = 1.8 * N  # between the third and the fourth squared singular value
    module = fitted_ae(cells, weight_decay=a / N)
    np.testing.assert_allclose(module.encoder.loc.weight.numpy(), decoder(module).T, atol=1e-5)
    found, singular, _ = np.linalg.svd(decoder(module))
    np.testing.assert_allclose(singular, np.sqrt(np.maximum(1 - a / (N * EIGENVALUES[:D]), 0)), atol=1e-5)
    assert np.abs((found[:, :3] * axes[:, :3]).sum(0)).min() > 0.9999


def test_row_6_linear_vae_is_probabilistic_pca(data, vae):
    cells, axes = data
    s2 = np.exp(2 * vae.likelihood.log_sigma.item())
    assert s2 == pytest.approx(EIGENVALUES[D:].mean(), rel=1e-5)
    w = decoder(vae)
    expected = axes[:, :D] * (EIGENVALUES[:D] - s2) @ axes[:, :D].T
    np.testing.assert_allclose(w @ w.T, expected, atol=1e-4)
    pca = PCA(D).fit(cells.x.numpy())  # divides by N - 1
    np.testing.assert_allclose(w @ w.T + s2 * np.eye(G), pca.get_covariance() * (N - 1) / N, atol=1e-4)


def test_row_7_evidence_of_probabilistic_pca(data, solved):
    cells, _ = data
    found = solved.exact_log_evidence(cells).detach().numpy()
    assert found.mean() == pytest.approx(best_log_evidence(EIGENVALUES), abs=1e-8)
    w, s2 = decoder(solved), np.exp(2 * solved.likelihood.log_sigma.item())
    expected = multivariate_normal(np.zeros(G), w @ w.T + s2 * np.eye(G)).logpdf(cells.x.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_row_8_best_elbo_of_a_linear_vae_is_the_evidence(data, vae):
    cells, axes = data
    gap = elbo(vae, cells).mean() - best_log_evidence(EIGENVALUES)
    assert -1e-4 <= gap <= 1e-9
    columns = decoder(vae) / np.linalg.norm(decoder(vae), axis=0)
    overlap = np.abs(columns.T @ axes[:, :D])
    assert overlap.max(1).min() > 0.9999
    assert sorted(overlap.argmax(1)) == list(range(D))


def test_row_9_encoder_of_a_linear_vae_is_the_posterior(data, vae):
    cells, axes = data
    w, s2 = decoder(vae), np.exp(2 * vae.likelihood.log_sigma.item())
    m = w.T @ w + s2 * np.eye(D)
    qz = vae.encode(cells)
    np.testing.assert_allclose(qz.loc, cells.x.numpy() @ w @ np.linalg.inv(m), atol=1e-4)
    variance = EIGENVALUES[np.abs(w.T @ axes[:, :D]).argmax(1)]
    np.testing.assert_allclose(qz.scale**2, np.broadcast_to(s2 / variance, (N, D)), atol=1e-4)


def test_row_10_kl_of_each_dimension(data, vae):
    cells, axes = data
    qz, s2 = vae.encode(cells), np.exp(2 * vae.likelihood.log_sigma.item())
    kl = torch.distributions.kl_divergence(qz, torch.distributions.Normal(0.0, 1.0)).mean(0).numpy()
    variance = EIGENVALUES[np.abs(decoder(vae).T @ axes[:, :D]).argmax(1)]
    np.testing.assert_allclose(kl, 0.5 * np.log(variance / s2), atol=1e-3)
    _, terms = vae.bound(cells)
    assert terms.annealed["kl_z"].mean().item() == pytest.approx(kl.sum(), rel=1e-9)


@pytest.mark.parametrize("s2", [1.2, 2.0, 3.0, 5.0, 7.0])
def test_row_11_a_dimension_is_active_where_its_variance_exceeds_sigma2(data, s2):
    module = fitted_vae(data[0], sigma=np.sqrt(s2))
    strength = np.sort(np.linalg.svd(decoder(module), compute_uv=False) ** 2)[::-1]
    np.testing.assert_allclose(strength, np.maximum(EIGENVALUES[:D] - s2, 0), atol=1e-3)
    kl = torch.distributions.kl_divergence(module.encode(data[0]), torch.distributions.Normal(0.0, 1.0)).mean(0)
    assert (kl > 1e-2).sum() == (EIGENVALUES[:D] > s2).sum()


@pytest.mark.parametrize("beta", [0.5, 1.2, 2.0, 3.0, 5.0])
def test_row_12_beta_acts_as_beta_sigma2(data, beta):
    module = fitted_vae(data[0], sigma=1.0, kl_weight=beta)
    strength = np.sort(np.linalg.svd(decoder(module), compute_uv=False) ** 2)[::-1]
    np.testing.assert_allclose(strength, np.maximum(EIGENVALUES[:D] - beta, 0), atol=1e-3)
    assert (strength > 1e-2).sum() == (EIGENVALUES[:D] > beta).sum()


@torch.no_grad()
def test_row_13_every_bound_is_the_evidence_at_the_exact_posterior(data, solved):
    cells, _ = data
    log_w = solved.log_weights(cells, 8)
    torch.testing.assert_close(log_w, solved.exact_log_evidence(cells).expand(8, -1), rtol=0, atol=1e-8)


@torch.no_grad()
def test_row_13_importance_weighted_bounds_rise_to_the_evidence(data, solved):
    cells, _ = data
    solved.encoder.loc.bias += 0.3  # away from the exact posterior
    solved.encoder.log_scale.bias += 0.2
    log_w = solved.log_weights(cells, 4096).numpy()  # (s, n)
    bounds = [logsumexp(log_w.reshape(-1, k, N), axis=1) - np.log(k) for k in (1, 2, 8, 64, 512)]
    means = [bound.mean() for bound in bounds]
    assert (np.diff(means) > 0).all()
    exact = solved.exact_log_evidence(cells).numpy()
    error = bounds[-1].mean(1).std() / np.sqrt(len(bounds[-1]))
    assert means[-1] <= exact.mean() + 5 * error
    assert means[-1] == pytest.approx(exact.mean(), abs=1e-2)
    assert means[0] == pytest.approx(elbo(solved, cells).mean(), abs=0.05)


def mixture_module(n_components, layout=None, sigma=0.7):
    """A linear GMVAE with arbitrary parameters, its components within reach of each other."""
    torch.manual_seed(3)
    module = GMVAEModule(layout or Layout(G), partial(Normal, sigma=sigma), n_components, D, LINEAR).double()
    with torch.no_grad():
        for parameter in (module.prior.loc, module.prior.log_scale, module.prior.logits):
            parameter.copy_(0.5 * torch.randn_like(parameter))
        module.likelihood.loc.weight.copy_(torch.randn_like(module.likelihood.loc.weight))
        module.likelihood.loc.bias.copy_(torch.randn_like(module.likelihood.loc.bias))
    return module


def mixture_logpdf(module, x):
    """log sum_k pi_k N(x; W m_k + b, W S_k W^T + s2 I), through scipy."""
    w, b = decoder(module), module.likelihood.loc.bias.detach().numpy()
    s2 = np.exp(2 * module.likelihood.log_sigma.item())
    loc, scale = module.prior.loc.detach().numpy(), module.prior.log_scale.exp().detach().numpy()
    log_pi = module.prior.logits.log_softmax(-1).detach().numpy()
    parts = [
        multivariate_normal(w @ m + b, w * s**2 @ w.T + s2 * np.eye(G)).logpdf(x) + p
        for m, s, p in zip(loc, scale, log_pi, strict=True)
    ]
    return logsumexp(parts, axis=0)


def component_posterior(module, cells, k):
    """The exact q(z | x, y = k) of a linear GMVAE if it is axis-parallel, as it is for W with orthogonal columns."""
    w, s2 = module.likelihood.loc.weight, (2 * module.likelihood.log_sigma).exp()
    precision = (w.T @ w).diagonal() / s2 + (-2 * module.prior.log_scale[k]).exp()
    centre = (cells.x - module.likelihood.loc.bias) @ w / s2 + module.prior.loc[k] * (
        -2 * module.prior.log_scale[k]
    ).exp()
    return torch.distributions.Normal(centre / precision, precision.rsqrt().expand_as(centre))


@torch.no_grad()
def test_row_14_evidence_of_a_linear_gmvae():
    module = mixture_module(3)
    cells = as_cells(3 * torch.randn(50, G).double())
    np.testing.assert_allclose(module.exact_log_evidence(cells), mixture_logpdf(module, cells.x.numpy()), atol=1e-8)


@torch.no_grad()
def test_row_14_identity_decoder_is_sklearns_mixture(rng):
    x = rng.standard_normal((300, D)) + 3 * rng.integers(0, 2, (300, 1))
    reference = SklearnMixture(2, covariance_type="diag", random_state=0).fit(x)
    s2 = 1e-6  # what the decoder adds to each variance, and what the components therefore give up
    module = GMVAEModule(Layout(D), partial(Normal, sigma=np.sqrt(s2)), 2, D, LINEAR).double()
    module.likelihood.loc.weight.copy_(torch.eye(D))
    module.likelihood.loc.bias.zero_()
    scale = np.sqrt(reference.covariances_ - s2)
    module.prior.place(*(torch.as_tensor(v) for v in (reference.means_, scale, reference.weights_)))
    found = module.exact_log_evidence(as_cells(torch.as_tensor(x))).numpy()
    np.testing.assert_allclose(found, reference.score_samples(x), atol=1e-6)
    assert found.mean() == pytest.approx(reference.score(x), abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("distance", "is_tight"), [(40.0, True), (1.0, False)])
def test_row_14_the_bound_is_tight_where_components_are_apart(distance, is_tight):
    """One q(z | x) serves all components: the gap is KL(q(z) r(y) || p(z, y | x)), which is 0 where r is 0 or 1."""
    module = mixture_module(2)
    w, _ = torch.linalg.qr(module.likelihood.loc.weight)
    module.likelihood.loc.weight.copy_(w)
    module.prior.loc.zero_()
    module.prior.loc[1, 0] = distance
    y = torch.arange(200) % 2
    z = module.prior.loc[y] + module.prior.log_scale[y].exp() * torch.randn(200, D).double()
    x = z @ w.T + module.likelihood.loc.bias
    cells = as_cells(x + module.likelihood.log_sigma.exp() * torch.randn_like(x))
    best = torch.full((200,), -torch.inf).double()
    for k in range(2):
        qz = component_posterior(module, cells, k)
        terms = module.prior.kl(qz, qz.loc, cells).annealed
        best = best.maximum(module.likelihood.log_prob(qz.loc, cells, qz) - sum(terms.values()))
    gap = module.exact_log_evidence(cells) - best
    assert gap.min() > -1e-9
    assert (gap.max() < 1e-6) if is_tight else (gap.mean() > 0.01)


def test_row_14_one_component_is_row_8(data):
    module = fit(GMVAEModule(Layout(G), Normal, 1, D, LINEAR), data[0])
    assert -1e-4 <= elbo(module, data[0]).mean() - best_log_evidence(EIGENVALUES) <= 1e-9


def within_five_standard_errors(log_w, exact):
    """Importance weights (s, n) average to the evidence (n,)."""
    relative = (log_w - exact).exp()
    error = relative.std(0) / np.sqrt(len(relative))
    assert (error < 0.1).all(), "the proposal is too poor to tell"
    return ((relative.mean(0) - 1).abs() <= 5 * error).all()


def overdispersed(module):
    """Posteriors that cover every component, so that importance weights are bounded."""
    module.encoder.loc.weight.zero_()
    module.encoder.loc.bias.zero_()
    module.encoder.log_scale.weight.zero_()
    module.encoder.log_scale.bias.fill_(0.6)
    module.likelihood.loc.weight.mul_(0.3)
    return module


@torch.no_grad()
@pytest.mark.parametrize("labelled", [False, True])
def test_evidence_stands_under_the_mixture(labelled):
    module = overdispersed(mixture_module(3, Layout(G, n_labels=3), sigma=1.0))
    cells = as_cells(torch.randn(6, G).double())
    if labelled:  # log p(x, y) in place of log p(x)
        y = torch.arange(6) % 3
        cells = cells._replace(y=one_hot(y, 3).double())
        prior, log_pi = module.prior, module.prior.log_weights()
        exact = torch.empty(6).double()
        for k in range(3):
            single = mixture_module(1, sigma=1.0)
            single.likelihood.load_state_dict(module.likelihood.state_dict())
            single.prior.loc[0], single.prior.log_scale[0] = prior.loc[k], prior.log_scale[k]
            exact[y == k] = log_pi[k] + single.exact_log_evidence(cells)[y == k]
    else:
        exact = module.exact_log_evidence(cells)
    assert within_five_standard_errors(module.log_weights(cells, 100_000), exact)


@torch.no_grad()
@pytest.mark.parametrize("learned_prior", [False, True])
def test_evidence_stands_under_the_prior_of_the_condition(learned_prior):
    torch.manual_seed(0)
    module = CVAEModule(Layout(G, batch_levels=2), Normal, D, LINEAR, learned_prior).double()
    if learned_prior:
        module.prior.loc.weight.copy_(0.5 * torch.randn(D, 2))
        module.prior.log_scale.weight.copy_(0.3 * torch.randn(D, 2))
    cells = as_cells(torch.randn(6, G).double(), c=one_hot(torch.arange(6) % 2, 2).double())
    exact = module.exact_log_evidence(cells)
    w, a, b = decoder(module), module.likelihood.loc.weight[:, D:].numpy(), module.likelihood.loc.bias.numpy()
    s2 = np.exp(2 * module.likelihood.log_sigma.item())
    for i in range(6):
        loc, scale = np.zeros(D), np.ones(D)
        if learned_prior:
            pz = module.prior.given(cells.c[i])
            loc, scale = pz.loc.numpy(), pz.scale.numpy()
        normal = multivariate_normal(w @ loc + a[:, i % 2] + b, w * scale**2 @ w.T + s2 * np.eye(G))
        assert exact[i].item() == pytest.approx(normal.logpdf(cells.x[i].numpy()), abs=1e-8)
    assert within_five_standard_errors(
        overdispersed(module).log_weights(cells, 100_000), module.exact_log_evidence(cells)
    )


@torch.no_grad()
def test_evidence_stands_under_the_hierarchical_mixture():
    torch.manual_seed(0)
    hidden = Hidden(8, 1, 0.0)
    module = GMVAEModule(Layout(G), partial(Normal, sigma=1.5), 3, D, hidden, hierarchical=True).double().eval()
    for head in (module.prior.loc, module.prior.log_scale):
        head.weight.copy_(0.6 * torch.randn_like(head.weight))
        head.bias.copy_(0.3 * torch.randn_like(head.bias))
    overdispersed(module)
    module.likelihood.loc.weight.mul_(2)
    for head, bias in ((module.prior.encoder.loc, 1.0), (module.prior.encoder.log_scale, 0.4)):
        head.weight.zero_()  # q(w) away from p(w), and wide enough to cover it
        head.bias.fill_(bias)
    cells = as_cells(torch.randn(4, G).double())
    drawn = module.prior.sample(torch.zeros(50_000, 0).double())  # log p(x) by draws from the prior itself
    log_px = module.decode(drawn.unsqueeze(1).expand(-1, 4, -1), cells).log_prob(cells.x).sum(-1)  # (s, n)
    by_prior = log_px.logsumexp(0) - np.log(len(log_px))
    relative = (log_px - by_prior).exp()
    log_w = module.log_weights(cells, 50_000)
    by_posterior = log_w.logsumexp(0) - np.log(len(log_w))
    error = (relative.var(0) / len(relative) + (log_w - by_posterior).exp().var(0) / len(log_w)).sqrt()
    assert (error < 0.1).all()
    assert ((by_prior - by_posterior).abs() <= 5 * error).all()


def test_row_15_linear_cvae_is_pca_within_groups():
    x, _ = spectral_data()
    c = one_hot(torch.arange(N) % 3, 3).double()
    x = x + c @ torch.randn(3, G).double() * 3
    cells = as_cells(x, c=c)
    means = torch.linalg.solve(c.T @ c, c.T @ x)  # (3, G)
    within = (x - c @ means).numpy()
    eigenvalues = np.sort(np.linalg.eigvalsh(within.T @ within / N))[::-1]
    module = fit(CVAEModule(Layout(G, batch_levels=3), Normal, D, LINEAR), cells)
    at_zero = module.decode(torch.zeros(N, D).double(), cells).mean
    torch.testing.assert_close(at_zero, c @ means, atol=1e-4, rtol=0)
    w, s2 = decoder(module), np.exp(2 * module.likelihood.log_sigma.item())
    assert s2 == pytest.approx(eigenvalues[D:].mean(), rel=1e-5)
    strength = np.linalg.svd(w, compute_uv=False) ** 2
    np.testing.assert_allclose(strength, eigenvalues[:D] - s2, atol=1e-3)
    assert module.exact_log_evidence(cells).mean().item() == pytest.approx(best_log_evidence(eigenvalues), abs=1e-6)
    assert -1e-4 <= elbo(module, cells).mean() - best_log_evidence(eigenvalues) <= 1e-9


def test_row_16_latent_arithmetic_is_vector_arithmetic_on_principal_components(data, ae):
    cells, _ = data
    x, stimulated = cells.x.numpy(), np.arange(N) % 2 == 1
    z = ae.encode(cells).loc
    shift = z[stimulated].mean(0) - z[~stimulated].mean(0)
    predicted = ae.decode(z + shift, cells).mean.numpy()[~stimulated]
    pca = PCA(D).fit(x)
    scores = pca.transform(x)
    moved = scores[~stimulated] + scores[stimulated].mean(0) - scores[~stimulated].mean(0)
    assert np.abs(predicted - pca.inverse_transform(moved)).max() < 1e-5


def test_row_17_gradient_of_the_clustering_loss():
    z = torch.randn(30, D).double().requires_grad_()
    centers = torch.randn(5, D).double()
    p = target_distribution(soft_assignment(z, centers)).detach()
    clustering_loss(p, soft_assignment(z, centers)).sum().backward()
    q, step = soft_assignment(z, centers), z.unsqueeze(1) - centers  # (n, K), (n, K, d)
    weight = (p - q) / (1 + step.square().sum(-1))
    torch.testing.assert_close(z.grad, 2 * (weight.unsqueeze(-1) * step).sum(1).detach(), rtol=0, atol=1e-6)


def test_row_17_soft_assignments_and_their_target():
    z, centers = torch.randn(30, D).double(), torch.randn(5, D).double()
    q = soft_assignment(z, centers)
    t = torch.stack([1 / (1 + (z - m).square().sum(-1)) for m in centers], 1)
    torch.testing.assert_close(q, t / t.sum(1, keepdim=True))
    sharpened = q**2 / q.sum(0)
    torch.testing.assert_close(target_distribution(q), sharpened / sharpened.sum(1, keepdim=True))
