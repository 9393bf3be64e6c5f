import numpy as np
import pytest

from lsfa_jax.model.httn import transferred
from tests.reference.inputs import normal

L, D = 7, 3
IS_HEAD = np.array([True, False, True, True, False, True, False])
IS_TAIL = np.array([False, True, False, False, True, False, False])  # the last label has no documents


@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_tail_weights_are_the_ridge_regression_from_the_prototypes_of_head_labels(ridge):
    weights, prototypes, bias = (np.array(normal(*shape), np.float64) for shape in ((L, D), (L, D), (L,)))
    # The normal equations of rows of prototypes, and of rows of zeros for the penalty.
    heads = [label for label in range(L) if IS_HEAD[label]]
    penalty = ridge * np.mean([np.dot(prototypes[label], prototypes[label]) for label in heads])
    inputs = np.concatenate([prototypes[heads], np.sqrt(penalty) * np.eye(D)])
    targets = np.concatenate([weights[heads], np.zeros((D, D))])
    mapping = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    expected = np.array([prototypes[k] @ mapping if IS_TAIL[k] else weights[k] for k in range(L)])
    classifier = {"weights": weights.astype(np.float32), "bias": bias.astype(np.float32)}
    actual = transferred(classifier, prototypes.astype(np.float32), IS_HEAD, IS_TAIL, ridge)
    np.testing.assert_allclose(actual["weights"], expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(actual["bias"], classifier["bias"])


def test_with_enough_head_labels_a_linear_relation_is_recovered():
    prototypes, mapping = np.array(normal(L, D)), np.array(normal(D, D))
    weights = np.where(IS_HEAD[:, None], prototypes @ mapping, 0.0)
    actual = transferred({"weights": weights}, prototypes, IS_HEAD, IS_TAIL, 1e-6)
    np.testing.assert_allclose(actual["weights"][IS_TAIL], (prototypes @ mapping)[IS_TAIL], rtol=1e-2, atol=1e-3)
