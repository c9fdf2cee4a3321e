"""How sure a mixture may be of its components: not more, on average, than it is found to be right."""

import logging
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import softmax
from torch import Tensor

from mixvi.classes import SOME, share_found
from mixvi.data import CellsSplitter
from mixvi.module._elbo import Cells, ELBOModule

logger = logging.getLogger(__name__)

ENOUGH = 100  # labels that can say something of accuracy
MAX_CELLS = 100_000  # that are asked: more would not move a mean
HOTTEST = 100.0  # all but even shares


def temper(
    module: ELBOModule, cells: CellsSplitter, ask: Callable[[np.ndarray, Callable], list[Tensor]], seed: int = 0
) -> None:
    """Give the mixture a temperature at which cells are no surer of their components, on average, than they are right.

    Labelled validation cells, which were not trained on, say how often that is. Where there are fewer than ``ENOUGH``,
    training cells without a label are made as sure as was found when the components were placed; if nothing was, as
    where all cells have labels, ``SOME`` validation cells do. Else the temperature is 1.

    Parameters
    ----------
    module
        Its prior is a mixture.
    cells
        Training and validation cells.
    ask
        Says of the cells of given rows what a function of cells makes of them.
    seed
        Of the cells that are asked, where there are many.
    """

    def shares_and_label(cells: Cells) -> tuple[Tensor, ...]:
        return module.prior.log_responsibilities(module.encode(cells), cells), cells.label

    module.prior.temperature.fill_(1.0)
    accuracy = module.prior.accuracy.item()
    held_out = cells.some_rows(cells.val_idx, MAX_CELLS, seed)
    if module.layout.n_labels and len(held_out) >= SOME:
        log_r, label = ask(held_out, shares_and_label)
        known = label >= 0
        if known.sum() >= (SOME if np.isnan(accuracy) else ENOUGH):
            share = share_found((log_r.argmax(1) == label)[known].sum().item(), known.sum().item())
            _settle(module, log_r[known].numpy(), share)
            return
    if not np.isnan(accuracy):
        log_r, label = ask(cells.some_rows(cells.train_idx, MAX_CELLS, seed), shares_and_label)
        if (label < 0).any():
            _settle(module, log_r[label < 0].numpy(), accuracy)
            return
    if module.prior.active.sum() > 1:
        logger.info(
            "Nothing says how often cells land in the right cluster, as %d labels would: probabilities may be "
            "too sure.", SOME,
        )  # fmt: skip


def _settle(module: ELBOModule, log_r: np.ndarray, accuracy: float) -> None:
    found = temperature(log_r, accuracy)
    module.prior.temperature.fill_(found)
    before, after = (softmax(log_r / t, axis=1).max(1).mean() for t in (1.0, found))
    by_labels = "By held-out labels, about %.0f %% of cells of these classes are named rightly"
    by_others = "When clusters were placed, other ways to cluster agreed on %.0f %% of cells"
    basis = by_labels if module.layout.n_labels else by_others
    logger.info(
        f"{basis}; mean confidence is %.2f, from %.2f (temperature %.2f).", 100 * accuracy, after, before, found
    )


def temperature(log_r: np.ndarray, accuracy: float) -> float:
    """The temperature T at which responsibilities are as sure as they are right.

    Of T >= 1, the one where the mean over cells of max_k softmax(log r / T) is ``accuracy``, or the nearest there is: 1
    where cells are not too sure in the first place. The order of a cell's components stays as it is.

    Parameters
    ----------
    log_r
        (n, K) log responsibilities.
    accuracy
        Share of cells that are right, as far as it is known.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger 2017, On calibration of modern neural networks, ICML: one temperature, by labels of
    the cells themselves; here their share alone is known.
    """

    def too_sure(log_t: float) -> float:
        return softmax(log_r / np.exp(log_t), axis=1).max(1).mean() - accuracy

    if log_r.shape[1] == 1 or not too_sure(0.0) > 0:  # also where training left no numbers
        return 1.0
    hottest = np.log(HOTTEST)
    return HOTTEST if too_sure(hottest) > 0 else float(np.exp(brentq(too_sure, 0.0, hottest, xtol=1e-4)))
