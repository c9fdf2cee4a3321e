"""Captured steps, with a stand-in for CUDA graphs that replays, on the CPU, what torch was asked to do."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from scipy.sparse import csr_matrix
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mixvi.train import _compiled, _cuda_graph
from mixvi.train._cuda_graph import SideStream, can_capture
from mixvi.train._losses import objective_of
from mixvi.train._smoothness import smoothness
from tests.model.helpers import MODELS, build, fitted
from tests.train.helpers import learned, steps_of

WAIT = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "lift_fresh",
    "equal",
    "is_nonzero",
    "repeat_interleave",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
}  # a capture fails there


class Recorded(TorchDispatchMode):
    """Operations on tensors as they come, to be done again with the same tensors: a graph knows addresses only."""

    def __init__(self, f):
        super().__init__()
        self.operations, self.n_replays = [], 0
        with self:
            f()

    @classmethod
    def ignore_compile_internals(cls):
        """Torch compiles all the same."""
        return True

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        """Do it, and note it."""
        name = operation._schema.name.removeprefix("aten::")
        indices = tree_leaves(args[1]) if name == "index" else []
        if name in WAIT or any(index.dtype == torch.bool for index in indices if index is not None):
            raise RuntimeError(f"{name} waits for the device")
        kwargs = kwargs or {}
        found = operation(*args, **kwargs)
        known = {_address(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)}
        new = [i for i, tensor in enumerate(tree_leaves(found)) if _is_new(tensor, known)]
        self.operations.append((operation, args, kwargs, found, new))
        return found

    def replay(self):
        """All of it once more; the first time it has been done already."""
        self.n_replays += 1
        if self.n_replays == 1:
            return
        with torch.no_grad():
            for operation, args, kwargs, before, new in self.operations:
                found = tree_leaves(operation(*args, **kwargs))
                for i in new:
                    tree_leaves(before)[i].copy_(found[i])


def _address(tensor):
    return tensor.untyped_storage().data_ptr()


def _is_new(tensor, known):
    return isinstance(tensor, torch.Tensor) and _address(tensor) not in known


@pytest.fixture
def graphs(monkeypatch):
    """All graphs that are captured while the CPU is taken for a GPU. Without one, nothing would be captured."""
    if not hasattr(TorchDispatchMode, "ignore_compile_internals"):
        pytest.skip("needs a torch that compiles while its operations are noted")
    captured = []

    class StandIn:
        def run(self, f):
            f()

        def capture(self, f):
            n_compiled = counters["stats"]["unique_graphs"]
            captured.append(Recorded(f))
            assert counters["stats"]["unique_graphs"] == n_compiled  # to compile in a capture ends it
            return captured[-1].replay

    monkeypatch.setattr(_cuda_graph, "DEVICES", ("cpu",))
    monkeypatch.setattr(_cuda_graph, "SideStream", StandIn)
    return captured


def assert_same(found, expected):
    """Two models learned the same, in as many steps."""
    assert found.trainer.global_step == expected.trainer.global_step
    assert set(found.history) == set(expected.history)
    for key, values in expected.history.items():
        np.testing.assert_allclose(found.history[key].astype(float), values.astype(float), rtol=1e-3, atol=1e-4)
    latents, means = zip(
        *((m.get_latent_representation(), m.get_reconstruction()) for m in (found, expected)), strict=True
    )
    np.testing.assert_allclose(*latents, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(*means, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "settings", "train"),
    [
        ("AE", {}, {"max_steps": 37}),
        ("VAE", {}, {"plan": {"n_steps_kl_warmup": 40}}),  # another weight at each step
        ("VAE", {"likelihood": "poisson"}, {"n_importance_samples": 3}),
        ("CVAE", {"learned_prior": True}, {"plan": {"optimizer": "AdamW"}}),
        ("GMVAE", {}, {}),
        ("GMVAE", {"hierarchical": True}, {"gradient_clip_val": 0.1}),
        ("VAE", {}, {"plan": {"reduce_lr_on_plateau": True, "lr_patience": 0, "lr_threshold": 1e9, "lr_factor": 0.3}}),
    ],
)
def test_a_replayed_step_is_the_same_step(name, settings, train, counts, monkeypatch, graphs):
    counts.X = csr_matrix(counts.X)
    monkeypatch.setattr(_compiled, "MAX_FILLED", 30 * 40)  # four minibatches at a time
    found = fitted(name, counts, train=steps_of(**train), **settings)
    phases = 2 if name == "GMVAE" else 1  # each has a graph of its own
    assert len(graphs) == phases
    assert sum(graph.n_replays for graph in graphs) > found.trainer.global_step * 0.6
    monkeypatch.setattr(_cuda_graph, "DEVICES", ())
    assert_same(found, fitted(name, counts, train=steps_of(**train), **settings))
    assert len(graphs) == phases


def test_labels_that_nets_learned_guide_replayed_steps_too(counts, monkeypatch, graphs):
    """Their worst small change is looked for in each step, and the learning rate falls from epoch to epoch."""
    monkeypatch.setattr("mixvi.cluster.vat.learn_classes", learned)  # which multiplies differences in the last bit
    counts.obs["label"] = np.where(np.arange(120) % 3, "?", counts.obs["cluster"].astype(str))
    setup = {"labels_key": "label", "unlabeled_category": "?"}
    settings = {"n_clusters": None, "init": "vat"}
    found = fitted("GMVAE", counts, setup, train=steps_of({"lr": 1e-3}, max_epochs=6), **settings)
    assert "smooth_train" in found.history
    assert len(graphs) == 2
    monkeypatch.setattr(_cuda_graph, "DEVICES", ())
    assert_same(found, fitted("GMVAE", counts, setup, train=steps_of({"lr": 1e-3}, max_epochs=6), **settings))


def test_what_is_no_tensor_is_captured_anew(counts, monkeypatch, graphs):
    class Change(Callback):
        def on_train_epoch_start(self, trainer, plan):
            if plan.current_epoch == 3:
                plan.module.encoder.loc.weight.requires_grad_(False)
                plan.optimizers().param_groups[0]["weight_decay"] = 0.1

    found = fitted("VAE", counts, train=steps_of(callbacks=[Change()]))
    assert len(graphs) == 2
    monkeypatch.setattr(_cuda_graph, "DEVICES", ())
    assert_same(found, fitted("VAE", counts, train=steps_of(callbacks=[Change()])))


@pytest.mark.parametrize(
    "train",
    [
        {"plan": {"fused_optimizer": False}},  # counts its steps on the host
        {"precision": "bf16-mixed"},
        {"detect_anomaly": True},
        {"plan": {"compile": False, "compile_kwargs": None}},
    ],
)
def test_what_cannot_be_captured_is_not(train, counts, graphs):
    trainer = fitted("VAE", counts, train=steps_of(**train)).trainer
    assert not graphs
    of_several = SimpleNamespace(root_device=trainer.strategy.root_device)
    assert not can_capture(SimpleNamespace(strategy=of_several, precision="32-true"), trainer.optimizers[0])


def test_the_stand_in_tells_what_waits_for_the_device():
    x = torch.arange(3.0)
    for waits in (
        x.sum().item, x.nonzero, lambda: x[x > 1], lambda: torch.tensor(2.0), lambda: bool(x[0]),
        x.unique, lambda: x.repeat_interleave(x.long()), x.long().bincount,
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="waits for the device"):
            Recorded(waits)


@pytest.mark.parametrize(
    ("name", "settings", "n_samples"),
    [
        ("AE", {"likelihood": "poisson"}, 1),
        ("VAE", {"likelihood": "zinb"}, 3),
        ("CVAE", {"learned_prior": True}, 1),
        ("CVAE", {"learned_prior": True}, 3),
        ("GMVAE", {}, 1),
        ("GMVAE", {}, 3),
        ("GMVAE", {"hierarchical": True}, 1),
    ],
)
def test_nothing_of_a_step_lies_on_the_host(name, settings, n_samples, counts, monkeypatch):
    """Tensors without values mix with no others but scalars, and cannot be waited for."""
    module = build(name, counts, **settings).module.to("meta")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    x, none, weight = (torch.empty(shape, device="meta") for shape in ((50, 30), (50, 1), ()))
    cells = module.read({"X": x, "batch": none, "labels": none})
    guide = torch.empty(50, module.prior.n_room, device="meta") if name == "GMVAE" else None
    loss, means = objective_of(module)(cells, n_samples, guide, kl_weight=weight)
    if name == "GMVAE":
        loss = loss + smoothness(module, cells)
    loss.backward()
    assert all(value.device.type == "meta" for value in means.values())


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_a_captured_step_learns_as_the_plain_one_does(name, counts, monkeypatch):
    train = {"max_epochs": 20, "batch_size": 50, "accelerator": "gpu"}
    plain = fitted(name, counts, train=train)
    graphs, capture = [], SideStream.capture
    monkeypatch.setattr(SideStream, "capture", lambda *args: graphs.append(capture(*args)) or graphs[-1])
    captured = fitted(name, counts, train=train | {"plan_kwargs": {"compile": True}})
    assert len(graphs) == (2 if name == "GMVAE" else 1)
    assert captured.get_elbo() == pytest.approx(plain.get_elbo(), rel=0.02)
