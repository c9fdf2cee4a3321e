"""A GMVAE with the weights of a trained VAE or CVAE."""

from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from mixvi.model.registry import conditions_of
from mixvi.model.streaming import check_trained
from mixvi.model.unchanged import totals_of
from mixvi.module.priors import StandardNormal

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel
    from mixvi.model._gmvae import GMVAE

COPIED_SETTINGS = (
    "n_latent",
    "n_hidden",
    "n_layers",
    "dropout_rate",
    "dispersion",
    "batch_representation",
    "embedding_dim",
)
COPIED_WEIGHTS = ("encoder.", "likelihood.", "continuous.", "_embeddings_dict.")


def from_scvi_model(
    cls: type["GMVAE"],
    scvi_model: "LatentModel",
    unlabeled_category: str | None = None,
    labels_key: str | None = None,
    adata: AnnData | None = None,
    **settings: Any,
) -> "GMVAE":
    """A GMVAE that starts from a trained VAE or CVAE, under the name and arguments of scvi-tools.

    Encoder and decoder are copied. A mixture whose components are not placed yet is the same model as a VAE, so the new
    model gives the same latents. ``train()`` goes on from there, and finds the clusters.

    Parameters
    ----------
    scvi_model
        `VAE` or `CVAE`, but not with ``learned_prior=True``. Use `VAE.from_scvi` for a model of scvi-tools.
    unlabeled_category, labels_key
        As in `setup_anndata`; ``labels_key=None`` is without labels.
    adata
        Cells with the genes and batches of the model; ``None`` takes those of the model.
    **settings
        Of `GMVAE`, such as ``n_clusters`` and ``init``. Sizes and likelihood are those of the model.

    Returns
    -------
    A GMVAE with one cluster.

    Raises
    ------
    ValueError
        If the model has another prior or no cells, or the cells have other genes or batches.
    """
    _check(scvi_model, adata)
    name = type(scvi_model).__name__
    cells = scvi_model.adata if adata is None else adata
    if not np.array_equal(cells.var_names.astype(str), scvi_model.get_var_names().astype(str)):
        raise ValueError(f"The genes of the AnnData are not those of the {name}, in its order.")
    labels = {"unlabeled_category": unlabeled_category, "labels_key": labels_key}
    cls.setup_anndata(cells, **scvi_model.registry_["setup_args"] | labels)
    made = scvi_model.init_params_["non_kwargs"]
    kept = {key: made[key] for key in COPIED_SETTINGS if key in made} | ({"n_layers": 0} if made.get("linear") else {})
    new = cls(cells, **kept, likelihood=scvi_model.likelihood_, **settings)
    for (key, known), (_, found) in zip(conditions_of(scvi_model.registry_), conditions_of(new.registry_), strict=True):
        if not np.array_equal(theirs := np.asarray(known), own := np.asarray(found)):
            raise ValueError(f".obs[{key!r}] has {own.tolist()}, and the {name} knows {theirs.tolist()}.")
    state = {key: value for key, value in scvi_model.module.state_dict().items() if key.startswith(COPIED_WEIGHTS)}
    new.module.load_state_dict(new.module.state_dict() | state)
    new.to_device(scvi_model.device)
    new.module.eval()
    new.empty_levels_ = scvi_model.empty_levels_
    new.is_trained_, new.history_, new.trained_on_ = True, dict(scvi_model.history_ or {}), totals_of(new)
    if adata is None:
        new.train_indices, new.validation_indices = scvi_model.train_indices, scvi_model.validation_indices
    return new


def _check(model: "LatentModel", adata: AnnData | None) -> None:
    """Raise if a GMVAE cannot start from a model."""
    name = type(model).__name__
    if not isinstance(getattr(model.module, "prior", None), StandardNormal):
        raise ValueError(
            f"This {name} is no mixvi.VAE or mixvi.CVAE with a standard normal prior. For a model of scvi-tools, pass "
            "mixvi.VAE.from_scvi(model)."
        )
    check_trained(model)
    if model.unseen_:
        raise ValueError(
            f"{len(model.unseen_)} genes of these cells are unseen, and a GMVAE would read them as zeros. Pass the "
            "model of the reference."
        )
    if adata is None and model.adata is None:
        raise ValueError(f"This {name} was loaded without data; pass adata=.")
