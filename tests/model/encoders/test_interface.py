import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lsfa_jax.model.encoders.bilstm import BiLstm
from lsfa_jax.model.encoders.cnn import Cnn

WORDS, E, H = 7, 3, 2
WORDS_OF = {"vocabulary_size": WORDS, "embedding_size": E}
TOKENS, LENGTHS = np.array([[2, 5, 6, 0], [3, 3, 0, 0], [0, 0, 0, 0]], np.int32), np.array([3, 2, 0], np.int32)


@pytest.mark.parametrize(
    "encoder",
    [BiLstm(hidden_size=H, **WORDS_OF), Cnn(num_filters=2 * H, kernel_width=3, **WORDS_OF)],
    ids=["bilstm", "cnn"],
)
def test_a_state_may_end_with_the_embedding_of_its_token(encoder):
    appended = encoder.clone(append_embedding=True)
    params = jax.jit(encoder.init)(jax.random.key(0), TOKENS, LENGTHS)
    of_appended = jax.jit(appended.init)(jax.random.key(0), TOKENS, LENGTHS)
    assert jax.tree.map(jnp.shape, of_appended) == jax.tree.map(jnp.shape, params)
    states = np.asarray(appended.apply(params, TOKENS, LENGTHS))
    assert states.shape == (3, 4, appended.state_size) == (3, 4, 2 * H + E)
    np.testing.assert_array_equal(states[..., : 2 * H], encoder.apply(params, TOKENS, LENGTHS))
    is_token = np.arange(4) < LENGTHS[:, None]
    table = np.asarray(params["params"]["embedding"])
    np.testing.assert_array_equal(states[..., 2 * H :], table[TOKENS] * is_token[..., None])

    def last_entries(params):
        return appended.apply(params, TOKENS, LENGTHS)[..., 2 * H :].sum()

    counts = np.bincount(TOKENS[is_token], minlength=WORDS)
    gradient = jax.grad(last_entries)(params)["params"]["embedding"]
    np.testing.assert_array_equal(gradient, np.repeat(counts[:, None], E, axis=1))
