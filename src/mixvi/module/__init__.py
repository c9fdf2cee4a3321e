"""What the models are: tensors only, never AnnData."""

from mixvi.module._ae import AEModule
from mixvi.module._cvae import CVAEModule
from mixvi.module._elbo import ELBOModule
from mixvi.module._gmvae import GMVAEModule
from mixvi.module._vae import VAEModule
from mixvi.module.cells import Cells, Layout

__all__ = ["AEModule", "CVAEModule", "Cells", "ELBOModule", "GMVAEModule", "Layout", "VAEModule"]
