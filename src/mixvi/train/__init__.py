"""How a model is fitted: warm-up and phases as a scvi-tools training plan; linear Gaussian models in full batch."""

from mixvi.train._clusters import Clusters
from mixvi.train._effects import start_from
from mixvi.train._full_batch import fit_full_batch
from mixvi.train._initialise import NAMES as INITS
from mixvi.train._interrupt import Interruption
from mixvi.train._mixture_phases import MixturePhases
from mixvi.train._observe import read_counts
from mixvi.train._plan import MixviPlan

__all__ = [
    "INITS",
    "Clusters",
    "Interruption",
    "MixturePhases",
    "MixviPlan",
    "fit_full_batch",
    "read_counts",
    "start_from",
]
