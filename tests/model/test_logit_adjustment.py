import numpy as np

from lsfa_jax.model.logit_adjustment import offsets


def test_offsets_are_the_log_odds_of_the_labels():
    counts, documents, tau = np.array([0, 1, 7, 20]), 20, 0.7
    share = (counts + 0.5) / (documents + 1)
    actual = offsets(counts, documents, tau)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, tau * np.log(share / (1 - share)), rtol=1e-6)
    assert np.all(np.diff(actual) > 0)
