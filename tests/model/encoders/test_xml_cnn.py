import jax
import numpy as np
import pytest

from lsfa_jax.model.encoders.xml_cnn import WIDTHS, XmlCnn, xml_cnn
from tests import training_corpus
from tests.reference import encoder as reference
from tests.reference.agreement import assert_agrees
from tests.reference.inputs import normal

B, T, E, F, P = 4, 11, 3, 2, 3
LENGTHS = np.array([11, 1, 0, 5], np.int32)
PARAMS = {
    f"width_{width}": {"kernel": normal(width, E, F, seed=width), "bias": 0.3 * normal(F, seed=width + 1)}
    for width in WIDTHS
}


def test_pooled_filters_are_those_of_plain_loops():
    assert_agrees(
        lambda params, x: xml_cnn(params, x, LENGTHS, P),
        lambda params, x: reference.xml_cnn(params, x, LENGTHS, P),
        PARAMS,
        normal(B, T, E),
    )


def test_padding_changes_nothing():
    x = normal(B, T, E)
    garbage = np.where(np.arange(T)[:, None] < LENGTHS[:, None, None], x, np.float32(1e8))
    longer = np.concatenate([garbage, garbage], axis=1)
    pooled = jax.jit(xml_cnn, static_argnums=3)
    np.testing.assert_allclose(pooled(PARAMS, longer, LENGTHS, P), pooled(PARAMS, x, LENGTHS, P), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_all_labels_have_the_feature_of_the_document():
    settings = training_corpus.config(encoder={"kind": "xml_cnn", "hidden_size": 2})
    model = training_corpus.make_model(settings)
    assert isinstance(model.encoder, XmlCnn)
    params = training_corpus.init_params(model)
    words, lengths = np.array([[3, 5, 4], [7, 0, 0]], np.int32), np.array([3, 1], np.int32)

    def features(model: object) -> tuple[jax.Array, jax.Array]:
        states = model.states(words, lengths)
        every_label = np.tile(np.arange(8, dtype=np.int32), (2, 1))
        return model.positive_features(states, lengths, every_label), model.mean_features(states, lengths)

    of_labels, of_document = jax.jit(lambda params: model.apply({"params": params}, method=features))(params)
    assert of_labels.shape == (2, 8, 5)
    np.testing.assert_allclose(of_labels, np.broadcast_to(of_document[:, None], of_labels.shape), rtol=1e-5)
    assert model.encoder.state_rows(np.array([4, 0, 1])).tolist() == [1, 0, 1]
