"""Virtual adversarial training of a module: what a small change of a cell does to its component."""

from torch import Tensor

from mixvi.cluster.vat import adversarial
from mixvi.module._elbo import ELBOModule
from mixvi.module.cells import Cells
from mixvi.ops.csr import dense


def smoothness(module: ELBOModule, cells: Cells) -> Tensor:
    """Mean KL divergence of the responsibilities before and after the worst small change of each cell, a scalar."""

    def log_r(x: Tensor) -> Tensor:
        changed = cells._replace(seen=x)
        return module.prior.log_responsibilities(module.encode(changed), changed)

    return adversarial(log_r, module, dense(cells.seen))
