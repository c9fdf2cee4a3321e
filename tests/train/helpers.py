"""Short runs of compiled steps, runs that a signal stops, and their checkpoints."""

import os

import numpy as np
from lightning.pytorch import Callback

from mixvi.cluster.vat import Learned


def steps_of(plan=None, **train):
    """Settings of train() for short runs of compiled steps, which torch traces and then runs as they are."""
    plan = {"compile": True, "compile_kwargs": {"backend": lambda graph, _: graph}} | (plan or {})
    return {"max_epochs": 6, "batch_size": 10, "plan_kwargs": plan} | train


class Press(Callback):
    """Sends this process a signal when an epoch begins."""

    def __init__(self, number, epoch):
        self.number, self.epoch = number, epoch

    def on_train_epoch_start(self, trainer, plan):
        if trainer.current_epoch == self.epoch:
            os.kill(os.getpid(), self.number)


def checkpoint(folder):
    """The one checkpoint in a folder."""
    (path,) = folder.glob("training-*.ckpt")
    return str(path)


def learned(x, labels, guess, n_classes, hidden, **_):
    """In place of `learn_classes`: cells without a class, and a net as it begins."""
    return Learned(np.full((len(labels), n_classes), 1 / n_classes), hidden().state_dict(), None)
