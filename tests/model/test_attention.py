import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.model import attention
from tests.reference import encoder as reference
from tests.reference.agreement import assert_agrees, assert_equal
from tests.reference.inputs import normal

B, T, H, L, D = 4, 6, 2, 5, 3
LENGTHS = st.lists(st.integers(0, T), min_size=B, max_size=B).map(lambda n: np.array(n, np.int32))


def states_and_mask(lengths):
    mask = np.arange(T)[None] < np.asarray(lengths)[:, None]
    return normal(len(lengths), T, 2 * H) * mask[..., None], mask


RAGGED = np.array([6, 1, 0, 3])


@pytest.mark.parametrize("shape", [(L, 2 * H), (1, 2 * H), (B, 3, 2 * H)], ids=["labels", "one label", "pairs"])
def test_label_attention_is_equation_4(shape):
    states, mask = states_and_mask(RAGGED)
    assert_agrees(
        lambda states, queries: attention.label_attention(states, mask, queries),
        lambda states, queries: reference.label_attention(states, RAGGED, queries),
        states,
        normal(*shape),
    )


def test_attention_is_the_same_when_padding_scores_far_above_the_tokens():
    # Scores of about -100 at tokens and of 1000 at padding.
    queries = np.ones((L, 2 * H), np.float32)
    _, mask = states_and_mask(RAGGED)
    scores = np.where(mask, -100 + normal(B, T), 1000)
    states = np.repeat(scores[..., None] / (2 * H), 2 * H, axis=-1).astype(np.float32)
    assert_agrees(
        lambda states, queries: attention.label_attention(states, mask, queries),
        lambda states, queries: reference.label_attention(states, RAGGED, queries),
        states,
        queries,
    )


def label_features(states, values, mask, queries, head):
    return attention.label_features(attention.label_attention(states, mask, queries), values, head and head["bias"])


@jax.jit
def features_and_gradients(states, mask, queries, head):
    def run(states, queries, head):
        values = attention.project_tokens(states, head)
        alpha = attention.label_attention(states, mask, queries)
        return alpha, label_features(states, values, mask, queries, head)

    values, pullback = jax.vjp(run, states, queries, head)
    return values, pullback((normal(B, L, T, seed=5), normal(B, L, D, seed=6)))


@settings(deadline=None, max_examples=25)
@given(lengths=LENGTHS, scale=st.sampled_from([1.0, 1e4]))
def test_attention_ignores_padding_exactly(lengths, scale):
    states, mask = states_and_mask(lengths)
    garbage = np.where(mask[..., None], states, scale * normal(B, T, 2 * H, seed=7))
    queries, head = normal(L, 2 * H), {"kernel": normal(2 * H, D), "bias": normal(D)}
    (attention, features), gradients = features_and_gradients(states, mask, queries, head)
    assert_equal(features_and_gradients(garbage, mask, queries, head), ((attention, features), gradients))
    assert not np.any(np.asarray(gradients[0])[~mask])
    weights = np.asarray(attention).transpose(0, 2, 1)
    assert not np.any(weights[~mask])
    np.testing.assert_allclose(np.sum(attention, axis=-1), np.repeat(lengths[:, None] > 0, L, axis=1), rtol=1e-6)


def test_attention_is_finite_at_scores_that_overflow_exp():
    states, mask = states_and_mask(RAGGED)
    values_and_gradients = features_and_gradients(
        1e3 * states, mask, 1e3 * normal(L, 2 * H), {"kernel": normal(2 * H, D), "bias": normal(D)}
    )
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(values_and_gradients))


@pytest.mark.parametrize("shape", [(L, 2 * H), (B, 2, 2 * H)], ids=["labels", "pairs"])
@pytest.mark.parametrize("with_head", [True, False])
def test_label_features_are_equations_2_and_3_with_the_head_after_the_attention(with_head, shape):
    _, mask = states_and_mask(RAGGED)
    # Biases of both signs: the ReLU is active for part of the features.
    head = {"kernel": normal(2 * H, D), "bias": np.array([0.1, -0.5, 0.3], np.float32)} if with_head else None
    assert_agrees(
        lambda states, queries, head: label_features(
            states, attention.project_tokens(states, head), mask, queries, head
        ),
        lambda states, queries, head: reference.label_features(states, RAGGED, queries, head),
        normal(B, T, 2 * H),
        normal(*shape),
        head,
    )


@pytest.mark.parametrize("with_head", [True, False])
def test_few_label_features_equal_label_features(with_head):
    _, mask = states_and_mask(RAGGED)
    head = {"kernel": normal(2 * H, D), "bias": np.array([0.1, -0.5, 0.3], np.float32)} if with_head else None
    assert_agrees(
        lambda states, queries, head: attention.few_label_features(states, mask, queries, head),
        lambda states, queries, head: reference.label_features(states, RAGGED, queries, head),
        normal(B, T, 2 * H),
        normal(B, 2, 2 * H),
        head,
    )


def test_the_feature_of_a_document_without_tokens_is_relu_of_the_bias():
    states, mask = states_and_mask(np.zeros(B, int))
    head = {"kernel": normal(2 * H, D), "bias": np.array([0.5, -0.5, 0.0], np.float32)}
    queries = normal(L, 2 * H)
    features = label_features(states, attention.project_tokens(states, head), mask, queries, head)
    np.testing.assert_array_equal(features, np.broadcast_to(np.float32([0.5, 0.0, 0.0]), (B, L, D)))
    assert not np.any(label_features(states, states, mask, queries, None))


def test_separate_queries_for_each_document_give_columns_of_all_label_features():
    states, mask = states_and_mask(RAGGED)
    head = {"kernel": normal(2 * H, D), "bias": normal(D)}
    values, queries = attention.project_tokens(states, head), normal(L, 2 * H)
    label_ids = np.array([[0, 4], [2, 2], [1, 3], [4, 0]])
    features = np.asarray(label_features(states, values, mask, queries, head))
    of_documents = label_features(states, values, mask, queries[label_ids], head)
    np.testing.assert_allclose(of_documents, features[np.arange(B)[:, None], label_ids], rtol=1e-6, atol=1e-6)


def test_product_in_bfloat16_rounds_the_factors_but_not_the_sum():
    a, b = normal(3, 200), normal(200, 2)
    rounded = [np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64) for x in (a, b)]
    result = attention.product("ij,jk->ik", a, b, jnp.bfloat16)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, rounded[0] @ rounded[1], rtol=1e-5, atol=1e-5)
