"""What users touch: AnnData in, AnnData out."""

from mixvi.model._ae import AE
from mixvi.model._cvae import CVAE
from mixvi.model._gmvae import GMVAE
from mixvi.model._vae import VAE

__all__ = ["AE", "CVAE", "GMVAE", "VAE"]
