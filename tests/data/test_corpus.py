from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lsfa_jax.data.corpus import Split, take_ragged
from lsfa_jax.evaluation.ranking import LabelSets


def ragged(rows):
    offsets = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    return np.array([value for row in rows for value in row], np.int32), offsets


def unragged(values, offsets):
    return [values[start:end].tolist() for start, end in pairwise(offsets)]


# --- ragged arrays


@given(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=8), st.data())
def test_take_ragged_agrees_with_a_plain_loop(rows, data):
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12)) if rows else []
    values, offsets = take_ragged(*ragged(rows), np.array(chosen, np.int64))
    assert unragged(values, offsets) == [rows[i] for i in chosen]
    assert offsets.dtype == np.int64


def test_take_keeps_words_and_labels_together():
    split = Split(*ragged([[5, 6], [], [7]]), LabelSets(*ragged([[0], [1, 2], []])))
    taken = split.take(np.array([2, 0, 1, 0]))
    assert unragged(taken.words, taken.word_offsets) == [[7], [5, 6], [], [5, 6]]
    assert unragged(*taken.labels) == [[], [0], [1, 2], [0]]
    assert taken.lengths.tolist() == [1, 2, 0, 2]
    assert len(taken) == 4
