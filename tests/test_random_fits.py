"""Fits of random data at random settings: each ends well, or is refused because its input is wrong.

`flaws` finds what is wrong with a draw, from its values and settings alone. A draw with a flaw must be refused by a
message that names it. Any other draw must end well. ``MIXVI_RANDOM_FITS`` is the number of fits of each model; 25 by
default.
"""

import os
import re
import tempfile
import traceback
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

import mixvi
from mixvi._warnings import MixviWarning

SOURCE = Path(mixvi.__file__).parent
N_FITS = int(os.environ.get("MIXVI_RANDOM_FITS", 25))

OF_OTHERS = (  # Lightning's about itself; scvi-tools' about small categories
    "The '.*' option is deprecated:",
    "The number of training batches",
    "Category .* has fewer than 3 cells",
)

DATA = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**16),
        "n_cells": st.integers(1, 30) | st.integers(2, 500),
        "n_genes": st.integers(1, 5) | st.integers(1, 300),
        "kind": st.sampled_from(["counts", "counts", "counts", "binary", "unit", "real"]),
        "depth": st.sampled_from([1, 10, 1_000, 1_000_000]),
        "dominant": st.booleans(),  # one gene has nearly all counts
        "n_empty": st.integers(0, 3),  # genes without any value
        "n_constant": st.integers(0, 3),  # genes with one value in all cells
        "n_poor": st.integers(0, 3),  # cells with one count, or none
        "poor": st.sampled_from([0, 1]),
        "filled": st.sampled_from([True] * 7 + [False]),
        "dtype": st.sampled_from(["float32", "float64", "int32", "int64", "uint8", "uint16", "uint32"]),
        "storage": st.sampled_from(["dense", "csr", "csc"]),
        "layer": st.sampled_from([None, None, "values"]),
        "mended": st.sampled_from([True] * 5 + [False]),  # settings that do not go with the values are left out
    }
)
SETUP = {
    "batch_key": st.sampled_from([None, "batch"]),
    "categorical_covariate_keys": st.sampled_from([None, ["donor"]]),
    "continuous_covariate_keys": st.sampled_from([None, ["age"], ["age", "same"]]),
    "labels_key": st.sampled_from([None, None, "label"]),
}
COUNTS = ("nb", "zinb", "poisson")
USES = {"AE": (), "VAE": (), "CVAE": tuple(SETUP)[:3], "GMVAE": tuple(SETUP)}
NETWORK = {
    "n_latent": st.integers(1, 20),
    "n_hidden": st.integers(1, 64),
    "n_layers": st.integers(0, 2),
    "dropout_rate": st.sampled_from([0, 0.1, 0.5]),
    "likelihood": st.sampled_from(["auto", "auto", "nb", "zinb", "poisson", "bernoulli", "normal"]),
}
OWN = {
    "AE": {},
    "VAE": {},
    "CVAE": {"learned_prior": st.booleans()},
    "GMVAE": {
        "n_clusters": st.sampled_from([None, None, None, 1, 2, 2, 10]),
        "init": st.sampled_from(["leiden", "leiden", "leiden", None]),
        "hierarchical": st.booleans(),
    },
}
TRAINING = st.fixed_dictionaries(
    {
        "max_epochs": st.integers(1, 4),
        "batch_size": st.none() | st.integers(1, 10) | st.integers(2, 600),
        "lr": st.none() | st.sampled_from([1e-4, 1e-3, 1e-2, 0.1]),
    }
)


def values(data, rng):
    """Random values (n, g) of a kind, in any storage."""
    n, g, kind = data["n_cells"], data["n_genes"], data["kind"]
    share = rng.dirichlet(np.full(g, 0.3), 3)[rng.integers(3, size=n)]
    if data["dominant"]:
        share = 0.05 * share
        share[:, rng.integers(g)] += 0.95
    x = rng.poisson(share * rng.gamma(2, data["depth"] / 2, (n, 1))).astype(float)
    if kind == "binary":
        x = np.minimum(x, 1)
    elif kind == "unit":
        x /= max(x.max(), 1)
    elif kind == "real":
        x = (np.log1p(x) - rng.normal(size=g)) * rng.choice([1, 1e4])
    x[:, rng.integers(g, size=data["n_empty"])] = 0
    x[:, rng.integers(g, size=data["n_constant"])] = 1
    for cell in rng.integers(n, size=data["n_poor"]):
        x[cell] = 0
        x[cell, rng.integers(g)] = data["poor"]
    if data["filled"]:  # no likelihood of counts describes a cell without any
        x[np.arange(n), rng.integers(g, size=n)] += x.sum(1) == 0
    if data["dtype"].startswith("u"):
        x = np.clip(x, 0, np.iinfo(data["dtype"]).max)
    return {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[data["storage"]](
        x.astype(data["dtype"])
    )


def cells(data):
    """Random cells, with all columns that a model may use."""
    rng = np.random.default_rng(data["seed"])
    x, n = values(data, rng), data["n_cells"]
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(np.where(rng.random(n) < 0.03, "small", "large")),
            "donor": rng.choice(["a", "b", "c"], n, p=[0.9, 0.08, 0.02]),
            "label": rng.choice(["unlabeled", "B", "T"], n, p=[0.6, 0.38, 0.02]),
            "age": rng.normal(50, 1e4, n),
            "same": 3.0,
            "size": rng.lognormal(0, 3, n),
            "other": rng.random(n),
        },
        index=[f"cell {i}" for i in range(n)],
    )
    adata = AnnData(x, obs=obs, var=pd.DataFrame(index=[f"gene {i}" for i in range(x.shape[1])]))
    adata.layers["values"] = x.copy()
    if data["layer"]:
        adata.X = np.full(x.shape, -1.5, np.float32)
    return adata


def flaws(name, adata, setup, arguments):
    """Patterns of the messages that may refuse a draw; none if all is right with it."""
    x = adata.X if setup["layer"] is None else adata.layers[setup["layer"]]
    x = (x.toarray() if sparse.issparse(x) else x).astype(float)
    whole, unit = (x >= 0).all() and (x == np.floor(x)).all(), (x >= 0).all() and (x <= 1).all()
    likelihood, found = arguments["likelihood"], []
    if likelihood == "auto":
        is_linear = name in ("AE", "VAE") and arguments["n_layers"] == 0
        likelihood = "normal" if is_linear else "bernoulli" if unit else "nb" if whole else "normal"
    if not x.any():
        found.append("All values of .* are 0")
    if likelihood in COUNTS and not whole:
        found.append(f"likelihood='{likelihood}' needs raw counts")
    elif likelihood in COUNTS and not x.any(1).all():
        found.append(f"has {(~x.any(1)).sum()} cells without any count")
    elif likelihood == "bernoulli" and not unit:
        found.append(r"likelihood='bernoulli' needs values in \[0, 1\]")
    if setup["size_factor_key"] and likelihood not in COUNTS:
        found.append(f"size_factor_key would be ignored under likelihood='{likelihood}'")
    classes = set(adata.obs["label"]) - {"unlabeled"} if setup.get("labels_key") else set()
    if setup.get("labels_key") and not classes:
        found.append("gives no cell a label")
    n_clusters = arguments.get("n_clusters")
    if n_clusters is not None and not max(len(classes), 1) <= n_clusters <= adata.n_obs:
        found.append(f"n_clusters={n_clusters}; it must be")
    return found


def assert_unchanged(after, before):
    """Matrices and columns that were there are as they were."""
    for now, then in ((after.X, before.X), (after.layers["values"], before.layers["values"])):
        assert type(now) is type(then)
        assert now.dtype == then.dtype
        np.testing.assert_array_equal(*(m.toarray() if sparse.issparse(m) else m for m in (now, then)))
    pd.testing.assert_frame_equal(after.obs[before.obs.columns], before.obs)
    pd.testing.assert_frame_equal(after.var, before.var)
    assert {key for key in after.obs.columns.difference(before.obs.columns) if not key.startswith("_scvi")} <= {
        "mixvi", "mixvi_confidence", "mixvi_entropy", "mixvi_outlier_p"
    }  # fmt: skip


def fit(name, adata, setup, arguments, training):
    """Take a model through all steps, and look at what each gives."""
    kind = getattr(mixvi, name)
    kind.setup_anndata(adata, **setup)
    model = kind(adata, **arguments)
    lr = training.pop("lr")
    plan = {} if lr is None else {"plan_kwargs": {"lr": lr}}
    model.train(**training, **plan, accelerator="cpu", enable_progress_bar=False)
    model.annotate()
    latent = model.get_latent_representation()
    assert latent.shape == (adata.n_obs, arguments["n_latent"])
    assert np.isfinite(latent).all()
    assert np.isfinite(np.asarray(model.get_elbo(), dtype=float)).all()
    assert np.isfinite(model.history["elbo_train"].to_numpy(float)).all()
    if name == "GMVAE":
        p = adata.obsm["mixvi_probabilities"].to_numpy()
        assert ((p >= 0) & (p <= 1 + 1e-5)).all()
        np.testing.assert_allclose(p.sum(1), 1, atol=1e-4)
        assert np.isfinite(adata.obs.filter(regex="^mixvi_(confidence|entropy|outlier_p)$").to_numpy()).all()
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder, overwrite=True)
        again = kind.load(folder, adata, accelerator="cpu")
    np.testing.assert_allclose(again.get_latent_representation(), latent, rtol=1e-4, atol=1e-5)


def check(name, data, setup, arguments, training):
    """The property. Returns whether the fit was refused."""
    adata = cells(data)
    before, setup = adata.copy(), {**setup, "layer": data["layer"]}
    wrong = flaws(name, adata, setup, arguments)
    if wrong and data["mended"]:
        setup |= {key: None for key in ("size_factor_key", "labels_key") if key in setup}
        arguments = {**arguments, "likelihood": "auto"} | ({"n_clusters": None} if name == "GMVAE" else {})
        wrong = flaws(name, adata, setup, arguments)
    with warnings.catch_warnings():
        for category in (RuntimeWarning, UserWarning):  # of other packages: overflows, too few distinct points
            warnings.simplefilter("error", category)
        for message in OF_OTHERS:
            warnings.filterwarnings("ignore", message)
        warnings.simplefilter("ignore", MixviWarning)
        error = None
        try:
            fit(name, adata, setup, arguments, dict(training))
        except ValueError as raised:
            error = raised
    if error is not None:
        where = traceback.extract_tb(error.__traceback__)[-1].filename
        if not Path(where).is_relative_to(SOURCE) or not any(re.search(part, str(error)) for part in wrong):
            raise error
    assert (error is not None) == bool(wrong), f"refused for {error}, and is wrong: {wrong}"
    assert_unchanged(adata, before)
    return error is not None


@pytest.mark.parametrize("name", OWN)
def test_any_fit_ends_well_or_has_a_flaw_that_is_named(name):
    sized = {"size_factor_key": st.sampled_from([None] * 6 + ["size"])}
    used, refused = {key: SETUP[key] for key in USES[name]} | sized, []

    @settings(derandomize=True, deadline=None, max_examples=N_FITS, suppress_health_check=list(HealthCheck))
    @given(DATA, st.fixed_dictionaries(used), st.fixed_dictionaries(NETWORK | OWN[name]), TRAINING)
    def fits(data, setup, arguments, training):
        refused.append(check(name, data, setup, arguments, training))

    fits()
    assert len(refused) >= N_FITS
    assert not all(refused)
