"""The prediction of a model that was told the condition: encode with control, decode with stimulated."""

import numpy as np
from anndata import AnnData

from mixvi.model._conditional import ConditionalMixin
from mixvi.model.conditions import named
from mixvi.perturb._predictor import Predictor, Treatment, check_scale, draws, log_normalize


class Counterfactual(Predictor):
    """A conditional model as a predictor, made by `fit_counterfactual`."""

    def __init__(self, model: ConditionalMixin, treatment: Treatment):
        self.model, self.treatment = model, treatment

    def predict(self, adata: AnnData, cell_type: str | None = None, n_samples: int = 1, seed: int = 0) -> AnnData:
        """`predict_counterfactual` of control cells, with their own noise if of counts. See `Predictor.predict`."""
        treatment = self.treatment
        counts = draws(self.model)
        rows = np.repeat(treatment.control_rows(adata.obs, cell_type), n_samples if counts else 1)
        found = self.model.predict_counterfactual(
            adata, {treatment.condition_key: treatment.stimulated}, indices=rows, give_mean=not counts, seed=seed
        )
        x = log_normalize(found.X) if counts else found.X
        return self._answer(x, adata, rows, X_mixvi=found.obsm["X_mixvi"])


def fit_counterfactual(
    model: ConditionalMixin, condition_key: str, control: str, stimulated: str, cell_type_key: str
) -> Counterfactual:
    """A trained CVAE or GMVAE that is conditioned on ``condition_key``, with the same ``predict`` as all predictors.

    Parameters
    ----------
    model
        Trained, with the condition registered (``batch_key`` or a covariate).
    condition_key, control, stimulated, cell_type_key
        As in `fit_shift`.

    Raises
    ------
    ValueError
        If the model is not conditioned on the column, or does not know one of the conditions.
    KeyError
        If a column does not exist.
    """
    check_scale(model)
    for value in (control, stimulated):
        named(model, {condition_key: value})
    treatment = Treatment(condition_key, control, stimulated, cell_type_key)
    if model.adata is not None:
        treatment.check(model.adata.obs)
    return Counterfactual(model, treatment)
