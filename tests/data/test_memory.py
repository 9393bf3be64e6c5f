"""What memory holds of each document: a few numbers, but neither its words nor its bag."""

import tracemalloc

import numpy as np
import pytest

from lsfa_jax.data import bags, build_corpus
from lsfa_jax.data.batches import Batches
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.sparse import linear, tf_idf

WORDS, VOCABULARY = 300, 60
# Word ids of a document take 1,200 bytes, and its bag of some 60 words and 90 pairs 1,200 to 1,800.
MOST_PREPARING, MOST_TRAINING = 450, 100


def documents(number):
    random = np.random.default_rng(0)
    for i in range(number):
        text = " ".join(f"w{word}" for word in random.integers(0, VOCABULARY, WORDS))
        yield Document(text, (f"l{i % 5}", f"m{i % 7}"))


def peak_of(work) -> int:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks that are small beside the corpora of the test, as the real ones are beside a corpus that fills memory."""
    monkeypatch.setattr(bags, "_SLOTS", 1 << 12)
    for module in (bags, build_corpus, tf_idf):
        monkeypatch.setattr(module, "_BLOCK", 1 << 12)


def test_memory_does_not_hold_the_words_of_all_documents(tmp_path, small_blocks):
    few, many = 200, 700
    preparing, training = {}, {}
    for number in (few, many):
        folder = tmp_path / str(number)
        folder.mkdir()

        def prepare(folder=folder, number=number):
            build_corpus.write(
                folder, documents(number), documents(10), None, name="c", max_words=WORDS, max_vocabulary=1000,
                validation_fraction=0.1, test_fraction=0.0, seed=0,
            )  # fmt: skip

        preparing[number] = peak_of(prepare)
        corpus = build_corpus.read(folder, "c")

        def train(corpus=corpus):
            batches = Batches(corpus.train, corpus.num_labels, 8, [WORDS])
            for batch in batches.load(batches.epoch(np.random.default_rng(0))):
                assert batch.words.shape == (8, WORDS)
            features, _ = tf_idf.fit([corpus.train.bags], corpus.bag_terms)
            model = linear.LinearModel(features, corpus.num_labels, None)
            for _ in linear.feature_blocks(model, corpus.train.bags, corpus.bag_terms):
                pass

        train()  # what is imported late is not counted
        training[number] = peak_of(train)
    assert (preparing[many] - preparing[few]) / (many - few) < MOST_PREPARING
    assert (training[many] - training[few]) / (many - few) < MOST_TRAINING
