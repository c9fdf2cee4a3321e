"""A model for cells that come later."""

import gc
import weakref

import numpy as np
import pytest

import mixvi
from tests.model.helpers import MODELS, fitted


@pytest.fixture
def reference(blobs):
    return fitted("GMVAE", blobs, {"batch_key": "condition"}, train={"max_epochs": 30})


def test_the_same_cells_give_the_same(reference, blobs):
    query = blobs[:, ::-1][:50].copy()
    mapped = reference.map(query)
    np.testing.assert_allclose(
        mapped.get_latent_representation(), reference.get_latent_representation(indices=range(50)), atol=1e-5
    )
    assert mapped.adata.var_names.tolist() == blobs.var_names.tolist()
    assert mapped.adata.obs["cluster"].equals(query.obs["cluster"])


@pytest.mark.parametrize("name", MODELS)
def test_all_models_map_genes_and_leave_the_query_as_it_was(name, blobs):
    model = fitted(name, blobs)
    query = blobs[:40, 5:].copy()
    query.var_names = [*query.var_names[:-1], "other"]
    before = query.copy()
    mapped = model.map(query)
    assert mapped.unseen_ == [*blobs.var_names[:5], blobs.var_names[-1]]
    assert mapped.get_latent_representation(query).shape == (40, 3)
    mapped.annotate(query)
    np.testing.assert_allclose(query.obsm["X_mixvi"], mapped.get_latent_representation())
    np.testing.assert_array_equal(query.X, before.X)
    assert query.var_names.equals(before.var_names)
    if name == "GMVAE":
        np.testing.assert_array_equal(query.obs["mixvi"].astype(str), mapped.predict(query))


def test_a_mapped_model_is_saved_and_loaded(reference, blobs, tmp_path):
    query = blobs[:60, :-4].copy()
    query.obs["condition"] = "later"
    mapped = reference.map(query)
    mapped.save(tmp_path / "mapped", save_anndata=True)
    loaded = mixvi.GMVAE.load(tmp_path / "mapped")
    np.testing.assert_allclose(
        loaded.get_latent_representation(query), mapped.get_latent_representation(query), atol=1e-6
    )
    assert loaded.conditions["condition"].tolist() == ["condition 0", "condition 1", "later"]


def test_a_decoder_that_does_not_see_the_batch_gets_no_intercept(blobs):
    model = fitted("CVAE", blobs, learned_prior=True, decode_condition=False)
    query = blobs[:50].copy()
    known = model.get_latent_representation(query)
    query.obs["condition"] = "later"
    mapped = model.map(query)
    likelihood = model.module.likelihood.state_dict()
    assert all(value.equal(likelihood[name]) for name, value in mapped.module.likelihood.state_dict().items())
    assert np.isfinite(mapped.get_latent_representation()).all()
    assert known.shape == mapped.get_latent_representation().shape


def test_the_cells_of_a_deleted_mapped_model_are_freed(reference, blobs):
    mapped = reference.map(blobs[:40, 5:].copy())
    alive = weakref.ref(mapped.adata)
    del mapped
    gc.collect()
    assert alive() is None


def test_labels_of_a_query_are_not_read(blobs):
    model = fitted("GMVAE", blobs, {"labels_key": "cluster"})
    query = blobs[:30].copy()
    query.obs["cluster"] = "unheard of"
    np.testing.assert_array_equal(model.map(query).predict(query), model.predict(indices=range(30)))
    del query.obs["cluster"]
    assert set(model.map(query).predict()) <= {"blob 0", "blob 1", "blob 2"}


def test_what_a_mapped_model_refuses(reference, blobs):
    query = blobs[:40, 5:].copy()
    mapped = reference.map(query)
    with pytest.raises(ValueError, match="These cells lack other genes than the query of this model"):
        mapped.predict(blobs[:40, 6:].copy())
    with pytest.raises(ValueError, match="its cells have no new level"):
        mapped.train(1)
    for kwargs in ({"train_size": 0.5}, {"plan_kwargs": {"compile": True}}, {"plan_kwargs": {"weight_decay": 0.1}}):
        with pytest.raises(ValueError, match="A mapped model trains the weights of new levels only"):
            mapped.train(1, **kwargs)
    for method in ("get_elbo", "get_reconstruction_error", "get_log_evidence", "get_marginal_ll"):
        with pytest.raises(ValueError, match="5 genes of these cells are unseen"):
            getattr(mapped, method)()
    with pytest.raises(ValueError, match="5 genes of these cells are unseen, and minified cells would lose"):
        mapped.minify_adata()
    query.obs["condition"] = 3
    with pytest.raises(ValueError, match="of the query is integer, and that of the reference string"):
        reference.map(query)
    with pytest.raises(TypeError, match=r"map\(\) got a str for cells"):
        reference.map("query.h5ad")
    with pytest.raises(RuntimeError, match="is not trained yet"):
        mixvi.GMVAE(blobs).map(query)


@pytest.mark.parametrize("settings", [{}, {"batch_representation": "embedding"}], ids=["one-hot", "embedding"])
def test_training_a_mapped_model_moves_new_batches_only(counts, settings, tmp_path):
    model = fitted("CVAE", counts, **settings)
    query = counts[:60].copy()
    query.obs["condition"] = "later"
    model.map(query).save(tmp_path / "mapped", save_anndata=True)
    mapped = mixvi.CVAE.load(tmp_path / "mapped")
    known, later = mapped.get_latent_representation(counts), mapped.get_latent_representation(query)
    mapped.train(max_epochs=3, plan_kwargs={"lr": 0.1}, batch_size=30)
    np.testing.assert_array_equal(mapped.get_latent_representation(counts), known)
    assert np.abs(mapped.get_latent_representation(query) - later).max() > 1e-3


def test_query_mapping_under_the_names_of_scvi_tools(reference, blobs, tmp_path):
    query = blobs[:40, 5:].copy()
    reference.save(tmp_path / "reference")
    for known in (reference, tmp_path / "reference"):
        prepared = mixvi.GMVAE.prepare_query_anndata(query, known, inplace=False)
        assert prepared.var_names.tolist() == blobs.var_names.tolist()
        mapped = mixvi.GMVAE.load_query_data(query, known)
        np.testing.assert_allclose(
            mapped.get_latent_representation(), reference.map(query).get_latent_representation(), atol=1e-5
        )
    assert query.n_vars == blobs.n_vars - 5
    assert mixvi.GMVAE.prepare_query_anndata(query, reference) is None
    assert query.var_names.equals(blobs.var_names)
    assert query.X[:, :5].sum() == 0
    names = mixvi.GMVAE.prepare_query_anndata(query, reference, return_reference_var_names=True)
    assert names.tolist() == blobs.var_names.tolist()
    with pytest.raises(ValueError, match="holds a GMVAE, not a VAE"):
        mixvi.VAE.load_query_data(query, tmp_path / "reference")
    with pytest.raises(ValueError, match="reference_model is a GMVAE, not a VAE"):
        mixvi.VAE.load_query_data(query, reference)
