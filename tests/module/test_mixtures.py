"""Terms of the mixture priors against Monte Carlo (EXACTNESS rows 19 and 20), and where components are."""

import pytest
import torch
from torch.distributions import Categorical, Normal

from mixvi.module.cells import Cells, Layout
from mixvi.module.mixtures import GaussianMixture, HierarchicalMixture
from mixvi.module.nets import Hidden
from mixvi.module.priors import StandardNormal
from tests.module.monte_carlo import SAMPLES, D, G, K, N, Q, assert_within_five_standard_errors, draw, scrambled, total


@torch.no_grad()
def test_row_19_mixture(qz, cells):
    prior = scrambled(GaussianMixture(K, D))
    r = prior.responsibilities(qz, cells)
    z, log_q = draw(qz)
    y = Categorical(r).sample((SAMPLES,))
    log_r = r.log().expand(SAMPLES, N, K).gather(-1, y.unsqueeze(-1)).squeeze(-1)
    log_pi = prior.logits.log_softmax(-1)[y]
    log_p = Normal(prior.loc[y], prior.log_scale[y].exp()).log_prob(z).sum(-1)
    terms = prior.kl(qz, qz.loc, cells)
    assert set(terms.annealed) == {"kl_z", "kl_y"}
    assert_within_five_standard_errors(log_q + log_r - log_p - log_pi, total(terms))


@torch.no_grad()
def test_row_19_each_mixture_term_by_itself(qz, cells):
    prior = scrambled(GaussianMixture(K, D))
    r, terms = prior.responsibilities(qz, cells), prior.kl(qz, qz.loc, cells)
    torch.testing.assert_close(terms.annealed["kl_y"], (r * (r.log() - prior.log_weights())).sum(-1))
    z, log_q = draw(qz)
    log_p = Normal(prior.loc[:, None, None], prior.log_scale[:, None, None].exp()).log_prob(z).sum(-1)  # (K, s, n)
    assert_within_five_standard_errors((r.T[:, None] * (log_q - log_p)).sum(0), terms.annealed["kl_z"])


@torch.no_grad()
def test_terms_of_a_mixture_give_its_responsibilities_whatever_the_labels(qz, cells):
    prior = scrambled(GaussianMixture(K, D))
    for y in (cells.y, torch.eye(2).double().repeat(2, 1)):
        found = prior.kl(qz, qz.loc, cells._replace(y=y)).log_r
        torch.testing.assert_close(found, prior.log_responsibilities(qz, cells))


@torch.no_grad()
def test_row_19_hierarchical_mixture(qz, cells):
    layout, draws = Layout(G, n_continuous=Q), 20_000
    prior = scrambled(HierarchicalMixture(layout, K, D, Hidden(8, 1, 0.0)))
    prior.encoder.log_scale.weight.mul_(0.1)
    many = Cells(*(values.repeat(draws, 1) for values in cells))  # one w, z, y for each row
    q = Normal(qz.loc.repeat(draws, 1), qz.scale.repeat(draws, 1))
    terms = prior.kl(q, q.loc, many)
    assert set(terms.annealed) == {"kl_z", "kl_y", "kl_w"}
    qw = prior.encoder(many.seen, many.c)
    w, z = qw.sample(), q.sample()
    pz = prior.at(w)
    kl_k = torch.distributions.kl_divergence(Normal(q.loc[:, None], q.scale[:, None]), pz).sum(-1)
    qy = Categorical(logits=prior.log_weights() - kl_k)
    y = qy.sample()
    row = torch.arange(len(y))
    log_q = qw.log_prob(w).sum(-1) + q.log_prob(z).sum(-1) + qy.log_prob(y)
    log_p = Normal(0.0, 1.0).log_prob(w).sum(-1) + prior.log_weights()[y]
    log_p = log_p + Normal(pz.loc[row, y], pz.scale[row, y]).log_prob(z).sum(-1)
    gap = (log_q - log_p - total(terms)).unflatten(0, (draws, N))
    assert_within_five_standard_errors(gap, torch.zeros(N).double())


def test_best_responsibility_gives_the_log_sum_form(qz, cells):
    prior = scrambled(GaussianMixture(K, D))
    q = Normal(qz.loc[:, None], qz.scale[:, None])
    kl_k = torch.distributions.kl_divergence(q, Normal(prior.loc, prior.log_scale.exp())).sum(-1)
    torch.testing.assert_close(total(prior.kl(qz, qz.loc, cells)), -(prior.log_weights() - kl_k).logsumexp(-1))


def test_any_other_responsibility_costs_more(qz, cells):
    prior = scrambled(GaussianMixture(K, D))
    best = total(prior.kl(qz, qz.loc, cells))
    for k in range(K):
        forced = cells._replace(y=torch.nn.functional.one_hot(torch.full((N,), k), K).double())
        assert (total(prior.kl(qz, qz.loc, forced)) > best).all()


def test_row_20_a_labelled_cell_pays_minus_log_pi(qz, cells):
    prior = scrambled(GaussianMixture(K, D))
    y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]).double()  # two classes, cell 2 without
    labelled, free = prior.kl(qz, qz.loc, cells._replace(y=y)), prior.kl(qz, qz.loc, cells)
    log_pi, r = prior.log_weights(), prior.responsibilities(qz, cells)
    for i, k in ((0, 0), (1, 1), (3, 0)):
        torch.testing.assert_close(labelled.annealed["kl_y"][i], -log_pi[k], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(labelled.fixed["label"][i], -r[i, k].log())
    assert labelled.fixed["label"][2] == 0
    for name in ("kl_z", "kl_y"):
        torch.testing.assert_close(labelled.annealed[name][2], free.annealed[name][2])


def test_row_20_untouched_mixtures_are_standard_normal(qz, cells):
    expected = StandardNormal(D).kl(qz, qz.loc, cells).annealed["kl_z"]
    mixture = GaussianMixture(K, D).double().kl(qz, qz.loc, cells)
    torch.testing.assert_close(total(mixture), expected, rtol=1e-6, atol=1e-6)
    layout = Layout(G, n_continuous=Q)
    hierarchical = HierarchicalMixture(layout, K, D, Hidden(8, 1, 0.0)).double().eval().kl(qz, qz.loc, cells)
    rest = hierarchical.annealed["kl_z"] + hierarchical.annealed["kl_y"]
    torch.testing.assert_close(rest, expected, rtol=1e-6, atol=1e-6)


def test_a_component_that_is_off_takes_nothing(qz, cells):
    small, large = scrambled(GaussianMixture(K, D)), scrambled(GaussianMixture(K + 4, D))
    large.place(small.loc, small.log_scale.exp(), small.logits.exp())
    r = large.responsibilities(qz, cells)
    torch.testing.assert_close(r[:, :K], small.responsibilities(qz, cells))
    assert (r[:, K:] == 0).all()
    torch.testing.assert_close(total(large.kl(qz, qz.loc, cells)), total(small.kl(qz, qz.loc, cells)))
    total(large.kl(qz, qz.loc, cells)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in large.parameters())


@pytest.mark.parametrize("hierarchical", [False, True])
def test_placed_components_are_where_they_were_put_and_others_are_off(qz, cells, hierarchical):
    layout = Layout(G, n_continuous=Q)
    prior = HierarchicalMixture(layout, K, D, Hidden(8), 1.0) if hierarchical else GaussianMixture(K, D)
    prior = prior.double().eval()
    loc, scale, weight = torch.randn(K, D).double() * 5, torch.rand(K, D).double() + 0.5, torch.tensor([0.5, 0.3, 0.2])
    prior.place(loc, scale, weight.double())
    pz, _ = prior.given(cells, mean=True)
    torch.testing.assert_close(pz.loc.broadcast_to(N, K, D)[0], loc)
    torch.testing.assert_close(pz.scale.broadcast_to(N, K, D)[0], scale)
    torch.testing.assert_close(prior.log_weights().exp(), weight.double())
    assert prior.placed
    prior.place(loc[:2], scale[:2], weight[:2].double())
    assert prior.active.tolist() == [True, True, False]
    assert (prior.responsibilities(qz, cells)[:, 2] == 0).all()
    torch.testing.assert_close(prior.log_weights().exp()[:2], weight[:2].double() / 0.8)


def test_dirichlet_density_up_to_its_constant():
    prior = scrambled(GaussianMixture(K, D, concentration=3.0))
    dirichlet = torch.distributions.Dirichlet(torch.full((K,), 3.0).double())
    pi, uniform = prior.log_weights().exp(), torch.full((K,), 1 / K).double()
    expected = dirichlet.log_prob(pi) - dirichlet.log_prob(uniform)
    with torch.no_grad():
        found = prior.log_density()
        prior.logits.zero_()
    torch.testing.assert_close(found - prior.log_density(), expected)
    assert GaussianMixture(K, D).log_density() == 0  # concentration 1 is flat


def test_hierarchical_components_stay_finite_far_from_the_origin():
    """Values that were not scaled give w far out, where an unbounded scale overflows."""
    prior = scrambled(HierarchicalMixture(Layout(G), K, D, Hidden(8, 0, 0.0)))
    with torch.no_grad():
        pz = prior.at(torch.tensor([[1e5], [-1e5]]).expand(2, D).to(prior.logits))
    assert (pz.scale > 0).all()
    assert pz.variance.isfinite().all()
