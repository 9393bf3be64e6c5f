import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.model import classifier
from tests.reference import classifier as reference
from tests.reference.agreement import assert_agrees, assert_equal
from tests.reference.inputs import normal


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("num_rows", [4, 1], ids=["per label", "shared"])
def test_scores_are_equation_5(num_rows, bias):
    assert_agrees(
        classifier.scores,
        reference.scores,
        normal(3, 4, 2),
        normal(num_rows, 2),
        normal(num_rows, seed=1) if bias else None,
    )


def padded(label_sets, width):
    """Label ids [B, K], their mask [B, K] and the document mask [B]; a set that is None marks a padding document."""
    ids, mask = np.zeros((len(label_sets), width), np.int32), np.zeros((len(label_sets), width), bool)
    for b, labels in enumerate(label_sets):
        for k, label in enumerate(sorted(labels or ())):
            ids[b, k], mask[b, k] = label, True
    return ids, mask, np.array([labels is not None for labels in label_sets])


@pytest.mark.parametrize(
    ("label_sets", "num_labels"),
    [
        ([{0, 3}, {1}, {0, 1, 2}], 4),
        ([{1}, set(), None], 5),
        ([{0}, set()], 1),
        ([None, None], 3),
        ([{0, 1, 2}], 3),
    ],
    ids=["ragged", "no labels, padding", "one label", "padding only", "every label"],
)
def test_cross_entropy_is_equation_6(label_sets, num_labels):
    ids, mask, documents = padded(label_sets, 3)
    assert_agrees(
        lambda logits: classifier.binary_cross_entropy(logits, ids, mask, documents),
        lambda logits: reference.binary_cross_entropy(logits, label_sets),
        3.0 * normal(len(label_sets), num_labels),
    )


loss_and_gradient = jax.jit(jax.value_and_grad(classifier.binary_cross_entropy))


@settings(deadline=None)
@given(
    label_sets=st.lists(st.none() | st.sets(st.integers(0, 4), max_size=3), min_size=3, max_size=3),
    garbage=st.integers(0, 4),
    padding_logit=st.sampled_from([1.0, -1e30, 1e30]),
)
def test_padding_documents_and_padding_labels_change_nothing(label_sets, garbage, padding_logit):
    ids, mask, documents = padded(label_sets, 3)
    logits = normal(3, 5)
    with_garbage = np.where(documents[:, None], logits, np.float32(padding_logit))
    expected = loss_and_gradient(logits, ids, mask, documents)
    assert_equal(loss_and_gradient(with_garbage, np.where(mask, ids, garbage), mask, documents), expected)
    assert not np.any(np.asarray(expected[1])[~documents])


def test_cross_entropy_and_its_gradient_are_exact_at_extreme_logits():
    logits = np.array([[1e4, -1e4, 1e4, -1e4, 0.0]], np.float32)
    label_sets = [{0, 3}]
    loss, gradient = loss_and_gradient(logits, *padded(label_sets, 3))
    np.testing.assert_allclose(loss, reference.binary_cross_entropy(logits.astype(np.float64), label_sets), rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0.0, 0.0, 1.0, -1.0, 0.5]], atol=1e-6)
