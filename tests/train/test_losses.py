"""What minibatches lose, and the mean of that."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss

from mixvi.train._losses import LossMeter, classified, confusion, objective_of
from tests.model.helpers import build


@pytest.mark.parametrize("name", ["AE", "GMVAE"])
def test_an_objective_is_the_loss_and_the_means_of_its_parts(name, counts):
    module = build(name, counts).module.eval()
    none = torch.zeros(120, 1)
    cells = module.read({"X": torch.from_numpy(counts.X), "batch": none, "labels": none})
    torch.manual_seed(0)
    whole = module.objective(cells, kl_weight=0.5)
    torch.manual_seed(0)
    loss, means = objective_of(module)(cells, 1, kl_weight=0.5)
    torch.testing.assert_close(loss, whole.loss)
    expected = {
        "loss": whole.loss,
        "reconstruction_loss": whole.reconstruction_loss_sum / 120,
        "kl_local": whole.kl_local_sum / 120,
        "kl_global": whole.kl_global_sum,
        **whole.extra_metrics,
    }
    assert means.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(torch.as_tensor(means[key]), torch.as_tensor(value).detach())
        assert not means[key].requires_grad


@pytest.mark.parametrize("n_samples", [1, 3])
def test_guidance_is_added_to_the_loss_and_changes_no_other_term(n_samples, counts):
    module = build("GMVAE", counts).module.eval()
    none, guide = torch.zeros(120, 1), 5 * torch.rand(120, module.prior.n_room)
    cells = module.read({"X": torch.from_numpy(counts.X), "batch": none, "labels": none})
    with torch.no_grad():
        module.prior.loc.normal_()
    found = []
    for given in (None, guide[:, :0], guide):
        torch.manual_seed(0)
        found.append(objective_of(module)(cells, n_samples, given, kl_weight=0.5))
    (loss, plain), (same, empty), (guided, means) = found
    expected = -(guide * module.prior.log_responsibilities(module.encode(cells), cells)).sum(-1).mean()
    torch.testing.assert_close(means.pop("guide"), expected.detach())
    torch.testing.assert_close(guided, loss + expected)
    torch.testing.assert_close(means.pop("loss"), guided.detach())
    assert (same, empty) == (loss, plain)
    plain.pop("loss")
    assert means == plain


def test_many_minibatches_lose_what_one_would():
    meter = LossMeter()
    for _ in range(2):  # the second time starts from nothing
        for n, loss, error, kl in ((10, 2.0, 20.0, 3.0), (5, 4.0, 5.0, 0.5)):
            means = {"loss": loss, "reconstruction_loss": error / n, "kl_local": kl / n, "kl_global": 7.0, "kl_z": 0.3}
            meter.add({key: torch.tensor(value) for key, value in means.items()}, n)
        block, terms = meter.take(15)
        assert float(block.loss) == pytest.approx((10 * 2 + 5 * 4) / 15)
        assert float(block.reconstruction_loss_sum) == 25
        assert float(block.kl_local_sum) == 3.5
        assert float(block.kl_global_sum) == pytest.approx(7)
        assert block.n_obs_minibatch == 15
        assert terms == {"kl_z": pytest.approx(torch.tensor(0.3))}
    meter.add({"loss": torch.tensor(1.0), "reconstruction_loss": torch.tensor(1.0), "kl_local": torch.tensor(0.0),
              "kl_global": torch.tensor(0.0), "smooth": torch.tensor(4.0)}, 3)  # fmt: skip
    assert {key: float(value) for key, value in meter.take(6)[1].items()} == {"smooth": 2}


def test_classes_are_scored_as_by_scikit_learn():
    rng = np.random.default_rng(0)
    log_r, y = torch.as_tensor(rng.normal(size=(200, 5))).log_softmax(1), rng.integers(-1, 3, 200)
    one_hot = torch.as_tensor(y[:, None] == np.arange(3)).float()
    lost = LossMeter()
    for some in (slice(0, 150), slice(150, 200)):
        means = {"loss": torch.tensor(0.0), "reconstruction_loss": torch.tensor(0.0), "kl_local": torch.tensor(0.0),
                 "kl_global": torch.tensor(0.0), "confusion": confusion(log_r[some], one_hot[some])}  # fmt: skip
        lost.add(means, len(log_r[some]))
    label = -(one_hot * log_r[:, :3]).sum(1).mean()
    found = classified(lost.take(200)[1]["confusion"], label)
    known, predicted = y[y >= 0], log_r.argmax(1).numpy()[y >= 0]
    assert float(found["accuracy"]) == pytest.approx(accuracy_score(known, predicted))
    assert float(found["f1_score"]) == pytest.approx(f1_score(known, predicted, labels=[0, 1, 2], average="macro"))
    assert float(found["classification_loss"]) == pytest.approx(log_loss(known, log_r.exp()[y >= 0], labels=range(5)))
    assert all(value == 0 for value in classified(torch.zeros(3, 2), torch.tensor(0.0)).values())
