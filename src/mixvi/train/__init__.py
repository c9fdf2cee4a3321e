"""Training: a training plan with warm-up and phases, and full-batch training for linear Gaussian models."""

from mixvi.train._checkpoint import OURS, Checkpoints
from mixvi.train._clusters import Clusters
from mixvi.train._condition_effects import SampledValues, start_from
from mixvi.train._finite import FiniteWeights
from mixvi.train._full_batch import fit_full_batch, use_data_units
from mixvi.train._initialise import NAMES as INITS
from mixvi.train._interrupt import Interruption
from mixvi.train._mixture_phases import MixturePhases
from mixvi.train._new_levels import fit_new_levels, nearest_levels
from mixvi.train._observe import Counts, read_counts, stream
from mixvi.train._plan import MixviPlan
from mixvi.train._progress import ProgressLines, StartAndEnd

__all__ = [
    "INITS",
    "OURS",
    "Checkpoints",
    "Clusters",
    "Counts",
    "FiniteWeights",
    "Interruption",
    "SampledValues",
    "MixturePhases",
    "MixviPlan",
    "ProgressLines",
    "StartAndEnd",
    "fit_full_batch",
    "fit_new_levels",
    "nearest_levels",
    "read_counts",
    "start_from",
    "stream",
    "use_data_units",
]
