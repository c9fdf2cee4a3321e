"""What the models are: tensors only, never AnnData."""

from mixvi.module._ae import AEModule
from mixvi.module._cvae import CVAEModule
from mixvi.module._elbo import Cells, ELBOModule, Layout
from mixvi.module._gmvae import GMVAEModule
from mixvi.module._vae import VAEModule

__all__ = ["AEModule", "CVAEModule", "Cells", "ELBOModule", "GMVAEModule", "Layout", "VAEModule"]
