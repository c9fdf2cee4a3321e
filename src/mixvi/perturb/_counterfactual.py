"""Counterfactual prediction of a conditional model: encode with control, decode with stimulated."""

from typing import override

import numpy as np
from anndata import AnnData

from mixvi.model._conditional import ConditionalMixin
from mixvi.model.conditions import named
from mixvi.perturb._predictor import Predictor, Treatment, check_scale, draws, log_normalize


class Counterfactual(Predictor):
    """A conditional model as a predictor, made by `fit_counterfactual`.

    Control cells are encoded with their own condition and decoded with the stimulated one, by
    ``model.predict_counterfactual``. A model of counts keeps the noise of each cell. Other models give the mean.
    """

    def __init__(self, model: ConditionalMixin, treatment: Treatment):
        self.model, self.treatment = model, treatment

    @override
    def predict(self, adata: AnnData, cell_type: str | None = None, n_samples: int = 1, seed: int = 0) -> AnnData:
        treatment = self.treatment
        counts = draws(self.model)
        rows = np.repeat(treatment.control_rows(adata.obs, cell_type), n_samples if counts else 1)
        found = self.model.predict_counterfactual(
            adata, {treatment.condition_key: treatment.stimulated}, indices=rows, give_mean=not counts, seed=seed
        )
        x = log_normalize(np.asarray(found.X)) if counts else np.asarray(found.X)
        return self._answer(x, adata, rows, X_mixvi=found.obsm["X_mixvi"])


def fit_counterfactual(
    model: ConditionalMixin, condition_key: str, control: str, stimulated: str, cell_type_key: str
) -> Counterfactual:
    """Make a predictor of a trained CVAE or GMVAE that is conditioned on ``condition_key``.

    Parameters
    ----------
    model
        A trained model whose ``setup_anndata`` got the condition, as ``batch_key`` or as a covariate.
    condition_key
        Column of ``.obs`` with the condition.
    control, stimulated
        Its two values.
    cell_type_key
        Column of ``.obs`` with the type of each cell.

    Returns
    -------
    `Counterfactual`, whose ``predict`` decodes control cells with the stimulated condition.

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
