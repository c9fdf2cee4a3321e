"""The models that users call: AnnData in, AnnData out."""

from mixvi.model._ae import AE
from mixvi.model._base import LatentModel
from mixvi.model._conditional import ConditionPrior
from mixvi.model._cvae import CVAE
from mixvi.model._evidence import LogEvidence
from mixvi.model._gmvae import GMVAE
from mixvi.model._linear import PrincipalComponents
from mixvi.model._qc import QualityControl
from mixvi.model._tree import ClusterTree, Split
from mixvi.model._vae import VAE

__all__ = [
    "AE",
    "CVAE",
    "GMVAE",
    "VAE",
    "ClusterTree",
    "ConditionPrior",
    "LatentModel",
    "LogEvidence",
    "PrincipalComponents",
    "QualityControl",
    "Split",
]
