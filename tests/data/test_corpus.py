import numpy as np

from lsfa_jax.data.corpus import Split
from lsfa_jax.data.ragged import Ragged


def test_take_keeps_words_and_labels_together():
    split = Split(Ragged.from_rows([[5, 6], [], [7]]), Ragged.from_rows([[0], [1, 2], []]))
    taken = split.take(np.array([2, 0, 1, 0]))
    assert [taken.words.row(i).tolist() for i in range(4)] == [[7], [5, 6], [], [5, 6]]
    assert [taken.labels.row(i).tolist() for i in range(4)] == [[], [0], [1, 2], [0]]
    assert taken.lengths.tolist() == [1, 2, 0, 2]
    assert len(taken) == 4
