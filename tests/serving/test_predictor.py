import itertools
import threading
from dataclasses import replace

import jax
import numpy as np
import pytest

from lsfa_jax.data import vocabulary
from lsfa_jax.data.ranked import FLOOR
from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER
from lsfa_jax.serving.predictor import Predictor
from lsfa_jax.sparse.fusion import Fusion
from lsfa_jax.sparse.votes import strongest
from lsfa_jax.util.compilation_cache import programs
from tests import training_corpus
from tests.fused_model import fused
from tests.reference import encoder as reference_encoder
from tests.reference import fusion as reference_fusion
from tests.reference import lsfa as reference_lsfa
from tests.reference.agreement import float64

WORDS = [f"word{i}" for i in range(20)]
LABELS = [f"label {i}" for i in range(training_corpus.NUM_LABELS)]
TEXTS = [
    "word1 Word2, word3!",
    "",
    "no known word",
    " ".join(f"word{i % 20}" for i in range(50)),
    "word7",
    "... ---",
    "word4 word5 " * 6,
]


@pytest.fixture(scope="module")
def model():
    return training_corpus.trained_model(WORDS, LABELS, (4, 8), 0.5)


def reference(model, text):
    """Probabilities [L] and attention [L, T] of one text by the references, words looked up one by one."""
    known = {word: vocabulary.NUM_SPECIAL + i for i, word in enumerate(model.words)}
    ids = [known.get(word, vocabulary.UNKNOWN) for word in DEFAULT_TOKENIZER.words(text)][: model.config.data.max_words]
    params, lengths = float64(model.params), np.array([len(ids)])
    states = reference_lsfa.token_states(params, np.array(ids or [0])[None], lengths)
    attention = reference_encoder.label_attention(states, lengths, params["labels"]["queries"])
    logits = reference_lsfa.logits(params, reference_lsfa.label_features(params, states, lengths))[0]
    return 1 / (1 + np.exp(-logits)), attention[0, :, : len(ids)]


@pytest.mark.parametrize("chunk", [1, 3, None])
def test_each_text_gets_the_labels_of_equations_1_to_5_in_its_place(model, chunk):
    predictor = Predictor(model, batch_size=2, chunk=chunk)
    predictions = list(predictor.predict(iter(TEXTS), top=3))
    assert len(predictions) == len(TEXTS)
    for text, prediction in zip(TEXTS, predictions, strict=True):
        probabilities, _ = reference(model, text)
        np.testing.assert_allclose(prediction.probabilities, np.sort(probabilities)[::-1][:3], rtol=1e-4)
        np.testing.assert_allclose(probabilities[prediction.label_ids], prediction.probabilities, rtol=1e-4)


@pytest.mark.parametrize("chunk", [1, 3, None])
@pytest.mark.parametrize("kind", ["svm", "tree"])
def test_a_fused_model_gives_the_weighted_sum_of_both_scores(model, kind, chunk):
    fused = training_corpus.fused_model(model, kind)
    predictor = Predictor(fused, batch_size=2, chunk=chunk)
    ranked = fused.linear.rank_texts(TEXTS, DEFAULT_TOKENIZER)
    linear = reference_fusion.dense_lists(*ranked, len(LABELS), FLOOR)
    for row, prediction in enumerate(predictor.predict(iter(TEXTS), top=len(LABELS))):
        probabilities, _ = reference(model, TEXTS[row])
        logits = np.log(probabilities) - np.log1p(-probabilities)
        weights = (values.astype(np.float64) for values in fused.fusion)
        expected = 1 / (1 + np.exp(-reference_fusion.fused(logits, linear[row], *weights)))
        np.testing.assert_allclose(prediction.probabilities, np.sort(expected)[::-1], rtol=1e-4)
        np.testing.assert_allclose(expected[prediction.label_ids], prediction.probabilities, rtol=1e-4)


@pytest.mark.parametrize("kind", ["svm", "tree"])
def test_where_the_linear_model_decides_alone_its_lists_are_predicted_and_no_network_is_computed(model, kind):
    fused = training_corpus.fused_model(model, kind)
    ones, not_a_number = np.ones(len(LABELS), np.float32), jax.tree.map(lambda x: np.full_like(x, np.nan), model.params)
    alone = replace(fused, fusion=Fusion(0 * ones, 0.5 * ones, -0.25 * ones), params=not_a_number)
    lists = fused.linear.rank_texts(TEXTS, DEFAULT_TOKENIZER)
    for ids, logits, prediction in zip(*lists, Predictor(alone, batch_size=2).predict(TEXTS, len(LABELS)), strict=True):
        np.testing.assert_array_equal(prediction.label_ids, ids[ids >= 0])
        expected = 1 / (1 + np.exp(0.25 - 0.5 * logits[ids >= 0].astype(np.float64)))
        np.testing.assert_allclose(prediction.probabilities, expected, rtol=1e-5)


@pytest.mark.slow
def test_explanations_of_a_fused_model_have_its_labels_and_the_networks_attention(model):
    fused = Predictor(training_corpus.fused_model(model, "svm"), batch_size=4)
    for text, prediction, explanation in zip(TEXTS, fused.predict(TEXTS), fused.explain(TEXTS), strict=True):
        np.testing.assert_array_equal(explanation.label_ids, prediction.label_ids)
        np.testing.assert_allclose(explanation.probabilities, prediction.probabilities, rtol=1e-6)
        _, attention = reference(model, text)
        np.testing.assert_allclose(explanation.attention, attention[explanation.label_ids], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_explanations_are_the_predictions_with_the_attention_of_equation_4(model):
    predictor = Predictor(model, batch_size=4)
    predictions = list(predictor.predict(TEXTS, top=2))
    explanations = list(predictor.explain(TEXTS, top=2))
    for text, prediction, explanation in zip(TEXTS, predictions, explanations, strict=True):
        np.testing.assert_array_equal(explanation.label_ids, prediction.label_ids)
        np.testing.assert_allclose(explanation.probabilities, prediction.probabilities, rtol=1e-6)
        _, attention = reference(model, text)
        np.testing.assert_allclose(explanation.attention, attention[explanation.label_ids], rtol=1e-4, atol=1e-6)
        words = [explanation.text[start:end].lower() for start, end in explanation.spans]
        assert words == DEFAULT_TOKENIZER.words(text)[: model.config.data.max_words]


@pytest.mark.slow
def test_explanations_of_a_fused_model_have_the_votes_of_each_text(model):
    training = [f"word{i} word{(i + 1) % 16} word{i}" for i in range(16)]
    both = fused(model, training, [[i % len(LABELS)] for i in range(16)])
    explanations = list(Predictor(both, batch_size=4).explain(TEXTS, top=3))
    for text, explanation in zip(TEXTS, explanations, strict=True):
        features = both.linear.features.of_texts([text], DEFAULT_TOKENIZER)
        assert explanation.votes == strongest(both.linear, features, explanation.label_ids)
    assert any(explanations[0].votes)
    assert explanations[1].votes == [[], [], []]


def test_no_texts_and_more_labels_than_there_are(model):
    predictor = Predictor(model)
    assert list(predictor.predict([])) == []
    (prediction,) = predictor.predict(["word1"], top=1000)
    assert sorted(prediction.label_ids) == list(range(len(LABELS)))


def test_texts_are_read_as_they_are_needed(model):
    """Predictions of an endless stream; only a few chunks of it are read."""
    read = itertools.count()
    texts = (f"word{next(read) % 20}" for _ in itertools.count())
    predictor = Predictor(model, batch_size=2, chunk=4)
    first = list(itertools.islice(predictor.predict(texts), 8))
    assert len(first) == 8
    assert next(read) < 8 + 6 * 4


@pytest.mark.slow
def test_texts_of_any_number_and_length_share_few_programs(model):
    predictor = Predictor(model, batch_size=40)
    shapes = set()
    for count in (1, 3, 17, 60, 100):
        texts = ["word1 " * (number % 20) for number in range(count)]
        batches = predictor.batches(texts)
        shapes |= {batch.words.shape for batch in batches.load(batches.consecutive())}
        assert len(list(predictor.predict(texts))) == count
    devices = jax.local_device_count()
    assert {rows for rows, _ in shapes} <= {devices, 16 * devices, 40}
    assert {length for _, length in shapes} <= {4, 8, 16}
    before = programs()
    # Shapes that were compiled before, also in a new predictor.
    assert len(list(predictor.predict(["word1 " * (number % 20) for number in range(100)]))) == 100
    assert len(list(Predictor(model, batch_size=40).predict([""]))) == 1
    assert programs() == before


def test_after_warming_up_nothing_is_compiled():
    model = training_corpus.trained_model(WORDS, LABELS, (16,), 0.5)
    predictor = Predictor(model, batch_size=8)
    predictor.warm_up(top=3)
    before = programs()
    for count in (1, 4, 5, 8, 11):
        assert len(list(predictor.predict(["word1 " * (7 * number % 20) for number in range(count)], top=3))) == count
    assert len(list(predictor.explain(["word1"], top=3))) == 1
    assert programs() == before
    assert predictor.read.texts == 30


def test_one_text_is_not_padded_to_a_full_batch(model):
    batches = Predictor(model, batch_size=40).batches(["word1"])
    (batch,) = batches.load(batches.consecutive())
    assert batch.words.shape == (jax.local_device_count(), 4)


def test_each_text_is_answered_before_the_next_is_read(model):
    answered = threading.Event()

    def texts():
        yield "word1"
        assert answered.wait(20)
        yield "word2"

    predictions = Predictor(model, chunk=1).predict(texts())
    next(predictions)
    answered.set()
    assert len(list(predictions)) == 1


def test_an_exception_of_the_texts_reaches_the_caller(model):
    def texts():
        yield "word1"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(Predictor(model, chunk=1).predict(texts()))


def test_spellings_of_one_text_get_the_same_labels_and_are_explained_as_they_are_read(model):
    texts = ["word1 word2", "WORD1 wo\u00adrd2", "ｗｏｒｄ１\ufeff word2"]
    first, *others = Predictor(model, batch_size=4).explain(texts, top=3)
    for explanation in others:
        np.testing.assert_array_equal(explanation.label_ids, first.label_ids)
        np.testing.assert_array_equal(explanation.attention, first.attention)
        assert [explanation.text[start:end].lower() for start, end in explanation.spans] == ["word1", "word2"]


def test_an_encoder_that_pools_the_words_attends_to_all_of_them_alike():
    pooling = training_corpus.trained_model(WORDS, LABELS, (4, 8), 0.5, encoder="xml_cnn")
    (explanation,) = Predictor(pooling).explain(["word1 word2 word3"], top=2)
    np.testing.assert_allclose(explanation.attention, np.full((2, 3), 1 / 3), rtol=1e-6)


def test_texts_that_are_cut_or_have_no_known_word_are_counted(model):
    predictor = Predictor(model, batch_size=2)
    max_words = model.config.data.max_words
    list(predictor.predict(["word1 " * max_words, "word1 " * (max_words + 4), "unseen", "", "word2"]))
    read = predictor.read
    assert (read.texts, read.cut, read.unread, read.unknown) == (5, 1, 4, 2)
    assert read.words == 2 * max_words + 4 + 2
    assert read.unread_words(max_words).startswith("Texts longer than 16 words: 1 of 5 (20.0 %); ")
