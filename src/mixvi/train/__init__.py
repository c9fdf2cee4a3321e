"""How a model is fitted: warm-up and phases as a scvi-tools training plan; linear Gaussian models in full batch."""

from mixvi.train._effects import start_from
from mixvi.train._full_batch import fit_full_batch
from mixvi.train._interrupt import Interruption
from mixvi.train._plan import MixviPlan

__all__ = ["Interruption", "MixviPlan", "fit_full_batch", "start_from"]
