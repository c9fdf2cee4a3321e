"""What a module says of cells, one after the other, while it is trained."""

from collections.abc import Callable

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from mixvi.module._elbo import Cells, ELBOModule

Question = Callable[[Cells], tuple[Tensor, ...]]

BATCH_SIZE = 1024  # where nothing is learned from cells


@torch.no_grad()
def ask(module: ELBOModule, trainer: Trainer, rows: np.ndarray, of: Question) -> list[Tensor]:
    """What ``of`` says of each of the rows; of several processes, what does not share out evenly is left out."""
    was_training = module.training
    module.eval()
    said = [
        [value.cpu() for value in of(cells)]
        for block in trainer.datamodule.ordered_dataloader(rows)
        for cells in module.read(block).split(BATCH_SIZE)
    ]
    found = [torch.cat(values) for values in zip(*said, strict=True)]
    module.train(was_training)
    if trainer.world_size > 1:  # each process has every n-th; all go on with the same
        gather, device = trainer.strategy.all_gather, trainer.strategy.root_device
        found = [gather(each.to(device)).transpose(0, 1).flatten(0, 1).cpu() for each in found]
    return found
