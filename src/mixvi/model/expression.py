"""Expression as a model sees it, under the names of scvi-tools: methods of `LatentModel`."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy.stats import rankdata
from torch import Tensor
from torch.distributions import Gamma

from mixvi._checks import check_number, check_whole
from mixvi.data import as_positions
from mixvi.model._decoded import Rows, batches_of, decoded, resampled
from mixvi.model.registration import registered
from mixvi.model.streaming import collect
from mixvi.module.cells import Cells
from mixvi.module.likelihoods import LIKELIHOODS

if TYPE_CHECKING:
    from sparse import GCXS

    from mixvi.model._base import LatentModel

N_PROPOSALS = 25  # draws from the posterior; one is kept, in proportion to its importance weight


def get_normalized_expression(
    model: "LatentModel",
    adata: AnnData | None = None,
    indices: Rows = None,
    transform_batch: str | Iterable[str] | None = None,
    gene_list: Sequence[str] | None = None,
    library_size: float | Literal["latent"] = 1,
    n_samples: int = 1,
    n_samples_overall: int | None = None,
    weights: Literal["uniform", "importance"] | None = None,
    batch_size: int | None = None,
    return_mean: bool = True,
    return_numpy: bool | None = None,
    n_mc_samples: int = N_PROPOSALS,
    n_mc_samples_per_pass: int | None = None,
) -> np.ndarray | pd.DataFrame:
    """Expected share of each gene in the counts of a cell, at draws from the posterior.

    A model of other values gives these as it expects them, because they are not counts to normalise.
    `get_reconstruction` gives the expected values at the posterior mean.

    Parameters
    ----------
    adata, indices, batch_size
        As in `get_latent_representation`.
    transform_batch
        Batch that all cells are decoded with; of several, the mean is given. ``None`` keeps the batch of each cell.
    gene_list
        Names of the genes to return, in the order of the model; ``None`` returns all.
    library_size
        Factor of the shares; ``"latent"`` takes the total count of each cell. Counts only.
    n_samples
        Draws for each cell, at least 1.
    n_samples_overall
        Number of draws in all, each from a cell that is chosen at random. Overrides ``n_samples``.
    weights
        ``"importance"`` keeps one of ``n_mc_samples`` draws, in proportion to p(x, z) / q(z | x). Otherwise all draws
        are kept.
    return_mean
        Return the mean of the draws of each cell.
    return_numpy
        Return an array in place of a table. The default is ``False`` if there is one row for each cell.
    n_mc_samples, n_mc_samples_per_pass
        Draws for the importance weights, and how many of them to decode at a time; ``None`` decodes all.

    Returns
    -------
    (n, g), or (``n_samples``, n, g) without ``return_mean``, or (``n_samples_overall``, g).

    Raises
    ------
    ValueError
        If a batch or gene is not known, or ``library_size`` has no meaning.
    """
    check_whole("n_samples", n_samples)
    check_whole("n_samples_overall", n_samples_overall, none="n_samples for each cell")
    check_whole("n_mc_samples", n_mc_samples)
    check_whole("n_mc_samples_per_pass", n_mc_samples_per_pass, none="all")
    if weights not in (None, "uniform", "importance"):
        raise ValueError(f"weights={weights!r} is not known; it is None, 'uniform' or 'importance'.")
    genes, cells = _genes(model, gene_list), registered(model, adata, minified=True).adata
    rows = as_positions(indices, cells.n_obs)
    if n_samples_overall is not None:
        rows, n_samples = np.random.choice(rows, n_samples_overall), 1

    shares = _shares(model, genes, library_size)
    draw = resampled(model, n_mc_samples, n_mc_samples_per_pass) if weights == "importance" else None
    found = decoded(model, shares, adata, rows, transform_batch, n_samples, batch_size, draw)
    if n_samples > 1 and not return_mean:
        return found.swapaxes(0, 1)
    found = found.mean(1)
    if return_numpy or (return_numpy is None and n_samples_overall is not None):
        return found
    return pd.DataFrame(found, columns=model.get_var_names()[genes], index=cells.obs_names[rows])


def posterior_predictive_sample(
    model: "LatentModel",
    adata: AnnData | None = None,
    indices: Rows = None,
    transform_batch: str | Iterable[str] | None = None,
    n_samples: int = 1,
    gene_list: Sequence[str] | None = None,
    batch_size: int | None = None,
) -> "GCXS":
    """Draw values that the model expects of each cell: z from the posterior, then x from the likelihood.

    Parameters
    ----------
    adata, indices, batch_size
        As in `get_latent_representation`.
    transform_batch, gene_list
        As in `get_normalized_expression`.
    n_samples
        Draws for each cell, at least 1.

    Returns
    -------
    Sparse array (n, g), or (n, g, ``n_samples``) of more than one draw.
    """
    import sparse

    check_whole("n_samples", n_samples)
    genes = _genes(model, gene_list)
    found = decoded(
        model, lambda px, _: px.sample()[..., genes], adata, indices, transform_batch, n_samples, batch_size
    )
    return sparse.GCXS.from_numpy(found[:, 0] if n_samples == 1 else found.transpose(0, 2, 1))


def get_likelihood_parameters(
    model: "LatentModel",
    adata: AnnData | None = None,
    indices: Rows = None,
    n_samples: int = 1,
    give_mean: bool = False,
    batch_size: int | None = None,
) -> dict[str, np.ndarray]:
    """Parameters of p(x | z) for each cell, at draws from the posterior.

    Parameters
    ----------
    adata, indices, batch_size
        As in `get_latent_representation`.
    n_samples
        Draws for each cell, at least 1.
    give_mean
        Return the mean of the draws.

    Returns
    -------
    ``"mean"``; of ``"nb"`` and ``"zinb"`` also ``"dispersions"``, theta; of ``"zinb"`` also ``"dropout"``, the share of
    additional zeros; of ``"normal"`` also ``"scale"``. Each is (n, g), or (``n_samples``, n, g).
    """
    check_whole("n_samples", n_samples)
    names = {"nb": ("theta",), "zinb": ("theta", "zi_probs"), "normal": ("scale",)}.get(model.likelihood_, ())

    def parameters(px: Any, _: Cells) -> Tensor:
        mean = px.mu if model.likelihood_ in ("nb", "zinb") else px.mean
        return torch.stack([mean, *(getattr(px, name).expand_as(mean) for name in names)], -2)

    found = decoded(model, parameters, adata, indices, None, n_samples, batch_size)  # (n, s, k, g)
    found = found.mean(1) if n_samples == 1 or give_mean else found.swapaxes(0, 1)
    keys = ["mean", *({"theta": "dispersions", "zi_probs": "dropout"}.get(name, name) for name in names)]
    return {key: found[..., i, :] for i, key in enumerate(keys)}


def get_feature_correlation_matrix(
    model: "LatentModel",
    adata: AnnData | None = None,
    indices: Rows = None,
    n_samples: int = 10,
    batch_size: int | None = None,
    rna_size_factor: float = 1000,
    transform_batch: str | Iterable[str] | None = None,
    correlation_type: Literal["spearman", "pearson"] = "spearman",
) -> pd.DataFrame:
    """Correlation of genes over cells, without the Poisson noise of counting.

    Under ``"nb"`` and ``"zinb"``, the rates of a cell are draws from the gamma distribution of its overdispersion.

    Parameters
    ----------
    adata, indices, batch_size
        As in `get_latent_representation`.
    n_samples
        Draws for each cell, at least 1.
    rna_size_factor
        Library size of all cells; it sets how much of the variance is overdispersion.
    transform_batch
        As in `get_normalized_expression`; of several, correlations are averaged.
    correlation_type
        ``"spearman"`` or ``"pearson"``.

    Returns
    -------
    (g, g) table.
    """
    check_counts(model, "get_feature_correlation_matrix()", "numpy.corrcoef of get_reconstruction()")
    check_whole("n_samples", n_samples)
    check_number("rna_size_factor", rna_size_factor, above=0)
    if correlation_type not in ("spearman", "pearson"):
        raise ValueError(f"correlation_type={correlation_type!r} is not known; it is 'spearman' or 'pearson'.")

    def rates(px: Any, _: Cells) -> Tensor:
        rate = rna_size_factor * px.scale
        if model.likelihood_ == "poisson":
            return rate
        theta = px.theta.expand_as(rate)
        return Gamma(theta, theta / rate).sample()

    found = []
    for batch in [None] if transform_batch is None else batches_of(transform_batch):
        values = decoded(model, rates, adata, indices, batch, n_samples, batch_size)
        values = values.reshape(-1, values.shape[-1])
        found.append(np.corrcoef(rankdata(values, axis=0) if correlation_type == "spearman" else values, rowvar=False))
    genes = model.get_var_names()
    return pd.DataFrame(np.mean(found, axis=0), index=genes, columns=genes)


def get_latent_library_size(
    model: "LatentModel",
    adata: AnnData | None = None,
    indices: Rows = None,
    give_mean: bool = True,
    batch_size: int | None = None,
) -> np.ndarray:
    """Library size of each cell: its total count, or its size factor. It is observed, so it has no posterior.

    Parameters
    ----------
    adata, indices, batch_size
        As in `get_latent_representation`.
    give_mean
        Has no effect, because the library size is known.

    Returns
    -------
    (n, 1).
    """
    check_counts(model, "get_latent_library_size()", "the sums of the values")
    return collect(model, lambda cells: cells.library, adata, indices, batch_size, minified=True)


def _genes(model: "LatentModel", names: Sequence[str] | None) -> np.ndarray:
    """Positions of genes, in the order of the model."""
    genes = model.get_var_names()
    if names is None:
        return np.arange(len(genes))
    if missing := sorted(set(names) - set(genes)):
        raise ValueError(f"gene_list has {missing[:5]}, which the model does not know; see get_var_names().")
    return np.flatnonzero(np.isin(genes, names))


def _shares(
    model: "LatentModel", genes: np.ndarray, library_size: float | Literal["latent"]
) -> Callable[[Any, Cells], Tensor]:
    """Function that gives the shares of genes in the library size, or the means of values that are not counts."""
    if library_size != "latent":
        check_number("library_size", library_size, above=0)
    if library_size != 1:
        check_counts(model, f"library_size={library_size!r}", "the default")
    if LIKELIHOODS[model.likelihood_].support != "count":
        return lambda px, _: px.mean[..., genes]
    return lambda px, cells: px.scale[..., genes] * (cells.library if library_size == "latent" else library_size)


def check_counts(model: "LatentModel", what: str, instead: str) -> None:
    """Raise ``ValueError`` if a model is not one of counts.

    Parameters
    ----------
    model
        The model.
    what, instead
        What needs counts, and what to use for other values.
    """
    if LIKELIHOODS[model.likelihood_].support != "count":
        raise ValueError(f"{what} is for counts, and this model has likelihood={model.likelihood_!r}; use {instead}.")
