"""A model folder with a model card, as model hubs show it: README.md, which begins with metadata in YAML.

The other files are those of every model folder, so that `LSFA.load`, or `from_pretrained`, and bin/predict read it.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jinja2
import numpy as np
from huggingface_hub import EvalResult, ModelCardData

from lsfa_jax import __version__
from lsfa_jax.config import get, with_values
from lsfa_jax.model.prototypes import is_head
from lsfa_jax.sparse.linear import TITLES
from lsfa_jax.training import model_folder
from lsfa_jax.training.model_folder import TrainedModel
from lsfa_jax.util.console import UserError

# The metrics of a row, by the group of labels.
_METRICS = {"": ("P@1", "P@3", "P@5", "N@5", "PSP@1", "PSP@3", "PSP@5"), "tail": ("N@5", "PSP@5")}

# Settings that are places of files, which are of no use elsewhere; and of which the last part names what was used.
_PLACES, _NAMED = ("data_dir", "start", "data.label_names"), ("vectors", "encoder.pretrained")


def write(folder: Path, source: Path, model: TrainedModel, metrics: dict[str, Any]) -> None:
    """Writes a model and its card.

    Args:
        folder: an empty folder.
        source: the folder that the model was read from.
        model: as it was read.
        metrics: the content of metrics.json; {} without one.

    Raises:
        UserError: the folder cannot be written, or what is beside the model is damaged.
    """
    settings = {key: get(model.config, key) for key in (*_PLACES, *_NAMED)}
    model_folder.write(folder, replace(model, config=with_values(model.config, _portable(settings))))
    if (source / "metrics.json").is_file():
        shutil.copyfile(source / "metrics.json", folder / "metrics.json")
    if (source / "estimator.json").is_file():
        _write_estimator(folder / "estimator.json", source / "estimator.json")
    (folder / "README.md").write_text(card(source.resolve().name, model, metrics), encoding="utf-8")


def _portable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings, or arguments of `LSFA`, without the folders that only this machine has."""
    named = {key: Path(value).name for key in (*_NAMED, "encoder") if isinstance(value := values.get(key), str)}
    return {**values, **{key: "" for key in _PLACES if key in values}, **named}


def _write_estimator(path: Path, source: Path) -> None:
    """Writes what `LSFA.save` keeps beside a model, the form of its labels and its arguments."""
    try:
        about = json.loads(source.read_text(encoding="utf-8"))
        params = _portable(about["params"])
        params["settings"] = _portable(params.get("settings") or {}) or None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source}: not what LSFA.save writes ({error}); save the model again") from None
    path.write_text(json.dumps(about | {"params": params}, indent=2) + "\n", encoding="utf-8")


def card(name: str, model: TrainedModel, metrics: dict[str, Any]) -> str:
    """Returns the model card.

    Args:
        name: of the model.
        model: as it was read.
        metrics: the content of metrics.json; {} without one.
    """
    counts, config = model.label_counts, model.config
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.get_template("model_card.md").render(
        name=name,
        front_matter=_metadata(name, config.corpus_name, metrics.get("test", {})).to_yaml(),
        version=__version__,
        corpus=config.corpus_name,
        splits=metrics.get("split") or {"training": model.num_documents},
        labels=len(counts),
        head=int(is_head(counts, config.pvae.head_threshold).sum()),
        head_threshold=config.pvae.head_threshold,
        median=int(np.median(counts)),
        fewest=int(counts.min()),
        most=int(counts.max()),
        encoder=Path(config.encoder.pretrained).name or config.encoder.kind,
        from_minilm=config.encoder.pretrained == "minilm",
        parameters=sum(x.size for x in jax.tree.leaves(model.params)),
        score=_score(model),
        linear_alone=model.linear_alone,
        max_words=config.data.max_words,
        threshold=model.threshold,
        columns=[f"{group} {metric}".strip() for group, names in _METRICS.items() for metric in names],
        rows=_rows(metrics),
    )


def _score(model: TrainedModel) -> str:
    """Returns by what labels are ranked."""
    if model.linear is None or model.fusion is None:
        return "network"
    title = TITLES[model.linear.kind]
    return f"{title} alone" if model.linear_alone else f"network and {title}, fused"


def _metadata(name: str, corpus: str, test: dict[str, Any]) -> ModelCardData:
    results = [
        EvalResult(
            task_type="text-classification",
            task_name="Multi-label text classification",
            dataset_type=corpus,
            dataset_name=corpus,
            dataset_split="test",
            metric_type=metric.lower(),
            metric_name=metric,
            metric_value=round(test[metric], 2),
        )
        for metric in _METRICS[""]
        if metric in test
    ]
    return ModelCardData(
        library_name="lsfa_jax",
        pipeline_tag="text-classification",
        tags=["multi-label-classification", "long-tail", "jax"],
        model_name=name,
        eval_results=results or None,
    )


def _rows(metrics: dict[str, Any]) -> list[list[str]]:
    """Returns a row for each model that was measured on test documents."""
    rows = []
    for stage, measured in metrics.get("stages", {}).items():
        if test := measured.get("test"):
            groups = {"": test} | {group: test.get(group, {}) for group in _METRICS if group}
            values = [groups[group].get(metric) for group, names in _METRICS.items() for metric in names]
            shown = f"**{stage}**" if stage == metrics.get("kept") else stage
            rows.append([shown, *("" if value is None else f"{value:.2f}" for value in values)])
    return rows
