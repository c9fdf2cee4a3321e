"""Steps of training as one CUDA graph: forward, backward and optimizer without Python in between."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor

from mixvi.module.cells import Cells

WARM_UP = 3  # steps that are taken as they are, while torch compiles and the optimizer makes its moments
DEVICES = ("cuda",)  # whose work can be captured


def can_capture(trainer: Trainer, optimizer: LightningOptimizer) -> bool:
    """Whether all of a step happens on one GPU: no other process, no half precision, nothing that asks for values."""
    fused = all(group.get("fused") and not isinstance(group["lr"], Tensor) for group in optimizer.param_groups)
    alone = isinstance(trainer.strategy, SingleDeviceStrategy) and trainer.strategy.root_device.type in DEVICES
    return alone and fused and trainer.precision == "32-true" and not torch.is_anomaly_enabled()


class CapturedStep:
    """A step that is captured as a CUDA graph, and replayed for each minibatch from then on.

    A graph knows addresses and no values. So cells are copied, many minibatches at a time, to where it finds them, and
    it counts for itself which of them come next; the weight of the KL and the learning rates are tensors that stay
    where they are.

    Parameters
    ----------
    step
        Of cells and the weight of the KL; what is on the device must not be waited for in it.
    batch_size
        Cells a minibatch.
    optimizer
        The one that the step uses; it must be fused.
    trainer
        Whose count of steps goes on with each replay, of which it knows nothing.
    """

    def __init__(
        self,
        step: Callable[[Cells, Tensor], None],
        batch_size: int,
        optimizer: LightningOptimizer,
        trainer: Trainer,
    ):
        self._step, self._batch_size, self._optimizer = step, batch_size, optimizer
        self._progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        self._aside = SideStream()
        self._fixed = None

    def renew(self) -> None:
        """Before a block: forget the graph where something has changed that is no tensor, as which parameters learn."""
        groups = self._optimizer.param_groups
        fixed = [{name: value for name, value in group.items() if name not in ("params", "lr")} for group in groups]
        fixed = str(fixed), [(p.requires_grad, p.data_ptr()) for group in groups for p in group["params"]]
        if fixed != self._fixed:
            self._fixed, self._cells = fixed, None

    def read(self, cells: Cells) -> int:
        """Take these cells next, dense ones; how many whole minibatches they make."""
        if self._cells is None or len(self._cells.x) < len(cells.x):
            self._cells = Cells(*(value.clone() for value in cells))
            self._rows = torch.arange(self._batch_size, device=cells.x.device)
            self._next, self._kl_weight, self._given = self._rows.new_zeros(()), cells.x.new_zeros(()), None
            self._rates = [cells.x.new_zeros(()) for _ in self._optimizer.param_groups]
            self._replay, self._n_taken = None, 0
        for fixed, value in zip(self._cells, cells, strict=True):
            fixed[: len(value)] = value
        self._next.zero_()
        for rate, group in zip(self._rates, self._optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        return len(cells.x) // self._batch_size

    def __call__(self, kl_weight: Tensor) -> None:
        """One step, on the next minibatch."""
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
        self._step(Cells(*(value.index_select(0, rows) for value in self._cells)), self._kl_weight)
        self._next += self._batch_size

    @contextmanager
    def _capturable(self) -> Iterator[None]:
        """Learning rates as tensors; to all others, schedulers and checkpoints, they are numbers."""
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
    """Where steps are warmed up and captured: one stream for both, as CUDA's libraries prepare themselves for each."""

    def __init__(self):
        self._stream = torch.cuda.Stream()

    def run(self, f: Callable[[], None]) -> None:
        """F, after all that was asked of the current stream, and before all that will be."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            f()
        torch.cuda.current_stream().wait_stream(self._stream)

    def capture(self, f: Callable[[], None]) -> Callable[[], None]:
        """What f does on the GPU, as one graph; f itself is run for its Python alone."""
        gc.collect()  # what compiling left behind holds on to places where gradients were added up on other streams
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            f()
        return graph.replay
