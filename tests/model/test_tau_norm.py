import numpy as np
import pytest

from lsfa_jax.model.tau_norm import tau_normalised
from tests.reference.inputs import normal

L, D = 4, 3


@pytest.mark.parametrize("tau", [0.0, 0.4, 1.0])
def test_logits_are_divided_by_a_power_of_the_norm_in_units_of_the_mean_norm(tau):
    weights, bias = np.array(normal(L, D), np.float64), np.array(normal(L), np.float64)
    norms = [np.sqrt(sum(w * w for w in row)) for row in weights]
    unit = np.exp(np.mean(np.log(norms)))
    # Two rows of padding change nothing, and stay what they are.
    padded = {"weights": np.concatenate([weights, np.zeros((2, D))]), "bias": np.append(bias, [3.0, 4.0])}
    actual = tau_normalised({name: table.astype(np.float32) for name, table in padded.items()}, tau)
    for label in range(L):
        scale = (unit / norms[label]) ** tau
        np.testing.assert_allclose(actual["weights"][label], weights[label] * scale, rtol=1e-5)
        np.testing.assert_allclose(actual["bias"][label], bias[label] * scale, rtol=1e-5)
    np.testing.assert_array_equal(actual["weights"][L:], 0)
    np.testing.assert_array_equal(actual["bias"][L:], [3.0, 4.0])
    if tau == 1:
        np.testing.assert_allclose(np.linalg.norm(actual["weights"][:L], axis=1), unit, rtol=1e-5)


def test_without_a_bias_there_is_none():
    assert tau_normalised({"weights": np.array(normal(L, D))}, 0.5).keys() == {"weights"}
