"""Run the tests of scvi-tools with mixvi's models in the place of SCVI and SCANVI; see README.md."""

import os
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import scvi.hub
import stand_ins

import mixvi

FILES = (
    "model/test_scvi.py", "model/test_scanvi.py", "model/base", "model/test_differential.py",
    "model/test_differential_abundance.py", "model/test_models_with_minified_data.py", "criticism",
    "train/test_callbacks.py", "train/test_trainingplans.py", "dataloaders/test_dataloaders.py",
    "data/test_anndata.py", "external/solo", "hub",
)  # fmt: skip
REASONS = {  # found in the name of a test or in its error, from the first to the last
    "the words of an error for minified data": (
        "test_validate_unsupported_if_minified", "test_scvi_save_then_load_with_minified_adata",
        "test_scanvi_from_scvi",
    ),
    "`load_query_data` with parts to freeze or not, by their names in SCVI": ("online_update",),
    "loading a model with cells that have no counts and no total counts": ("adata_having_latent_params",),
    "latent library size": ("library_size_update",),
    "the classifier of SCANVI": (
        "classifier", "_labeled_indices", "ig_interpretability", "n_samples_per_label",
    ),
    "labels of SCVI, which a VAE does not take": ("test_new_setup_compat",),
    "new cells are not changed, so that nothing is registered in them": (
        "Cannot view setup", "transfer_fields_subset", "data_prep_with_categorial",
    ),
    "a model that is not trained gives no values": ("is not trained yet",),
    "a part of SCVI's module by its name": ("z_encoder", "got (Mock)", "_loss_args", "test_loss_args"),
    "the pickled format of earlier releases": ("pre_logits_fix", "test_saving_and_loading"),
    "a card of an SCVI, with its arguments": ("test_hub_modelcardhelper",),
    "a model without an AnnData, on a data module": ("no_anndata",),
    "`size_factor_key` where the likelihood is not of counts": ("likelihood='normal'",),
    "a last minibatch of one cell, which is an error in scvi-tools": ("n_obs_error",),
    "`indices=[]`, which is all cells in scvi-tools": ("indices has shape (0,)",),
    "an AnnCollection": ("test_anncollection",),
    "dvc, an optional package of scvi-tools": ("No module named 'dvc'",),
    "`shap_predict`": ("shap_predict",),
    "a temperature that is fitted after the last epoch, when `SaveCheckpoint` has saved the model": (
        "test_savecheckpoint[True]",
    ),
    "training on minified cells, and tensors where mixvi gives arrays": ("minified_keep_count",),
}  # fmt: skip


def reason_of(test: str, error: str) -> str:
    """Why a test failed, or its error where that is new."""
    text = f"{test} {error}"
    return next((reason for reason, parts in REASONS.items() if any(part in text for part in parts)), error)


class Report:
    """Outcome of each test in which a model was made, with the parts of SCVI that it had to do without."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[str, str]] = {}  # name of the test -> outcome, reason

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        """Forget what the last test did."""
        stand_ins.used.clear()
        stand_ins.left_out.clear()
        if hasattr(item, "callspec"):  # a fixture may have made the model before the first test of a file
            stand_ins.used.update({"SCVI", "SCANVI"} & set(item.callspec.id.split("-")))
        return (yield)

    def pytest_runtest_logreport(self, report) -> None:
        """Note the outcome."""
        if report.when == "call" and stand_ins.used:
            parts = ", ".join(sorted(stand_ins.left_out))
            if report.failed:
                crash = getattr(report.longrepr, "reprcrash", None)
                self.found[report.nodeid] = "failed", reason_of(report.nodeid, crash.message if crash else "?")
            elif report.passed:
                self.found[report.nodeid] = ("passed without a part", parts) if parts else ("passed", "")

    def show(self) -> None:
        """Print the outcomes."""
        groups = defaultdict(list)
        for test, (outcome, reason) in self.found.items():
            groups[outcome, reason].append(test)
        print("\nmixvi in the place of SCVI and SCANVI")
        for (outcome, reason), tests in sorted(groups.items()):
            print(f"{len(tests):4} {outcome}{': ' if reason else ''}{reason}")
            if outcome != "passed":
                for test in tests:
                    print(f"          {test}")
        counts = Counter(outcome for outcome, _ in self.found.values())
        print(f"of {len(self.found)} tests: " + ", ".join(f"{n} {name}" for name, n in counts.items()))


if __name__ == "__main__":
    folder, *rest = sys.argv[1:]
    scvi.model.SCVI, scvi.model.SCANVI = stand_ins.SCVI, stand_ins.SCANVI
    scvi.module.VAE, scvi.hub.HubModelCardHelper = stand_ins.Module, mixvi.HubModelCardHelper
    os.chdir(folder)
    sys.path.insert(0, str(Path.cwd()))
    named = [argument for argument in rest if not argument.startswith("-")]
    files = [] if named else [f"tests/{name}" for name in FILES if Path("tests", name).exists()]
    report = Report()
    # their settings of pytest are for the whole of scvi-tools; tests that it marks as optional run on request only
    usual = ["-q", "-o", "addopts=", "-p", "no:cacheprovider", "--tb=line", "--no-header", "--no-summary"]
    for chosen in ([], ["--optional", "-m", "optional"]):
        pytest.main([*usual, *chosen, *files, *rest], [report])
    report.show()
