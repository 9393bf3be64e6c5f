import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation.calibration import expected_calibration_error
from tests.reference import metrics as reference

NUM_LABELS = 9


@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(0, 8))
def test_the_error_is_that_of_plain_loops(seed, num_documents, width):
    random = np.random.default_rng(seed)
    top = np.array([random.permutation(NUM_LABELS)[:width] for _ in range(num_documents)], np.int32)
    top = top.reshape(num_documents, width)
    probabilities = -np.sort(-random.random(top.shape).astype(np.float32))
    # Some of the probabilities are on an edge, and some lists are short.
    on_edge = random.random(top.shape) < 0.3
    probabilities[on_edge] = (random.integers(0, 16, on_edge.sum()) / 15).astype(np.float32)
    for row in top:
        row[random.integers(0, width + 1) :] = -1
    truths = [set(np.flatnonzero(random.random(NUM_LABELS) < 0.4).tolist()) for _ in top]
    expected = reference.expected_calibration_error(top, probabilities, truths)
    measured = expected_calibration_error(top, probabilities, Ragged.from_rows(map(sorted, truths)))
    assert measured == pytest.approx(expected, abs=1e-9)


def test_probabilities_that_are_frequencies_have_no_error_and_certain_mistakes_have_the_largest():
    truth = Ragged.from_rows([[0], [0], [0], [1]])
    top, always = np.zeros((4, 1), np.int32), np.full((4, 1), 0.75, np.float32)
    assert expected_calibration_error(top, always, truth) == 0
    assert expected_calibration_error(top + 2, np.ones((4, 1), np.float32), truth) == 100


def test_only_the_best_five_count_and_lists_may_be_narrower():
    truth = Ragged.from_rows([[0, 1, 2, 3, 4]])
    top, certain = np.arange(8, dtype=np.int32)[None], np.ones((1, 8), np.float32)
    assert expected_calibration_error(top, certain, truth) == 0
    assert expected_calibration_error(top[:, :2], certain, truth) == 0
    assert expected_calibration_error(top, certain[:, :0], truth) == 0
