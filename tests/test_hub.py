"""The card of a model says what its file holds, and scvi-tools' hub takes it."""

import json
from importlib.metadata import version

import pytest
import scvi
from scvi.criticism import create_criticism_report
from scvi.hub import HubMetadata, HubModel

import mixvi
from mixvi import datasets
from tests.model.helpers import MODELS, fitted

hub = pytest.importorskip("huggingface_hub")
WHERE = {"license_info": "cc-by-4.0", "anndata_version": version("anndata")}


@pytest.fixture
def counts():
    return datasets.blobs(60, 12, n_clusters=2, n_conditions=2, kind="count")


@pytest.mark.parametrize("name", MODELS)
def test_a_card_says_what_a_saved_model_is(name, counts, tmp_path):
    model = fitted(name, counts, n_latent=7)
    model.save(tmp_path / "model", save_anndata=True)
    words = {"description": "Cells of two donors.", "tissues": ["blood"], "training_code_url": "https://a.org/code"}
    card = mixvi.HubModelCardHelper.from_dir(str(tmp_path / "model"), **WHERE, **words).model_card
    assert card.data.to_dict() == {
        "license": "cc-by-4.0", "library_name": "scvi-tools", "tags": [
            "biology", "genomics", "single-cell", f"model_cls_name:{name}", f"scvi_version:{scvi.__version__}",
            f"anndata_version:{version('anndata')}", "tissue:blood",
        ],
    }  # fmt: skip
    setup, settings = (json.loads(part.split("```")[0]) for part in card.text.split("```json")[1:])
    assert setup == model.registry_["setup_args"]
    assert settings == model.init_params_["non_kwargs"] | {"n_latent": 7}
    for said in (
        f"# {name}",
        "Cells of two donors.",
        "n_cells: 60",
        "n_vars: 12",
        "Minified: no",
        "https://a.org/code",
    ):
        assert said in card.text
    assert "Not measured" in card.text


def test_the_hub_saves_and_loads_a_model_with_its_card(counts, tmp_path):
    folder = str(tmp_path / "model")
    model = fitted("VAE", counts, likelihood="nb")
    model.save(folder, save_anndata=True)
    create_criticism_report(model, save_folder=folder, n_samples=2)
    card = mixvi.HubModelCardHelper.from_dir(folder, **WHERE)
    metadata = HubMetadata.from_dir(folder, anndata_version=version("anndata"), model_parent_module="mixvi")
    HubModel(folder, metadata=metadata, model_card=card).save()
    again = HubModel(folder)
    assert again.model_card.text == card.model_card.text
    assert "### Differential expression" in again.model_card.text
    assert isinstance(again.model, mixvi.VAE)
    assert again.adata.shape == counts.shape


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"model_cls_name": "PCA"}, "'PCA' is not a class of mixvi; it is one of"), ({"training_data_url": "a"}, "URL")],
)
def test_a_wrong_card_is_refused(wrong, said):
    given = dict.fromkeys(("model_init_params", "model_setup_anndata_args", "model_summary_stats"), {})
    given |= {"model_data_registry": {}, "scvi_version": "1", "model_cls_name": "VAE"} | WHERE
    with pytest.raises(ValueError, match=said):
        mixvi.HubModelCardHelper(**given | wrong)


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="pip install huggingface-hub"):
        mixvi.HubModelCardHelper("MIT", "VAE", {}, {}, {}, {}, "1", "1")
