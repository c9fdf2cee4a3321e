"""A table of inputs that are wrong or unusual: each is refused in words at the start, or gives a right result.

Refused means a `ValueError`, `TypeError` or `KeyError` whose message names what came. The AnnData, the model and the
files are as they were.
"""

import hashlib
import os
import re
from decimal import Decimal
from fractions import Fraction

import anndata as ad
import dask.array
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import mixvi
from mixvi import datasets
from tests.model.helpers import QUICK, SMALL, fitted
from tests.test_cli import run

REFUSED = (ValueError, TypeError, KeyError)
NAN, INF = float("nan"), float("inf")
FIRST, LAST = np.datetime64("2020-01-01"), np.datetime64("2021-01-01")
UNSAVED = {  # categories that a model cannot save
    "decimals": [Decimal("1.5"), Decimal(2), Decimal(3)],
    "fractions": [Fraction(1, 2), Fraction(1, 3), Fraction(2)],
    "complex": [1j, 2j, 3j],
    "bytes": pd.Series([np.bytes_(b"a"), np.bytes_(b"b"), np.bytes_(b"c")], dtype=object),
    "times of NumPy": pd.Series([FIRST, LAST, FIRST], dtype=object),
    "category of decimals": pd.Categorical([Decimal(1), Decimal(2), Decimal(1)]),
}


def cells(seed=0):
    """60 cells x 12 genes of counts with columns of many kinds."""
    adata = datasets.blobs(60, 12, n_clusters=3, n_conditions=2, kind="count", seed=seed)
    adata.layers["counts"] = adata.X.copy()
    adata.obs["sf"] = np.linspace(0.5, 2, 60)
    adata.obs["age"] = np.linspace(20, 80, 60)
    adata.obs["type"] = adata.obs["cluster"].astype(str).to_numpy()
    return adata


def as_bytes(value):
    """Bytes that change when a value, its type or its order changes."""
    if sparse.issparse(value):
        return b"".join(as_bytes(part) for part in (type(value), value.data, value.indices, value.indptr))
    if isinstance(value, pd.DataFrame):
        own = [name for name in value if not str(name).startswith("_scvi")]
        parts = [value[name] for name in dict.fromkeys(own)] if value.columns.is_unique else [value.to_numpy()]
        return repr((own, list(value.index), [str(value[own].dtypes), *(list(part) for part in parts)])).encode()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return repr((value.dtype, value.shape)).encode() + value.tobytes()
    return repr(value).encode()


def fingerprint(adata):
    """A text that changes with anything in an AnnData but the keys of scvi-tools."""
    parts = [as_bytes(adata.X), as_bytes(adata.obs), as_bytes(adata.var)]
    for mapping in (adata.layers, adata.obsm, adata.varm, adata.uns):
        parts += [
            part
            for key in mapping
            if not str(key).startswith("_scvi")
            for part in (str(key).encode(), as_bytes(mapping[key]))
        ]
    return hashlib.sha256(b"|".join(parts)).hexdigest()


def state_of(model):
    return {name: value.clone() for name, value in model.module.state_dict().items()}, fingerprint(model.adata)


def same(before, after):
    return before[1] == after[1] and all(torch.equal(value, after[0][name]) for name, value in before[0].items())


@pytest.fixture(scope="module")
def models():
    """A model of each class, trained for a moment."""
    return {
        "AE": fitted("AE", cells()),
        "VAE": fitted("VAE", cells()),
        "CVAE": fitted("CVAE", cells()),
        "GMVAE": fitted("GMVAE", cells(), {"batch_key": "condition"}),
    }


def with_values(change, layer=None):
    """Cells whose matrix is changed."""
    adata = cells()
    if layer:
        adata.layers[layer] = change(adata.layers[layer])
    else:
        adata.X = change(np.asarray(adata.X))
    return adata


def put(value, dtype=np.float64):
    """Sets one value of a matrix."""

    def change(x):
        x = x.astype(dtype)
        x[7, 3] = value
        return x

    return change


def sparse_with(value):
    def change(x):
        x = sparse.csr_matrix(x.astype(np.float64))
        x.data[5] = value
        return x

    return change


MATRICES = {  # name: change of the matrix, settings of the VAE, message
    "float16": (lambda x: x.astype(np.float16), {}, "dtype '<f2'"),
    "big-endian float32": (lambda x: x.astype(">f4"), {}, "dtype '>f4'"),
    "big-endian int64": (lambda x: x.astype(">i8"), {}, "dtype '>i8'"),
    "long double": (lambda x: x.astype(np.longdouble), {}, "dtype"),
    "objects": (lambda x: x.astype(object), {}, r"dtype '\|O'"),
    "text": (lambda x: x.astype(str), {}, "dtype '<U"),
    "complex": (lambda x: x.astype(complex), {}, "dtype '<c16'"),
    "times": (lambda x: x.astype("datetime64[s]"), {}, "dtype '<M8"),
    "durations": (lambda x: x.astype("timedelta64[s]"), {}, "dtype '<m8"),
    "masked": (lambda x: np.ma.masked_array(x, x == 0), {}, "masked array; fill it"),
    "dask": (lambda x: dask.array.from_array(x, chunks=20), {}, "is a dask array. Load it"),
    "dask of CSR": (
        lambda x: dask.array.from_array(x, chunks=20).map_blocks(sparse.csr_matrix),
        {},
        "is a dask array. Load it",
    ),
    "sparse complex": (lambda x: sparse.csr_matrix(x.astype(complex)), {}, "dtype '<c16'"),
    "sparse long double": (lambda x: sparse.csr_matrix(x.astype(np.longdouble)), {}, "dtype"),
    "NaN": (put(NAN), {}, "NaN, infinite or too large entries: 1"),
    "infinite": (put(INF), {}, "NaN, infinite or too large entries: 1"),
    "minus infinite": (put(-INF), {"likelihood": "normal"}, "NaN, infinite or too large entries: 1"),
    "huge": (put(1e39), {}, "too large entries: 1 .*1e\\+39"),
    "minus huge": (put(-1e300), {"likelihood": "normal"}, "too large entries: 1"),
    "sparse NaN": (sparse_with(NAN), {}, "NaN, infinite or too large entries: 1"),
    "sparse infinite": (sparse_with(-INF), {}, "NaN, infinite or too large entries: 1"),
    "negative counts": (put(-1.0), {"likelihood": "nb"}, "negative entries: 1"),
    "fractions as counts": (put(0.5), {"likelihood": "poisson"}, "no whole number: 1"),
    "sparse negative": (sparse_with(-3), {"likelihood": "zinb"}, "negative entries: 1"),
    "above one": (lambda x: x, {"likelihood": "bernoulli"}, "needs values in"),
    "below zero": (lambda x: x / -100, {"likelihood": "bernoulli"}, "needs values in"),
    "zeros": (lambda x: x * 0, {}, "All values of adata.X are 0"),
    "sparse zeros": (lambda x: sparse.csr_matrix(x * 0), {}, "All values of adata.X are 0"),
    "an empty cell": (lambda x: x * (np.arange(60) != 4)[:, None], {}, "1 cells without any count"),
}

RIGHT = {  # the same values in another form
    "float64": lambda x: x.astype(np.float64),
    "int64": lambda x: x.astype(np.int64),
    "uint8": lambda x: x.astype(np.uint8),
    "uint16": lambda x: x.astype(np.uint16),
    "Fortran order": np.asfortranarray,
    "CSC": sparse.csc_matrix,
    "CSR array": sparse.csr_array,
    "CSC array": sparse.csc_array,
    "CSR of int16": lambda x: sparse.csr_matrix(x.astype(np.int16)),
    "CSR with stored zeros": lambda x: sparse.csr_matrix((x.ravel(), np.tile(np.arange(12), 60), np.arange(61) * 12)),
    "a slice of a larger array": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
}


COLUMNS = {  # name: column "k" of .obs, arguments of setup_anndata, message
    "batch: missing": ("abc", {"batch_key": "donor"}, "no column 'donor'"),
    "batch: number": ("abc", {"batch_key": 0}, "0 is not the name of a column"),
    "batch: list": ("abc", {"batch_key": ["k"]}, "not the name of a column"),
    "batch: empty text": ("abc", {"batch_key": ""}, "no column ''"),
    "batch: None": (["a", None, "b"], {"batch_key": "k"}, "'k'.*missing values in 20"),
    "batch: NaN": ([1.0, NAN, 2.0], {"batch_key": "k"}, "'k'.*missing values in 20"),
    "batch: text and numbers": (["a", 1, "b"], {"batch_key": "k"}, "'k'.*mixes values of type int and str"),
    "batch: text and fractions": (["a", 0.5, "b"], {"batch_key": "k"}, "'k'.*mixes values of type float and str"),
    "batch: tuples": ([(1, 2), (1, 3), (2, 3)], {"batch_key": "k"}, "'k'.*such as .*make them text"),
    "batch: times": (pd.to_datetime(["2020-01-01", "2021-01-01", "2022-01-01"]), {"batch_key": "k"}, "'k'"),
    "batch: string with NA": (pd.array(["a", None, "b"], dtype="string"), {"batch_key": "k"}, "missing values in 20"),
    "batch: Int64 with NA": (pd.array([1, None, 2], dtype="Int64"), {"batch_key": "k"}, "missing values in 20"),
    "batch: category with NA": (pd.Categorical(["a", None, "b"]), {"batch_key": "k"}, "missing values in 20"),
    "covariates: one text": ("abc", {"categorical_covariate_keys": "k"}, "is one name; pass a list"),
    "covariates: missing": ("abc", {"categorical_covariate_keys": ["k", "l"]}, "no column 'l'"),
    "covariates: NA": (pd.array(["a", None, "b"], dtype="string"), {"categorical_covariate_keys": ["k"]}, "missing"),
    "covariates: number": ("abc", {"categorical_covariate_keys": [3]}, "3 is not the name of a column"),
    "covariates: one number": ("abc", {"categorical_covariate_keys": 3}, "=3 is one name; pass a list"),
    "continuous: one text": ([1.0, 2.0, 3.0], {"continuous_covariate_keys": "k"}, "is one name; pass a list"),
    "continuous: text": ("abc", {"continuous_covariate_keys": ["k"]}, "not numeric"),
    "continuous: text of numbers": ("123", {"continuous_covariate_keys": ["k"]}, "not numeric"),
    "continuous: NaN": ([1.0, NAN, 2.0], {"continuous_covariate_keys": ["k"]}, "NaN, infinite or too large"),
    "continuous: infinite": ([1.0, INF, 2.0], {"continuous_covariate_keys": ["k"]}, "NaN, infinite or too large"),
    "continuous: huge": ([1.0, 1e300, 2.0], {"continuous_covariate_keys": ["k"]}, "NaN, infinite or too large"),
    "continuous: complex": ([1j, 2j, 3j], {"continuous_covariate_keys": ["k"]}, "complex128, not numeric"),
    "continuous: NA": (pd.array([1, None, 2], dtype="Float64"), {"continuous_covariate_keys": ["k"]}, "'k'"),
    "continuous: times": (
        pd.to_datetime(["2020", "2021", "2022"]),
        {"continuous_covariate_keys": ["k"]},
        "not numeric",
    ),
    "size factor: zero": ([1.0, 0.0, 2.0], {"size_factor_key": "k"}, "0 or less"),
    "size factor: negative": ([1.0, -1.0, 2.0], {"size_factor_key": "k"}, "0 or less"),
    "size factor: NaN": ([1.0, NAN, 2.0], {"size_factor_key": "k"}, "NaN, infinite or too large"),
    "size factor: infinite": ([1.0, INF, 2.0], {"size_factor_key": "k"}, "NaN, infinite or too large"),
    "size factor: text": ("abc", {"size_factor_key": "k"}, "not numeric"),
    "size factor: missing": ("abc", {"size_factor_key": "sizes"}, "no column 'sizes'"),
    "size factor: list": ([1.0, 2.0, 3.0], {"size_factor_key": ["k"]}, "not the name of a column"),
    "layer: missing": ("abc", {"layer": "raw"}, "no layer 'raw'"),
    "layer: number": ("abc", {"layer": 3}, "no layer 3"),
    "layer: list": ("abc", {"layer": ["counts"]}, "no layer .'counts'."),
    "labels: fractions": ([0.5, 1.5, 2.0], {"labels_key": "k"}, "holds fractions such as 0.5"),
    "labels: none": (["unlabeled"] * 3, {"labels_key": "k"}, "gives no cell a label"),
    "labels: NaN": (["a", None, "b"], {"labels_key": "k"}, "missing values in 20"),
    "labels: missing": ("abc", {"labels_key": "types"}, "no column 'types'"),
    "labels: text and numbers": (["a", 1, "b"], {"labels_key": "k"}, "mixes values of type int and str"),
    "unlabelled: without labels": ("abc", {"unlabeled_category": "a"}, "needs labels_key"),
    "unlabelled: misspelt": (
        ["Unknown", "a", "b"],
        {"labels_key": "k", "unlabeled_category": "unknown"},
        "did you mean",
    ),
    "batch: category of text and numbers": (pd.Categorical(["a", 1, "b"]), {"batch_key": "k"}, "type int and str"),
    "batch: unused category of another kind": (
        pd.Categorical(["a", "b", "a"], ["a", "b", 1]),
        {"batch_key": "k"},
        "type int and str",
    ),
    "covariates: category of text and numbers": (
        pd.Categorical(["a", 1, "b"]),
        {"categorical_covariate_keys": ["k"]},
        "type int and str",
    ),
    "covariates: twice": ("abc", {"categorical_covariate_keys": ["k", "k"]}, "has 'k' twice; name each column once"),
    "covariates: a name with a slash": ("abc", {"categorical_covariate_keys": ["a/b"]}, "'a/b', and files.*'a|b'"),
    "continuous: a name of zarr": (
        [1.0, 2.0, 3.0],
        {"continuous_covariate_keys": ["zarr.json"]},
        "'zarr.json', and files",
    ),
    "batch: null character": (["a\0b", "c", "d"], {"batch_key": "k"}, "with a character that files cannot hold"),
    "labels: null character": (["a\0b", "c", "d"], {"labels_key": "k"}, "with a character that files cannot hold"),
    "labels: number": ("abc", {"labels_key": 0}, "0 is not the name of a column; pass a text"),
    "labels: category of text and numbers": (pd.Categorical(["a", 1, "b"]), {"labels_key": "k"}, "type int and str"),
    "labels: fractions as objects": (
        pd.Series([0.5, 1, 2], dtype=object),
        {"labels_key": "k"},
        "fractions such as 0.5",
    ),
    "labels: category of fractions": (pd.Categorical([0.5, 1.5, 1]), {"labels_key": "k"}, "fractions such as 0.5"),
    "size factor: empty text": ([1.0, 2.0, 3.0], {"size_factor_key": ""}, "no column ''"),
    **{
        f"{key}: {name}": (values, {key: ["k"] if key.endswith("keys") else "k"}, "a model cannot save; make them text")
        for key in ("batch_key", "categorical_covariate_keys", "labels_key")
        for name, values in UNSAVED.items()
    },
    "unlabelled: another type": ([-1.0, 0.0, 1.0], {"labels_key": "k", "unlabeled_category": -1}, "pass .*-1.0"),
}


SETTINGS = {  # class and name: settings, message
    "VAE likelihood": ({"likelihood": "gamma"}, "likelihood='gamma' is not known"),
    "VAE likelihood ": ({"likelihood": None}, "likelihood=None is not known"),
    "VAE likelihood  ": ({"likelihood": ["nb"]}, "likelihood=.'nb'. is not known"),
    "VAE likelihood   ": ({"likelihood": 3}, "likelihood=3 is not known"),
    "VAE linear": ({"linear": "yes"}, "linear='yes'; it must be"),
    "AE n_latent": ({"n_latent": 0}, "n_latent=0; it must be"),
    "AE n_latent ": ({"n_latent": INF}, "n_latent=inf; it must be"),
    "AE n_latent  ": ({"n_latent": [5]}, "n_latent=.5.; it must be"),
    "VAE n_hidden": ({"n_hidden": True}, "n_hidden=True; it must be"),
    "VAE n_layers": ({"n_layers": -1}, "n_layers=-1; it must be"),
    "VAE dropout_rate": ({"dropout_rate": 1}, "dropout_rate=1; it must be"),
    "VAE dropout_rate ": ({"dropout_rate": NAN}, "dropout_rate=nan; it must be"),
    "GMVAE n_clusters": ({"n_clusters": True}, "n_clusters=True; it must be"),
    "GMVAE n_clusters ": ({"n_clusters": 0}, "n_clusters=0; it must be"),
    "GMVAE n_clusters  ": ({"n_clusters": -1}, "n_clusters=-1; it must be"),
    "GMVAE n_clusters   ": ({"n_clusters": 1.5}, "n_clusters=1.5; it must be"),
    "GMVAE n_clusters    ": ({"n_clusters": 61}, "n_clusters=61; it must be"),
    "GMVAE n_clusters     ": ({"n_clusters": "3"}, "n_clusters='3'; it must be"),
    "GMVAE concentration": ({"concentration": NAN}, "concentration=nan; it must be"),
    "GMVAE guidance": ({"guidance": -1}, "guidance=-1; it must be"),
    "GMVAE min_worth": ({"min_worth": INF}, "min_worth=inf; it must be"),
    "GMVAE hierarchical": ({"hierarchical": "no"}, "hierarchical='no'.* it must be"),
    "GMVAE init": ({"init": "kmeans"}, "init='kmeans'"),
    "GMVAE init ": ({"init": np.arange(10)}, "init"),
    "GMVAE init  ": ({"init": np.full(60, NAN)}, "init"),
    "GMVAE init   ": ({"init": 3}, "init"),
    "CVAE learned_prior": ({"learned_prior": "yes"}, "learned_prior='yes'"),
    "CVAE decode_condition": ({"decode_condition": False}, "decode_condition"),
}

TRAIN = [
    ({"max_epochs": 0}, "max_epochs=0"),
    ({"max_epochs": NAN}, "max_epochs=nan"),
    ({"batch_size": 0}, "batch_size=0"),
    ({"batch_size": "all"}, "batch_size='all'"),
    ({"train_size": 1.5}, "train_size"),
    ({"train_size": -0.5}, "train_size=-0.5"),
    ({"train_size": 0.9, "validation_size": 0.9}, "train_size"),
    ({"validation_size": "a tenth"}, "validation_size='a tenth'"),
    ({"early_stopping": True, "train_size": 1}, "early_stopping needs cells"),
    ({"data_path": "disk"}, "data_path='disk' is not known"),
    ({"accelerator": "abacus"}, "abacus"),
    ({"n_importance_samples": 0}, "n_importance_samples=0"),
    ({"n_importance_samples": 2.5}, "n_importance_samples=2.5"),
    ({"checkpoint_minutes": -1}, "checkpoint_minutes=-1"),
    ({"checkpoint_minutes": "often"}, "checkpoint_minutes='often'"),
    ({"max_epoch": 3}, "'max_epoch', which it does not know; did you mean max_epochs"),
    ({"lr": 1e-3}, "settings of the plan"),
    ({"plan_kwargs": {"learning_rate": 1e-3}}, "'learning_rate', which it does not know"),
    ({"plan_kwargs": {"lr": NAN}}, "lr=nan; it must be"),
    ({"plan_kwargs": {"lr": "1e-3"}}, "lr='1e-3'; it must be"),
    ({"plan_kwargs": {"max_kl_weight": -1}}, "max_kl_weight=-1; it must be"),
    ({"plan_kwargs": {"batch_size": 8}}, "settings of train"),
    ({"plan_kwargs": 3}, "plan must be a mapping"),
    ({"ckpt_path": "nowhere.ckpt"}, "There is no checkpoint nowhere.ckpt"),
    ({"limit_train_batches": 2}, "limit_train_batches"),
    ({"callbacks": 3}, "callbacks=3"),
]

CALLS = [  # model, method, arguments, message
    ("VAE", "get_latent_representation", {"indices": []}, "at least one row number"),
    ("VAE", "get_latent_representation", {"indices": [60]}, "indices go from 60 to 60"),
    ("VAE", "get_latent_representation", {"indices": [-61]}, "indices go from -61"),
    ("VAE", "get_latent_representation", {"indices": [0.5]}, "dtype float64; pass"),
    ("VAE", "get_latent_representation", {"indices": ["cell 1"]}, "pass at least one row number"),
    ("VAE", "get_latent_representation", {"indices": [True, False]}, "a mask of 60"),
    ("VAE", "get_latent_representation", {"indices": [[1, 2]]}, "shape .1, 2."),
    ("VAE", "get_latent_representation", {"batch_size": 0}, "batch_size=0"),
    ("VAE", "get_latent_representation", {"adata": "cells"}, "VAE got a str for cells; pass an AnnData"),
    ("VAE", "get_latent_representation", {"adata": pd.DataFrame()}, "VAE got a DataFrame for cells"),
    ("VAE", "get_elbo", {"adata": np.ones((3, 12))}, "VAE got a ndarray for cells"),
    ("VAE", "get_reconstruction", {"library_size": -1}, "library_size=-1"),
    ("VAE", "get_reconstruction", {"transform_batch": "b"}, "VAE was set up without batch_key"),
    ("VAE", "get_reconstruction", {"path": "out.csv"}, "out.csv"),
    ("VAE", "sample", {"n_cells": 0}, "n_cells=0"),
    ("VAE", "sample", {"component": 0}, "has no components, and got component=0"),
    ("VAE", "sample", {"seed": "a"}, "seed='a'"),
    ("VAE", "get_normalized_expression", {"gene_list": ["no gene"]}, "no gene"),
    ("VAE", "get_normalized_expression", {"n_samples": 0}, "n_samples=0"),
    ("VAE", "get_normalized_expression", {"library_size": "large"}, "library_size='large'"),
    ("VAE", "get_normalized_expression", {"weights": "equal"}, "weights='equal'"),
    ("VAE", "posterior_predictive_sample", {"n_samples": 1.5}, "n_samples=1.5"),
    ("VAE", "get_likelihood_parameters", {"n_samples": True}, "n_samples=True"),
    ("VAE", "get_feature_correlation_matrix", {"correlation_type": "kendall"}, "correlation_type='kendall'"),
    ("VAE", "get_log_evidence", {"n_samples": 0}, "n_samples=0"),
    ("VAE", "differential_expression", {"groupby": "donor"}, "donor"),
    ("VAE", "differential_expression", {"groupby": "type", "group1": "zebra"}, "zebra"),
    ("VAE", "differential_abundance", {"sample_key": "donor"}, "donor"),
    ("VAE", "annotate", {"n_clusters": 3}, "VAE has no clusters, and got n_clusters=3"),
    ("VAE", "annotate", {"clustering": "louvain"}, "clustering='louvain'"),
    ("VAE", "annotate", {"clustering": "leiden", "resolution": -1}, "resolution=-1"),
    ("VAE", "annotate", {"key_added": "a/b"}, "key_added='a/b' cannot be a name"),
    ("VAE", "annotate", {"key_added": ""}, "key_added='' cannot be a name"),
    ("VAE", "annotate", {"key_added": "_index"}, "key_added='_index' cannot be a name"),
    ("VAE", "annotate", {"key_added": "zarr.json"}, "key_added='zarr.json' cannot be a name"),
    ("VAE", "annotate", {"key_added": "x" * 300}, "cannot be a name in a file; pass a short text"),
    ("VAE", "annotate", {"key_added": 3}, "key_added=3 cannot be a name"),
    ("VAE", "annotate", {"key_added": "type"}, "already has .'type'., which is not from mixvi"),
    ("GMVAE", "annotate", {"resolution": 2.0}, "resolution=2.0"),
    ("GMVAE", "annotate", {"n_clusters": 0}, "n_clusters=0"),
    ("GMVAE", "annotate", {"n_clusters": 99}, "n_clusters=99"),
    ("GMVAE", "rename_clusters", {"names": {"0": "a\0b"}}, "pass a dictionary of new names"),
    ("GMVAE", "predict", {"n_clusters": 0}, "n_clusters=0"),
    ("GMVAE", "predict", {"n_clusters": True}, "n_clusters=True"),
    ("GMVAE", "predict", {"n_clusters": 1.5}, "n_clusters=1.5"),
    ("GMVAE", "predict", {"n_clusters": 999}, "n_clusters=999"),
    ("GMVAE", "predict", {"indices": [99]}, "indices go from 99"),
    ("GMVAE", "sample", {"component": "zebra"}, "zebra"),
    ("GMVAE", "sample", {"component": 99}, "99"),
    ("GMVAE", "sample", {"component": True}, "True"),
    ("GMVAE", "subclusters", {"cluster": "zebra"}, "zebra"),
    ("GMVAE", "markers", {"n_clusters": 0}, "n_clusters=0"),
    ("GMVAE", "cluster_stability", {"n_seeds": 0}, "n_seeds=0"),
    ("CVAE", "get_reconstruction", {"transform_batch": "condition 9"}, "condition 9"),
    ("CVAE", "get_reconstruction", {"transform_batch": 0}, "transform_batch=0|0"),
    ("CVAE", "predict_counterfactual", {"condition": "condition 9"}, "condition 9"),
    ("CVAE", "predict_counterfactual", {"condition": {"donor": "a"}}, "donor"),
    ("CVAE", "predict_counterfactual", {}, "condition"),
    ("CVAE", "predict_counterfactual", {"condition": {"condition": NAN}}, "nan"),
]


def new(**changes):
    """New cells that differ from those of the training."""
    adata = cells(seed=1)
    for name, value in changes.items():
        setattr(adata, name, value(adata))
    return adata


NEW_CELLS = {  # model: new cells, message
    "VAE other order": (lambda: cells()[:, ::-1].copy(), "another order"),
    "VAE fewer genes": (lambda: cells()[:, :5].copy(), "lack 7 of the model's 12 genes"),
    "VAE more genes": (lambda: ad.concat([cells(), cells()], axis=1), "24 genes|not unique|12"),
    "VAE other names": (lambda: new(var_names=lambda a: [f"x{i}" for i in range(12)]), "lack 12"),
    "VAE negative": (lambda: new(X=lambda a: a.X - 9), "negative entries"),
    "VAE fractions": (lambda: new(X=lambda a: a.X / 2), "no whole number"),
    "VAE NaN": (lambda: new(X=lambda a: a.X * NAN), "NaN, infinite or too large"),
    "VAE float16": (lambda: new(X=lambda a: a.X.astype(np.float16)), "dtype '<f2'"),
    "VAE None": (lambda: new(X=lambda a: None), "adata.X is None"),
    "VAE dask": (lambda: new(X=lambda a: dask.array.from_array(a.X)), "dask array"),
    "VAE empty cells": (lambda: new(X=lambda a: a.X * (np.arange(60) > 3)[:, None]), "4 cells without any count"),
    "VAE no cells": (lambda: cells()[:0].copy(), "0 cells"),
    "CVAE without the column": (lambda: new(obs=lambda a: a.obs[["age"]]), "no column 'condition'"),
    "CVAE another level": (lambda: new(obs=lambda a: a.obs.assign(condition="new")), "not trained on"),
    "CVAE missing level": (lambda: new(obs=lambda a: a.obs.assign(condition=None)), "missing values in 60"),
    "CVAE truth values": (
        lambda: new(obs=lambda a: a.obs.assign(condition=True)),
        r"has \[True\], which the",
    ),
    "CVAE level of another kind": (lambda: new(obs=lambda a: a.obs.assign(condition=0)), "not trained on"),
    "GMVAE another level": (lambda: new(obs=lambda a: a.obs.assign(condition="new")), "not trained on"),
}

PERTURB = [  # arguments of fit_shift besides control and stimulated cells of the two conditions, message
    ({"condition_key": "dose"}, "no column 'dose'"),
    ({"cell_type_key": "kind"}, "no column 'kind'"),
    ({"control": "zebra"}, "zebra"),
    ({"stimulated": "zebra"}, "zebra"),
    ({"stimulated": "condition 0"}, "are both 'condition 0'"),
    ({"control": None}, "None"),
]

REFINE = [
    ({"n_clusters": 0}, "n_clusters"),
    ({"n_clusters": 1}, "n_clusters"),
    ({"n_clusters": True}, "n_clusters"),
    ({"n_clusters": 2.5}, "n_clusters"),
    ({"n_clusters": 61}, "n_clusters"),
    ({"n_clusters": "3"}, "n_clusters"),
    ({"gamma": -1}, "gamma"),
    ({"gamma": NAN}, "gamma"),
    ({"lr": 0}, "lr"),
    ({"lr": "fast"}, "lr"),
    ({"batch_size": 1}, "batch_size"),
    ({"max_epochs": 0}, "max_epochs"),
    ({"update_interval": 0}, "update_interval"),
    ({"tol": -1}, "tol"),
]

UNS = {  # what another tool, or another version, left in .uns["mixvi"]
    "text": "text",
    "list": [1, 2],
    "array": np.arange(3),
    "table": pd.DataFrame({"model": [1]}),
    "other dictionary": {"a": 1},
    "dictionary like ours": {"model": "VAE", "settings": 3},
}

FILES = {  # what stands in the place of a saved model: message
    "nothing": (None, "There is no"),
    "empty": (b"", "is not a model that mixvi saved"),
    "text": (b"model", "is not a model that mixvi saved"),
    "pickle": (b"\x80\x04N.", "pickled format"),
    "zip": (b"PK\x03\x04", "pickled format"),
    "cut": (lambda whole: whole[: len(whole) // 2], "damaged"),
    "a byte changed": (lambda whole: whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], "damaged"),
    "more at the end": (lambda whole: whole + b"0", "damaged"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "is not a model that mixvi saved"),
}

COMMANDS = [
    (["in.h5ad", "--out", "out.h5ad", "--layer", "raw"], "There is no layer 'raw'"),
    (["in.h5ad", "--out", "out.h5ad", "--batch-key", "donor"], "no column 'donor'"),
    (["in.h5ad", "--out", "out.h5ad", "--likelihood", "gamma"], "likelihood='gamma' is not known"),
    (["in.h5ad", "--out", "out.h5ad", "--n-latent", "0"], "n_latent=0; it must be"),
    (["in.h5ad", "--out", "out.h5ad", "--n-clusters", "0"], "n_clusters=0; it must be"),
    (["in.h5ad", "--out", "out.h5ad", "--n-clusters", "61"], "n_clusters=61; it must be"),
    (["in.h5ad", "--out", "out.h5ad", "--max-epochs", "0"], "max_epochs=0; it must be"),
    (["in.h5ad", "--out", "out.h5ad", "--key-added", "a/b"], "key_added='a/b' cannot be a name"),
    (["in.h5ad", "--out", "out.h5ad", "--key-added", "type"], "which is not from mixvi"),
    (["in.h5ad", "--out", "out.h5ad", "--labels-key", "sf"], "holds fractions"),
    (["in.h5ad", "--out", "out.h5ad", "--model", "vae", "--batch-key", "condition"], "use mixvi.CVAE"),
    (["in.h5ad", "--out", "out.h5ad", "--model", "ae", "--n-clusters", "3"], "--n-clusters is for gmvae"),
    (["in.h5ad", "--out", "out.h5ad", "--resume", "no.ckpt"], "no.ckpt does not exist"),
    (["in.h5ad", "--out", "out.h5ad", "--resume", "in.h5ad"], "is not a checkpoint"),
    (["in.h5ad", "--out", "in.h5ad", "--force"], "what the command reads"),
    (["in.h5ad", "--out", "in.h5ad"], "exists already"),
    (["in.h5ad", "--out", "nowhere/out.h5ad"], "is not a folder"),
    (["no.h5ad", "--out", "out.h5ad"], "no.h5ad does not exist"),
    (["text.h5ad", "--out", "out.h5ad"], "cannot be read as an .h5ad file"),
    (["in.h5ad", "--out", "out.h5ad", "--figures", "text.h5ad"], "--figures must name a folder"),
    (["in.h5ad", "--out", "out.h5ad", "--figures", "text.h5ad/figures"], "text.h5ad is a file; --figures must name"),
    (["in.h5ad", "--out", "out.h5ad", "--figures", "out.h5ad"], "out.h5ad is another result of the command"),
    (["in.h5ad", "--out", "out.h5ad", "--figures", "out.h5ad/figures"], "out.h5ad is another result of the command"),
    (["in.h5ad", "--out", "out.h5ad", "--figures", "m", "--save-model", "m"], "m is another result of the command"),
    (["in.h5ad", "--out", "out.h5ad", "--seed", "-1"], "--seed=-1; it must be"),
    (["in.h5ad", "--out", "out.h5ad", "--seed", "99999999999"], "--seed=99999999999; it must be"),
]


def refuses(call, message):
    """Whether a call is refused in these words."""
    with pytest.raises(REFUSED) as found:
        call()
    error = found.value
    text = str(error.args[0] if isinstance(error, KeyError) else error)
    assert re.search(message, text), text


def column(values):
    """A column of 60 cells of three values."""
    values = pd.Series(list(values) if isinstance(values, str) else values)
    return values.take(np.arange(60) % 3).set_axis(cells().obs_names)


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("layer", [None, "counts"])
def test_values_that_a_model_cannot_read(name, layer):
    change, settings, message = MATRICES[name]
    adata = with_values(change, layer)
    before = fingerprint(adata)

    def fit():
        mixvi.VAE.setup_anndata(adata, layer=layer)
        mixvi.VAE(adata, **SMALL | settings)

    refuses(fit, message.replace("adata.X", "adata.(X|layers.'counts'.)"))
    assert fingerprint(adata) == before


@pytest.fixture(scope="module")
def latents():
    return fitted("VAE", cells()).get_latent_representation()


@pytest.mark.parametrize("name", RIGHT)
def test_the_same_values_in_another_form_give_the_same_latents(name, latents):
    adata = with_values(RIGHT[name])
    before = fingerprint(adata)
    np.testing.assert_allclose(fitted("VAE", adata).get_latent_representation(), latents, rtol=1e-5, atol=1e-5)
    assert fingerprint(adata) == before


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_and_arguments_of_setup(name):
    values, setup, message = COLUMNS[name]
    adata = cells()
    adata.obs["k"] = column(values)
    for name in ("a/b", "zarr.json"):
        adata.obs[name] = adata.obs["k"]
    before = fingerprint(adata)
    refuses(lambda: mixvi.GMVAE.setup_anndata(adata, **setup), message)
    assert fingerprint(adata) == before


def test_a_column_twice():
    adata = cells()
    adata.obs = pd.concat([adata.obs, adata.obs[["condition"]]], axis=1)
    before = fingerprint(adata)
    refuses(lambda: mixvi.CVAE.setup_anndata(adata, batch_key="condition"), "2 columns 'condition'; rename")
    assert fingerprint(adata) == before


@pytest.mark.parametrize(
    "wrong", [None, "cells.h5ad", np.ones((3, 3)), pd.DataFrame({"a": [1]}), sparse.eye(3).tocsr()]
)
def test_what_is_no_anndata(wrong):
    refuses(lambda: mixvi.VAE.setup_anndata(wrong), f"setup_anndata got {type(wrong).__name__}, not an AnnData")


def test_a_mudata_is_told_where_its_anndata_is():
    several = type("MuData", (), {"mod": {"rna": cells()}})()
    for name in ("setup_anndata", "setup_mudata"):
        refuses(lambda name=name: getattr(mixvi.VAE, name)(several), r"a MuData holds several; pass .* mdata\['rna'\]")


def test_an_anndata_that_was_not_set_up():
    refuses(lambda: mixvi.VAE(cells()), "setup_anndata first")
    mixvi.VAE.setup_anndata(adata := cells())
    refuses(lambda: mixvi.GMVAE(adata), "setup_anndata first")
    refuses(lambda: mixvi.VAE(adata.copy()), "Did you make a copy")
    refuses(mixvi.VAE, "adata or registry must be provided")


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_a_model(name):
    settings, message = SETTINGS[name]
    cls, adata = getattr(mixvi, name.split()[0]), cells()
    cls.setup_anndata(adata, batch_key="condition" if cls is mixvi.CVAE else None)
    before = fingerprint(adata)
    refuses(lambda: cls(adata, **SMALL | settings), message)
    assert fingerprint(adata) == before


@pytest.mark.parametrize(("arguments", "message"), TRAIN)
def test_arguments_of_train(arguments, message, models):
    model = models["VAE"]
    before, history = state_of(model), model.history_
    refuses(lambda: model.train(**QUICK | arguments), message)
    assert same(before, state_of(model))
    assert model.history_ is history


@pytest.mark.parametrize(("name", "method", "arguments", "message"), CALLS)
def test_arguments_of_methods(name, method, arguments, message, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = models[name]
    before = state_of(model)
    refuses(lambda: getattr(model, method)(**arguments), message)
    assert same(before, state_of(model))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", NEW_CELLS)
@pytest.mark.parametrize("method", ["get_latent_representation", "annotate"])
def test_new_cells(name, method, models):
    make, message = NEW_CELLS[name]
    adata, model = make(), models[name.split()[0]]
    before = fingerprint(adata)
    refuses(lambda: getattr(model, method)(adata), message)
    assert fingerprint(adata) == before


@pytest.mark.parametrize("method", ["get_latent_representation", "annotate", "get_elbo"])
def test_a_model_that_is_not_trained(method):
    mixvi.VAE.setup_anndata(adata := cells())
    with pytest.raises(RuntimeError, match="VAE is not trained yet; call model.train"):
        getattr(mixvi.VAE(adata), method)()


@pytest.mark.parametrize(("arguments", "message"), PERTURB)
def test_arguments_of_perturbation(arguments, message, models):
    usual = {"condition_key": "condition", "control": "condition 0", "stimulated": "condition 1"}
    usual["cell_type_key"] = "type"
    before = state_of(models["VAE"])
    refuses(lambda: mixvi.perturb.fit_shift(models["VAE"], **usual | arguments), message)
    assert same(before, state_of(models["VAE"]))


@pytest.mark.parametrize(("arguments", "message"), REFINE)
def test_arguments_of_refine(arguments, message, models):
    before = state_of(models["VAE"])
    refuses(lambda: mixvi.refine(models["VAE"], **{"n_clusters": 3, "progress": False} | arguments), message)
    assert same(before, state_of(models["VAE"]))


def test_models_that_cannot_be_refined(models):
    refuses(lambda: mixvi.refine(models["GMVAE"], 3), "GMVAE")
    refuses(lambda: mixvi.refine("VAE", 3), "VAE|str")


@pytest.mark.parametrize("name", UNS)
def test_results_of_others_stay(name, models):
    adata = cells(seed=1)
    adata.uns["mixvi"] = UNS[name]
    before = fingerprint(adata)
    refuses(lambda: models["VAE"].annotate(adata), "already has 'mixvi', which is not from mixvi")
    assert fingerprint(adata) == before


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_model(name, models, tmp_path):
    content, message = FILES[name]
    models["VAE"].save(tmp_path / "model")
    path = tmp_path / "model" / "model.pt"
    whole = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content(whole) if callable(content) else content)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    adata = cells()
    refuses(lambda: mixvi.VAE.load(tmp_path / "model", adata, accelerator="cpu"), message)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert fingerprint(adata) == fingerprint(cells())


def test_saving_and_loading_where_it_cannot_be(models, tmp_path):
    model, folder = models["VAE"], tmp_path / "model"
    model.save(folder)
    whole = (folder / "model.pt").read_bytes()
    refuses(lambda: model.save(folder), "exists; pass another folder, or overwrite=True")
    refuses(lambda: mixvi.GMVAE.load(folder, cells()), "holds a VAE, not a GMVAE")
    refuses(lambda: mixvi.VAE.load(folder, cells()[:, ::-1].copy()), "another order")
    refuses(lambda: mixvi.VAE.load(folder, cells(), prefix="a_"), "its prefix if it had one")
    refuses(lambda: mixvi.VAE.load(folder, cells(), accelerator="abacus"), "accelerator='abacus' is not known")
    refuses(lambda: mixvi.VAE.load(folder, "cells.h5ad"), "str, not an AnnData")
    assert os.listdir(folder) == ["model.pt"]
    assert (folder / "model.pt").read_bytes() == whole


@pytest.mark.parametrize("name", [name for name in NEW_CELLS if name.split()[0] != "VAE"])
def test_load_refuses_what_the_getters_refuse(name, models, tmp_path):
    make, message = NEW_CELLS[name]
    adata, model = make(), models[name.split()[0]]
    before = fingerprint(adata)
    model.save(tmp_path / "model")
    refuses(lambda: type(model).load(tmp_path / "model", adata, accelerator="cpu"), message)
    assert fingerprint(adata) == before


@pytest.mark.parametrize("labels", [None, NAN, "zebra", 0.5, pd.Categorical(["zebra", "blob 0", None] * 20)])
def test_load_takes_the_labels_that_the_getters_take(labels, tmp_path, warned):
    adata = cells()
    model = fitted("GMVAE", adata, {"labels_key": "type"})
    model.save(tmp_path / "model")
    query = new(obs=lambda a: a.obs.assign(type=labels))
    before, expected = fingerprint(query), model.get_latent_representation(query)
    loaded = mixvi.GMVAE.load(tmp_path / "model", query, accelerator="cpu")
    np.testing.assert_array_equal(loaded.get_latent_representation(), expected)
    assert fingerprint(query) == before
    assert "labels that are missing or that the model does not know" in warned()
    unlabelled = query.obs["_scvi_labels"] == model.module.layout.n_labels
    assert unlabelled.sum() == (40 if isinstance(labels, pd.Categorical) else 60)


@pytest.mark.parametrize(("arguments", "message"), COMMANDS)
def test_commands(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells().write_h5ad(tmp_path / "in.h5ad")
    (tmp_path / "text.h5ad").write_text("no cells")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*")}
    result = run("fit", *arguments, *([] if "--max-epochs" in arguments else ["--max-epochs", 1]))
    text = " ".join(result.output.split())
    assert result.exit_code == 1, text
    assert message in text
    assert "Traceback" not in text
    assert {file: file.read_bytes() for file in tmp_path.rglob("*")} == before
