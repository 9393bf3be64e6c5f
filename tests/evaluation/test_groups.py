import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsfa_jax.config import Report
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import groups as label_groups
from lsfa_jax.evaluation import ranking, thresholded
from lsfa_jax.evaluation.calibration import expected_calibration_error
from lsfa_jax.evaluation.groups import Scores, TrainingCounts, best_of_groups, group_metrics, make_groups

COUNTS = np.array([120, 50, 49, 10, 9, 1, 0])


def test_groups_are_all_head_tail_and_bins_of_training_counts():
    groups = make_groups(7, TrainingCounts(COUNTS, 200), 50, (1, 2, 10, 50, 1000))
    assert dict(zip(groups.names, (np.flatnonzero(x).tolist() for x in groups.members), strict=True)) == {
        "all": [0, 1, 2, 3, 4, 5, 6],
        "head": [0, 1],
        "tail": [2, 3, 4, 5, 6],
        "0": [6],
        "1": [5],
        "2-9": [4],
        "10-49": [2, 3],
        "50-999": [0, 1],
    }


@given(st.lists(st.integers(0, 30), min_size=1, max_size=20), st.sets(st.integers(1, 30), min_size=1, max_size=4))
def test_bins_part_the_labels(counts, edges):
    groups = make_groups(len(counts), TrainingCounts(np.array(counts), 40), 5, sorted(edges))
    assert groups.members[3:].sum(axis=0).tolist() == [1] * len(counts)
    assert (groups.only("head") ^ groups.only("tail")).all()


def test_without_training_counts_there_is_one_group():
    groups = make_groups(4, None, 50, (1, 10))
    assert groups.names == ["all"]
    assert groups.members.tolist() == [[True] * 4]


@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_the_labels_of_a_group_keep_their_order(seed, num_ranked):
    random = np.random.default_rng(seed)
    num_labels, width = 8, int(random.integers(0, 9))
    listed = np.array([random.permutation(num_labels)[:width] for _ in range(5)], np.int32).reshape(5, width)
    for row in listed:
        row[int(random.integers(0, width + 1)) :] = -1
    members = random.random((3, num_labels)) < 0.5
    top = best_of_groups(listed, members, num_ranked)
    assert top.shape == (3, 5, num_ranked)
    for group, inside in enumerate(members):
        for row, ranked in zip(listed, top[group], strict=True):
            expected = [label for label in row.tolist() if label >= 0 and inside[label]][:num_ranked]
            assert ranked.tolist() == expected + [-1] * (num_ranked - len(expected))


LISTED = np.array([[0, 2, 1, 3, -1], [3, 0, 1, 2, -1]], np.int32)
TRUTH = Ragged(np.array([0, 3, 1]), np.array([0, 2, 3]))
PREDICTED = Ragged(np.array([0, 2, 3]), np.array([0, 2, 3]))


def test_every_group_is_measured_by_its_ranking_and_its_counts():
    training = TrainingCounts(np.array([9, 5, 1, 0]), 12)
    groups = make_groups(4, training, 5, (1, 6))
    top = best_of_groups(LISTED, groups.members, 5)
    confusion = thresholded.count(PREDICTED, TRUTH, 4)
    result = group_metrics(Scores(top, confusion), TRUTH, groups, training, (1, 2))
    assert list(result) == ["all", "head", "tail", "0", "1-5", "6+"]
    assert result["all"]["labels"] == 4
    assert result["all"]["P@1"] == 50
    assert result["all"]["micro_F1"] == pytest.approx(100 * 2 / (2 + 2 + 2))
    # Label 3 is the only one of its bin, so where it is listed it comes first.
    assert result["0"] | {"labels": 1, "documents": 1, "P@1": 100.0, "micro_recall": 0.0} == result["0"]
    assert result["6+"]["macro_F1"] == 100
    expected = ranking.evaluate_group(top[0], top[2], TRUTH, groups.only("tail"), training.label_counts, 12, (1, 2))
    assert expected == {name: result["tail"][name] for name in expected}
    assert set(expected) == {f"{name}@{k}" for name in ("P", "R", "RP", "N", "PSP") for k in (1, 2)} | {"macro_P@5"}


def test_without_training_counts_or_probabilities_there_is_no_psp_and_no_f1():
    groups = make_groups(4, None)
    result = group_metrics(Scores(best_of_groups(LISTED, groups.members, 5), None), TRUTH, groups, None)
    assert list(result) == ["all"]
    assert not [name for name in result["all"] if "PSP" in name or "F1" in name]
    assert result["all"]["P@1"] == 50


def test_the_calibration_error_is_that_of_all_labels():
    groups = make_groups(4, TrainingCounts(np.array([9, 5, 1, 0]), 12), 5)
    top = best_of_groups(LISTED, groups.members, 5)
    probabilities = np.array([[0.9, 0.5, 0.5, 0.1, 0], [0.7, 0.3, 0.2, 0.1, 0]], np.float32)
    result = group_metrics(Scores(top, None, probabilities=probabilities), TRUTH, groups, None)
    assert result["all"]["ECE"] == expected_calibration_error(top[0], probabilities, TRUTH) > 0
    assert not [name for name in groups.names[1:] if "ECE" in result[name]]


class TwoDocuments:
    """A corpus with three labels in training, and a fourth in the test documents alone."""

    num_labels = 3
    published_counts = np.array([5, 2, 1, 0])
    published_documents = 6


TOP = np.array(
    [
        [[0, 2, 1, -1, -1], [0, 1, 2, -1, -1]],
        [[0, -1, -1, -1, -1], [0, -1, -1, -1, -1]],
        [[2, 1, -1, -1, -1], [1, 2, -1, -1, -1]],
    ],
    np.int32,
)


def test_training_measures_all_labels_head_and_tail():
    is_head = np.array([True, False, False])
    assert label_groups.head_and_tail(is_head).tolist() == [[True] * 3, is_head.tolist(), (~is_head).tolist()]
    measured = label_groups.measure(TOP, TRUTH, TwoDocuments(), Report(), is_head)
    assert measured["P@1"] == 50.0
    assert measured["P@3"] == pytest.approx(100 / 3)
    # The head's documents: the first alone. The tail's: both, and the unseen label 3 of the first is always missed.
    assert measured["head"]["P@1"] == 100.0
    assert measured["tail"]["P@1"] == 50.0
    assert measured["tail"]["N@1"] == 50.0
    # Label 1 is right in one of the two documents that it is predicted in; 2 never; 3 is never predicted.
    assert measured["tail"]["macro_P@5"] == pytest.approx(50 / 3)
    assert measured["macro_P@5"] == pytest.approx((50 + 50) / 4)
    assert set(measured["head"]) == set(measured["tail"]) == set(measured) - {"head", "tail"}
    without = label_groups.measure(TOP, TRUTH, TwoDocuments(), Report())
    changed = label_groups.measure(TOP, TRUTH, TwoDocuments(), Report(propensity_a=0.6, propensity_b=2.6), is_head)
    assert changed["PSP@3"] != measured["PSP@3"]
    assert changed["tail"]["PSP@3"] != measured["tail"]["PSP@3"]
    assert changed["P@3"] == measured["P@3"]
    assert without == {name: value for name, value in measured.items() if name not in ("head", "tail")}


def test_bins_of_a_corpus_go_from_the_most_frequent_label_down():
    assert label_groups.macro_precision_bins(TOP[0], TRUTH, TwoDocuments(), 2) == [50.0, 0.0]
    assert label_groups.macro_precision_bins(TOP[0], TRUTH, TwoDocuments(), 1) == [50.0, 50.0, 0.0, 0.0]
