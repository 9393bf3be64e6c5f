import numpy as np

from lsfa_jax.data.class_balance import balanced_documents
from lsfa_jax.data.ragged import Ragged

# Label 0 has four documents, label 3 one, labels 1 and 2 none; a document has no label.
LABELS = Ragged.from_rows([np.array(row, np.int32) for row in ([0], [0, 3], [], [0], [0])])


def test_each_label_with_documents_is_drawn_equally_often():
    n = 8000
    drawn = balanced_documents(LABELS, n, np.random.default_rng(0))
    # Of the draws half are for label 3, which only document 1 has; a quarter of the others is document 1 too.
    expected = np.array([1 / 8, 1 / 2 + 1 / 8, 0, 1 / 8, 1 / 8])
    error = np.abs(np.bincount(drawn, minlength=5) - n * expected)
    assert np.all(error <= 5 * np.sqrt(n * expected * (1 - expected)))
