"""Numbers that are none, or out of range, are refused with what is allowed, before anything starts."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from mixvi import datasets
from mixvi._checks import check_flag, check_number, check_whole
from tests.model.helpers import build, fitted

NAN = float("nan")


@pytest.mark.parametrize("value", [1, 5, np.int64(3), np.uint8(5)])
def test_whole_numbers_pass(value):
    check_whole("n", value, 1, 5)
    check_whole("n", None, none="the default")


@pytest.mark.parametrize("value", [0, 6, 2.0, "2", True, None, NAN, np.float64(2), np.bool_(True), [2]])
def test_what_is_no_whole_number_in_the_range_is_refused(value):
    with pytest.raises(ValueError, match="n=.*; it must be a whole number between 1 and 5[.]"):
        check_whole("n", value, 1, 5)


@pytest.mark.parametrize("value", [0.0, 0.5, np.float32(0.1), 0])
def test_numbers_pass(value):
    check_number("p", value, least=0, below=1)


@pytest.mark.parametrize("value", [-0.1, 1.0, NAN, float("inf"), "0.5", True, None, 1j])
def test_what_is_no_number_in_the_range_is_refused(value):
    with pytest.raises(ValueError, match="p=.*; it must be a finite number of at least 0 and below 1[.]"):
        check_number("p", value, least=0, below=1)


@pytest.mark.parametrize("value", ["yes", 1, None, np.bool_(True), NAN])
def test_what_is_neither_true_nor_false_is_refused(value):
    check_flag("f", True)
    with pytest.raises(ValueError, match="f=.*; it must be True or False"):
        check_flag("f", value)


WRONG_SETTINGS = {
    "n_latent": [0, -1, 2.0, "2", True, NAN, None],
    "n_hidden": [0, 8.0, True, "8"],
    "n_layers": [-1, 1.0, True, "1"],
    "dropout_rate": [-0.1, 1.0, NAN, "0.1", None],
    "n_clusters": [0, -1, True, 2.0, "2", 121],
    "concentration": [0, -1, NAN, "1", True, float("inf")],
    "hierarchical": ["no", 1, None],
    "guidance": [-1, NAN, "5", True],
    "min_worth": [-1, NAN, "5", True],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG_SETTINGS.items() for value in values]
)
def test_settings_of_a_model_are_checked(counts, name, value):
    with pytest.raises(ValueError, match=f"{name}=.*it must be"):
        build("GMVAE", counts, **{name: value})


@pytest.fixture(scope="module")
def model():
    return fitted("GMVAE", datasets.blobs(120, 20, n_clusters=3, kind="count", seed=0))


WRONG_CALLS = {
    "predict": {"n_clusters": [0, -1, True, 2.0, "2", 999], "batch_size": [0, -5, "a", 2.5]},
    "get_latent_representation": {"batch_size": [0, -5, "a", True]},
    "get_reconstruction": {"library_size": [0, -1, NAN, "a", True]},
    "sample": {"n_cells": [0, -1, 2.5, "3", True]},
    "annotate": {"resolution": [2.0, 0, -1, NAN, "1"], "n_clusters": [0, True, "3"], "clustering": ["louvain"]},
    "get_log_evidence": {"n_samples": [0, True, 2.5]},
    "train": {"max_epochs": [0, True, 2.5], "batch_size": [0, -5, True], "train_size": [NAN, "a", -1, 2.0]},
}
CALLS = [(call, name, v) for call, named in WRONG_CALLS.items() for name, values in named.items() for v in values]


@pytest.mark.parametrize(("call", "name", "value"), CALLS)
def test_arguments_of_methods_are_checked(model, call, name, value):
    before = model.module.state_dict()["encoder.trunk.layers.0.weight"].clone()
    with pytest.raises(ValueError, match=f"{name}=|train_size"):
        getattr(model, call)(**{name: value})
    assert (model.module.state_dict()["encoder.trunk.layers.0.weight"] == before).all()
    assert not model.adata.obs.columns.str.startswith("mixvi").any()


def test_values_that_say_nothing_are_refused(counts):
    counts.X = np.zeros_like(counts.X)
    with pytest.raises(ValueError, match="All values of adata.X are 0, so there is nothing to learn"):
        build("VAE", counts)


def test_a_gene_twice_in_a_row_of_csr_is_its_sum(counts):
    x = csr_matrix(counts.X)
    data = np.r_[0.5, x.data[0] - 0.5, x.data[1:]]  # the first entry in two parts that are no counts
    counts.X = csr_matrix((data, np.r_[x.indices[:1], x.indices], np.r_[0, x.indptr[1:] + 1]), x.shape)
    assert build("VAE", counts).likelihood_ == "nb"
    assert counts.X.nnz == x.nnz + 1  # the user's matrix stays as it is


def test_an_unlabelled_category_of_another_type_is_named(counts):
    counts.obs["l"] = np.where(np.arange(120) % 2, -1.0, np.arange(120) % 3)
    with pytest.raises(ValueError, match=r"No cell has unlabeled_category=-1; pass .*-1.0"):
        build("GMVAE", counts, {"labels_key": "l", "unlabeled_category": -1})
