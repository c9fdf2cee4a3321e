"""A paragraph for the methods section of a paper, with its references."""

from typing import TYPE_CHECKING

import numpy as np
import scvi

from mixvi.cluster.agglomerate import EVEN, most_confused

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE

REFERENCES = {
    "vae": "Kingma and Welling 2014, Auto-encoding variational Bayes, ICLR.",
    "scvi-tools": "Gayoso et al. 2022, A Python library for probabilistic analysis of single-cell omics data, Nature "
    "Biotechnology.",
    "mixture": "Dilokthanakul et al. 2016, Deep unsupervised clustering with Gaussian mixture variational "
    "autoencoders, arXiv.",
    "leiden": "Traag, Waltman and van Eck 2019, From Louvain to Leiden: guaranteeing well-connected communities, "
    "Scientific Reports.",
    "splitting": "Neufeld et al. 2023, Negative binomial count splitting for single-cell RNA sequencing data, arXiv.",
    "calibration": "Guo, Pleiss, Sun and Weinberger 2017, On calibration of modern neural networks, ICML.",
}
LIKELIHOOD_NAMES = {
    "nb": "negative binomial", "zinb": "zero-inflated negative binomial", "poisson": "Poisson",
    "bernoulli": "Bernoulli", "normal": "normal",
}  # fmt: skip


def methods(model: "GMVAE", n_clusters: int) -> str:
    """The text of a methods section on this model.

    Parameters
    ----------
    model
        Trained GMVAE.
    n_clusters
        Number of clusters in the report.

    Returns
    -------
    One paragraph.
    """
    params, tree, setup = model.init_params_["non_kwargs"], model.tree.clusters.tree, model.registry_["setup_args"]
    covariates = [*(setup["categorical_covariate_keys"] or []), *(setup["continuous_covariate_keys"] or [])]
    used = [f"batch ({setup['batch_key']})"] if setup["batch_key"] else []
    used += [f"covariates ({', '.join(covariates)})"] if covariates else []
    said = [
        f"{model.adata.n_obs:,} cells and {model.adata.n_vars:,} genes were modelled by a Gaussian-mixture variational "
        f"autoencoder (GMVAE; mixvi {model.mixvi_version_}, scvi-tools {scvi.__version__}) with {params['n_latent']} "
        f"latent dimensions and a {LIKELIHOOD_NAMES.get(model.likelihood_, model.likelihood_)} likelihood."
    ]
    if used:
        said.append(f"The model was conditioned on {' and '.join(used)}.")
    if setup["labels_key"]:
        said.append(f"Known classes ({setup['labels_key']}) were used as labels.")
    if model.history and "elbo_train" in model.history:
        said.append(f"It was trained for {len(model.history['elbo_train'])} epochs.")
    if _is_leiden(model):
        said.append(
            f"Leiden communities of a shared-neighbour graph gave {tree.n_leaves} components of the mixture. These "
            f"were joined to {n_clusters} clusters{_rule(model, n_clusters)}."
        )
    if is_calibrated(model):
        said.append("Probabilities of the clusters were calibrated by temperature scaling.")
    return " ".join(said)


def references(model: "GMVAE") -> list[str]:
    """The papers that belong to what was done.

    Parameters
    ----------
    model
        Trained GMVAE.
    """
    names = ["vae", "scvi-tools", "mixture", *(["leiden"] if _is_leiden(model) else [])]
    names += ["splitting"] if _has_counts(model) else []
    return [REFERENCES[name] for name in [*names, *(["calibration"] if is_calibrated(model) else [])]]


def is_calibrated(model: "GMVAE") -> bool:
    """Whether training calibrated the probabilities: that needs counts or labels."""
    return _has_counts(model) or bool(model.module.layout.n_labels)


def _has_counts(model: "GMVAE") -> bool:
    return bool(len(model.tree.clusters.overdispersion))


def _is_leiden(model: "GMVAE") -> bool:
    return model.tree.clusters.init == "leiden" and not model.module.layout.n_labels


def _rule(model: "GMVAE", n_clusters: int) -> str:
    """How the number of clusters was inferred, if it was."""
    tree = model.tree.clusters.tree
    if n_clusters != tree.n_default or not tree.min_worth > 0 or not _has_counts(model):
        return ""
    confused = (
        f", or {EVEN * tree.min_worth:.3g} where more than {most_confused(tree.min_worth):.0%} of the cells fitted the "
        "other one better"
    )
    is_old = np.isnan(tree.confusion[tree.supported]).any()  # a model of 0.1.0 had no such rule
    return (
        " until any two differed significantly on held-out counts (negative binomial count splitting, 20 % of the "
        f"counts), by at least {tree.min_worth:.3g} nats a cell{'' if is_old else confused}"
    )
