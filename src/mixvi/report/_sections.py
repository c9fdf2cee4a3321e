"""The sections of the report."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scvi
import torch

from mixvi.model._markers import best_markers
from mixvi.model._predict import own_table
from mixvi.report import _figures
from mixvi.report._methods import is_calibrated, methods, references
from mixvi.report._page import Section, html, table

if TYPE_CHECKING:
    from mixvi.model._gmvae import GMVAE

SPLITS = {
    "node": "cluster", "left": "side 1", "right": "side 2", "cells_left": "cells 1", "cells_right": "cells 2",
    "worth": "worth", "error": "standard error", "confusion": "confused", "kind": "kind",
}  # fmt: skip
MAX_DRAWN = 2000  # cells of the posterior predictive check, whose counts are dense


def page(model: "GMVAE", batch_key: str | None, n_clusters: int) -> str:
    """The report as HTML.

    Parameters
    ----------
    model
        Trained GMVAE with clusters and cells.
    batch_key
        Column of ``.obs`` with batches; ``None`` leaves them out.
    n_clusters
        Where to cut the tree.
    """
    return _Page(model, batch_key, n_clusters).html()


class _Page:
    """What the sections share."""

    def __init__(self, model: "GMVAE", batch_key: str | None, n_clusters: int):
        self.model, self.batch_key, self.n_clusters = model, batch_key, n_clusters
        self.table = own_table(model, n_clusters)
        self.confidence = self.table.to_numpy().max(1)
        self.quality = model.quality_control(batch_key, n_clusters)
        self.qc = self.quality.clusters
        self.cells = _figures.some_cells(model, self.table, batch_key)
        self.has_counts = bool(len(model.tree.clusters.overdispersion))
        self.history = model.history or {}
        self.genes = best_markers(model, n_clusters)

    def html(self) -> str:
        """The whole page."""
        parts = (self.clusters(), self.faults(), self.tree(), self.markers(), self.probabilities(), self.batches())
        sections = [
            part for part in (*parts, self.fit(), self.predictive(), self.settings(), self.paper()) if part is not None
        ]
        facts = [
            (f"{self.model.adata.n_obs:,}", "cells"),
            (f"{self.model.adata.n_vars:,}", "genes or features"),
            (str(self.n_clusters), "clusters"),
            (f"{self.confidence.mean():.2f}", "mean confidence"),
            (f"{(self.confidence < 0.5).mean():.1%}", "of cells with confidence below 0.5"),
            (str(len(self.quality.faults)), "warnings"),
        ]
        return html("Clusters found by mixvi", facts, sections)

    def clusters(self) -> Section:
        """Map and table of clusters."""
        frame = pd.DataFrame({"cluster": self.qc.index, "cells": self.qc["cells"].to_numpy()})
        frame["share"] = [f"{n / self.qc['cells'].sum():.1%}" for n in self.qc["cells"]]
        frame["mean confidence"] = ["" if np.isnan(value) else f"{value:.2f}" for value in self.qc["confidence"]]
        if self.has_counts:
            frame["median library size"] = self.qc["library"].to_numpy()
            frame["marker genes"] = [", ".join(self.genes.get(name, [])) for name in self.qc.index]
        n = len(self.cells)
        some = f" It shows {n:,} random cells." if n < self.model.adata.n_obs else ""
        texts = [
            "The map is a UMAP of the latent space. Distances on it are not exact: neighbours are near each other, but "
            f"the space between groups means little.{some}"
        ]
        return Section("clusters", "Clusters", texts, [_figures.umap(self.cells)], table(frame))

    def faults(self) -> Section:
        """What not to trust."""
        found, texts = self.quality.faults, ["These are reasons to look again. They do not prove a fault."]
        looked = ["several types in one cluster", "clusters that are not sure"]
        looked += [f"effects of {self.batch_key}"] if self.batch_key else []
        looked += ["doublets", "cells of low quality"] if self.has_counts and self.n_clusters > 1 else []
        if not np.isnan(self.quality.ambient):
            looked.append("ambient RNA")
        if not found:
            texts = [f"Nothing was found. This was looked for: {', '.join(looked)}."]
        if "doublets" in looked:
            texts.append(f"About {self.quality.doublets:.1%} of the cells look like doublets of two clusters.")
        if "ambient RNA" in looked:
            texts.append(f"Ambient RNA is at most about {self.quality.ambient:.0%} of the counts.")
        return Section("care", "What not to trust", texts, warnings=found)

    def tree(self) -> Section | None:
        """The tree and the evidence of its splits."""
        if self.n_clusters < 2:
            return None
        texts = [
            "Each split has a worth: the gain in log-likelihood of held-out counts if each side has its own mean "
            "profile instead of a joint one, in nats per cell. The held-out counts are 20 % of all counts, "
            "and did not take part in finding the clusters. A gap has few cells between both "
            "sides. A grade is a gradient, so its border is arbitrary. Noise is a split that the test does not support."
            " Confused is the estimated share of cells that fit the other side better."
        ]
        if not self.has_counts:
            texts = ["These values are not counts, so the splits have no evidence. The tree shows connectivity only."]
        shown = None
        if self.has_counts and self.n_clusters == self.model.n_clusters:
            splits = self.model.tree.table.query("kept")[list(SPLITS)]
            confusion = splits["confusion"].map("{:.1%}".format, na_action="ignore")
            shown = table(splits.assign(confusion=confusion).rename(columns=SPLITS))
        return Section("tree", "Evidence of each split", texts, [_figures.tree(self.model, self.n_clusters)], shown)

    def markers(self) -> Section | None:
        """Dot plot of marker genes."""
        drawn = _figures.dots(self.model, self.cells, self.genes)
        if drawn is None:
            return None
        texts = [
            "Genes that are higher in a cluster than in all other cells and than in its sibling in the tree. They were "
            "ranked on the held-out counts. The colour is the mean log-normalised count, scaled from 0 to 1. "
            "model.markers() gives all genes with p and q."
        ]
        return Section("markers", "Marker genes", texts, [drawn])

    def probabilities(self) -> Section:
        """What the confidence means."""
        temperature = self.model.module.prior.temperature.item()
        calibrated = "Calibration needs counts or labels, so these probabilities are not calibrated."
        if is_calibrated(self.model):
            calibrated = f"The calibration has temperature {temperature:.2f}: " + (
                "the mean confidence was too high and was lowered."
                if temperature > 1
                else "the mean confidence did not exceed the estimated share of correct assignments, and was kept."
            )
        texts = [
            "The confidence of a cell is the probability of its likeliest cluster. It says how sure the assignment is, "
            "given these clusters. It does not say that a cluster is real, or that it is a cell type.",
            calibrated,
        ]
        return Section("confidence", "Probabilities", texts, [_figures.confidence(self.table)])

    def batches(self) -> Section | None:
        """Batches in each cluster."""
        if self.batch_key is None:
            return None
        texts = [f"Share of each level of {self.batch_key!r} in each cluster. Look at clusters of one colour."]
        return Section("batches", "Batches", texts, [_figures.batches(self.cells)])

    def fit(self) -> Section | None:
        """How training went."""
        if "elbo_train" not in self.history:
            return None
        is_held_out = "elbo_validation" in self.history
        bound = self.history["elbo_validation" if is_held_out else "elbo_train"].iloc[:, 0].astype(float).dropna()
        n_epochs = len(self.history["elbo_train"])
        before = bound[bound.index < 0.9 * n_epochs]
        change = bound.iloc[-1] - before.iloc[-1] if len(before) else 0.0
        texts = [
            f"Training took {n_epochs} epochs. The negative evidence bound of "
            f"{'held-out' if is_held_out else 'training'} cells is {bound.iloc[-1]:,.1f} nats a cell at the end. In "
            f"the last tenth of the epochs it changed by {change:+.1f}.",
            "If the bound still falls clearly, train for more epochs.",
        ]
        return Section("training", "Training", texts, [_figures.training(self.model)])

    def predictive(self) -> Section | None:
        """Posterior predictive check."""
        if not self.has_counts:
            return None
        rows = self.cells.uns["rows"]
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:MAX_DRAWN])
        drawn, (zeros, variance) = _figures.predictive(self.model, rows)
        off = np.abs(zeros[0] - zeros[1])
        some = (variance > 0).all(0)
        ratio = np.median(variance[1, some] / variance[0, some]) if some.any() else np.nan
        texts = [
            "Posterior predictive check: each dot is a gene. The model draws new counts for each cell. "
            "On the line, they have as many zeros and the same variance as the observed counts. "
            f"For {np.mean(off < 0.05):.0%} of the genes, the share of zeros differs by less than 0.05. The median "
            f"ratio of the drawn to the observed variance is {ratio:.2f}."
        ]
        return Section("predictive", "Does the model fit the counts?", texts, [drawn])

    def settings(self) -> Section:
        """Arguments, seed and versions."""
        params = self.model.init_params_["non_kwargs"]
        rows = {"model": type(self.model).__name__, "likelihood found": self.model.likelihood_}
        rows |= {key: "none" if value is None else value for key, value in params.items()}
        rows |= {f"setup: {key}": value for key, value in self.model.registry_["setup_args"].items() if value}
        rows |= {
            "seed of the partition": str(self.model.tree.clusters.seed),
            "mixvi, at training": self.model.mixvi_version_,
        }
        rows |= {"scvi-tools, of this page": scvi.__version__, "torch, of this page": torch.__version__}
        frame = pd.DataFrame({"setting": list(rows), "value": [str(value) for value in rows.values()]})
        return Section("settings", "Settings and versions", [], table=table(frame))

    def paper(self) -> Section:
        """Methods paragraph and references."""
        texts = ["For the methods section of a paper:", methods(self.model, self.n_clusters), *references(self.model)]
        return Section("methods", "Methods", texts)
