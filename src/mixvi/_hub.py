"""The card of a model on the Hugging Face hub. scvi-tools makes cards of its own models only."""

import json
from dataclasses import dataclass
from typing import Any

import scvi.hub

KINDS = {
    "AE": "an autoencoder: a latent space without a prior",
    "VAE": "a variational autoencoder: a latent space with a prior, and an uncertainty of each cell's place in it",
    "CVAE": "a conditional variational autoencoder: a latent space from which known batches or conditions are removed, "
    "or in which each has its own prior",
    "GMVAE": "a Gaussian-mixture variational autoencoder: clusters of cells, with a probability for each cell",
}
CARD = """\
---
{data}
---

# {name}

This is {kind}. It was made with mixvi on scvi-tools {scvi_version}.

{description}

## Use

```python
import {module}
from scvi.hub import HubModel

model = HubModel.pull_from_huggingface_hub("owner/name").model  # the name of this repository
```

`{module}.{name}.load(folder)` loads the downloaded folder without scvi-tools' hub. It runs no code of the folder.

## Data

{summary}

Arguments of `setup_anndata`:

```json
{setup}
```

- Minified: {is_minified}
- Annotated: {is_annotated}
- Training data: {data_url}

## Model

```json
{settings}
```

- Training code: {code_url}

## Quality

{quality}

## References

{references}
"""
QUALITY = {
    "cell_wise_cv": "Coefficient of variation, cell by cell",
    "gene_wise_cv": "Coefficient of variation, gene by gene",
    "diff_exp": "Differential expression",
}


@dataclass
class HubModelCardHelper(scvi.hub.HubModelCardHelper):
    """A card for a model of mixvi, for ``scvi.hub.HubModel``: what it is, how to load it, its data and its settings.

    It takes the arguments of :class:`scvi.hub.HubModelCardHelper`, which refuses classes that are not of scvi-tools.
    ``from_dir`` reads all but the licence, the version of anndata and your own words from a saved model. If
    :func:`scvi.criticism.create_criticism_report` was given the same folder, its measures are on the card. Needs
    huggingface-hub.

    Attributes
    ----------
    model_card
        The ``huggingface_hub.ModelCard``.

    Raises
    ------
    ValueError
        If the class is not of mixvi, or a URL is not valid.
    ImportError
        If huggingface-hub is not installed.

    Examples
    --------
    >>> card = mixvi.HubModelCardHelper.from_dir("blood", license_info="cc-by-4.0", anndata_version="0.12.7")
    >>> card.model_card.save("blood/README.md")
    """

    model_parent_module: str = "mixvi"

    def __post_init__(self) -> None:
        if self.model_cls_name not in KINDS:
            raise ValueError(
                f"model_cls_name={self.model_cls_name!r} is not a class of mixvi; it is one of {list(KINDS)}. For "
                "models of scvi-tools, use scvi.hub.HubModelCardHelper."
            )
        for url in (self.training_data_url, self.training_code_url):
            scvi.hub.HubMetadata(self.scvi_version, self.anndata_version, self.model_cls_name, url)  # checks it
        try:
            from huggingface_hub import ModelCard, ModelCardData
        except ImportError as error:
            raise ImportError("HubModelCardHelper needs huggingface-hub: pip install huggingface-hub") from error
        data = ModelCardData(license=self.license_info, library_name="scvi-tools", tags=self._tags())
        self.model_card = ModelCard(self._text(data.to_yaml()))

    def _tags(self) -> list[str]:
        """What the hub can be searched for; the names are those of scvi-tools' cards."""
        tags = ["biology", "genomics", "single-cell"]
        tags += [f"model_cls_name:{self.model_cls_name}", f"scvi_version:{self.scvi_version}"]
        tags += [f"anndata_version:{self.anndata_version}", *(f"modality:{name}" for name in self.data_modalities)]
        tags += [f"tissue:{name}" for name in self.tissues]
        return tags if self.data_is_annotated is None else [*tags, f"annotated:{self.data_is_annotated}"]

    def _text(self, data: str) -> str:
        quality = self.metrics_report or {}
        settings = dict(self.model_init_params["non_kwargs"])
        for group in self.model_init_params.get("kwargs", {}).values():
            settings |= group
        return CARD.format(
            data=data, name=self.model_cls_name, kind=KINDS[self.model_cls_name], module=self.model_parent_module,
            scvi_version=self.scvi_version, description=self.description, setup=_json(self.model_setup_anndata_args),
            summary="\n".join(f"- {key}: {value:,}" for key, value in self.model_summary_stats.items()),
            is_minified=_told(self.data_is_minified), is_annotated=_told(self.data_is_annotated),
            data_url=_told(self.training_data_url), code_url=_told(self.training_code_url), settings=_json(settings),
            quality="\n\n".join(f"### {QUALITY[key]}\n\n{quality[key]}" for key in QUALITY if quality.get(key))
            or "Not measured.",
            references=self.references,
        )  # fmt: skip


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=4, default=str)


def _told(value: object) -> str:
    return {None: "not given", True: "yes", False: "no"}.get(value, str(value))  # type: ignore[arg-type,call-overload]
