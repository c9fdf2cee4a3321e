"""Choices of ``init`` and of the number of clusters that cannot be, and what is said of them."""

import numpy as np
import pytest

import mixvi
from tests.model.helpers import build


@pytest.mark.parametrize("n_clusters", [None, 4])
def test_classes_that_leave_no_room_for_others_are_said(n_clusters, counts, caplog):
    counts.obs["label"] = np.where(np.arange(120) < 20, "B cell", "unknown")
    setup = {"labels_key": "label", "unlabeled_category": "unknown"}
    build("GMVAE", counts, setup, n_clusters=n_clusters)
    assert ("takes the classes of .obs['label'] (1) as the only clusters." in caplog.text) == (n_clusters is None)


def test_a_wrong_number_of_clusters_is_an_error(blobs):
    mixvi.GMVAE.setup_anndata(blobs, labels_key="cluster")
    for wrong in (0, 2, 301):
        with pytest.raises(ValueError, match=f"n_clusters={wrong}.*between 3 .* and 300"):
            mixvi.GMVAE(blobs, n_clusters=wrong)


@pytest.mark.parametrize(("wrong", "said"), [
    ({"init": "leidn"}, "init='leidn' is not known; .*did you mean 'leiden'"),
    ({"init": "clustr"}, "did you mean 'cluster'"),
    ({"init": np.zeros(7)}, "init gives parts to 7 cells; it must give one to each of 300"),
    ({"init": [None] * 300}, "init gives parts to 0 cells"),
    ({"init": "vat"}, "init='vat' learns from labels, and there are none"),
    ({"init": "n2d", "n_clusters": None}, "init='n2d' cannot infer the number of clusters"),
    ({"init": "imsat", "n_clusters": None}, "init='imsat' cannot infer the number of clusters"),
    ({"guidance": -1.0}, "guidance=-1.0; it must be a finite number of at least 0"),
    ({"guidance": None}, "guidance=None; it must"), ({"guidance": "5"}, "guidance='5'; it must"),
    ({"guidance": np.nan}, "guidance=nan; it must"), ({"min_worth": np.inf}, "min_worth=inf; it must"),
    ({"min_worth": -0.1}, "min_worth=-0.1; it must"),
    ({"n_clusters": 0}, "n_clusters=0; it must be a whole number between 1 and 300"),
    ({"n_clusters": 2.5}, "n_clusters=2.5; it must"), ({"n_clusters": 301}, "n_clusters=301; it must"),
])  # fmt: skip
def test_settings_that_cannot_be_are_errors(wrong, said, blobs):
    with pytest.raises(ValueError, match=said):
        build("GMVAE", blobs, **wrong)


def test_labels_do_not_go_with_other_starts(blobs):
    for init in ("n2d", "imsat", "cluster"):
        with pytest.raises(ValueError, match="makes no use of labels; with labels_key it is 'leiden' or 'vat'"):
            build("GMVAE", blobs, {"labels_key": "cluster"}, init=init)
