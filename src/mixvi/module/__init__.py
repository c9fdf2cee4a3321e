"""The models as PyTorch modules. They take tensors, not AnnData."""

from mixvi.module._ae import AEModule
from mixvi.module._cvae import CVAEModule
from mixvi.module._elbo import ELBOModule
from mixvi.module._gmvae import GMVAEModule
from mixvi.module._vae import VAEModule
from mixvi.module.cells import Cells, Layout
from mixvi.module.priors import Factors

__all__ = ["AEModule", "CVAEModule", "Cells", "ELBOModule", "Factors", "GMVAEModule", "Layout", "VAEModule"]
