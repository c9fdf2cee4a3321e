"""A compiled step is the step, traced whole."""

import shutil

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from scipy.sparse import csr_matrix
from torch._inductor import config as inductor

from mixvi.module import Cells
from mixvi.ops.csr import is_sparse
from mixvi.train import _compiled
from mixvi.train._guide import Guided
from tests.model.helpers import MODELS, fitted
from tests.train.helpers import steps_of


def test_graphs_of_parts_are_refused(counts):
    for settings in ({"mode": "reduce-overhead"}, {"options": {"triton.cudagraphs": True}}):
        with pytest.raises(ValueError, match="which captures CUDA graphs of parts of a step"):
            fitted("VAE", counts, train=steps_of({"compile_kwargs": settings}))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {}) for name in MODELS),
        ("VAE", {"likelihood": "poisson"}),
        ("VAE", {"likelihood": "zinb"}),
        ("CVAE", {"learned_prior": True}),
        ("GMVAE", {"hierarchical": True}),
    ],
)
def test_a_compiled_step_is_the_same_step(name, settings, counts):
    """Traced whole, without a fallback to Python, and run by torch, which draws the same numbers then."""
    counts.X = csr_matrix(counts.X)
    settings = settings | {"dropout_rate": 0.0}
    train = {"max_epochs": 3, "batch_size": 50}
    steps = []
    compiled = {"plan_kwargs": {"compile": True, "compile_kwargs": {"backend": _noting(steps)}}}
    found = fitted(name, counts, train=train | compiled, **settings)
    assert len(steps) == (2 if name == "GMVAE" else 1)  # a mixture is compiled anew when its components are placed
    plain = fitted(name, counts, train=train, **settings)
    for key, values in plain.history.items():
        np.testing.assert_allclose(found.history[key].astype(float), values.astype(float), rtol=2e-4, atol=1e-4)


def _noting(steps):
    """A backend of torch.compile that runs what was traced as it is, and notes it."""

    def backend(graph, example_inputs):
        steps.append(graph)
        return graph

    return backend


def test_compiled_steps_do_not_count_against_each_other(counts):
    """Torch keeps eight versions of a function; runs that broke off must not use them up."""

    class Break(Callback):
        def on_train_epoch_end(self, *args):
            raise RuntimeError("pulled the plug")

    plan = {"plan_kwargs": {"compile": True, "compile_kwargs": {"backend": _noting([])}}, "batch_size": 50}
    for n_latent in range(2, 12):
        with pytest.raises(RuntimeError, match="plug"):
            fitted("VAE", counts, train=plan | {"callbacks": [Break()]}, n_latent=n_latent)
    steps = []
    plan["plan_kwargs"]["compile_kwargs"] = {"backend": _noting(steps)}
    fitted("VAE", counts, train=plan)
    assert len(steps) == 1


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_step_may_be_machine_code(counts):
    train, settings = {"max_epochs": 2, "batch_size": 50}, {"dropout_rate": 0.0}
    plain = fitted("VAE", counts, train=train, **settings)
    with inductor.patch(fallback_random=True):  # draws as torch does
        found = fitted("VAE", counts, train=train | {"plan_kwargs": {"compile": True}}, **settings)
    np.testing.assert_allclose(found.get_latent_representation(), plain.get_latent_representation(), atol=1e-4)


def test_a_compiled_step_draws_several_samples(counts):
    settings = {"n_importance_samples": 3, "plan_kwargs": {"compile": True, "compile_kwargs": {"backend": "aot_eager"}}}
    history = fitted("VAE", counts, train=settings | {"batch_size": 50}).history
    assert np.isfinite(history["elbo_train"].to_numpy(dtype=float)).all()


def test_parts_of_a_block_are_dense_and_whole_minibatches(monkeypatch):
    """Their size is limited by 64 MB, and here by a few values."""
    x = torch.poisson(torch.rand(23, 6))
    cells = Cells(
        x=x.to_sparse_csr(),
        seen=x.to_sparse_csr(),
        library=x.sum(1, keepdim=True),
        c=x[:, :2],
        y=x[:, :0],
        stored=x[:, :0],
    )
    block = Guided(cells, torch.rand(23, 3))
    monkeypatch.setattr(_compiled, "MAX_FILLED", 2 * 5 * 6 + 1)  # of two minibatches of 5
    parts = list(_compiled.filled(block, batch_size=5))
    assert [len(part.guide) for part in parts] == [10, 10, 3]
    assert not any(is_sparse(part.cells.x) or is_sparse(part.cells.seen) for part in parts)
    torch.testing.assert_close(torch.cat([part.cells.x for part in parts]), x)
    torch.testing.assert_close(torch.cat([part.guide for part in parts]), block.guide)
    monkeypatch.setattr(_compiled, "MAX_FILLED", 1)  # one at least
    assert [len(part.guide) for part in _compiled.filled(block, batch_size=20)] == [20, 3]
