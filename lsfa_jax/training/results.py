"""The results of a run: what each of its models reaches on validation and test documents, kept in `metrics.json`."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

from lsfa_jax.config import Config
from lsfa_jax.data.corpus import Corpus
from lsfa_jax.data.ranked import Ranked
from lsfa_jax.evaluation import calibration, groups, ranking, thresholded
from lsfa_jax.evaluation.groups import Metrics, Scores
from lsfa_jax.evaluation.ranking import NUM_RANKED
from lsfa_jax.sparse import fusion
from lsfa_jax.sparse.fusion import Fusion
from lsfa_jax.sparse.linear import Kind
from lsfa_jax.training.fused import Evidence
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.util import processes
from lsfa_jax.util.console import note

OnRanked = Callable[[str, np.ndarray], None]
"""Called with the name of a model and its rankings of the test documents, int32[3, N, 5]: of all labels, head, tail."""


Network = Literal["representation", "adjusted"]
NETWORKS: tuple[Network, ...] = get_args(Network)
"""The names in metrics.json of the network alone after stage 1 and after stage 3."""

Result = Literal[Kind, Network, "fused"]
ALL: tuple[Result, ...] = get_args(Result)
"""The names of all models of a run in metrics.json, in the order in which they are shown."""


def linear_alone(metrics: dict[str, Any]) -> str:
    """Says that the linear model of a run ranks labels alone; "" where the network has a part in the score."""
    evidence = metrics.get("evidence", {})
    return "" if evidence.get("network", True) else fusion.alone(evidence["linear"])


def of_network(metrics: dict[str, Any], select: str) -> dict[str, Any]:
    """Returns what was measured of the network alone, after the stage that was kept.

    Args:
        metrics: the content of metrics.json.
        select: the validation metric by which the stage is kept, the setting `adjust.select`.

    Returns:
        `threshold`, and the metrics of `validation` and `test`; {} where nothing was measured.
    """
    stages = metrics.get("stages", {})
    measured = [stages[name] for name in reversed(NETWORKS) if name in stages]
    return max(measured, key=lambda stage: stage.get("validation", {}).get(select, 0.0), default={})


class Results:
    """What was measured so far, in percent, beside the seconds of each stage and which model predicts."""

    def __init__(self, folder: RunFolder, corpus: Corpus, config: Config, is_head: np.ndarray) -> None:
        """Continues the `metrics.json` of a run folder, or starts one.

        Args:
            folder: where the results are written.
            corpus: the documents that are measured.
            config: sections `report` and `adjust`.
            is_head: bool[L], the frequent labels.
        """
        self.on_ranked: OnRanked | None = None
        self.measures_test = True
        self._folder, self._corpus, self._report, self._is_head = folder, corpus, config.report, is_head
        self._select = config.adjust.select
        self._truth = {"validation": corpus.validation.labels, "test": corpus.test.labels}
        self._excluded = {"validation": corpus.validation.excluded, "test": corpus.test.excluded}
        self.groups = groups.head_and_tail(groups.head_of_all_labels(corpus, is_head))
        sizes = {"train": len(corpus.train), "validation": len(corpus.validation), "test": len(corpus.test)}
        self.metrics: dict[str, Any] = processes.from_first(folder.read_metrics) | {
            "dataset": config.dataset,
            "split": sizes,
            "num_labels": corpus.num_labels,
        }
        self._models: dict[str, dict[str, Any]] = self.metrics.setdefault("stages", {})
        self._seconds: dict[str, float] = self.metrics.setdefault("seconds", {})

    @property
    def splits(self) -> list[str]:
        """The splits that are measured, of those that have documents."""
        measured = ("validation", "test") if self.measures_test else ("validation",)
        return [name for name in measured if self._truth[name].num_rows]

    def write(self) -> None:
        """Writes `metrics.json`."""
        self._folder.write_metrics(self.metrics)

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Adds to the time that a stage has taken, in all commands that continued the run."""
        self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    def set_seconds(self, stage: str, seconds: float) -> None:
        """Notes the time that a stage has taken, unless an earlier command has."""
        self._seconds.setdefault(stage, seconds)

    def has(self, name: str) -> bool:
        """Whether a model was measured."""
        return {"threshold", *self.splits} <= self._models.get(name, {}).keys()

    def threshold(self, name: str) -> float:
        """Returns the probability from which a model's labels are predicted."""
        threshold: float = self._models[name]["threshold"]
        return threshold

    def begin(self, name: str) -> None:
        """Forgets what was measured of a model; whichever is measured again, models stay in the order of `ALL`."""
        measured = self._models | {name: {"threshold": thresholded.DEFAULT_THRESHOLD}}
        self._models.clear()
        self._models.update({model: measured[model] for model in ALL if model in measured})

    def add(self, name: str, split: str, scores: Scores) -> None:
        """Computes the metrics of a model on a split; from validation the threshold too, from test the bins."""
        truth, result = self._truth[split], self._models[name]
        assert scores.probabilities is not None
        result[split] = self._measured(name, scores.top, split)
        result[split]["ECE"] = calibration.expected_calibration_error(scores.top[0], scores.probabilities, truth)
        if split == "validation":
            assert scores.histogram is not None
            result["threshold"] = thresholded.best_threshold(scores.histogram, len(truth.values))
        else:
            top, size = scores.top[0], self._report.bin_size
            result["macro_P@5_bins"] = groups.macro_precision_bins(top, truth, self._corpus, size)

    def add_linear(self, name: str, lists: dict[str, Ranked]) -> None:
        """Computes the metrics of a linear model from its lists of labels of each split.

        From validation the threshold too, which holds for the logistic of its scores.
        """
        self.begin(name)
        for split in self.splits:
            listed, truth = groups.without_excluded(lists[split].label_ids, self._excluded[split]), self._truth[split]
            top = groups.best_of_groups(listed, self.groups, NUM_RANKED)
            self._models[name][split] = self._measured(name, top, split)
            if split == "validation":
                true, kept = ranking.hits(listed, truth), listed >= 0
                histogram = thresholded.histogram(lists[split].probabilities[kept], true[kept])
                self._models[name]["threshold"] = thresholded.best_threshold(histogram, len(truth.values))

    def validation_metrics(self, scores: Scores) -> Metrics:
        """Computes the metrics of a validation between epochs."""
        return groups.measure(scores.top, self._truth["validation"], self._corpus, self._report, self._is_head)

    def add_evidence(self, kind: Kind, weights: Fusion, evidence: Evidence | None) -> None:
        """Notes whether the network is in the fused score, and the evidence; None: too few validation documents."""
        with_network = {"linear": kind, "network": not weights.leaves_network_out}
        self.metrics["evidence"] = with_network | (evidence._asdict() if evidence else {})

    def keep(self, name: str) -> None:
        """Makes a model the one that predicts."""
        self.metrics["kept"] = name

    def finish(self) -> None:
        """Adds the test metrics of the model that predicts and writes `metrics.json`, at the end of a run."""
        kept = self._models[self.metrics["kept"]]
        if "test" in kept:
            self.metrics["test"] = kept["test"]
        self.write()

    def is_better(self, later: str, earlier: str) -> bool:
        """Whether a model is at least as good on validation as an earlier one; says so if it is not."""
        after, before = (self._models[name].get("validation", {}).get(self._select, 0.0) for name in (later, earlier))
        if after < before:
            note(
                f"{later} is behind {earlier} on validation ({self._select} {after:.2f}, was {before:.2f}): the "
                f"weights of {earlier} are kept"
            )
        return processes.from_first(lambda: bool(after >= before))

    def _measured(self, name: str, top: np.ndarray, split: str) -> Metrics:
        if self.on_ranked and split == "test":
            self.on_ranked(name, top)
        return groups.measure(top, self._truth[split], self._corpus, self._report, self._is_head)
