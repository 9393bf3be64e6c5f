import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lsfa_jax.model.encoders import transformer
from lsfa_jax.model.encoders.hugging_face import params_from_hugging_face
from lsfa_jax.model.encoders.interface import Architecture
from tests.reference import transformer as reference
from tests.reference.agreement import assert_agrees, assert_equal, value_and_gradients
from tests.reference.inputs import normal

V, H, LAYERS, HEADS, INNER, POSITIONS = 11, 6, 2, 3, 5, 8
ARCHITECTURE = Architecture(V, H, LAYERS, HEADS, INNER, POSITIONS, "gelu", 1e-5, 1, 2)

# One program each: without jit, every operation on every shape would be a program.
transform = jax.jit(transformer.transformer, static_argnums=(3, 4))
lower_layers = jax.jit(transformer.lower_layers, static_argnums=(3, 4, 5, 6))
upper_layers = jax.jit(transformer.upper_layers, static_argnums=(3, 4, 5, 6))


def random_params(architecture, seed=0):
    """Random parameters, scales and biases included."""
    shapes, tree = jax.tree.flatten(transformer.param_shapes(architecture), is_leaf=lambda x: isinstance(x, tuple))
    return jax.tree.unflatten(tree, [0.5 * normal(*shape, seed=seed + i) for i, shape in enumerate(shapes)])


def token_ids(num_documents, num_tokens):
    return np.random.default_rng(num_tokens).integers(3, V, (num_documents, num_tokens)).astype(np.int32)


PARAMS = random_params(ARCHITECTURE)


@pytest.mark.parametrize(
    ("num_tokens", "lengths", "changes"),
    [
        (5, [5, 1, 0], {}),
        (1, [1], {"num_layers": 1, "activation": "relu"}),
        (3, [3, 2], {"num_layers": 1, "num_heads": 1, "activation": "gelu_tanh", "intermediate_size": 1}),
        (4, [0, 0], {"num_layers": 1}),
        (3, [1, 3], {"num_layers": 0}),
    ],
    ids=["ragged", "one token", "one head", "all padding", "no layers"],
)
def test_transformer_is_its_reference_with_gradients(num_tokens, lengths, changes):
    architecture = ARCHITECTURE._replace(**{"num_layers": 1} | changes)
    ids, lengths = token_ids(len(lengths), num_tokens), np.array(lengths, np.int32)
    assert_agrees(
        lambda params: transformer.transformer(params, ids, lengths, architecture, 8),
        lambda params: reference.transformer(params, ids, lengths, architecture, 8),
        random_params(architecture),
    )


@pytest.mark.parametrize(
    ("num_positions", "window", "num_tokens"),
    [*((POSITIONS, window, num_tokens) for window in (5, 6, 8, 100) for num_tokens in (7, 17)), (16, 16, 33)],
)
def test_long_texts_are_read_in_overlapping_windows(num_positions, window, num_tokens):
    architecture = ARCHITECTURE._replace(num_positions=num_positions)
    params = random_params(architecture)
    lengths = np.array([num_tokens, num_tokens - 1, 6, 7, 0, 1], np.int32)
    ids = token_ids(len(lengths), num_tokens)
    states = transform(params, ids, lengths, architecture, window)
    np.testing.assert_allclose(
        states, reference.transformer(params, ids, lengths, architecture, window), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(("window", "depth"), [(6, 1), (100, 2)])
def test_the_upper_layers_continue_from_stored_hidden_states(window, depth):
    num_tokens, lengths = 11, np.array([11, 3, 4, 5, 10, 0], np.int32)
    ids = token_ids(len(lengths), num_tokens)
    rows = transformer.hidden_rows(lengths, ARCHITECTURE, window)
    hidden = np.zeros((len(lengths), int(transformer.hidden_rows(np.array(num_tokens), ARCHITECTURE, window)), H))
    for i, length in enumerate(lengths):  # each in a batch of its length, as another batch may have had it
        alone = ids[i : i + 1, : max(1, length)]
        of_document = lower_layers(PARAMS, alone, lengths[i : i + 1], ARCHITECTURE, window, np.float32, depth)
        hidden[i, : rows[i]] = of_document[0, : rows[i]]
    sizes = ARCHITECTURE, window, np.float32, depth
    states = upper_layers(PARAMS, hidden.astype(np.float32), lengths, *sizes)
    expected = transform(PARAMS, ids, lengths, ARCHITECTURE, window)
    np.testing.assert_allclose(states[:, :num_tokens], expected, rtol=1e-4, atol=1e-5)
    assert not np.any(states[:, num_tokens:])


@pytest.mark.slow
def test_gradients_of_windows_are_those_of_the_reference():
    architecture = ARCHITECTURE._replace(num_layers=1, intermediate_size=2)
    ids, lengths = token_ids(2, 9), np.array([9, 5], np.int32)
    assert_agrees(
        lambda params: transformer.transformer(params, ids, lengths, architecture, 6),
        lambda params: reference.transformer(params, ids, lengths, architecture, 6),
        random_params(architecture),
    )


@pytest.mark.slow
@pytest.mark.parametrize("window", [6, 8])
def test_padding_changes_no_state_and_no_gradient(window):
    ids, lengths = token_ids(3, 6), np.array([6, 3, 0], np.int32)
    longer = np.pad(ids, ((0, 0), (0, 5)), constant_values=7)
    longer[1, 3:] = 9

    def states(ids):
        return lambda params: transformer.transformer(params, ids, lengths, ARCHITECTURE, window)[:, :6]

    value, gradients = value_and_gradients(states(ids), PARAMS)
    padded, padded_gradients = value_and_gradients(states(longer), PARAMS)
    np.testing.assert_allclose(padded, value, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), padded_gradients, gradients)
    assert not np.any(transform(PARAMS, longer, lengths, ARCHITECTURE, window)[:, 6:])


@pytest.mark.slow
def test_ids_beyond_the_length_change_nothing_at_all():
    ids, lengths = token_ids(3, 6), np.array([6, 3, 0], np.int32)
    garbage = np.where(np.arange(6) < lengths[:, None], ids, 4)
    results = [
        value_and_gradients(lambda params, x=x: transformer.transformer(params, x, lengths, ARCHITECTURE, 6), PARAMS)
        for x in (ids, garbage)
    ]
    assert_equal(*results)


@pytest.mark.slow
def test_fused_attention_gives_the_states_and_gradients_of_a_cpu(monkeypatch):
    ids, lengths = token_ids(3, 5), np.array([5, 2, 0], np.int32)

    def run():
        return value_and_gradients(
            lambda params: transformer.transformer(params, ids, lengths, ARCHITECTURE, 8), PARAMS
        )

    expected = run()
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    (states, gradients), (expected_states, expected_gradients) = run(), expected
    np.testing.assert_allclose(states, expected_states, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradients, expected_gradients)


@pytest.mark.slow
def test_bfloat16_stays_close_to_float32():
    architecture = ARCHITECTURE._replace(hidden_size=24, intermediate_size=48)
    params, ids, lengths = random_params(architecture), token_ids(3, 6), np.array([6, 4, 1], np.int32)
    params = jax.tree.map(lambda x: 0.4 * x, params)

    def run(dtype):
        return value_and_gradients(
            lambda params: transformer.transformer(params, ids, lengths, architecture, 8, dtype), params
        )

    def error(a, b):
        return np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(a)

    (exact, (exact_gradients,)), (rounded, (gradients,)) = run(jnp.float32), run(jnp.bfloat16)
    assert rounded.dtype == jnp.float32
    assert 0 < error(exact, rounded) < 0.02
    both = jax.tree.map(lambda a, b: (np.ravel(a), np.ravel(b)), exact_gradients, gradients)
    pairs = jax.tree.leaves(both, is_leaf=lambda x: isinstance(x, tuple))
    assert error(*(np.concatenate(side) for side in zip(*pairs, strict=True))) < 0.03


@pytest.mark.slow
def test_dropout_needs_training_and_changes_states():
    encoder = transformer.Transformer(ARCHITECTURE, 8, embedding_dropout=0.5, state_dropout=0.5)
    ids, lengths = token_ids(2, 5), np.array([5, 3], np.int32)
    apply = jax.jit(encoder.apply, static_argnums=3)
    states = apply({"params": PARAMS}, ids, lengths, False)
    dropped = apply({"params": PARAMS}, ids, lengths, True, rngs={"dropout": jax.random.key(0)})
    assert 0.2 < np.mean(np.asarray(dropped[0]) == 0) < 0.8
    assert np.all(np.any(np.asarray(states[0]) != 0, axis=-1))
    assert not np.any(dropped[1, 3:])


def test_initial_parameters():
    init = jax.jit(transformer.Transformer(ARCHITECTURE, 8).init)
    params = init(jax.random.key(0), token_ids(1, 1), np.ones(1, np.int32))["params"]
    is_shape = {"is_leaf": lambda x: isinstance(x, tuple)}
    assert jax.tree.map(np.shape, params) == jax.tree.map(tuple, transformer.param_shapes(ARCHITECTURE), **is_shape)
    assert np.all(params["layer_01"]["attention"]["norm"]["scale"] == 1)
    assert not np.any(params["layer_01"]["attention"]["qkv"]["bias"])
    kernels = [params[f"layer_0{i}"]["attention"]["qkv"]["kernel"] for i in (0, 1)]
    assert np.all(kernels[0] != kernels[1])
    assert 0.01 < np.std(kernels[0]) < 0.03


def bert_tensors():
    random = np.random.default_rng(0)
    shapes = {
        "embeddings.word_embeddings.weight": (V, H),
        "embeddings.position_embeddings.weight": (POSITIONS, H),
        "embeddings.token_type_embeddings.weight": (2, H),
        "embeddings.LayerNorm.gamma": (H,),
        "embeddings.LayerNorm.beta": (H,),
        "pooler.dense.weight": (H, H),
    }
    for i in range(LAYERS):
        name = f"encoder.layer.{i}"
        dense = {
            f"{name}.attention.self.query": (H, H), f"{name}.attention.self.key": (H, H),
            f"{name}.attention.self.value": (H, H), f"{name}.attention.output.dense": (H, H),
            f"{name}.intermediate.dense": (INNER, H), f"{name}.output.dense": (H, INNER),
        }  # fmt: skip
        shapes |= {f"{key}.weight": shape for key, shape in dense.items()}
        shapes |= {f"{key}.bias": shape[:1] for key, shape in dense.items()}
        for norm in ("attention.output", "output"):
            shapes |= {f"{name}.{norm}.LayerNorm.{part}": (H,) for part in ("weight", "bias")}
    return {name: random.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}


def test_weights_are_converted_from_hugging_face_names_old_and_new():
    tensors = bert_tensors()
    params = params_from_hugging_face(tensors, ARCHITECTURE, "bert")
    is_shape = {"is_leaf": lambda x: isinstance(x, tuple)}
    assert jax.tree.map(np.shape, params) == jax.tree.map(tuple, transformer.param_shapes(ARCHITECTURE), **is_shape)
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(params))
    np.testing.assert_array_equal(params["embedding"]["norm"]["scale"], tensors["embeddings.LayerNorm.gamma"])
    types = tensors["embeddings.token_type_embeddings.weight"].astype(np.float32)
    positions = tensors["embeddings.position_embeddings.weight"].astype(np.float32)
    np.testing.assert_array_equal(params["embedding"]["positions"], positions + types[0])
    values = tensors["encoder.layer.1.attention.self.value.weight"]
    np.testing.assert_array_equal(params["layer_01"]["attention"]["qkv"]["kernel"][:, 2 * H :], values.T)


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("encoder.layer.1.output.dense.bias", None, "is missing"),
        ("embeddings.LayerNorm.gamma", None, "LayerNorm.weight is missing"),
        ("embeddings.word_embeddings.weight", (V + 1, H), rf"has shape \[{V + 1}, {H}\]: expected \[{V}, {H}\]"),
        ("embeddings.token_type_embeddings.weight", (2, H + 1), rf"has shape \[2, {H + 1}\]: expected \[any, {H}\]"),
        ("encoder.layer.0.intermediate.dense.weight", (H,), rf"has shape \[{H}\]: expected \[{INNER}, {H}\]"),
    ],
)
def test_a_missing_tensor_or_a_wrong_shape_is_an_error_that_names_it(prefix, name, shape, message):
    tensors = bert_tensors()
    del tensors[name]
    if shape:
        tensors[name] = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=message) as error:
        params_from_hugging_face({prefix + name: x for name, x in tensors.items()}, ARCHITECTURE, "bert")
    assert prefix + name.replace("gamma", "weight") in str(error.value)


def test_initial_parameters_keep_their_type_in_a_step():
    shapes = jax.eval_shape(
        transformer.Transformer(ARCHITECTURE, 8).init, jax.random.key(0), token_ids(1, 1), np.ones(1)
    )
    # A weak type would be a strong one after the first step, which would then be compiled again.
    assert not any(x.weak_type for x in jax.tree.leaves(shapes))
