"""A VAE with the weights of a trained SCVI model."""

from typing import TYPE_CHECKING

from anndata import AnnData
from scvi.model import SCVI
from torch import Tensor

from mixvi.model.unchanged import totals_of

if TYPE_CHECKING:
    from mixvi.model._vae import VAE


def from_scvi(cls: type["VAE"], model: SCVI, adata: AnnData | None = None) -> "VAE":
    """Make a model with the weights of a trained SCVI model, which gives the same numbers without training.

    Parameters
    ----------
    cls
        Class of the new model.
    model
        Trained SCVI model of one batch, without covariates.
    adata
        Cells to register with the new model; ``None`` takes those of the SCVI model.

    Returns
    -------
    The new model, which is trained.
    """
    settings, theirs = model.init_params_["non_kwargs"], model.module
    state = {name: value.detach().cpu() for name, value in theirs.state_dict().items()}
    first = [f"{part}.fc_layers.Layer 0" for part in ("z_encoder.encoder", "decoder.px_decoder")]
    for name, value, wanted in (
        ("dispersion", theirs.dispersion, ["gene", "gene-batch"]),  # which is the same for one batch
        ("gene_likelihood", theirs.gene_likelihood, ["nb", "zinb", "poisson"]),
        ("latent_distribution", theirs.latent_distribution, ["normal"]),
        ("use_observed_lib_size", theirs.use_observed_lib_size, [True]),
        ("batch norm", all(f"{layer}.1.running_mean" in state for layer in first), [True]),
        ("layer norm", any(f"{layer}.2.weight" in state for layer in first), [False]),
        ("number of batches", model.summary_stats["n_batch"], [1]),
        ("number of covariates", model.summary_stats.get("n_extra_categorical_covs", 0), [0]),
    ):
        if value not in wanted:
            raise ValueError(f"The SCVI model has {name}={value!r}; VAE.from_scvi() takes {wanted} only.")
    cells = model.adata if adata is None else adata
    cls.setup_anndata(cells, layer=model.registry_["setup_args"]["layer"])
    new = cls(
        cells, n_latent=settings["n_latent"], n_hidden=settings["n_hidden"], n_layers=settings["n_layers"],
        dropout_rate=settings["dropout_rate"], likelihood=theirs.gene_likelihood,
    )  # fmt: skip
    ours = dict(new.module.state_dict())
    _hidden(ours, "encoder.trunk", state, "z_encoder.encoder", settings["n_layers"])
    _hidden(ours, "likelihood.trunk", state, "decoder.px_decoder", settings["n_layers"])
    heads = {"encoder.loc": "z_encoder.mean_encoder", "encoder.log_scale": "z_encoder.var_encoder"}
    heads["likelihood.rho"] = "decoder.px_scale_decoder.0"
    if theirs.gene_likelihood == "zinb":
        heads["likelihood.zero_logits"] = "decoder.px_dropout_decoder"
    for to, of in heads.items():
        halved = 0.5 if to == "encoder.log_scale" else 1.0  # they give the log of the variance
        for part in ("weight", "bias"):
            ours[f"{to}.{part}"] = halved * state[f"{of}.{part}"]
    if theirs.gene_likelihood != "poisson":
        ours["likelihood.log_theta"] = state["px_r"].flatten()
    new.module.load_state_dict(ours)
    new.module.eval()
    new.is_trained_, new.history_, new.trained_on_ = True, dict(model.history_ or {}), totals_of(new)
    new.train_indices, new.validation_indices = model.train_indices, model.validation_indices
    return new


def _hidden(ours: dict[str, Tensor], to: str, theirs: dict[str, Tensor], of: str, n_layers: int) -> None:
    """Copy hidden layers; ours have a row of weights for each input."""
    for i in range(n_layers):
        source, target = f"{of}.fc_layers.Layer {i}", f"{to}.layers.{i}"
        ours[f"{target}.weight"] = theirs[f"{source}.0.weight"].T.contiguous()
        ours[f"{target}.bias"] = theirs[f"{source}.0.bias"]
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            ours[f"{target}.norm.{part}"] = theirs[f"{source}.1.{part}"]
