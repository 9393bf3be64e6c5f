import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER
from lsfa_jax.sparse import linear, tree
from lsfa_jax.sparse.votes import heaviest, strongest, votes

NUM_LABELS = 8
UNSEEN = NUM_LABELS - 1
KINDS = [
    "svm",
    pytest.param(
        "tree", marks=pytest.mark.skipif(not tree.is_installed(), reason="omikuji has no wheel for this platform")
    ),
]


def make_texts(count, seed=0):
    """Texts of words about their labels among common ones, and the labels; the last label has no text."""
    random = np.random.default_rng(seed)
    labels = [sorted(random.choice(UNSEEN, random.integers(1, 3), replace=False).tolist()) for _ in range(count)]
    texts = [
        " ".join([f"about{random.choice(of_text)}w{random.integers(3)}" for _ in range(6)])
        + " "
        + " ".join(f"common{random.integers(30)}" for _ in range(random.integers(1, 20)))
        for of_text in labels
    ]
    return texts, labels


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    texts, labels = make_texts(200)
    counter = CountVectorizer(dtype=np.int32)
    counts = counter.fit_transform(texts)
    words = counter.get_feature_names_out().tolist()
    return linear.train(request.param, [counts], words, Ragged.from_rows(labels), NUM_LABELS)


def logits(model, texts):
    """The logits of all labels by the model's lists, float[N, L]."""
    result = np.full((len(texts), NUM_LABELS), -7.0)
    for row, (ids, values) in enumerate(zip(*model.rank_texts(texts, DEFAULT_TOKENIZER), strict=True)):
        for label, value in zip(ids.tolist(), values.tolist(), strict=True):
            if label >= 0:
                result[row, label] = value
    return result


def without(text, word):
    return " ".join(each for each in text.split() if each != word)


def test_a_vote_is_what_the_logit_loses_when_the_word_is_deleted_from_the_text(model):
    texts = [*make_texts(6, seed=1)[0], "about3w1 about3w1 about3w1", "about2w0 common4"]
    label_ids = np.array([5, 0, 3, 2])
    for text in texts:
        features = model.features.of_texts([text], DEFAULT_TOKENIZER)
        places = heaviest(features)
        words = [model.features.terms[column] for column in features.indices[places]]
        assert set(words) == set(text.split())
        changes = logits(model, [text]) - logits(model, [without(text, word) for word in words])
        np.testing.assert_allclose(
            votes(model, features, places, label_ids), changes[:, label_ids].T, rtol=1e-4, atol=1e-4
        )


def test_words_about_a_label_vote_for_it_the_strongest_first(model):
    features = model.features.of_texts(["about1w0 common1 about1w2 about4w1 common2 common3"], DEFAULT_TOKENIZER)
    first, fourth = strongest(model, features, np.array([1, 4]))
    assert {word for word, _ in first[:2]} == {"about1w0", "about1w2"}
    assert fourth[0][0] == "about4w1"
    values = [value for _, value in first]
    assert values == sorted(values, reverse=True)
    assert values[-1] >= max(0.005, 0.05 * values[0])


def test_only_the_heaviest_words_of_a_long_text_are_left_out(model):
    text = " ".join([f"common{word}" for word in range(30)] + ["about0w0 about1w0 about2w0 about0w0"])
    features = model.features.of_texts([text], DEFAULT_TOKENIZER)
    places = heaviest(features)
    assert features.nnz == 33
    assert len(places) == 30
    assert np.delete(features.data, places).max() <= features.data[places].min()
    (named,) = strongest(model, features, np.array([0]))
    assert named[0][0] == "about0w0"
    assert len(named) <= 5


def test_texts_without_a_known_word_and_labels_without_training_documents_have_no_votes(model):
    empty, known = (model.features.of_texts([text], DEFAULT_TOKENIZER) for text in ("", "about1w0 common1"))
    assert strongest(model, empty, np.array([0, UNSEEN])) == [[], []]
    one, unseen = strongest(model, known, np.array([1, UNSEEN]))
    assert one
    assert unseen == []
