"""What ``setup_anndata`` takes, and what new cells must have."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
from anndata.experimental import AnnCollection
from scvi.dataloaders import CollectionAdapter
from sklearn.metrics import roc_auc_score

import mixvi
from mixvi import datasets
from mixvi._warnings import MixviWarning
from tests.model.helpers import MODELS, QUICK, build, fitted


def test_new_cells_must_have_the_genes_and_conditions_of_the_model(counts):
    model = fitted("CVAE", counts)
    with pytest.raises(ValueError, match="another order.*get_var_names"):
        model.get_latent_representation(counts[:, ::-1].copy())
    other = counts.copy()
    other.obs["condition"] = "condition 9"
    with pytest.raises(ValueError, match=r"\['condition 9'\].*not trained on"):
        model.get_latent_representation(other)
    negative = counts.copy()
    negative.X = negative.X - 1
    with pytest.raises(ValueError, match="negative entries"):
        model.get_latent_representation(negative)


def test_a_category_that_no_cell_has_is_said(counts):
    setup = {"labels_key": "cluster", "unlabeled_category": "Unknwon"}
    with pytest.warns(MixviWarning, match="unlabeled_category='Unknwon' in .obs"):
        build("GMVAE", counts, setup)


@pytest.mark.parametrize("misspelt", ["Unknown", "unknwon"])
def test_a_misspelt_category_is_refused(counts, misspelt):
    counts.obs["label"] = np.where(np.arange(counts.n_obs) % 2, "unknown", "B")
    with pytest.raises(ValueError, match=f"unlabeled_category='{misspelt}' in .obs.*did you mean 'unknown'"):
        mixvi.GMVAE.setup_anndata(counts, labels_key="label", unlabeled_category=misspelt)


def test_labels_are_names_and_some_cell_has_one(counts, rng):
    counts.obs["score"], counts.obs["whole"] = rng.normal(size=120), np.arange(120) % 3 + 0.0
    with pytest.raises(ValueError, match=r".obs\['score'\] holds fractions such as .*; names of kinds of cells"):
        build("GMVAE", counts, {"labels_key": "score"})
    for name in ("nothing", "unlabeled"):
        counts.obs["label"] = name
        with pytest.raises(ValueError, match=f"gives no cell a label: all are '{name}'"):
            build("GMVAE", counts, {"labels_key": "label", "unlabeled_category": name if name == "nothing" else None})
    assert build("GMVAE", counts, {"labels_key": "whole"}, n_clusters=None).cluster_names == ["0.0", "1.0", "2.0"]


@pytest.mark.parametrize("name", ["Unknown", "?", "unlabeled", "T cell"])
def test_a_class_that_sounds_like_none_is_said(name, counts, warned, recwarn):
    counts.obs["label"] = np.where(np.arange(120) < 20, "B cell", name)
    build("GMVAE", counts, {"labels_key": "label"})
    assert (f"pass unlabeled_category={name!r}" in warned()) == (name in ("Unknown", "?"))
    recwarn.clear()
    build("GMVAE", counts, {"labels_key": "label", "unlabeled_category": name})
    assert "counts as a class" not in warned()


def test_new_cells_without_the_layer_are_told_what_to_do(counts):
    counts.layers["counts"] = counts.X.copy()
    model = fitted("VAE", counts, {"layer": "counts"})
    new = counts[:7].copy()
    del new.layers["counts"]
    with pytest.raises(KeyError, match=r"no layer 'counts'.*adata.layers\['counts'\] = adata.X"):
        model.get_latent_representation(new)
    new.layers["counts"] = new.X
    assert model.get_latent_representation(new).shape == (7, 3)


@pytest.mark.parametrize("key", ["batch_key", "categorical_covariate_keys"])
def test_categories_without_cells_are_said(counts, warned, recwarn, key):
    counts.obs["b"] = pd.Categorical(np.array(["x", "y"])[np.arange(counts.n_obs) % 2], ["w", "x", "y"])
    mixvi.CVAE.setup_anndata(counts, **{key: "b" if key == "batch_key" else ["b"]})
    assert ".obs['b'] has categories without cells, ['w']" in warned()
    recwarn.clear()
    counts.obs["b"] = counts.obs["b"].cat.remove_unused_categories()
    model = build("CVAE", counts, {key: "b" if key == "batch_key" else ["b"]})
    model.train(**QUICK)
    model.get_latent_representation(counts[counts.obs["b"] == "x"].copy())  # new cells may lack a batch
    assert "categories without cells" not in warned()


IGNORED = {
    "AE": {"batch_key": "CVAE", "labels_key": "GMVAE", "categorical_covariate_keys": "CVAE"},
    "VAE": {"batch_key": "CVAE", "labels_key": "GMVAE", "continuous_covariate_keys": "CVAE"},
    "CVAE": {"labels_key": "GMVAE"},
}


@pytest.mark.parametrize(("name", "argument", "other"), [(n, a, o) for n, m in IGNORED.items() for a, o in m.items()])
def test_what_a_model_would_ignore_is_an_error_that_names_another(name, argument, other, counts):
    value = ["condition"] if argument.endswith("keys") else "condition"
    with pytest.raises(ValueError, match=f"{name} got {argument}=.*would ignore; use mixvi.{other}"):
        MODELS[name].setup_anndata(counts, **{argument: value})
    assert not [key for key in (*counts.uns, *counts.obs) if key.startswith("_scvi")]  # nothing was registered


def test_setup_names_what_is_missing(counts):
    with pytest.raises(KeyError, match="no layer 'counts'"):
        mixvi.VAE.setup_anndata(counts, layer="counts")
    with pytest.raises(KeyError, match="no column 'batch'.*condition"):
        mixvi.CVAE.setup_anndata(counts, batch_key="batch")
    with pytest.raises(ValueError, match="needs labels_key"):
        mixvi.GMVAE.setup_anndata(counts, unlabeled_category="unknown")


@pytest.mark.parametrize("kind", [list, tuple, set, np.array, pd.Index])
def test_lists_of_columns_of_any_kind_survive_files(blobs, tmp_path, kind):
    blobs.obs["a"], blobs.obs["b"] = (np.array(["x", "y"])[np.arange(300) % k % 2] for k in (2, 3))
    model = fitted("GMVAE", blobs, {"categorical_covariate_keys": kind(["a", "b"])})
    assert list(model.conditions) == ["a", "b"]
    model.annotate()
    blobs.write_h5ad(tmp_path / "cells.h5ad")
    blobs.write_zarr(tmp_path / "cells.zarr")
    model.save(tmp_path / "model")


@pytest.mark.parametrize("name", ["VAE", "GMVAE"])
def test_the_registry_has_the_keys_of_scvi(name, counts):
    model, other = build(name, counts), counts.copy()
    scvi.model.SCVI.setup_anndata(other)
    theirs = scvi.model.SCVI(other, n_hidden=4).adata_manager
    for key in ("batch", "labels", "extra_categorical_covs", "extra_continuous_covs"):
        ours, expected = (m.get_state_registry(key).to_dict() for m in (model.adata_manager, theirs))
        assert {k: list(v) for k, v in ours.items()} == {k: list(v) for k, v in expected.items()}
    assert model.summary_stats == theirs.summary_stats
    assert not model.conditions


def test_solo_finds_doublets(rng):
    """A tool of scvi-tools that reads batch and labels in the registry, and asks the model for latents of new cells."""
    cells = datasets.blobs(200, 30, n_clusters=3, kind="count")
    first, second = rng.permutation(200)[:120].reshape(2, 60)
    differ = cells.obs["cluster"].to_numpy()[first] != cells.obs["cluster"].to_numpy()[second]
    pairs = cells.X[first[differ]] + cells.X[second[differ]]
    model = fitted("VAE", ad.AnnData(np.vstack([cells.X, pairs])), train={"max_epochs": 40})
    solo = scvi.external.SOLO.from_scvi_model(model)
    solo.train(20, enable_progress_bar=False, accelerator="cpu")
    assert roc_auc_score(np.arange(200 + len(pairs)) >= 200, solo.predict()["doublet"]) > 0.9


def test_a_collection_is_no_anndata(counts):
    collection = CollectionAdapter(AnnCollection({"a": counts, "b": counts.copy()}, label="batch"))
    assert isinstance(collection, ad.AnnData)  # as it says of itself
    with pytest.raises(TypeError, match="got CollectionAdapter, not an AnnData.*join several by anndata.concat, or"):
        mixvi.CVAE.setup_anndata(collection, batch_key="batch")
