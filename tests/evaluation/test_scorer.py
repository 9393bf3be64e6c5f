import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.config import Report
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import scorer
from lsfa_jax.util import sharding
from tests import training_corpus


class Table:
    """A model whose logits are the parameters' rows that the first words name."""

    def __init__(self, num_labels):
        self.num_labels = num_labels

    def apply(self, variables, words, lengths):
        return variables["params"][words[:, 0]]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), num_labels=st.sampled_from([1, 4, 9]))
def test_the_best_labels_of_each_group_come_best_first(seed, num_labels):
    random = np.random.default_rng(seed)
    logits = random.permutation(3 * num_labels).reshape(3, num_labels).astype(np.float32) - num_labels
    is_head = random.random(num_labels) < 0.5
    ranker = scorer.make_ranker(Table(num_labels), is_head)
    top = ranker(jnp.asarray(logits), jnp.array([[2], [0]]), None)
    assert top.shape == (3, 2, 5)
    assert top.dtype == jnp.int32
    groups = (np.ones(num_labels, bool), is_head, ~is_head)
    for group, ranked in zip(groups, np.asarray(top), strict=True):
        for row, own in zip((2, 0), ranked, strict=True):
            order = [label for label in np.argsort(-logits[row]) if group[label]][:5]
            assert list(own) == order + [-1] * (5 - len(order))


@pytest.mark.parametrize("count", [1, 4])
def test_rankings_come_in_the_order_of_the_split(tiny, count):
    batches = training_corpus.batches(tiny.train, 7, count)
    mesh = sharding.make_mesh(jax.local_devices()[:count])

    def ranker(params, words, lengths):
        # A ranking that tells which document it is of: its words' sum, its length.
        own = jnp.stack([words.sum(axis=1), lengths, *(params,) * 3], axis=1)
        return jnp.stack([own, own + 1, own + 2])

    top = scorer.rank_split(ranker, jnp.zeros(batches.rows, int), batches, mesh, "ranking")
    assert top.shape == (3, len(tiny.train), 5)
    for document in range(len(tiny.train)):
        words = tiny.train.words.row(document)
        np.testing.assert_array_equal(top[0, document, :2], [words.sum(), len(words)])
    np.testing.assert_array_equal(top[2], top[0] + 2)


class TwoDocuments:
    """Three labels in training, a fourth in the test documents alone."""

    num_labels = 3
    published_counts = np.array([5, 2, 1, 0])
    published_documents = 6
    split = type("Split", (), {"labels": Ragged(np.array([0, 3, 1]), np.array([0, 2, 3]))})


TOP = np.array(
    [
        [[0, 2, 1, -1, -1], [0, 1, 2, -1, -1]],
        [[0, -1, -1, -1, -1], [0, -1, -1, -1, -1]],
        [[2, 1, -1, -1, -1], [1, 2, -1, -1, -1]],
    ],
    np.int32,
)


def test_measures_all_labels_and_those_of_head_and_tail():
    corpus = batches = TwoDocuments()
    is_head = np.array([True, False, False])
    measured = scorer.measure(TOP, batches, corpus, Report(), is_head)
    assert measured["P@1"] == 50.0
    assert measured["P@3"] == pytest.approx(100 / 3)
    # The head's documents: the first alone. The tail's: both, and the unseen label 3 of the first is never found.
    assert measured["head"]["P@1"] == 100.0
    assert measured["tail"]["P@1"] == 50.0
    assert measured["tail"]["N@1"] == 50.0
    # Label 1 is right in one of the two documents that it is predicted in; 2 never; 3 is never predicted.
    assert measured["tail"]["macro_P@5"] == pytest.approx(50 / 3)
    assert measured["macro_P@5"] == pytest.approx((50 + 50) / 4)
    assert set(measured["head"]) == set(measured["tail"]) == set(measured) - {"head", "tail"}
    without = scorer.measure(TOP, batches, corpus, Report())
    other = scorer.measure(TOP, batches, corpus, Report(propensity_a=0.6, propensity_b=2.6), is_head)
    assert other["PSP@3"] != measured["PSP@3"]
    assert other["tail"]["PSP@3"] != measured["tail"]["PSP@3"]
    assert other["P@3"] == measured["P@3"]
    assert without == {name: value for name, value in measured.items() if name not in ("head", "tail")}


def test_bins_go_from_the_most_frequent_label_down():
    assert scorer.bins(TOP[0], TwoDocuments(), TwoDocuments(), 2) == [50.0, 0.0]
    assert scorer.bins(TOP[0], TwoDocuments(), TwoDocuments(), 1) == [50.0, 50.0, 0.0, 0.0]
