"""The transformer beside the library `transformers`, with small random models."""

import numpy as np
import pytest

from lsfa_jax.model.encoders import transformer
from lsfa_jax.model.encoders.hugging_face import params_from_hugging_face
from lsfa_jax.model.encoders.interface import Architecture

torch = pytest.importorskip("torch", reason="compares with PyTorch")
transformers = pytest.importorskip("transformers", reason="compares with the library transformers")

V, H, LAYERS, HEADS, INNER, POSITIONS = 50, 12, 2, 3, 20, 16
FIRST, LAST, PADDING = 2, 3, 1
T = 9
LENGTHS = np.array([9, 4, 1, 0], np.int32)
IDS = np.random.default_rng(0).integers(4, V, (len(LENGTHS), T)).astype(np.int32)
COMMON = {"vocab_size": V, "pad_token_id": PADDING}
SIZES = {
    "hidden_size": H, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": INNER
}  # fmt: skip


def bert(**options):
    settings = transformers.BertConfig(max_position_embeddings=POSITIONS, **SIZES, **COMMON, **options)
    return transformers.BertModel(settings, add_pooling_layer=False)


def distilbert(**options):
    return transformers.DistilBertModel(
        transformers.DistilBertConfig(
            max_position_embeddings=POSITIONS, dim=H, n_layers=LAYERS, n_heads=HEADS, hidden_dim=INNER, **COMMON,
            **options
        )
    )  # fmt: skip


def roberta(**options):
    settings = transformers.RobertaConfig(max_position_embeddings=POSITIONS + 2, **SIZES, **COMMON, **options)
    return transformers.RobertaModel(settings, add_pooling_layer=False)


def randomised(model, seed=0):
    """Gives every parameter random values: also biases and scales, which start as 0 and 1."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()


def architecture(activation="gelu", epsilon=1e-12):
    return Architecture(V, H, LAYERS, HEADS, INNER, POSITIONS, activation, epsilon, FIRST, LAST)


def expected_states(model):
    """States of the pieces of each document, one at a time and without padding."""
    states = np.zeros((*IDS.shape, H), np.float32)
    for b, length in enumerate(LENGTHS):
        ids = torch.tensor([[FIRST, *IDS[b, :length], LAST]])
        with torch.inference_mode():
            states[b, :length] = model(input_ids=ids).last_hidden_state[0, 1:-1].numpy()
    return states


def tensors(model, prefix=""):
    return {prefix + name: x.numpy() for name, x in model.state_dict().items()}


@pytest.mark.parametrize("prefix", [False, True], ids=["bare names", "prefixed names"])
@pytest.mark.parametrize(
    ("family", "make", "options", "activation", "epsilon"),
    [
        ("bert", bert, {}, "gelu", 1e-12),
        ("bert", bert, {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3}, "gelu_tanh", 1e-3),
        ("bert", bert, {"hidden_act": "relu"}, "relu", 1e-12),
        ("distilbert", distilbert, {}, "gelu", 1e-12),
        ("roberta", roberta, {"layer_norm_eps": 1e-5}, "gelu", 1e-5),
    ],
)
def test_states_are_those_of_the_library(family, make, options, activation, epsilon, prefix):
    model, sizes = randomised(make(**options)), architecture(activation, epsilon)
    params = params_from_hugging_face(tensors(model, f"{family}." if prefix else ""), sizes, family)
    states = transformer.transformer(params, IDS, LENGTHS, sizes, window=POSITIONS)
    np.testing.assert_allclose(states, expected_states(model), rtol=1e-4, atol=1e-4)
