"""The number of latent dimensions, from the evidence of held-out cells."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi import settings

from mixvi._checks import check_whole
from mixvi.model import CVAE, GMVAE, VAE

ACTIVE = 0.01  # variance of the posterior mean over cells above which a dimension is active (Burda 2016, section 5.2)


def select_n_latent(
    cls: type[VAE | CVAE | GMVAE],
    adata: AnnData,
    candidates: Sequence[int] = (2, 5, 10, 20, 40),
    n_samples: int = 100,
    model_kwargs: dict[str, Any] | None = None,
    train_kwargs: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """Compare numbers of latent dimensions by the evidence of cells that did not train the model.

    Each candidate is trained on the same nine tenths of the cells. The choice is the smallest number whose evidence is
    within one standard error of the best one. Labels are not used.

    Parameters
    ----------
    cls
        ``mixvi.VAE``, ``mixvi.CVAE`` or ``mixvi.GMVAE``.
    adata
        Cells, after ``cls.setup_anndata``.
    candidates
        Numbers of latent dimensions.
    n_samples
        Draws for the evidence of each cell, as in ``get_log_evidence``.
    model_kwargs, train_kwargs
        Arguments of the model and of its ``train()``.

    Returns
    -------
    A row for each candidate with these columns:

    - ``log_evidence``: mean over the held-out cells, in nats.
    - ``below_best``, ``standard_error``: difference from the best candidate, and the error of this difference.
    - ``n_active``: number of dimensions whose posterior means vary.
    - ``selected``: whether it is the choice.

    Raises
    ------
    ValueError
        If there are no candidates, one is not a whole number of at least 1, or the model has no evidence.

    Examples
    --------
    >>> mixvi.VAE.setup_anndata(adata, layer="counts")
    >>> table = mixvi.select_n_latent(mixvi.VAE, adata)
    >>> mixvi.pl.n_latent(table)
    """
    if cls not in (VAE, CVAE, GMVAE):
        raise ValueError(f"cls={cls!r}; it must be mixvi.VAE, mixvi.CVAE or mixvi.GMVAE, which have an evidence.")
    if not len(candidates):
        raise ValueError("candidates is empty; pass at least one number of latent dimensions.")
    for n_latent in candidates:
        check_whole("candidates", n_latent)
    order = np.random.default_rng(settings.seed).permutation(adata.n_obs)
    held_out, training = np.split(order, [max(adata.n_obs // 10, 1)])
    split = {"external_indexing": [training, held_out, np.array([], dtype=int)]}
    evidence, n_active = [], []
    for n_latent in candidates:
        model = cls(adata, n_latent=int(n_latent), **(model_kwargs or {}))
        model.train(**(train_kwargs or {}), datasplitter_kwargs=split)
        evidence.append(model.get_log_evidence(indices=held_out, n_samples=n_samples).value)
        n_active.append(int((model.get_latent_representation().var(0) > ACTIVE).sum()))
    values = np.stack(evidence).astype(float)  # (candidates, cells)
    below = values[values.mean(1).argmax()] - values
    error = below.std(1, ddof=1) / np.sqrt(len(held_out)) if len(held_out) > 1 else np.full(len(values), np.inf)
    table = pd.DataFrame(
        {"log_evidence": values.mean(1), "below_best": below.mean(1), "standard_error": error, "n_active": n_active},
        index=pd.Index(candidates, name="n_latent"),
    )
    chosen = table.index[table["below_best"] <= table["standard_error"]].min()
    return table.assign(selected=table.index == chosen)
