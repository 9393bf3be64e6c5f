import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lsfa_jax import config
from lsfa_jax.model import lsan, lsfa
from lsfa_jax.model.encoders import EncoderShape
from tests.reference import candidates as reference_candidates
from tests.reference import classifier as reference_classifier
from tests.reference import lsan as reference
from tests.reference import lsfa as reference_lsfa
from tests.reference.agreement import assert_agrees
from tests.reference.inputs import normal

V, E, H, A, D, L = 7, 2, 2, 3, 3, 5
B, T = 4, 4
LENGTHS = np.array([4, 1, 0, 2], np.int32)
STATES = normal(B, T, 2 * H) * (np.arange(T) < LENGTHS[:, None])[..., None]
IS_DOCUMENT = np.array([True, True, True, False])
LABEL_SETS = [{3, 1}, {0}, set(), None]
LABEL_IDS, LABEL_MASK = np.array([[3, 1], [0, 0], [0, 0], [2, 0]], np.int32), np.array([[1, 1], [1, 0], [0, 0], [1, 0]])


def make(weights="shared", bias=False, label_shards=1, **encoder):
    """A small model and random parameters."""
    settings = config.Config(
        encoder={"attention": "lsan", "attention_size": A, "hidden_size": H, "feature_size": D} | encoder,
        classifier={"weights": weights, "bias": bias},
    )
    model = lsfa.make_model(settings, EncoderShape(V, E), L, label_shards)
    shapes = jax.eval_shape(lambda key: lsfa.init_params(model, key), jax.random.key(0))
    leaves, tree = jax.tree.flatten({name: part for name, part in shapes.items() if name != "encoder"})
    return model, jax.tree.unflatten(tree, [jnp.array(normal(*x.shape, seed=i)) for i, x in enumerate(leaves)])


def apply(model, params, method, *arguments):
    return jax.jit(functools.partial(model.apply, method=method))({"params": params}, *arguments)


def reference_logits(params, states):
    return reference_lsfa.logits(params, reference.label_features(states, LENGTHS, params["labels"]))


@pytest.mark.parametrize(
    "options",
    [{}, {"weights": "per_label", "bias": True, "label_block": 2}, {"feature_head": False, "bias": True}],
    ids=["shared", "per label, blocks", "no head"],
)
def test_logits_and_gradients_are_the_equations(options):
    model, params = make(**options)
    scores = functools.partial(apply, model)
    assert_agrees(lambda params, states: scores(params, "scores", states, LENGTHS), reference_logits, params, STATES)


def test_the_loss_is_the_cross_entropy_of_all_labels():
    model, params = make(label_block=2)
    label_weights = np.array([1, 0, 2.5, 0.5, 3], np.float32)
    targets = LABEL_IDS, LABEL_MASK.astype(bool), IS_DOCUMENT, label_weights
    assert_agrees(
        lambda params, states: apply(model, params, "loss", states, LENGTHS, *targets),
        lambda params, states: reference_classifier.binary_cross_entropy(
            reference_logits(params, states), LABEL_SETS, label_weights
        ),
        params,
        STATES,
    )


def test_the_loss_from_candidates_is_the_estimate_of_the_loss():
    model, params = make(weights="per_label", bias=True)
    candidates = np.array([[3, 1, 4], [0, 2, -1], [4, -1, -1], [2, 1, 0]], np.int32)
    sample, num_positive = np.array([0, 4, 1], np.int32), np.array([2, 1, 0, 1], np.int32)
    assert_agrees(
        lambda params, states: apply(
            model, params, "candidate_loss", states, LENGTHS, candidates, sample, num_positive, IS_DOCUMENT
        )[0],
        lambda params, states: reference_candidates.binary_cross_entropy(
            reference_logits(params, states), candidates, LABEL_SETS, sample
        ),
        params,
        STATES,
    )
    scores = jax.jit(lambda params: apply(model, params, "candidate_scores", STATES, LENGTHS, candidates))(params)
    expected = np.take_along_axis(reference_logits(params, STATES), np.maximum(candidates, 0), axis=1)
    np.testing.assert_allclose(scores[candidates >= 0], expected[candidates >= 0], rtol=1e-5, atol=1e-5)


def test_features_of_some_labels_are_those_of_all_and_attention_is_the_self_attention():
    model, params = make()
    label_ids = np.array([[3, 0], [1, 1], [2, 4], [4, 0]], np.int32)

    @jax.jit
    def both(params):
        bound = model.bind({"params": params})
        arguments = STATES, LENGTHS, label_ids
        return bound.positive_features(*arguments), bound.attention_weights(*arguments)

    features, attention = both(params)
    expected = reference.label_features(STATES, LENGTHS, params["labels"])
    np.testing.assert_allclose(features, expected[np.arange(B)[:, None], label_ids], rtol=1e-5, atol=1e-5)
    keys, rows = np.tanh(STATES @ params["labels"]["lsan"]["kernel"]), params["labels"]["queries"][:, :A]
    for b, length in enumerate(LENGTHS):
        for k, label in enumerate(label_ids[b]):
            exponentials = np.exp(keys[b, :length] @ rows[label])
            padded = np.pad(exponentials / exponentials.sum(), (0, T - length))
            np.testing.assert_allclose(attention[b, k], padded, rtol=1e-5, atol=1e-6)


def test_values_at_padding_change_nothing():
    labels = make()[1]["labels"]
    garbage = np.where(np.arange(T)[:, None] < LENGTHS[:, None, None], STATES, np.float32(1e4))

    @jax.jit
    def fused(states):
        return lsan.fused(lsan.documents(states, LENGTHS, labels["lsan"]["kernel"]), labels["queries"], labels["lsan"])

    longer = np.concatenate([garbage, garbage], axis=1)
    np.testing.assert_allclose(fused(longer), fused(STATES), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(fused(STATES)[2], 0)


def test_weights_that_saturate_both_sigmoids_are_no_division_by_zero():
    labels = make()[1]["labels"]
    params = {name: -1e4 * np.ones(2 * H, np.float32) for name in ("self", "label")}
    documents = lsan.documents(np.abs(STATES), LENGTHS, labels["lsan"]["kernel"])
    rows = jnp.abs(labels["queries"])
    value, grads = jax.jit(jax.value_and_grad(lambda rows: jnp.sum(lsan.fused(documents, rows, params))))(rows)
    assert np.isfinite(value)
    assert np.isfinite(grads).all()


def test_rows_that_pad_the_labels_for_a_split_change_no_logit_and_no_loss():
    (model, params), (split, _) = make(), make(label_shards=2)
    padded = params | {"labels": params["labels"] | {"queries": jnp.pad(params["labels"]["queries"], ((0, 1), (0, 0)))}}
    targets = LABEL_IDS, LABEL_MASK.astype(bool), IS_DOCUMENT

    @functools.partial(jax.jit, static_argnums=0)
    def both(model, params):
        scores = apply(model, params, "scores", STATES, LENGTHS)
        return scores[:, :L], apply(model, params, "loss", STATES, LENGTHS, *targets)

    assert split.num_rows == L + 1
    for actual, expected in zip(both(split, padded), both(model, params), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
