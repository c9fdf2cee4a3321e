"""A model from the attributes of another."""

import numpy as np
import pytest

from mixvi.model._rebuild import attach, attributes_of, rebuild
from tests.model.helpers import fitted


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
