"""All tensors of a job are on the same device: training and what follows, on a GPU that is not there.

Three things cannot run here: backward passes, compiled steps (see tests/train/test_cuda_graph.py), and functions of
torch that need true values. Partition, evidence and markers use NumPy, and get invented values.
"""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

import mixvi
from mixvi.cluster import imsat, vat
from mixvi.data import CellsDataset
from mixvi.module.query import Levels
from mixvi.perturb import fit_shift
from mixvi.train._new_levels import _bound, _weights_of, nearest_levels
from mixvi.train._observe import stream
from tests.fake_gpu import fake_gpu, train_on
from tests.model.helpers import build, fitted

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning, about lengths that are invented
KINDS = {"nb": "count", "zinb": "count", "poisson": "count", "bernoulli": "binary", "normal": "real"}


def cells_of(likelihood):
    kind = KINDS[likelihood]
    cells = mixvi.datasets.blobs(120, 30, n_clusters=3, n_conditions=2, kind="count" if kind == "count" else "real")
    if kind == "binary":
        cells.X = (cells.X > 0).astype(np.float32)
    return cells


def setup_of(name):
    return {"batch_key": "condition"} if name in ("CVAE", "GMVAE") else None


def test_a_tensor_on_the_wrong_device_is_seen():
    with fake_gpu() as gpu:
        x = torch.ones(3, 2, device=gpu)
        assert x.cpu().numpy().shape == (3, 2)
        with pytest.raises(Exception, match="at least two devices, cuda:0 and cpu"):
            x + torch.ones(3, 2)
        with pytest.raises(TypeError, match="NumPy cannot read a tensor on cuda:0"):
            x.numpy()


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    """Of the nets that are trained on classes."""
    for module, most in ((imsat, "MAX_STEPS_A_START"), (vat, "MAX_STEPS")):
        monkeypatch.setattr(module, "MIN_STEPS", 3)
        monkeypatch.setattr(module, most, 4)


BATCH = {"batch_key": "condition"}
LABELS = {"batch_key": "condition", "labels_key": "cluster"}
JOBS = [
    ("AE", None, {}, {}),
    ("VAE", None, {}, {}),
    ("VAE", None, {}, {"n_importance_samples": 3}),
    ("CVAE", BATCH, {}, {}),
    ("CVAE", BATCH, {"learned_prior": True}, {}),
    ("GMVAE", BATCH, {}, {}),
    ("GMVAE", BATCH, {"hierarchical": True, "dispersion": "gene-batch"}, {}),
    ("GMVAE", None, {"init": "imsat"}, {}),
    ("GMVAE", LABELS, {}, {}),
    ("GMVAE", LABELS, {"init": "vat"}, {}),
]


@pytest.mark.parametrize(("name", "setup", "settings", "train"), JOBS)
def test_training_and_annotation(counts, name, setup, settings, train):
    """Start from conditions, training, components, guidance, calibration, held-out cells."""
    model = build(name, counts, setup, **settings)
    with fake_gpu() as gpu:
        train_on(gpu, model, **train)
        assert len(model.history["elbo_train"]) == 4
        model.annotate()
    assert counts.obsm["X_mixvi"].shape == (120, 3)
    assert name != "GMVAE" or model.clusters_ is not None


@pytest.mark.parametrize("likelihood", KINDS)
@pytest.mark.parametrize("name", ["AE", "VAE", "CVAE", "GMVAE"])
def test_loss_and_draws_of_each_likelihood(name, likelihood):
    if name == "AE" and likelihood not in ("nb", "normal"):
        pytest.skip("an AE has no such likelihood")
    model = build(name, cells_of(likelihood), setup_of(name), likelihood=likelihood)
    with fake_gpu() as gpu:
        module = model.module.to(gpu)
        cells = module.read(CellsDataset(model.adata_manager, gpu, resident=False)[np.arange(20)])
        for n_samples in (1,) if name == "AE" else (1, 3):
            assert module.objective(cells, n_samples).loss.device == gpu
        assert module.sample(cells, module.encode(cells).loc).device == gpu


def test_the_unit_of_real_values_is_measured_on_the_device():
    model = build("VAE", cells_of("normal"), likelihood="normal")
    with fake_gpu() as gpu:
        train_on(gpu, model)
        assert model.module.likelihood.center.device == gpu


QUESTIONS = {
    "get_latent_representation": {"return_dist": True},
    "get_elbo": {},
    "get_reconstruction_error": {},
    "get_reconstruction": {},
    "sample": {},
    "get_normalized_expression": {"n_samples": 2},
    "posterior_predictive_sample": {"n_samples": 2},
    "get_likelihood_parameters": {},
    "get_feature_correlation_matrix": {},
    "get_latent_library_size": {},
    "differential_abundance": {"sample_key": "condition"},
    "get_log_evidence": {"n_samples": 4},
    "get_outlier_p": {},
    "predict": {"soft": True},
    "predict_set": {},
    "suggest_labels": {"n": 3},
    "subclusters": {"cluster": "0"},
    "markers": {},
    "predict_counterfactual": {"condition": "condition 1", "give_mean": False},
    "condition_prior": {},
}


UNFIT = [("AE", "sample")]  # torch.cov needs true values; it runs on the CPU anyway


@pytest.mark.parametrize("name", ["AE", "VAE", "CVAE", "GMVAE"])
def test_what_a_trained_model_says(counts, name):
    settings = {"learned_prior": True} if name == "CVAE" else {}
    model = fitted(name, counts, setup_of(name), {"train_size": 0.7}, **settings)
    with fake_gpu() as gpu:
        model.module.to(gpu)
        asked = [question for question in QUESTIONS if hasattr(model, question) and (name, question) not in UNFIT]
        for question in asked:
            getattr(model, question)(**QUESTIONS[question])
    assert len(asked) > 9


@pytest.mark.parametrize("name", ["CVAE", "GMVAE"])
def test_query_with_other_genes_and_a_new_batch(counts, name):
    model = fitted(name, counts, setup_of(name), {"train_size": 0.7})
    query = mixvi.datasets.blobs(120, 30, n_clusters=3, n_conditions=3, kind="count")[:, 4:].copy()
    mapped = model.map(query)
    levels = Levels.between(model.module.layout, mapped.module.layout)
    rows = np.arange(120)
    with fake_gpu() as gpu:
        module = mapped.module.to(gpu)
        dataset = CellsDataset(mapped.adata_manager, gpu, resident=False)
        widened = levels.widen(model.module.to(gpu).state_dict(), module)
        assert {value.device for value in widened.values()} == {gpu}
        levels = nearest_levels(module, dataset, rows, levels)
        weights = dict(_weights_of(module, ~levels.known))
        assert {part.device for pair in weights.items() for part in pair} == {gpu}
        assert {_bound(module, cells).device for cells in stream(module, dataset, rows)} == {gpu}
        mapped.annotate(query)
        mapped.get_reconstruction(query)
    assert query.obsm["X_mixvi"].shape == (120, 3)


@pytest.mark.parametrize("name", ["AE", "VAE", "CVAE"])
def test_refine(counts, name):
    model = fitted(name, counts, setup_of(name))
    with fake_gpu() as gpu:
        model.module.to(gpu)
        mixvi.refine(model, 3, max_epochs=2, update_interval=2, progress=False).annotate()
    assert counts.obsm["mixvi_probabilities"].shape == (120, 3)


def test_prediction_of_perturbed_cells(counts):
    model = fitted("VAE", counts)
    with fake_gpu() as gpu:
        model.module.to(gpu)
        for local in (False, True):
            shift = fit_shift(model, "condition", "condition 0", "condition 1", "cluster", local=local)
            shift.predict(counts, "blob 0")


@pytest.mark.parametrize("data_path", ["stream", "resident"])
def test_compressed_rows(counts, data_path):
    """Minibatches of CSR; the rows of cells that are kept on the GPU."""
    counts.X = csr_matrix(counts.X * (np.quantile(counts.X, 0.8) < counts.X))
    model = build("VAE", counts)
    with fake_gpu() as gpu:
        train_on(gpu, model, data_path=data_path)
        model.get_latent_representation()
        model.get_elbo()
