"""Prediction of perturbed cells: latent arithmetic, counterfactuals, and the simple answers they must beat."""

from mixvi.perturb._arithmetic import Shift, fit_shift, remove_batch
from mixvi.perturb._baselines import BASELINES, Baseline, fit_baseline
from mixvi.perturb._counterfactual import Counterfactual, fit_counterfactual
from mixvi.perturb._evaluate import evaluate
from mixvi.perturb._predictor import Predictor, Treatment, expression, is_counts
from mixvi.perturb._protocol import leave_one_out

__all__ = [
    "BASELINES",
    "Baseline",
    "Counterfactual",
    "Predictor",
    "Shift",
    "Treatment",
    "evaluate",
    "expression",
    "fit_baseline",
    "fit_counterfactual",
    "fit_shift",
    "is_counts",
    "leave_one_out",
    "remove_batch",
]
