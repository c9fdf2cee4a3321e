"""mixvi: structure in single cells.

Four latent-variable models on one evidence bound, AE, VAE, CVAE and GMVAE, for AnnData. Names load when they are first
used, so that ``import mixvi`` takes no time.
"""

import importlib
import logging

logging.getLogger("mixvi").addHandler(logging.NullHandler())

_WHERE = {
    "AE": "mixvi.model",
    "VAE": "mixvi.model",
    "CVAE": "mixvi.model",
    "GMVAE": "mixvi.model",
    "cluster": "mixvi.cluster",
    "data": "mixvi.data",
    "datasets": "mixvi.datasets",
    "diagrams": "mixvi.diagrams",
    "model": "mixvi.model",
    "metrics": "mixvi.metrics",
    "module": "mixvi.module",
    "ops": "mixvi.ops",
    "perturb": "mixvi.perturb",
    "pl": "mixvi.pl",
    "refine": "mixvi._refine",
    "Refined": "mixvi._refine",
    "select_n_latent": "mixvi._select",
    "train": "mixvi.train",
    "HubModelCardHelper": "mixvi._hub",
    "MixviWarning": "mixvi._warnings",
    "__version__": "mixvi._version",
}

__all__ = list(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'mixvi' has no attribute {name!r}; it has {sorted(_WHERE)}")
    module = importlib.import_module(_WHERE[name])
    return module if module.__name__ == f"mixvi.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(_WHERE)
