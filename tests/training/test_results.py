from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.ranked import FLOOR, Ranked
from lsfa_jax.evaluation import thresholded
from lsfa_jax.evaluation.groups import Scores, best_of_groups
from lsfa_jax.training.results import Results
from lsfa_jax.training.run_folder import RunFolder
from tests import training_corpus

L = training_corpus.NUM_LABELS
SPLITS = ("validation", "test")


def results_of(corpus, folder, **sections):
    config = training_corpus.config(**sections)
    return Results(RunFolder(folder), corpus, config, corpus.label_counts >= config.pvae.head_threshold)


def indicators(labels):
    """Returns bool[N, L], which document has which label."""
    return np.array([np.isin(np.arange(L), labels.row(i)) for i in range(labels.num_rows)])


def drawn_logits(corpus, split):
    """Returns float32[N, L], higher for the labels of a document."""
    truth = indicators(getattr(corpus, split).labels)
    return (np.random.default_rng(len(split)).normal(size=truth.shape) + truth - 1).astype(np.float32)


def lists_of(logits, kept):
    """Lists the labels that are kept of each document, best first."""
    lists = Ranked(np.full(logits.shape, -1, np.int32), np.full(logits.shape, FLOOR, np.float32))
    for row, order in enumerate(np.argsort(-logits, axis=1)):
        labels = order[kept[row, order]]
        lists.label_ids[row, : len(labels)], lists.logits[row, : len(labels)] = labels, logits[row, labels]
    return lists


def test_a_linear_model_is_measured_as_if_excluded_labels_were_not_listed(tiny, tmp_path):
    corpus, every, remaining = tiny, {}, {}
    for split in SPLITS:
        documents, logits = getattr(tiny, split), drawn_logits(tiny, split)
        kept = np.ones_like(logits, bool)
        every[split] = lists_of(logits, kept)
        # Of two of three documents the best of the labels that they do not have.
        wrong = np.where(indicators(documents.labels), -np.inf, logits).argmax(axis=1)
        rows = np.flatnonzero(np.arange(len(wrong)) % 3)
        kept[rows, wrong[rows]] = False
        remaining[split] = lists_of(logits, kept)
        excluded = Ragged.from_rows(np.flatnonzero(~row) for row in kept)
        corpus = replace(corpus, **{split: replace(documents, excluded=excluded)})

    def measured(corpus, lists):
        results = results_of(corpus, tmp_path)
        results.add_linear("svm", lists)
        return results.metrics["stages"]["svm"]

    actual, with_excluded = measured(corpus, every), measured(tiny, every)
    assert actual == measured(tiny, remaining)
    assert all(actual[split]["N@5"] > with_excluded[split]["N@5"] for split in SPLITS)


def test_the_threshold_is_the_one_with_the_best_micro_f1_on_validation(tiny, tmp_path):
    logits, results = drawn_logits(tiny, "validation"), results_of(tiny, tmp_path)
    probabilities, truth = 1 / (1 + np.exp(-logits)), indicators(tiny.validation.labels)
    lists = lists_of(logits, np.ones_like(truth))
    scores = Scores(
        top=best_of_groups(lists.label_ids, results.groups, 5),
        confusion=None,
        histogram=thresholded.histogram(probabilities.ravel(), truth.ravel()),
        probabilities=lists.probabilities[:, :5],
    )
    results.begin("representation")
    results.add("representation", "validation", scores)
    f1 = np.array([f1_score(truth, probabilities >= threshold, average="micro") for threshold in thresholded.GRID])
    best = thresholded.GRID[f1 == f1.max()]
    assert results.threshold("representation") == best[np.argmin(np.abs(best - 0.5))]
    results.add_linear("svm", {"validation": lists, "test": lists})
    assert results.threshold("svm") == results.threshold("representation")


@pytest.mark.parametrize(("select", "better"), [("N@5", True), ("P@1", False)])
def test_models_are_compared_by_the_selected_metric(tiny, tmp_path, select, better, capsys):
    results = results_of(tiny, tmp_path, adjust={"select": select})
    results.metrics["stages"] |= {
        "representation": {"validation": {"N@5": 40.0, "P@1": 60.0}},
        "adjusted": {"validation": {"N@5": 41.0, "P@1": 59.0}},
    }
    assert results.is_better("adjusted", "representation") == better
    assert ("(P@1 59.00, was 60.00)" in capsys.readouterr().out) == (not better)
