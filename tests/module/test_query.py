"""Unseen genes and new levels of conditions, for a module."""

import numpy as np
import pytest
import torch

from mixvi.module.cells import Layout
from mixvi.module.query import Levels
from tests.model.helpers import build, fitted

OLD = Layout(4, batch_levels=2, covariate_levels=(3,), n_continuous=1)
NEW = Layout(4, batch_levels=3, covariate_levels=(4,), n_continuous=1)


def test_new_levels_stand_for_the_mean_of_the_known():
    levels = Levels.between(OLD, NEW)
    assert levels.known.tolist() == [True, True, False, True, True, True, False, True]
    np.testing.assert_allclose(levels.average[2], [0.5, 0.5, 0, 0, 0, 0])
    np.testing.assert_allclose(levels.average[6], [0, 0, 1 / 3, 1 / 3, 1 / 3, 0])
    np.testing.assert_array_equal(levels.average[levels.known], np.eye(6))
    np.testing.assert_allclose(levels.typical[2], [0.5, 0.5, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(levels.typical.sum(1), 1)


@pytest.mark.parametrize("name", ["CVAE", "GMVAE"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"n_layers": 0}, {"n_layers": 2, "dispersion": "gene-batch"}, {"batch_representation": "embedding"}],
    ids=["one", "linear", "two", "embedding"],
)
def test_a_wider_module_gives_known_cells_the_same_and_new_ones_their_mean(name, settings, counts):
    counts.obs["side"] = np.tile(["a", "b", "c"], 40)
    setup = {"batch_key": "condition", "categorical_covariate_keys": ["side"]}
    old = build(name, counts, setup, likelihood="nb", **settings).module.eval()
    for buffer in ("effects", "c_mean"):
        for key, value in old.state_dict().items():
            if key.endswith(buffer):
                value.uniform_()
    torch.nn.init.normal_(old.likelihood.log_theta)
    more = counts.copy()
    more.obs["condition"] = more.obs["condition"].cat.add_categories("later")
    more.obs["side"] = np.tile(["a", "b", "c", "d"], 30)
    new = build(name, more, setup, likelihood="nb", **settings).module.eval()
    levels = Levels.between(old.layout, new.layout)
    new.load_state_dict(levels.widen(old.state_dict(), new))
    theta, known = new.likelihood.log_theta, old.likelihood.log_theta
    torch.testing.assert_close(theta, torch.cat([known, known.mean(0, True)]) if theta.dim() > 1 else known)
    c = torch.zeros(6, 5)
    c[:, 1] = c[:, 3] = 1
    z, x = torch.randn(6, 3), torch.randn(6, 30).abs()
    wide = c @ torch.eye(7)[levels.known]

    def results(module, c):
        return module.encoder(x, c).loc, module.likelihood.rho(module.likelihood.trunk(z, c))

    for ours, theirs in zip(results(new, wide), results(old, c), strict=True):
        torch.testing.assert_close(ours, theirs)
    later = wide.clone()
    later[:, 1], later[:, 2] = 0, 1  # the new batch
    for ours, theirs in zip(results(new, later), results(new, later @ levels.typical), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_unseen_genes_are_filled_in_with_what_is_expected_of_them(blobs):
    model = fitted("GMVAE", blobs, train={"max_epochs": 60})
    z = model.get_latent_representation()
    gone = np.zeros(30, bool)
    gone[::5] = True
    without = blobs.copy()
    without.X[:, gone] = 0
    zeros = model.get_latent_representation(without)
    filled = model.map(blobs[:, ~gone].copy())
    assert (
        np.linalg.norm(filled.get_latent_representation() - z, axis=1).mean()
        < 0.6 * np.linalg.norm(zeros - z, axis=1).mean()
    )
    cells = filled.module.read(filled._make_data_loader(filled.adata, batch_size=300).__iter__().__next__())
    library = blobs.X.sum(1)
    assert (
        abs(np.log(cells.library[:, 0].numpy() / library)).mean() < abs(np.log(without.X.sum(1) / library)).mean() / 2
    )
    again = filled.get_latent_representation()
    np.testing.assert_array_equal(again, filled.get_latent_representation())  # draws have a seed of their own


@pytest.fixture
def blobs():
    from mixvi import datasets

    return datasets.blobs(300, 30, n_clusters=3, n_conditions=2, kind="count")
