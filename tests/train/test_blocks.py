"""What users of scvi-tools' trainer expect holds where one batch of Lightning is a block of many minibatches."""

import pytest
import torch

from mixvi import datasets
from mixvi.data._sampler import BlockSampler
from mixvi.ops.count_log_prob import log_negative_binomial
from tests.model.helpers import build

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def trained(counts, n_epochs=4, **options):
    model = build("VAE", counts, n_layers=options.pop("n_layers", 1))
    model.train(n_epochs, **QUIET | options)
    return model


def test_steps_are_counted_in_minibatches(counts):
    assert trained(counts, batch_size=20, train_size=1.0).trainer.global_step == 4 * 6
    assert trained(counts, batch_size=20, train_size=1.0, max_steps=8).trainer.global_step == 8
    assert trained(counts, 2, batch_size=1, train_size=1.0, n_layers=0).trainer.global_step == 2 * 120
    kl_weight = trained(counts, plan_kwargs={"n_epochs_kl_warmup": 2}).history["kl_weight"]
    assert kl_weight["kl_weight"].tolist() == [0, 0.5, 1, 1]


def test_stopping_early_waits_for_min_epochs(counts):
    options = {"early_stopping": True, "early_stopping_patience": 1, "early_stopping_min_delta": 1e3, "min_epochs": 8}
    model = trained(counts, 20, batch_size=20, train_size=0.9, **options)
    assert model.trainer.global_step == 6 * len(model.history["elbo_train"])


def test_checkpoints_are_written(counts, tmp_path):
    assert trained(counts, enable_checkpointing=True, default_root_dir=str(tmp_path)).is_trained_


@pytest.mark.parametrize("n", [1, 16, 17, 33])
def test_one_cell_makes_no_block_of_its_own(n):
    blocks = list(BlockSampler(torch.arange(n).numpy(), 16))
    assert len(blocks) == len(BlockSampler(torch.arange(n).numpy(), 16))
    assert sum(map(len, blocks)) == n
    assert n == 1 or min(map(len, blocks)) > 1


def test_one_cell_left_over_is_left_for_the_next_epoch():
    assert trained(datasets.blobs(129, 20, kind="count"), 1, train_size=1.0).trainer.global_step == 1


@pytest.mark.parametrize(
    "options", [{"limit_train_batches": 0.5}, {"fast_dev_run": True}, {"accumulate_grad_batches": 2}]
)
def test_what_would_count_blocks_is_refused(counts, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        trained(counts, **options)
    with pytest.raises(ValueError, match="early_stopping needs cells"):
        trained(counts, early_stopping=True, train_size=1.0)


@pytest.mark.parametrize("theta", [10.0, 1e2, 1e3])
def test_many_genes_do_not_cancel(theta):
    mu = (3000 * torch.randn(64, 2000).softmax(-1)).double()
    x = torch.poisson(mu)
    exact = log_negative_binomial(x, mu, torch.full((2000,), theta).double())
    found = log_negative_binomial(x.float(), mu.float(), torch.full((2000,), theta))
    torch.testing.assert_close(found.double(), exact, rtol=5e-4, atol=0)
