"""What `train` takes, and what it says of what it does not take."""

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule

import mixvi
from mixvi.model import _arguments
from tests.model.helpers import MODELS, build


@pytest.mark.parametrize(("wrong", "said"), [
    ({"batch_size": "64"}, "batch_size='64'; it must be a whole number"), ({"batch_size": 0}, "batch_size=0; it must"),
    ({"plan_kwargs": {"n_epoch_pretrain": 1}}, "plan_kwargs got 'n_epoch_pretrain', .*did you mean n_epochs_pretrain"),
    ({"plan_config": {"zzz": 1}}, "plan_kwargs got 'zzz', which it does not know; there are .*'n_epochs_pretrain'"),
    ({"plan_kwargs": {"batch_size": 64}}, r"plan_kwargs got \['batch_size'\], which .* pass train\(batch_size=...\)"),
    ({"weight_decai": 1.0}, r"train\(\) got 'weight_decai', .*did you mean plan_kwargs={'weight_decay': ...}"),
    ({"data_pth": "stream"}, "did you mean data_path"), ({"trainer_config": {"zzz": 4}}, r"train\(\) got 'zzz'"),
    ({"plan_kwargs": {"guidance": 1.0}}, r"plan_kwargs got \['guidance'\], which a VAE has no use for: use"),
    ({"plan_kwargs": {"guidance": -1}}, "plan_kwargs got guidance=-1; it must be a number of at least 0"),
    ({"plan_kwargs": {"weight_decay": np.nan}}, "plan_kwargs got weight_decay=nan; it must be a number of at least 0"),
    ({"plan_kwargs": {"lr": "1e-3"}}, "plan_kwargs got lr='1e-3'; it must be a number of at least 0"),
    ({"plan_kwargs": {"max_kl_weight": -1}}, "plan_kwargs got max_kl_weight=-1; it must be a number"),
    ({"plan_kwargs": {"n_epochs_kl_warmup": 2.5}}, "plan_kwargs got n_epochs_kl_warmup=2.5; it must be a whole"),
    ({"plan_kwargs": {"n_epochs_pretrain": "3"}}, "plan_kwargs got n_epochs_pretrain='3'; it must be a whole number"),
    ({"plan_kwargs": {"compile": "yes"}}, "plan_kwargs got compile='yes'; it must be True or False"),
    ({"plan_kwargs": {"optimizer": "SGD"}}, r"plan_kwargs got optimizer='SGD'; it must be one of \['Adam', "),
    ({"max_epoch": 3}, r"train\(\) got 'max_epoch', which it does not know; did you mean .*max_epochs"),
    ({"n_epochs_kl_warmup": 2}, r"\['n_epochs_kl_warmup'\] are settings of the plan"),
    ({"lr": 1e-3}, r"\['lr'\] are settings of the plan: pass train\(plan_kwargs={...}\)"),
])  # fmt: skip
def test_training_says_what_it_does_not_take(wrong, said, counts):
    model = build("VAE", counts)
    with pytest.raises(ValueError, match=said):
        model.train(1, **wrong)
    assert not model.is_trained_


def test_every_setting_of_the_plan_may_be_given_its_default(counts):
    settings = {name: parameter.default for name, parameter in _arguments.PLAN.items()}
    build("VAE", counts).train(1, enable_progress_bar=False, plan_kwargs=settings)
    _arguments.check_plan({"n_epochs_pretrain": -1, "n_epochs_kl_warmup": None, "lr": np.float32(1e-3)})
    _arguments.check_plan({"n_steps_kl_warmup": 1e3, "compile": np.True_, "max_kl_weight": torch.tensor(0.5)})
    _arguments.check_plan({"on_step": None})


def test_a_data_module_is_refused_with_what_streams_its_cells(counts):
    registry = {"setup_method_name": "setup_datamodule", "field_registries": {}, "setup_args": {}}
    for refused in (
        lambda: mixvi.CVAE.setup_annbatch("cells.zarr", paths=["cells.h5ad"]),
        lambda: mixvi.CVAE(registry=registry),
        lambda: build("VAE", counts).train(datamodule=LightningDataModule()),
    ):
        with pytest.raises(ValueError, match=r"mixvi trains on an AnnData only.*mixvi.data.from_zarr\(paths\)"):
            refused()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("key", "value"), [("n_latent", 0), ("n_hidden", 2.5), ("n_layers", -1), ("dropout_rate", 1.0)]
)
def test_sizes_that_make_no_sense(name, key, value, counts):
    with pytest.raises(ValueError, match=f"{key}={value}; it must be"):
        build(name, counts, **{key: value})
