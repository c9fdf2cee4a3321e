"""Virtual adversarial training of a module: small changes of a cell should not change its responsibilities."""

from torch import Tensor

from mixvi.cluster.vat import adversarial
from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Cells
from mixvi.ops.csr import dense


def smoothness(module: ELBOModule, cells: Cells) -> Tensor:
    """Virtual adversarial loss: KL divergence of the responsibilities before and after the worst small change.

    Parameters
    ----------
    module
        Module with a mixture prior.
    cells
        n cells, at least 2 for batch norm.

    Returns
    -------
    Scalar in nats: the mean over the cells.
    """

    def log_r(x: Tensor) -> Tensor:
        changed = cells._replace(seen=x)
        return module.mixture.log_responsibilities(module.encode(changed), changed)

    return adversarial(log_r, module, dense(cells.seen))
