import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.model import contrastive
from tests.reference import contrastive as reference
from tests.reference.agreement import assert_agrees, assert_equal, float64
from tests.reference.inputs import normal

P, L, D = 6, 4, 3
DENOMINATORS = ["all", "exclude_positive", "double_positive"]


MASK = np.array([True, True, True, True, False, True])
LABELS = np.array([0, 1, 0, 0, 1, 2])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    ("label_ids", "mask"),
    [
        (LABELS, MASK),
        (LABELS, np.zeros(P, bool)),
        (np.zeros(1, int), np.ones(1, bool)),
        (np.zeros(3, int), np.ones(3, bool)),
        (np.arange(3), np.ones(3, bool)),
    ],
    ids=["ragged", "all padding", "one pair", "one label", "all labels distinct"],
)
def test_supervised_contrastive_is_equations_7_and_8(label_ids, mask, normalize):
    assert_agrees(
        lambda v: contrastive.supervised_contrastive(v, label_ids, mask, 0.5, normalize),
        lambda v: reference.supervised_contrastive(v, label_ids, mask, 0.5, normalize),
        normal(len(label_ids), D),
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize(
    "mask", [MASK, ~MASK, np.zeros(P, bool), np.ones(P, bool)], ids=["ragged", "one pair", "all padding", "no padding"]
)
def test_a_sum_in_blocks_equals_the_full_sum_and_skips_blocks_of_padding(mask, size):
    prototypes, present = normal(L, D, seed=1), jnp.ones(L, bool)
    # Garbage at padding must not change the loss.
    features = np.where(mask[:, None], normal(P, D), 100.0).astype(np.float32)
    computed_blocks = []

    def loss(v, label_ids, mask):
        return contrastive.prototypical_contrastive(v, label_ids, mask, prototypes, present, 0.3)

    def recorded(v, label_ids, mask):
        jax.debug.callback(lambda: computed_blocks.append(len(v)))
        return loss(v, label_ids, mask)

    total = contrastive.sum_over_pairs(recorded, features, LABELS, mask, size)
    jax.effects_barrier()
    assert computed_blocks == [size] * -(-mask.sum() // size)
    np.testing.assert_allclose(
        total,
        reference.prototypical_contrastive(
            float64(features), LABELS, mask, float64(prototypes), np.ones(L, bool), 0.3, True, "all"
        ),
        rtol=1e-5,
    )
    gradient = jax.grad(lambda v: contrastive.sum_over_pairs(loss, v, LABELS, mask, size))(features)
    expected = jax.grad(lambda v: loss(v, LABELS, mask))(features)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    ("label_ids", "mask", "present"),
    [
        (LABELS, MASK, np.array([True, True, True, True])),
        # Label 2 has a pair but no prototype; label 3 a prototype but no pair.
        (LABELS, MASK, np.array([True, True, False, True])),
        (LABELS, np.zeros(P, bool), np.array([True, True, True, True])),
        (np.zeros(2, int), np.ones(2, bool), np.array([True])),
        (np.zeros(2, int), np.ones(2, bool), np.array([False])),
        (LABELS, MASK, np.array([True, False, False, False])),
    ],
    ids=["all present", "one absent", "all padding", "one label", "no prototype", "one prototype"],
)
def test_prototypical_contrastive_is_equation_9(label_ids, mask, present, normalize, denominator):
    # The prototype of an absent label is not zero: it must not change the loss.
    prototypes = normal(len(present), D, seed=1)
    options = (0.3, normalize, denominator)
    assert_agrees(
        lambda v: contrastive.prototypical_contrastive(v, label_ids, mask, prototypes, present, *options),
        lambda v: reference.prototypical_contrastive(
            v, label_ids, mask, prototypes.astype(np.float64), present, *options
        ),
        normal(len(label_ids), D),
    )


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_a_label_weight_of_three_equals_three_copies_of_the_label_in_the_denominator(denominator):
    prototypes, present = normal(5, D, seed=1), np.array([True, True, False, True, True])
    # Weights 3 and 0 at labels 3 and 4; weight 2 at label 2, which is absent.
    weights, copies = np.array([1.0, 1.0, 2.0, 3.0, 0.0], np.float32), [0, 1, 2, 3, 3, 3]
    options = (0.3, True, denominator)
    assert_agrees(
        lambda v: contrastive.prototypical_contrastive(v, LABELS, MASK, prototypes, present, *options, weights),
        lambda v: reference.prototypical_contrastive(
            v, LABELS, MASK, float64(prototypes[copies]), present[copies], *options
        ),
        normal(P, D),
    )


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_similarities_far_below_zero_are_exact_beside_masked_ones(denominator):
    # Inner products of about -100; what is masked or absent must not weigh more in the denominators.
    v, prototypes = 10 + normal(P, D), -3.3 + 0.1 * normal(L, D, seed=1)
    present, options = np.array([True, True, False, True]), (1.0, False, denominator)
    assert_agrees(
        lambda v: contrastive.prototypical_contrastive(v, LABELS, MASK, prototypes, present, *options),
        lambda v: reference.prototypical_contrastive(v, LABELS, MASK, float64(prototypes), present, *options),
        v,
    )
    opposite, same_label, mask = 10 * np.float32([[1, 0], [-1, 0.1]]), np.zeros(2, int), np.ones(2, bool)
    assert_agrees(
        lambda v: contrastive.supervised_contrastive(v, same_label, mask, 1.0, False),
        lambda v: reference.supervised_contrastive(v, same_label, mask, 1.0, False),
        opposite,
    )


@functools.partial(jax.jit, static_argnames=("normalize", "denominator"))
def gradients(v, prototypes, label_ids, mask, present, temperature, normalize=True, denominator="all"):
    """The loss, and its gradients in features and prototypes."""
    return jax.value_and_grad(
        lambda v, prototypes: contrastive.prototypical_contrastive(
            v, label_ids, mask, prototypes, present, temperature, normalize, denominator
        ),
        argnums=(0, 1),
    )(v, prototypes)


@settings(deadline=None, max_examples=40)
@given(
    label_ids=st.lists(st.integers(0, L - 1), min_size=P, max_size=P).map(np.array),
    mask=st.lists(st.booleans(), min_size=P, max_size=P).map(np.array),
    present=st.lists(st.booleans(), min_size=L, max_size=L).map(np.array),
    denominator=st.sampled_from(DENOMINATORS),
)
def test_masked_pairs_and_absent_prototypes_change_nothing(label_ids, mask, present, denominator):
    v, prototypes = normal(P, D), normal(L, D, seed=1)
    garbage_v = np.where(mask[:, None], v, 100 * normal(P, D, seed=2))
    garbage_prototypes = np.where(present[:, None], prototypes, 100 * normal(L, D, seed=3))
    expected = gradients(v, prototypes, label_ids, mask, present, 0.07, denominator=denominator)
    actual = gradients(garbage_v, garbage_prototypes, label_ids, mask, present, 0.07, denominator=denominator)
    assert_equal(actual, expected)
    loss, (d_v, d_prototypes) = expected
    assert not np.any(np.asarray(d_v)[~(mask & present[label_ids])])
    assert not np.any(d_prototypes), "prototypes are constants"
    num_pairs = np.sum(mask & present[label_ids])
    if denominator == "double_positive":
        assert loss >= num_pairs * np.log(2) * (1 - 1e-6)
    if denominator == "all":
        assert loss >= 0


@pytest.mark.parametrize(("denominator", "minimum"), [("all", 0.0), ("double_positive", np.log(2))])
def test_minimum_at_a_perfect_match(denominator, minimum):
    # Each feature has the direction of its prototype, and prototypes are orthogonal.
    loss, _ = gradients(
        2 * np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), np.arange(3), np.ones(3, bool),
        np.ones(3, bool), 0.02, denominator=denominator,
    )  # fmt: skip
    np.testing.assert_allclose(loss / 3, minimum, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_a_zero_feature_or_prototype_has_a_finite_loss_and_no_gradient(denominator):
    v, prototypes = normal(2, D), normal(L, D, seed=1)
    v[0], prototypes[2] = 0, 0
    loss, (d_v, _) = gradients(
        v, prototypes, np.array([0, 1]), np.ones(2, bool), np.ones(L, bool), 0.07, denominator=denominator
    )
    assert np.isfinite(loss)
    assert np.all(np.isfinite(d_v))
    assert not np.any(d_v[0])
    assert np.any(d_v[1])


def test_supervised_contrastive_of_a_zero_feature_is_finite():
    v = normal(3, D)
    v[0] = 0
    loss, d_v = jax.jit(jax.value_and_grad(contrastive.supervised_contrastive), static_argnums=4)(
        v, np.zeros(3, int), np.ones(3, bool), 0.07, True
    )
    assert np.isfinite(loss)
    assert np.all(np.isfinite(d_v))
    assert not np.any(d_v[0])


normalize_and_gradient = jax.jit(
    jax.value_and_grad(lambda x: jnp.sum(contrastive.l2_normalize(x) * jnp.array([1.0, 2.0, 3.0])))
)


@pytest.mark.parametrize("norm", [1e-3, 1.0, 1e3])
def test_l2_normalize_keeps_the_direction(norm):
    x = norm * normal(5, D)
    normalized = contrastive.l2_normalize(x)
    np.testing.assert_allclose(np.linalg.norm(normalized, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(np.sum(normalized * x, axis=1), np.linalg.norm(x, axis=1), rtol=1e-6)


@pytest.mark.parametrize("norm", [1e-10, 1e-15, 1e-18, 1e-19, 1e-30])
def test_l2_normalize_of_a_tiny_vector_has_a_finite_gradient(norm):
    value, gradient = normalize_and_gradient(np.full((1, D), norm, np.float32))
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_finite_at_a_small_temperature_and_long_vectors(denominator, normalize):
    loss, (d_v, _) = gradients(
        1e3 * normal(P, D), 1e3 * normal(L, D, seed=1), LABELS, MASK, np.ones(L, bool), 1e-3, normalize, denominator
    )
    assert np.isfinite(loss)
    assert np.all(np.isfinite(d_v))
