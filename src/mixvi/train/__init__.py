"""How a model is fitted: warm-up and phases, as a scvi-tools training plan."""

from mixvi.train._plan import MixviPlan

__all__ = ["MixviPlan"]
