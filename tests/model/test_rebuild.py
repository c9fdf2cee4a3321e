"""A model from the attributes of another."""

import numpy as np
import pytest

from mixvi._warnings import MixviWarning
from mixvi.model._rebuild import attach, attributes_of, rebuild
from tests.model.helpers import QUICK, build, fitted, of


def test_a_rebuilt_model_with_the_same_weights_is_the_same(blobs):
    model = fitted("GMVAE", blobs, {"batch_key": "condition"}, likelihood="nb", n_layers=2)
    attributes = attributes_of(model)
    again = rebuild(type(model), blobs, model.registry_, attributes)
    assert attributes_of(again).keys() == attributes.keys()
    assert not again.module.training
    again.module.load_state_dict(model.module.state_dict())
    np.testing.assert_array_equal(again.get_latent_representation(), model.get_latent_representation())
    np.testing.assert_array_equal(again.get_outlier_p(), model.get_outlier_p())


def test_unseen_genes_are_marked(blobs):
    model = fitted("VAE", blobs)
    unseen = [*blobs.var_names[:2], blobs.var_names[7]]
    again = rebuild(type(model), blobs, model.registry_, attributes_of(model) | {"unseen_": unseen})
    assert again.get_var_names()[again.module.unseen.numpy()].tolist() == unseen
    assert rebuild(type(model), blobs, model.registry_, attributes_of(model)).module.unseen is None


def test_a_model_made_without_cells_and_given_some_is_one_made_with_them(blobs):
    model = fitted("GMVAE", blobs, {"batch_key": "condition"}, init="cluster")
    again = rebuild(type(model), None, model.registry_, attributes_of(model))
    again.module.load_state_dict(model.module.state_dict())
    cells = blobs.copy()
    type(model).setup_anndata(cells, source_registry=model.registry_, **model.registry_["setup_args"])
    attach(again, cells)
    assert again.adata is cells
    assert attributes_of(again).keys() == attributes_of(model).keys()
    np.testing.assert_array_equal(again._init, model._init)
    np.testing.assert_array_equal(again.get_latent_representation(), model.get_latent_representation())


def test_cells_that_the_likelihood_cannot_describe_are_refused(blobs):
    model = fitted("VAE", blobs, likelihood="nb")
    again = rebuild(type(model), None, model.registry_, attributes_of(model))
    cells = blobs.copy()
    cells.X = cells.X - 0.5
    type(model).setup_anndata(cells, source_registry=model.registry_, **model.registry_["setup_args"])
    with pytest.raises(ValueError, match="count"):
        attach(again, cells)


def test_a_model_trains_on_the_cells_that_are_left(blobs):
    """Cells dropped before training, with their batch, are as if they had not been there, and this is said by name."""
    blobs.obs["batch"] = np.where(of(blobs, "condition 0"), np.tile(["a", "b"], 150), "c")
    model, kept = build("CVAE", blobs, {"batch_key": "batch"}), blobs[blobs.obs["batch"] != "c"].copy()
    blobs._inplace_subset_obs((blobs.obs["batch"] != "c").to_numpy())
    with pytest.warns(MixviWarning, match=r"of 300 cells were dropped .* none is of {'batch': \['c'\]}"):
        model.train(**QUICK)
    assert model.get_latent_representation().shape[0] == len(kept)
    assert model.train_indices_.max() < len(kept)
    assert model.empty_levels_ == {"batch": ["c"]}
    blobs._inplace_subset_obs(np.arange(50))
    with pytest.raises(ValueError, match="The cells or values of this CVAE's AnnData changed"):
        model.train(**QUICK)


def test_the_cells_that_are_left_must_suit(blobs):
    model = build("VAE", blobs, likelihood="nb")
    blobs.X = blobs.X - 0.5
    blobs._inplace_subset_obs(np.arange(50))
    with pytest.warns(MixviWarning, match="250 of 300 cells"), pytest.raises(ValueError, match="count"):
        model.train(**QUICK)


@pytest.mark.parametrize("key", ["condition", "cluster"])
def test_cells_that_are_left_need_their_columns(blobs, key):
    model = build("GMVAE", blobs, {"batch_key": "condition", "labels_key": "cluster", "unlabeled_category": "?"})
    blobs._inplace_subset_obs(np.arange(50))
    del blobs.obs[key]
    with pytest.raises(ValueError, match="The cells or values of this GMVAE's AnnData changed"):
        model.train(**QUICK)


def test_cells_that_are_left_need_their_batch(blobs):
    model = build("CVAE", blobs)
    blobs._inplace_subset_obs(np.arange(50))
    blobs.obs["condition"] = blobs.obs["condition"].astype(object).where(np.arange(50) > 3, np.nan)
    with pytest.raises(ValueError, match="missing values in 4 of 50 cells"):
        model.train(**QUICK)
