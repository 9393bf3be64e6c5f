import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsfa_jax.data.batches import Batches
from lsfa_jax.data.candidates import with_labels
from lsfa_jax.data.corpus import Split
from lsfa_jax.data.ragged import Ragged


def batches(label_sets, candidates, num_labels=40, batch_size=8):
    words = Ragged.from_rows([np.array([7], np.int32)] * len(label_sets))
    labels = Ragged.from_rows([np.array(labels, np.int32) for labels in label_sets])
    return Batches(Split(words, labels), num_labels, batch_size, [4], candidates=candidates)


@st.composite
def problems(draw):
    """Documents with up to 12 labels, of which those from 20 on are not in training, and proposals below 20."""
    number, width = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    label_sets = [draw(st.lists(st.integers(0, 29), unique=True, max_size=12)) for _ in range(number)]
    proposed = np.full((number, width), -1, np.int32)
    for row in proposed:
        labels = draw(st.lists(st.integers(0, 19), unique=True, max_size=width))
        row[: len(labels)] = labels
    return label_sets, proposed


@given(problems())
def test_the_labels_of_a_document_come_first_then_the_best_other_proposals(problem):
    label_sets, proposed = problem
    batch = with_labels(batches(label_sets, proposed, num_labels=20).gather(np.arange(len(label_sets))))
    assert batch.candidates.dtype == np.int32
    assert batch.candidates.shape == (8, max(proposed.shape[1], batch.label_ids.shape[1]))
    for row, labels, others in zip(batch.candidates, label_sets, proposed, strict=False):
        known = [label for label in labels if label < 20]
        expected = [*known, *(label for label in others if label >= 0 and label not in known)][: len(row)]
        np.testing.assert_array_equal(row, [*expected, *[-1] * (len(row) - len(expected))])
    assert np.all(batch.candidates[len(label_sets) :] == -1)


def test_batches_for_evaluation_have_the_proposals_alone():
    proposed = np.array([[3, 1], [2, -1], [5, 6]], np.int64)
    batch = batches([[9], [8], [7]], proposed, batch_size=4).gather(np.array([2, 0]))
    np.testing.assert_array_equal(batch.candidates, [[5, 6], [3, 1], [-1, -1], [-1, -1]])
    assert batch.candidates.dtype == np.int32


def test_batches_without_candidates_are_refused():
    without = batches([[1], [2]], None)
    assert not without.has_candidates
    with pytest.raises(ValueError, match="no candidates"):
        with_labels(without.gather(np.arange(2)))


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        (np.zeros((3, 2), np.int32), r"shape \(3, 2\): expected a row for each of 2"),
        (np.zeros(2, np.int32), r"shape \(2,\)"),
        (np.array([[0], [40]]), "up to label 40: expected labels below 40"),
    ],
    ids=["more documents", "one axis", "unknown label"],
)
def test_candidates_that_do_not_fit_the_documents_are_refused(candidates, expected):
    with pytest.raises(ValueError, match=expected):
        batches([[1], [2]], candidates)
