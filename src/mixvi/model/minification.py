"""Minification: the AnnData of a model keeps the posterior of each cell in place of its values."""

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from torch import Tensor

from mixvi._upstream import give_cells
from mixvi.data import TOTAL as TOTAL_KEY
from mixvi.data import WITH_VALUES, WITHOUT_VALUES, minified_copy, minified_type
from mixvi.model.registration import register
from mixvi.model.streaming import collect
from mixvi.module.cells import Cells
from mixvi.module.mixtures import HierarchicalMixture
from mixvi.ops.csr import totals

if TYPE_CHECKING:
    from mixvi.model._base import LatentModel


def minify_adata(
    model: "LatentModel",
    minified_data_type: Literal[
        "latent_posterior_parameters", "latent_posterior_parameters_with_counts"
    ] = "latent_posterior_parameters",
    use_latent_qzm_key: str | None = None,
    use_latent_qzv_key: str | None = None,
) -> None:
    """Replace the AnnData of the model by a small copy, which stores the posterior q(z | x, c) of each cell.

    Your own AnnData stays as it is. The copy has zeros in place of ``.X`` and of all layers, and no ``.raw``; all else
    is kept. Latents, clusters, expected values and predictions then come from the stored posterior. What needs the
    values raises a ``ValueError``: training, markers, the ELBO and the evidence.

    Parameters
    ----------
    minified_data_type
        ``"latent_posterior_parameters_with_counts"`` stores the posterior too, and keeps all values.
    use_latent_qzm_key, use_latent_qzv_key
        Keys of ``.obsm`` with the mean (n, d) and the variance (n, d) of the posterior. ``None`` computes them.

    Raises
    ------
    ValueError
        If the name of the type is not known, or the AnnData is minified without values already. If the posterior of
        the AnnData is not finite, or not (n, d). If a ``hierarchical`` GMVAE should do without values: its clusters
        need the posterior of a second latent.
    KeyError
        If ``.obsm`` has no such key.
    """
    if model.unseen_:
        raise ValueError(
            f"{len(model.unseen_)} genes of these cells are unseen, and minified cells would lose what was filled in. "
            "Keep the cells, or minify those of the reference."
        )
    if minified_data_type not in (known := (WITHOUT_VALUES, WITH_VALUES)):
        raise ValueError(f"minified_data_type={minified_data_type!r} is not known; it is one of {list(known)}.")
    with_values = minified_data_type == WITH_VALUES
    if not with_values and isinstance(model.module.prior, HierarchicalMixture):
        raise ValueError(
            "The clusters of hierarchical=True need q(w | x, c) of each cell, which minified cells do not store. "
            f"Keep the values: minify_adata({WITH_VALUES!r})."
        )

    def moments(cells: Cells) -> Tensor:
        qz = model.module.encode(cells)
        return torch.cat([qz.loc, qz.scale**2, totals(cells.x)], 1)

    found = collect(model, moments)  # (n, 2 d + 1)
    dtype = model.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY).dtype
    total = found[:, -1].astype(np.int64 if np.dtype(dtype).kind in "iu" else np.float32)
    if TOTAL_KEY in model.adata.obs and minified_type(model.adata) is None:
        raise ValueError(f".obs has a column {TOTAL_KEY!r}, where the total counts would stand; rename or drop it.")
    mean, variance = np.split(found[:, :-1], 2, axis=1)
    if use_latent_qzm_key is not None:
        mean = _stored(model, use_latent_qzm_key, mean.shape, least=-np.inf)
    if use_latent_qzv_key is not None:
        variance = _stored(model, use_latent_qzv_key, mean.shape, least=0)
    adata = minified_copy(model.adata, mean, variance, total, with_values)
    give_cells(model, register(type(model), adata, dict(model.registry_["setup_args"]), model.registry_))


def _stored(model: "LatentModel", key: str, shape: tuple[int, ...], least: float) -> np.ndarray:
    """Moments (n, d) of the posterior that the user computed."""
    if key not in model.adata.obsm:
        raise KeyError(f"There is no {key!r} in .obsm; it has {sorted(model.adata.obsm)}. Leave the key out.")
    values = np.asarray(model.adata.obsm[key], dtype=np.float32)
    if values.shape != shape or not np.isfinite(values).all() or (values < least).any():
        raise ValueError(
            f".obsm[{key!r}] has shape {values.shape}; it must have {shape} and finite numbers, and variances are not "
            "negative. Leave the key out: the model then computes them."
        )
    return values
