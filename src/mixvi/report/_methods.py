"""A paragraph for the methods section of a paper, with its references."""

from typing import TYPE_CHECKING

import scvi

from mixvi._version import __version__

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE

REFERENCES = [
    "Kingma and Welling 2014, Auto-encoding variational Bayes, ICLR.",
    "Gayoso et al. 2022, A Python library for probabilistic analysis of single-cell omics data, Nature Biotechnology.",
    "Dilokthanakul et al. 2016, Deep unsupervised clustering with Gaussian mixture variational autoencoders, arXiv.",
    "Traag, Waltman and van Eck 2019, From Louvain to Leiden: guaranteeing well-connected communities, Scientific "
    "Reports.",
    "Neufeld et al. 2023, Negative binomial count splitting for single-cell RNA sequencing data, arXiv.",
    "Guo, Pleiss, Sun and Weinberger 2017, On calibration of modern neural networks, ICML.",
]
LIKELIHOODS = {
    "nb": "negative binomial", "zinb": "zero-inflated negative binomial", "poisson": "Poisson",
    "bernoulli": "Bernoulli", "normal": "normal",
}  # fmt: skip


def methods(model: "GMVAE", n_clusters: int) -> str:
    """What was done, in the words of a methods section.

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
    params, tree = model.init_params_["non_kwargs"], model._clusters().tree
    setup = model.registry_["setup_args"]
    batch = f" Batch ({setup['batch_key']}) was conditioned on." if setup["batch_key"] else ""
    labels = f" Known classes ({setup['labels_key']}) were used as labels." if setup["labels_key"] else ""
    paragraph = (
        f"{model.adata.n_obs:,} cells and {model.adata.n_vars:,} genes were modelled by a Gaussian-mixture variational "
        f"autoencoder (GMVAE; mixvi {__version__}, scvi-tools {scvi.__version__}) with {params['n_latent']} latent "
        f"dimensions and a {LIKELIHOODS.get(model.likelihood_, model.likelihood_)} likelihood.{batch}{labels} It was "
        f"trained for {len(model.history['elbo_train'])} epochs."
    )
    if params["init"] == "leiden" and not setup["labels_key"]:
        paragraph += (
            f" Leiden communities of a shared-neighbour graph gave {tree.n_leaves} components of the mixture. These "
            f"were joined to {n_clusters} clusters"
        )
        if n_clusters == tree.n_default and tree.min_worth > 0:
            paragraph += (
                " until any two differed significantly on held-out counts (negative binomial count splitting, 20 % of "
                f"the counts), by at least {tree.min_worth:.3g} nats a cell"
            )
        paragraph += "."
    return paragraph + " Probabilities of the clusters were calibrated by temperature scaling."
