"""Small models, quickly trained."""

import scvi

import mixvi

MODELS = {"AE": mixvi.AE, "VAE": mixvi.VAE, "CVAE": mixvi.CVAE, "GMVAE": mixvi.GMVAE}
SMALL = {"n_hidden": 16, "n_latent": 3}
QUICK = {"max_epochs": 4, "enable_progress_bar": False, "accelerator": "cpu"}
TRAIN = {"max_epochs": 150, "plan_kwargs": {"lr": 5e-3}}  # until conditions are learned


def build(name, adata, setup=None, **settings):
    """A small model of an AnnData, registered and not yet trained."""
    cls = MODELS[name]
    setup = dict(setup or {})
    if name == "CVAE":
        setup.setdefault("batch_key", "condition")
    cls.setup_anndata(adata, **setup)
    if name == "GMVAE" and "n_clusters" not in settings:
        settings["n_clusters"] = 3
    return cls(adata, **(SMALL | settings))


def fitted(name, adata, setup=None, train=None, seed=0, **settings):
    """The same, trained for a few epochs from a seed."""
    scvi.settings.seed = seed
    model = build(name, adata, setup, **settings)
    model.train(**(QUICK | (train or {})))
    return model


def of(adata, condition, key="condition"):
    """Which cells are of a condition, or of another value of a column."""
    return (adata.obs[key] == condition).to_numpy()
