"""What other packages have no public way for. That checkpoints work is tested in train/test_checkpoint.py."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
from lightning.pytorch import Callback
from scvi.model import SCVI

from mixvi import VAE, datasets
from mixvi._upstream import MINIFY_TYPE, replace_content, restart_epoch, step_progress
from tests.model.helpers import MODELS, QUICK, SMALL, build, fitted


def test_counts_of_the_epoch_before_are_where_they_were_seen(counts):
    seen = []

    class Look(Callback):
        def on_save_checkpoint(self, trainer, plan, checkpoint):
            before = dict(checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"])
            restart_epoch(checkpoint)
            seen.append((before, checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]))

    fitted("VAE", counts, train={"callbacks": [Look()], "max_epochs": 2})
    assert len(seen) == 2  # a copy at the start of each epoch
    for before, after in seen:
        assert {"current", "total", "is_last_batch"} <= set(before)
        assert set(after["current"].values()) == {0}
        assert after["total"] == before["total"]
        assert not after["is_last_batch"]


def test_steps_are_counted_where_they_were_seen(counts):
    class CountOneMore(Callback):
        def on_train_batch_end(self, trainer, *args):
            seen.append(trainer.global_step)
            step_progress(trainer).increment_ready()
            step_progress(trainer).increment_completed()
            seen.append(trainer.global_step)

    seen = []
    model = fitted("VAE", counts, train={"callbacks": [CountOneMore()], "max_epochs": 2})
    steps = seen[0]
    assert seen == [steps, steps + 1, 2 * steps + 1, 2 * steps + 2]
    assert model.trainer.global_step == seen[-1]


def test_minified_cells_are_marked_as_scvi_tools_marks_them(counts):
    """`scvi.model.SCVI` marks its AnnData with the same key, and says so by its public property."""
    SCVI.setup_anndata(counts)
    model = SCVI(counts, n_hidden=4, n_latent=2)
    model.is_trained_ = True
    counts.obsm["X_latent_qzm"], counts.obsm["X_latent_qzv"] = model.get_latent_representation(return_dist=True)
    model.minify_adata()
    assert model.adata.uns[MINIFY_TYPE] == model.minified_data_type == "latent_posterior_parameters"


def cells(n=60):
    return datasets.blobs(n, 10, n_clusters=2, n_conditions=2, kind="count")


def kept(cls):
    return len(cls._setup_adata_manager_store), len(cls._per_instance_manager_store)


@pytest.mark.parametrize("name", MODELS)
def test_no_cells_are_alive_after_model_and_cells_are_deleted(name):
    gc.collect()
    before, adata, new = kept(MODELS[name]), cells(), cells(20)
    model = fitted(name, adata)
    model.get_latent_representation(new)
    model.annotate(new, clustering=None)
    alive = [weakref.ref(thing) for thing in (adata, new, model, model.module)]
    assert kept(MODELS[name]) != before
    del model, adata, new
    gc.collect()
    assert [ref() for ref in alive] == [None] * 4
    assert kept(MODELS[name]) == before


def test_cells_that_a_model_took_over_later_are_let_go_too():
    model, other = fitted("VAE", cells()), cells(30)
    model.adata = other
    assert model.get_latent_representation().shape == (30, 3)
    alive = weakref.ref(other)
    del model, other
    gc.collect()
    assert alive() is None


def test_one_setup_serves_several_models_one_after_the_other():
    adata = cells()
    VAE.setup_anndata(adata)
    latents = []
    for _ in range(3):
        model = VAE(adata, **SMALL)
        model.train(**QUICK)
        latents.append(model.get_latent_representation().shape)
        del model
        gc.collect()
    first, second = VAE(adata, **SMALL), VAE(adata, **SMALL)
    first.train(**QUICK)
    del first
    gc.collect()
    second.train(**QUICK)
    assert latents == [second.get_latent_representation().shape] * 3


def test_deleting_cells_leaves_a_copy_that_took_their_place():
    """scvi-tools knows an AnnData by a name in `.uns`, which a copy shares."""
    adata = cells()
    VAE.setup_anndata(adata)
    same = adata.copy()
    VAE.setup_anndata(same)
    del adata
    gc.collect()
    assert VAE(same, **SMALL).adata is same


def test_copied_and_pickled_models_have_their_cells():
    model = fitted("VAE", cells())
    wanted = model.get_latent_representation()
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    del model
    gc.collect()
    for one in copies:
        np.testing.assert_array_equal(one.get_latent_representation(), wanted)


def test_a_model_owns_its_cells():
    model = build("VAE", cells())
    gc.collect()
    model.train(**QUICK)
    assert model.get_latent_representation().shape == (60, 3)


def test_an_anndata_gets_the_content_of_another(counts):
    cells, part = counts.copy(), counts[:, 3:7].copy()
    replace_content(cells, part)
    assert cells.shape == part.shape
    assert cells.obs.equals(part.obs)
    np.testing.assert_array_equal(cells.X, part.X)
