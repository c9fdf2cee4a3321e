"""Steps of training as one CUDA graph: forward, backward and optimizer without Python in between."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor

from mixvi._upstream import step_progress
from mixvi.module.cells import Cells
from mixvi.train._guide import Guided

WARM_UP = 3  # plain steps before the capture, in which torch compiles and the optimizer creates its moments
DEVICES = ("cuda",)  # that support graphs


def can_capture(trainer: Trainer, optimizer: LightningOptimizer) -> bool:
    """Whether a step can be captured: one process, one GPU, single precision, and a fused optimizer.

    Parameters
    ----------
    trainer
        Trainer of the model.
    optimizer
        Its optimizer.

    Returns
    -------
    ``True`` if no operation of a step waits for the device.
    """
    fused = all(group.get("fused") and not isinstance(group["lr"], Tensor) for group in optimizer.param_groups)
    alone = isinstance(trainer.strategy, SingleDeviceStrategy) and trainer.strategy.root_device.type in DEVICES
    return alone and fused and trainer.precision == "32-true" and not torch.is_anomaly_enabled()


class CapturedStep:
    """A training step as a CUDA graph. It is captured once and replayed for each minibatch.

    A graph reads fixed addresses. So many minibatches at a time are copied to fixed memory. A counter in this memory
    selects the next minibatch. The weight of the KL and the learning rates are tensors in fixed memory too.

    Parameters
    ----------
    step
        Function of a minibatch and the weight of the KL. It must not wait for the device.
    batch_size
        Cells in each minibatch.
    optimizer
        Fused optimizer that the step uses.
    trainer
        Trainer whose count of steps each replay increases.
    """

    def __init__(
        self,
        step: Callable[[Guided, Tensor], None],
        batch_size: int,
        optimizer: LightningOptimizer,
        trainer: Trainer,
    ):
        self._step, self._batch_size, self._optimizer = step, batch_size, optimizer
        self._progress = step_progress(trainer)
        self._aside = SideStream()
        self._fixed: tuple | None = None
        self._block: list[Tensor] = []
        self._given: Tensor | None = None
        self._replay: Callable[[], None] | None = None

    def renew(self) -> None:
        """Before each block: drop the graph if settings changed that are no tensors, such as frozen parameters."""
        groups = self._optimizer.param_groups
        plain = [{name: value for name, value in group.items() if name not in ("params", "lr")} for group in groups]
        fixed = str(plain), [(p.requires_grad, p.data_ptr()) for group in groups for p in group["params"]]
        if fixed != self._fixed:
            self._fixed, self._block = fixed, []

    def read(self, block: Guided) -> int:
        """Copy dense cells to where the graph finds them. Returns the number of whole minibatches among them."""
        n_cells, values = len(block.guide), (*block.cells, block.guide)
        if not self._block or len(self._block[0]) < n_cells:
            self._block = [value.clone() for value in values]
            self._rows = torch.arange(self._batch_size, device=block.guide.device)
            self._next, self._kl_weight, self._given = self._rows.new_zeros(()), block.guide.new_zeros(()), None
            self._rates = [block.guide.new_zeros(()) for _ in self._optimizer.param_groups]
            self._replay, self._n_taken = None, 0
        for fixed, value in zip(self._block, values, strict=True):
            fixed[: len(value)] = value
        self._next.zero_()
        for rate, group in zip(self._rates, self._optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        return n_cells // self._batch_size

    def __call__(self, kl_weight: Tensor) -> None:
        """Take one step on the next minibatch."""
        if kl_weight is not self._given:
            self._given = kl_weight
            self._kl_weight.copy_(kl_weight)
        if self._replay is not None:
            self._replay()
            self._progress.increment_ready()
            self._progress.increment_completed()
        elif self._n_taken < WARM_UP:
            self._n_taken += 1
            self._aside.run(self._take)
        else:
            with self._capturable():
                self._replay = self._aside.capture(self._take)
            self._replay()

    def _take(self) -> None:
        rows = self._next + self._rows
        *cells, guide = (value.index_select(0, rows) for value in self._block)
        self._step(Guided(Cells(*cells), guide), self._kl_weight)
        self._next += self._batch_size

    @contextmanager
    def _capturable(self) -> Iterator[None]:
        """Make learning rates tensors during the capture. Schedulers and checkpoints need numbers."""
        groups = self._optimizer.param_groups
        before = [{name: group[name] for name in ("lr", "capturable") if name in group} for group in groups]
        for group, settings, rate in zip(groups, before, self._rates, strict=True):
            group.update({"lr": rate} | {name: True for name in settings if name == "capturable"})
        try:
            yield
        finally:
            for group, settings in zip(groups, before, strict=True):
                group.update(settings)


class SideStream:
    """A CUDA stream for the first steps and the capture. Both need the same one, because CUDA libraries prepare it."""

    def __init__(self):
        self._stream = torch.cuda.Stream()

    def run(self, f: Callable[[], None]) -> None:
        """Run f after all earlier work of the current stream, and before all its later work."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            f()
        torch.cuda.current_stream().wait_stream(self._stream)

    def capture(self, f: Callable[[], None]) -> Callable[[], None]:
        """Capture the GPU work of f as one graph, without doing it. Returns the function that replays it."""
        gc.collect()  # objects left from compiling keep gradients of other streams alive
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            f()
        return graph.replay
