"""The losses of several minibatches as those of one."""

from collections.abc import Iterable

from scvi.module.base import LossOutput
from torch import Tensor


def join(found: list[LossOutput]) -> tuple[LossOutput, dict[str, Tensor]]:
    """What minibatches lost, as if they had been one, and the means of its terms by name."""
    n = sum(output.n_obs_minibatch for output in found)
    share = [output.n_obs_minibatch / n for output in found]

    def mean(values: Iterable[Tensor]) -> Tensor:
        return sum(w * value.detach() for w, value in zip(share, values, strict=True))

    block = LossOutput(
        loss=mean(output.loss for output in found),
        reconstruction_loss=sum(output.reconstruction_loss_sum.detach() for output in found),
        kl_local=sum(output.kl_local_sum.detach() for output in found),
        kl_global=found[-1].kl_global_sum.detach(),
        n_obs_minibatch=n,
    )
    return block, {key: mean(output.extra_metrics[key] for output in found) for key in found[0].extra_metrics}
