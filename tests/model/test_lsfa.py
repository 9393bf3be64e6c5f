import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from lsfa_jax import config
from lsfa_jax.model import classifier, lsfa
from lsfa_jax.model.encoders import EncoderShape
from lsfa_jax.util import sharding
from tests import compilation
from tests.reference import lsfa as reference
from tests.reference.agreement import assert_agrees, assert_equal, float64, value_and_gradients
from tests.reference.inputs import normal

V, E, H, D, L = 9, 3, 2, 3, 7
B, T = 3, 4
WORDS = np.array([[1, 2, 3, 4], [5, 0, 0, 0], [0, 0, 0, 0]], np.int32)
LENGTHS = np.array([4, 1, 0], np.int32)


def make(num_labels=L, weights="per_label", bias=False, dtype=jnp.float32, **encoder):
    """A small model and random parameters, without the zeros and ones of initial parameters."""
    settings = config.Config(
        encoder={"hidden_size": H, "feature_size": D} | encoder,
        classifier={"weights": weights, "bias": bias},
        precision=jnp.dtype(dtype).name,
    )
    model = lsfa.make_model(settings, EncoderShape(V, E), num_labels)
    shapes = jax.eval_shape(model.init, jax.random.key(0), WORDS, LENGTHS)["params"]
    leaves, tree = jax.tree.flatten(shapes)
    return model, jax.tree.unflatten(tree, [jnp.array(normal(*x.shape, seed=i)) for i, x in enumerate(leaves)])


def apply(model, params, *arguments, method=None, **options):
    """Calls a method of the model, compiled whole: faster than operation by operation."""
    return jax.jit(functools.partial(model.apply, method=method))({"params": params}, *arguments, **options)


def apply_eagerly(model, params, *arguments, **options):
    """The same operation by operation: its numbers do not depend on what is fused."""
    return model.apply({"params": params}, *arguments, **options)


def reference_logits(params, words, lengths):
    """Eq. 1-5 by the references."""
    states = reference.token_states(params, words, lengths)
    return reference.logits(params, reference.label_features(params, states, lengths))


@pytest.mark.parametrize(
    "options",
    [{"bias": True}, {"weights": "shared", "feature_head": False}, {"label_block": 3}, {"num_labels": 1}],
    ids=["head", "shared, no head", "blocks", "one label"],
)
def test_logits_and_gradients_in_all_parameters_are_equations_1_to_5(options):
    model, params = make(**options)
    assert_agrees(
        lambda params: apply(model, params, WORDS, LENGTHS),
        lambda params: reference_logits(params, WORDS, LENGTHS),
        params,
    )


@pytest.mark.slow
def test_stored_states_can_replace_the_words():
    model, params = make(bias=True)
    states = apply_eagerly(model, params, WORDS, LENGTHS, method="states")
    half = np.asarray(states).astype(np.float16)
    stored = apply_eagerly(model, params, None, LENGTHS, stored=half, method="states")
    np.testing.assert_array_equal(stored, half.astype(np.float32))
    # Only parameters of attention, head and classifiers have a gradient.
    grads = jax.grad(lambda params: jnp.sum(apply_eagerly(model, params, states, LENGTHS, method="scores")))(params)
    for name, value in grads.items():
        assert any(map(np.any, jax.tree.leaves(value))) == (name != "encoder"), name
    np.testing.assert_array_equal(
        apply_eagerly(model, params, WORDS, LENGTHS), apply_eagerly(model, params, states, LENGTHS, method="scores")
    )


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["per_label", "shared"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("feature_head", [True, False])
def test_the_block_size_of_labels_changes_no_score_and_no_gradient(weights, bias, feature_head):
    states = normal(B, T, 2 * H) * (np.arange(T) < LENGTHS[:, None])[..., None]

    def run(block):
        model, params = make(weights=weights, bias=bias, feature_head=feature_head, label_block=block)
        return value_and_gradients(
            lambda params, states: apply(model, params, states, LENGTHS, method="scores"), params, states
        )

    expected = run(L)
    assert expected[0].shape == (B, L)
    for block in (2, 3) if bias else (3,):  # 7 is a multiple of neither
        chex.assert_trees_all_close(run(block), expected, rtol=1e-5, atol=1e-6)


def test_a_block_size_that_divides_the_labels_gives_the_same_scores():
    states = normal(B, T, 2 * H)
    (one_block, params), (two_blocks, _) = make(num_labels=6, label_block=6), make(num_labels=6, label_block=3)
    np.testing.assert_allclose(
        apply(two_blocks, params, states, LENGTHS, method="scores"),
        apply(one_block, params, states, LENGTHS, method="scores"),
        rtol=1e-6, atol=1e-6,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"bias": True}, {"weights": "shared", "feature_head": False, "label_block": 3}])
def test_scores_of_positive_features_are_the_scores_of_all_labels(options):
    model, params = make(**options)
    states = apply(model, params, WORDS, LENGTHS, method="states")
    all_labels = np.broadcast_to(np.arange(L), (B, L))
    features = apply(model, params, states, LENGTHS, all_labels, method="positive_features")
    assert features.shape == (B, L, model.feature_size)
    weights, bias = params["classifier"]["weights"], params["classifier"].get("bias")
    logits = apply(model, params, states, LENGTHS, method="scores")
    np.testing.assert_allclose(classifier.scores(features, weights, bias), logits, rtol=1e-5, atol=1e-6)

    label_ids = np.array([[3, 0], [6, 6], [1, 2]])
    of_documents = apply(model, params, states, LENGTHS, label_ids, method="positive_features")
    expected = np.asarray(features)[np.arange(B)[:, None], label_ids]
    np.testing.assert_allclose(of_documents, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"bias": True}, {"weights": "shared"}, {"feature_head": False, "bias": True}])
def test_estimates_are_the_logits_of_the_feature_of_the_mean_token(options):
    model, params = make(**options)
    states = normal(B, T, 2 * H) * (np.arange(T) < LENGTHS[:, None])[..., None]
    label_ids = np.array([5, 0, 5, 2])
    exact, head = float64(params["classifier"]), float64(params["labels"].get("head"))
    expected, has_negative = np.zeros((B, len(label_ids))), False
    for b, length in enumerate(LENGTHS):
        mean = states[b, :length].astype(np.float64).sum(axis=0) / max(length, 1)
        feature = mean
        if head is not None:
            feature = np.maximum(mean @ head["kernel"] + head["bias"], 0.0)
            has_negative |= np.any(mean @ head["kernel"] + head["bias"] < -0.1)
        for m, label in enumerate(label_ids):
            row = label if options.get("weights") != "shared" else 0
            expected[b, m] = exact["weights"][row] @ feature + (exact["bias"][row] if "bias" in exact else 0.0)
    assert has_negative or head is None, "the test needs features that the ReLU sets to zero"
    actual = apply(model, params, states, LENGTHS, label_ids, method="estimates")
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("weights", "num_labels"), [("per_label", L), ("shared", L), ("per_label", 1)])
def test_classifier_rows_are_those_of_the_labels(weights, num_labels, bias):
    _, params = make(num_labels, weights, bias)
    label_ids = np.array([5, 0, 5]) if num_labels > 1 else np.zeros(3, int)
    w, b = lsfa.classifier_rows(params["classifier"], num_labels, label_ids)
    rows = label_ids if weights == "per_label" else np.zeros(3, int)
    np.testing.assert_array_equal(w, params["classifier"]["weights"][rows])
    if bias:
        np.testing.assert_array_equal(b, params["classifier"]["bias"][rows])
    else:
        assert b is None


@pytest.mark.slow
@pytest.mark.parametrize("trainable", ["yes", "no", "after_collection"])
def test_word_vectors_have_a_gradient_only_if_trainable(trainable):
    model, params = make(embedding_trainable=trainable)
    _, (gradient,) = value_and_gradients(lambda params: apply(model, params, WORDS, LENGTHS), params)
    if trainable == "no":
        assert not np.any(gradient["encoder"]["embedding"])
    else:
        word_ids = np.unique(WORDS[np.arange(T) < LENGTHS[:, None]])
        has_gradient = np.any(np.asarray(gradient["encoder"]["embedding"]), axis=1)
        np.testing.assert_array_equal(np.flatnonzero(has_gradient), word_ids)
    gradient["encoder"].pop("embedding")
    assert all(np.any(g) for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    "options",
    [{"bias": True}, {"weights": "shared", "bias": True}, {"feature_head": False}],
    ids=["head", "shared", "no head"],
)
def test_scores_of_candidates_are_columns_of_the_scores_of_all_labels(options):
    model, params = make(**options)
    states = apply(model, params, WORDS, LENGTHS, method="states")
    label_ids = np.array([[6, 0, 3], [2, 2, -1], [-1, 5, 1]], np.int32)
    scores = np.asarray(apply(model, params, states, LENGTHS, method="scores"))
    actual = np.asarray(apply(model, params, states, LENGTHS, label_ids, method="candidate_scores"))
    listed = label_ids >= 0
    np.testing.assert_allclose(
        actual[listed], np.take_along_axis(scores, label_ids, axis=1)[listed], rtol=1e-5, atol=1e-6
    )


def test_prediction_scores_the_proposed_labels_and_the_best_others_by_estimates():
    model, params = make(bias=True)
    model = model.clone(num_estimated=2)
    states = apply(model, params, WORDS, LENGTHS, method="states")
    proposed = np.array([[6, 0], [2, -1], [-1, -1]], np.int32)
    label_ids, logits = map(np.asarray, apply(model, params, states, LENGTHS, proposed, method="predicted_candidates"))
    estimates = np.asarray(apply(model, params, states, LENGTHS, np.arange(L), method="estimates"))
    scores = np.asarray(apply(model, params, states, LENGTHS, method="scores"))
    for row, listed in enumerate(proposed):
        others = [label for label in np.argsort(-estimates[row]) if label not in listed][:2]
        np.testing.assert_array_equal(label_ids[row], [*listed, *others])
    used = label_ids >= 0
    np.testing.assert_allclose(logits[used], np.take_along_axis(scores, label_ids, axis=1)[used], rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(garbage=st.lists(st.integers(0, V - 1), min_size=B * T, max_size=B * T))
def test_word_ids_beyond_the_length_change_no_logit(garbage):
    is_token = np.arange(T) < LENGTHS[:, None]
    words = np.where(is_token, WORDS, np.array(garbage, np.int32).reshape(B, T))
    np.testing.assert_array_equal(FORWARD(words, LENGTHS), FORWARD(WORDS, LENGTHS))


MODEL, PARAMS = make()
FORWARD = jax.jit(lambda words, lengths: apply(MODEL, PARAMS, words, lengths))


def test_a_longer_bucket_changes_no_logit():
    longer = np.pad(WORDS, ((0, 0), (0, 12)))
    np.testing.assert_allclose(FORWARD(longer, LENGTHS), FORWARD(WORDS, LENGTHS), rtol=0, atol=1e-6)


def test_logits_of_a_document_do_not_depend_on_its_batch():
    for b in range(B):
        alone = FORWARD(WORDS[b : b + 1], LENGTHS[b : b + 1])[0]
        np.testing.assert_allclose(alone, FORWARD(WORDS, LENGTHS)[b], rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_bfloat16_products_stay_close_to_float32():
    # bfloat16 has 8 significant bits: one rounding changes a number by at most 2^-9 = 0.2 %. After three consecutive
    # products and a recurrence over ten tokens the relative error, in the Euclidean norm, is below 1 % for the logits
    # (measured: 0.2 %) and below 3 % for the gradient of each parameter (measured: at most 1 %).
    words, lengths = np.arange(20).reshape(2, 10) % V, np.array([10, 7])
    results = []
    for dtype in (jnp.float32, jnp.bfloat16):
        model, _ = make(hidden_size=8, feature_size=16, label_block=3, dtype=dtype)
        params = jax.jit(model.init)(jax.random.key(0), words, lengths)["params"]
        results.append(value_and_gradients(lambda params, model=model: apply(model, params, words, lengths), params))

    def relative_error(a, b):
        return np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(a)

    (exact, (exact_gradient,)), (rounded, (gradient,)) = results
    assert rounded.dtype == jnp.float32
    assert 0 < relative_error(exact, rounded) < 0.01
    errors = jax.tree.map(relative_error, exact_gradient, gradient)
    assert all(x < 0.03 for x in jax.tree.leaves(errors)), errors


@pytest.mark.slow
def test_dropout_zeroes_states_in_training_and_keeps_their_mean():
    model, params = make(embedding_dropout=0.0, encoder_dropout=0.5)
    exact = apply_eagerly(model, params, WORDS, LENGTHS, method="states")
    dropped = jax.jit(
        jax.vmap(lambda key: apply_eagerly(model, params, WORDS, LENGTHS, True, rngs={"dropout": key}, method="states"))
    )(jax.random.split(jax.random.key(0), 2000))
    zero_or_doubled = (dropped == 0) | np.isclose(dropped, 2 * exact, rtol=1e-5, atol=1e-6)
    assert np.all(zero_or_doubled)
    # Five standard errors: the mean of n values, each 0 or 2 x, has the standard error |x| / sqrt(n).
    assert np.all(np.abs(dropped.mean(axis=0) - exact) <= 5 * np.abs(exact) / np.sqrt(2000) + 1e-6)


def test_initial_parameters():
    model, _ = make(bias=True)
    params = jax.jit(model.init)(jax.random.key(0), WORDS, LENGTHS)["params"]
    assert jax.tree.map(np.shape, params["classifier"]) == {"weights": (L, D), "bias": (L,)}
    assert not np.any(params["labels"]["head"]["bias"])
    directions = [params["encoder"][name] for name in ("forward", "backward")]
    for direction in directions:
        assert not np.any(direction["h0"])
        assert not np.any(direction["c0"])
        for name in ("w_input", "w_hidden", "bias"):
            assert 0.3 * H**-0.5 < np.max(np.abs(direction[name])) <= H**-0.5
    assert np.all(directions[0]["w_hidden"] != directions[1]["w_hidden"])
    xavier_bound = np.sqrt(6 / (L + 2 * H))
    assert 0.5 * xavier_bound < np.max(np.abs(params["labels"]["queries"])) <= xavier_bound
    assert make(feature_head=False)[0].feature_size == 2 * H


@pytest.mark.slow
def test_initial_parameters_are_created_split_over_the_labels_with_the_values_of_one_device(monkeypatch):
    compilation.as_users_do(monkeypatch)  # whose programs draw and scale a number with one rounding
    settings = config.Config(encoder={"hidden_size": H, "feature_size": D}, classifier={"bias": True})
    one, model = (lsfa.make_model(settings, EncoderShape(V, E), 101, shards) for shards in (1, 4))
    mesh, key = sharding.make_mesh(labels=4), jax.random.key(0)
    create = functools.partial(sharding.created, mesh, model.num_rows, functools.partial(lsfa.init_params, model))
    program = jax.jit(create).lower(key).compile()
    # Not even in between: an array with a row of every label.
    assert model.num_rows == 104
    assert not re.search(r"\[10[1-4][,\]]", program.as_text())
    params = create(key)
    assert params["labels"]["queries"].sharding.spec == P("label")
    assert params["classifier"]["bias"].sharding.spec == P("label")
    assert params["labels"]["head"]["kernel"].sharding.spec == P()
    assert_equal(lsfa.without_padding(sharding.to_host(params), model), sharding.to_host(lsfa.init_params(one, key)))


def test_without_label_attention_all_labels_have_the_feature_of_the_mean_token():
    model, params = make(bias=True)
    even = model.clone(label_attention=False)
    states = normal(B, T, 2 * H) * (np.arange(T) < LENGTHS[:, None])[..., None]
    actual = apply(even, params, states, LENGTHS, method="scores")
    expected = apply(model, params, states, LENGTHS, np.arange(L), method="estimates")
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
