"""What bin/evaluate compares: predictions of a file, a model and its parts, linear baselines; scored on one problem."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.ranked import Ranked
from lsfa_jax.evaluation import baselines, prediction_files, thresholded
from lsfa_jax.evaluation.document_store import DocumentStore, encode
from lsfa_jax.evaluation.groups import Groups, Scores, TrainingCounts, best_of_groups, without_excluded
from lsfa_jax.evaluation.prediction_files import Predicted
from lsfa_jax.evaluation.thresholded import DEFAULT_THRESHOLD
from lsfa_jax.sparse.linear import TITLES, Kind
from lsfa_jax.util import console
from lsfa_jax.util.console import note, plural

if TYPE_CHECKING:
    from lsfa_jax.sparse.linear import LinearModel
    from lsfa_jax.training.model_folder import TrainedModel


@dataclass(frozen=True)
class Problem:
    """What all systems are measured on: N documents, and L labels in all of them, in training and in the model."""

    documents: DocumentStore
    train: DocumentStore | None
    """Training documents, where a baseline is trained or their labels are counted."""
    truth: Ragged
    """The labels of each document."""
    excluded: Ragged | None
    """Labels that are neither predicted for a document nor counted; None: none."""
    label_ids: dict[str, int]
    """The number of each label, from 0 to L - 1."""
    training: TrainingCounts | None
    groups: Groups
    num_ranked: int
    """Places of a ranking that are measured."""
    threshold: float
    """Probability from which a label is predicted."""


def score_model(
    model: "TrainedModel", problem: Problem, run: Path, batch_size: int, all_labels: bool
) -> dict[str, Scores]:
    """Scores a trained model, and where it is fused also its network and its linear model, by their names.

    Args:
        model: the model.
        problem: what it is measured on.
        run: its folder.
        batch_size: documents computed at a time; 0: the run's `report.batch_size`.
        all_labels: score all labels, also with a model whose linear model proposes some.
    """
    from lsfa_jax.data.batches import Batches
    from lsfa_jax.data.corpus import Split
    from lsfa_jax.data.tokenizer import Tokenizer
    from lsfa_jax.evaluation.scorer import score_split
    from lsfa_jax.serving.predictor import lsfa_module, proposed
    from lsfa_jax.util import compilation_cache, sharding

    compilation_cache.keep_on_disk()
    config, documents = model.config, problem.documents
    with console.progress("reading texts", len(documents), "documents") as advance:
        texts = console.counted(documents.texts(), advance)
        words = encode(texts, model.vocabulary())
    mesh = sharding.make_mesh()
    size = batch_size or config.report.batch_size
    split = Split(words, problem.truth)
    params = sharding.replicate(mesh, model.scoring_params)
    groups, num_ranked = problem.groups.members, problem.num_ranked

    tokenizer = Tokenizer.from_settings(config.data)
    lists = model.linear.rank_texts(documents.texts(), tokenizer) if model.linear else None
    excluded = None if problem.excluded is None else problem.excluded.kept(problem.excluded.values < len(model.labels))
    candidates = None if all_labels else proposed(config, lists)

    def score(ranked: "Ranked | None") -> Scores:
        shards, buckets = mesh.shape["data"], config.data.length_buckets
        batches = Batches(
            split, len(model.labels), size, buckets, shards, ranked=ranked, candidates=candidates, excluded=excluded
        )
        return score_split(lsfa_module(model), params, batches, mesh, groups, num_ranked, problem.threshold)

    if model.linear is None or model.fusion is None or lists is None:
        return {"model": score(None)}
    if model.linear_alone:
        note(model.linear_alone)
    alone = _score_lists(lists, model.linear, problem, _linear_threshold(run, model.linear.kind))
    return {"fused": score(lists), "network": score(None), model.linear.kind: alone}


def _linear_threshold(run: Path, kind: Kind) -> float:
    """Returns from which logistic of its score a fused model's linear model predicts a label, and says so.

    The run has chosen it on validation documents, as those of its other models; a folder of LSFA.save has no run.
    """
    from lsfa_jax.training.run_folder import RunFolder

    stages = RunFolder(run).read_metrics().get("stages", {})
    threshold: float = stages.get(kind, {}).get("threshold", DEFAULT_THRESHOLD)
    how = "its score" if kind == "tree" else "the logistic of its decision"
    note(f"{TITLES[kind]}: a label is predicted where {how} is at least {threshold:.2g}")
    return threshold


def _score_lists(lists: "Ranked", linear: "LinearModel", problem: Problem, threshold: float) -> Scores:
    """Scores the lists of a fused model's linear model."""
    listed = without_excluded(lists.label_ids, problem.excluded)
    # Probabilities stay beside their labels, whose ranking has no gaps.
    order = np.argsort(listed < 0, axis=1, kind="stable")
    lists = Ranked(*(np.take_along_axis(array, order, axis=1) for array in (listed, lists.logits)))
    top = best_of_groups(lists.label_ids, problem.groups.members, problem.num_ranked)
    probabilities = lists.probabilities
    reached = (lists.label_ids >= 0) & (probabilities >= np.float32(threshold))
    predicted = [ids[rows] for ids, rows in zip(lists.label_ids, reached, strict=True)]
    confusion = thresholded.count(Ragged.from_rows(predicted), problem.truth, len(problem.label_ids))
    # An SVM's decision value is not a logit.
    return Scores(top, confusion, probabilities=probabilities if linear.kind == "tree" else None)


def score_predictions(predicted: list[Predicted], problem: Problem) -> Scores:
    """Scores the predictions of a file, in the order of the documents, and says what they lack."""
    ranked, probabilities, reached = prediction_files.as_arrays(predicted, problem.label_ids, problem.threshold)
    expected = min(problem.num_ranked, len(problem.label_ids))
    if short := int(((ranked >= 0).sum(axis=1) < expected).sum()):
        note(f"{plural(short, 'document')} with fewer than {expected} predictions; empty places count as wrong")
    note("Head, tail and bins are ranked, and compared to the threshold, among the labels that the predictions list")
    top = best_of_groups(ranked, problem.groups.members, problem.num_ranked)
    if not prediction_files.have_probabilities(predicted):
        note("There are no probabilities for all labels, so none can be compared to a threshold: no F1")
        return Scores(top, None)
    confusion = thresholded.count(reached, problem.truth, len(problem.label_ids))
    return Scores(top, confusion, probabilities=probabilities)


def score_baseline(baseline: Kind, problem: Problem, model: "TrainedModel | None") -> Scores:
    """Trains a linear model on the problem's training documents, read as the model reads texts, and scores it."""
    from lsfa_jax.data.tokenizer import Tokenizer
    from lsfa_jax.sparse.tf_idf import tf_idf

    title, train, documents = TITLES[baseline], problem.train, problem.documents
    assert train is not None
    note(f"{title}: {plural(len(train), 'training document')}; a label is predicted {baselines.RULES[baseline]}")
    with console.progress(f"{title}: TF-IDF", len(train) + len(documents), "documents") as advance:
        tokenizer = Tokenizer.from_settings(model.config.data) if model else Tokenizer()
        features = tf_idf(
            console.counted(train.texts(), advance), console.counted(documents.texts(), advance), tokenizer
        )
    features_and_labels = features[0], train.label_ids(problem.label_ids), features[1]
    groups = problem.groups.members
    score = baselines.METHODS[baseline]
    return score(*features_and_labels, problem.truth, groups, problem.num_ranked, excluded=problem.excluded)
