"""Length of the training of a mixture: until the bound on held-out cells settles."""

import numpy as np

from mixvi.train._plan import MixviPlan

MIN_PRETRAINING_STEPS = (
    500  # of the optimizer; before, the bound can be level for a while, until the latent space is used
)
SETTLED = 0.05  # share of the gain on held-out cells that the second half of pretraining brings, when it is long enough


def slow_down(plan: MixviPlan, now: int, end: int) -> None:
    """Lower the learning rate linearly to 0, once in each epoch, from the epoch of the first call on.

    Parameters
    ----------
    plan
        Whose optimizer keeps the first rate and epoch, also in checkpoints.
    now
        This epoch.
    end
        Number of epochs; -1 is no limit, and leaves the rate.
    """
    for group in plan.optimizers().param_groups if end > now else ():  # checkpoints save these values
        first = group.setdefault("first_epoch", now)
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * (end - now) / (end - first)


def has_settled(bounds: list[float], nats: float) -> bool:
    """Whether the second half of the epochs brought at most so many nats, and 5 % of the gain since the first epoch.

    A bound that has risen by more than these nats is not settled: training can be unstable at first.

    Parameters
    ----------
    bounds
        Negative bound of held-out cells after each epoch, in nats a cell.
    nats
        The largest gain that does not matter.
    """
    least, n = np.minimum.accumulate(bounds), len(bounds)
    if n < 4 or bounds[-1] - least[-1] > nats:
        return False
    return bool(least[n // 2 - 1] - least[-1] <= min(nats, SETTLED * (least[0] - least[-1])))
