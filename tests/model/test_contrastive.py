import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.model import contrastive
from tests.reference import contrastive as reference
from tests.reference.agreement import assert_agrees, assert_equal

P, L, D = 6, 4, 3
DENOMINATORS = ["all", "exclude_positive", "double_positive"]


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


REAL = np.array([True, True, True, True, False, True])
LABELS = np.array([0, 1, 0, 0, 1, 2])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    ("label_ids", "mask"),
    [
        (LABELS, REAL),
        (LABELS, np.zeros(P, bool)),
        (np.zeros(1, int), np.ones(1, bool)),
        (np.zeros(3, int), np.ones(3, bool)),
        (np.arange(3), np.ones(3, bool)),
    ],
    ids=["ragged", "all padding", "one pair", "one label", "no two alike"],
)
def test_supervised_contrastive_is_equations_7_and_8(label_ids, mask, normalize):
    assert_agrees(
        lambda v: contrastive.supervised_contrastive(v, label_ids, mask, 0.5, normalize),
        lambda v: reference.supervised_contrastive(v, label_ids, mask, 0.5, normalize),
        normal(len(label_ids), D),
    )


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize(
    "mask", [REAL, ~REAL, np.zeros(P, bool), np.ones(P, bool)], ids=["ragged", "one pair", "all padding", "no padding"]
)
def test_pairs_in_blocks_give_the_same_loss_and_computed_are_those_with_a_pair(mask, size):
    prototypes, present = normal(L, D, seed=1), jnp.ones(L, bool)
    # No pair's loss reads what stands at padding.
    features = np.where(mask[:, None], normal(P, D), 100.0).astype(np.float32)
    computed = []

    def loss(v, label_ids, mask):
        return contrastive.prototypical_contrastive(v, label_ids, mask, prototypes, present, 0.3)

    def noted(v, label_ids, mask):
        jax.debug.callback(lambda: computed.append(len(v)))
        return loss(v, label_ids, mask)

    found = contrastive.sum_over_pairs(noted, features, LABELS, mask, size)
    jax.effects_barrier()
    assert computed == [size] * -(-mask.sum() // size)
    np.testing.assert_allclose(
        found,
        reference.prototypical_contrastive(
            features.astype(np.float64), LABELS, mask, prototypes.astype(np.float64), np.ones(L, bool), 0.3, True, "all"
        ),
        rtol=1e-5,
    )
    found = jax.grad(lambda v: contrastive.sum_over_pairs(loss, v, LABELS, mask, size))(features)
    whole = jax.grad(lambda v: loss(v, LABELS, mask))(features)
    np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    ("label_ids", "mask", "present"),
    [
        (LABELS, REAL, np.array([True, True, True, True])),
        # Label 2 has a pair but no prototype; label 3 a prototype but no pair.
        (LABELS, REAL, np.array([True, True, False, True])),
        (LABELS, np.zeros(P, bool), np.array([True, True, True, True])),
        (np.zeros(2, int), np.ones(2, bool), np.array([True])),
        (np.zeros(2, int), np.ones(2, bool), np.array([False])),
        (LABELS, REAL, np.array([True, False, False, False])),
    ],
    ids=["all present", "one absent", "all padding", "one label", "no prototype", "one prototype"],
)
def test_prototypical_contrastive_is_equation_9(label_ids, mask, present, normalize, denominator):
    # The prototype of an absent label is as good as any: nothing may read it.
    prototypes = normal(len(present), D, seed=1)
    rest = (0.3, normalize, denominator)
    assert_agrees(
        lambda v: contrastive.prototypical_contrastive(v, label_ids, mask, prototypes, present, *rest),
        lambda v: reference.prototypical_contrastive(v, label_ids, mask, prototypes.astype(np.float64), present, *rest),
        normal(len(label_ids), D),
    )


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_a_label_that_stands_for_three_is_three_labels_in_the_denominator(denominator):
    prototypes, present = normal(5, D, seed=1), np.array([True, True, False, True, True])
    # Labels 3 and 4 stand for three and for none; label 2, which is absent, for two.
    weights, copies = np.array([1.0, 1.0, 2.0, 3.0, 0.0], np.float32), [0, 1, 2, 3, 3, 3]
    rest = (0.3, True, denominator)
    assert_agrees(
        lambda v: contrastive.prototypical_contrastive(v, LABELS, REAL, prototypes, present, *rest, weights),
        lambda v: reference.prototypical_contrastive(
            v, LABELS, REAL, prototypes[copies].astype(np.float64), present[copies], *rest
        ),
        normal(P, D),
    )


@functools.partial(jax.jit, static_argnames=("normalize", "denominator"))
def gradients(v, prototypes, label_ids, mask, present, temperature, normalize=True, denominator="all"):
    """The loss, and its gradient in features and prototypes."""
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
def test_what_is_masked_or_absent_changes_nothing(label_ids, mask, present, denominator):
    v, prototypes = normal(P, D), normal(L, D, seed=1)
    other_v = np.where(mask[:, None], v, 100 * normal(P, D, seed=2))
    other_prototypes = np.where(present[:, None], prototypes, 100 * normal(L, D, seed=3))
    expected = gradients(v, prototypes, label_ids, mask, present, 0.07, denominator=denominator)
    found = gradients(other_v, other_prototypes, label_ids, mask, present, 0.07, denominator=denominator)
    assert_equal(found, expected)
    loss, (d_v, d_prototypes) = expected
    assert not np.any(np.asarray(d_v)[~(mask & present[label_ids])])
    assert not np.any(d_prototypes), "the prototypes are constants"
    counted = np.sum(mask & present[label_ids])
    if denominator == "double_positive":
        assert loss >= counted * np.log(2) * (1 - 1e-6)
    if denominator == "all":
        assert loss >= 0


@pytest.mark.parametrize(("denominator", "floor"), [("all", 0.0), ("double_positive", np.log(2))])
def test_floor_at_a_perfect_match(denominator, floor):
    # Each feature is its own prototype, and the prototypes are orthogonal.
    loss, _ = gradients(
        2 * np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), np.arange(3), np.ones(3, bool),
        np.ones(3, bool), 0.02, denominator=denominator,
    )  # fmt: skip
    np.testing.assert_allclose(loss / 3, floor, rtol=1e-5, atol=1e-6)


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


def test_supervised_contrastive_survives_a_zero_feature():
    v = normal(3, D)
    v[0] = 0
    loss, d_v = jax.jit(jax.value_and_grad(contrastive.supervised_contrastive), static_argnums=4)(
        v, np.zeros(3, int), np.ones(3, bool), 0.07, True
    )
    assert np.isfinite(loss)
    assert np.all(np.isfinite(d_v))
    assert not np.any(d_v[0])


unit_and_gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(contrastive.unit(x) * jnp.array([1.0, 2.0, 3.0]))))


@pytest.mark.parametrize("length", [1e-3, 1.0, 1e3])
def test_unit_keeps_the_direction(length):
    x = length * normal(5, D)
    ours = contrastive.unit(x)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(np.sum(ours * x, axis=1), np.linalg.norm(x, axis=1), rtol=1e-6)


@pytest.mark.parametrize("length", [1e-10, 1e-15, 1e-18, 1e-19, 1e-30])
def test_unit_of_a_tiny_vector_has_a_finite_gradient(length):
    value, gradient = unit_and_gradient(np.full((1, D), length, np.float32))
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_finite_at_a_small_temperature_and_long_vectors(denominator, normalize):
    loss, (d_v, _) = gradients(
        1e3 * normal(P, D), 1e3 * normal(L, D, seed=1), LABELS, REAL, np.ones(L, bool), 1e-3, normalize, denominator
    )
    assert np.isfinite(loss)
    assert np.all(np.isfinite(d_v))
