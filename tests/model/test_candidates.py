import jax.numpy as jnp
import numpy as np
import pytest

from lsfa_jax.model import candidates

ESTIMATES = np.array([[0.1, 3.0, -1.0, 2.0, 5.0], [4.0, 1.0, 2.0, 3.0, 0.0]], np.float32)


@pytest.mark.parametrize(
    ("listed", "number", "expected"),
    [
        ([[4, -1], [0, 3]], 2, [[4, -1, 1, 3], [0, 3, 2, 1]]),
        ([[-1, -1], [1, 2]], 1, [[-1, -1, 4], [1, 2, 0]]),
        ([[3], [-1]], 9, [[3, 4, 1, 0, 2, -1], [-1, 0, 3, 2, 1, 4]]),
        ([[4, 3, 2, 1, 0], [0, 1, 2, 3, 4]], 1, [[4, 3, 2, 1, 0, -1], [0, 1, 2, 3, 4, -1]]),
    ],
    ids=["two more", "no candidates", "more than there are", "all are candidates"],
)
def test_the_best_labels_that_are_no_candidates_are_added(listed, number, expected):
    actual = candidates.with_best_others(np.array(listed, np.int32), jnp.asarray(ESTIMATES), number)
    np.testing.assert_array_equal(actual, expected)
