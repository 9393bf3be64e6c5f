import numpy as np
from scipy.sparse import csr_array

from lsfa_jax.evaluation import bootstrap


def test_sums_are_those_of_documents_drawn_with_replacement(monkeypatch):
    values = np.random.default_rng(0).normal(size=(7, 3))
    drawn = np.random.default_rng(1).integers(0, 7, (5, 7))
    expected = np.array([sum(values[document] for document in documents) for documents in drawn])
    for cells in (1, 14, 10**6):  # one draw at a time, two, all
        monkeypatch.setattr(bootstrap, "_CELLS", cells)
        for given in (values, csr_array(values)):
            actual = bootstrap.resampled_sums(given, 5, np.random.default_rng(1))
            np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_no_documents_have_the_sum_zero():
    assert bootstrap.resampled_sums(np.zeros((0, 2)), 3, np.random.default_rng(0)).tolist() == [[0, 0]] * 3
