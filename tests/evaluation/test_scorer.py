"""The scorer against plain NumPy float64, on awkward sizes: fewer labels than K, empty groups, padding rows."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from lsfa_jax.data.batches import Batches
from lsfa_jax.data.corpus import Split
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.ranked import Ranked
from lsfa_jax.evaluation import scorer
from lsfa_jax.evaluation.groups import best_of_groups
from lsfa_jax.evaluation.thresholded import DEFAULT_THRESHOLD, GRID, best_threshold, histogram
from lsfa_jax.sparse.fusion import LinearAlone
from lsfa_jax.util import sharding
from lsfa_jax.util.compilation_cache import programs
from tests.reference.agreement import assert_equal

pytestmark = pytest.mark.usefixtures("optimized_programs")
NUM_RANKED = 5


class Table:
    """A model whose logits are the parameters' rows that the first words name."""

    label_shards = 1

    def __init__(self, num_labels):
        self.num_labels = self.num_rows = num_labels

    @property
    def is_label(self):
        return jnp.ones(self.num_labels, bool)

    def bind(self, variables):
        return Bound(variables["params"])


class Bound:
    def __init__(self, table):
        self.table = table

    def states(self, words, lengths, stored=None, hidden=None):
        return self.table[words[:, 0]]

    def scores(self, states, lengths):
        return states

    def predicted_candidates(self, states, lengths, candidates):
        return candidates, jnp.take_along_axis(states, jnp.maximum(candidates, 0), axis=1)


# Equal models share their compiled program; this one is equal to itself alone.
table = cache(Table)


def make_split(truth, lengths=None):
    """A document for each row of bool[N, L], whose first word is its number."""
    lengths = np.ones(len(truth), int) if lengths is None else lengths
    words = Ragged.from_rows([row] * length for row, length in enumerate(lengths))
    return Split(words, Ragged.from_rows(np.flatnonzero(row) for row in truth))


def score(logits, truth, groups=None, devices=1, threshold=0.5, lengths=None):
    logits = np.asarray(logits, np.float32)
    mesh = sharding.make_mesh(jax.local_devices()[:devices])
    batches = Batches(make_split(truth, lengths), logits.shape[1], 4, [1, 2], devices)
    groups = np.ones((1, truth.shape[1]), bool) if groups is None else groups
    # Padding rows look up row 0, whose probabilities must not count.
    return scorer.score_split(table(logits.shape[1]), logits, batches, mesh, groups, NUM_RANKED, threshold)


def logits_between_thresholds(random, shape):
    """Logits whose probabilities are at least 0.001 away from every threshold, so that rounding decides nothing."""
    probabilities = (random.integers(0, 100, shape) + random.uniform(0.1, 0.9, shape)) / 100
    return (np.log(probabilities) - np.log1p(-probabilities)).astype(np.float32)


def best_of(logits, group):
    order = [label for label in np.argsort(-logits.astype(np.float64), kind="stable") if group[label]][:NUM_RANKED]
    return order + [-1] * (NUM_RANKED - len(order))


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    num_documents=st.integers(1, 13),
    size=st.sampled_from([(1, 4), (3, 1), (9, 4)]),  # each of few that are compiled
)
def test_scores_agree_with_plain_numpy(seed, num_documents, size):
    known, devices = size
    random = np.random.default_rng(seed)
    num_labels, threshold = known + 2, 0.4  # two labels that training never saw
    logits = logits_between_thresholds(random, (num_documents, known))
    truth = random.random((num_documents, num_labels)) < 0.3
    truth[num_documents // 2] = False
    groups = np.stack([np.ones(num_labels, bool), random.random(num_labels) < 0.5, np.arange(num_labels) >= known])
    scores = score(logits, truth, groups, devices, threshold, lengths=random.integers(1, 5, num_documents))

    for group, top in zip(groups, scores.top, strict=True):
        assert top.tolist() == [best_of(row, group) for row in logits]
    probabilities = np.pad(1 / (1 + np.exp(-logits.astype(np.float64))), ((0, 0), (0, 2)))
    best = -np.sort(-np.pad(probabilities, ((0, 0), (0, NUM_RANKED))), axis=1)[:, :NUM_RANKED]
    np.testing.assert_allclose(scores.probabilities, best, rtol=1e-6)
    reached = (probabilities[:, :, None] >= GRID.astype(np.float64)).sum(axis=-1)[:, :known]
    of_true = reached[truth[:, :known]]
    assert scores.histogram.tolist() == [np.bincount(x.ravel(), minlength=100).tolist() for x in (reached, of_true)]
    predicted = probabilities >= threshold
    counts = [predicted & truth, predicted & ~truth, ~predicted & truth]
    assert [x.tolist() for x in scores.confusion] == [x.sum(axis=0).tolist() for x in counts]


def test_probabilities_are_those_of_the_first_groups_best_labels():
    random = np.random.default_rng(0)
    logits = random.normal(size=(4, 3)).astype(np.float32)
    batch = next(Batches(make_split(np.zeros((4, 3), bool)), 3, 4, [1]).load([np.arange(4)]))
    groups = jnp.array([[True, False, True], [True, True, True]])
    scores = scorer.score_batch(table(3), NUM_RANKED, logits, batch, groups, 0.5)
    assert scores.top.dtype == jnp.int32
    for row, probabilities in zip(logits, np.asarray(scores.probabilities), strict=True):
        expected = np.sort(1 / (1 + np.exp(-row[[0, 2]].astype(np.float64))))[::-1]
        np.testing.assert_allclose(probabilities, [*expected, 0, 0, 0], rtol=1e-6)


def test_all_uses_of_a_model_share_one_program():
    logits, truth = np.zeros((6, 4), np.float32), np.ones((6, 4), bool)
    score(logits, truth)
    before = programs()
    score(logits + 1, ~truth, np.zeros((1, 4), bool), threshold=0.9)
    assert programs() == before


@pytest.mark.slow
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10**6), devices=st.sampled_from([1, 4]))
def test_the_threshold_is_the_best_of_the_grid_by_scikit_learn(seed, devices):
    random = np.random.default_rng(seed)
    truth = random.random((13, 7)) < 0.3  # the last label is one that training never saw
    logits = 2 * random.normal(size=(13, 6)) + 3 * truth[:, :-1] - 1
    chosen = best_threshold(score(logits, truth, devices=devices).histogram, int(truth.sum()))
    probabilities = np.pad(np.asarray(jax.nn.sigmoid(np.float32(logits))), ((0, 0), (0, 1)))
    f1 = {float(at): f1_score(truth, probabilities >= at, average="micro", zero_division=0) for at in GRID}
    best = [at for at, value in f1.items() if value == pytest.approx(max(f1.values()), abs=1e-12)]
    assert chosen in best
    assert abs(chosen - 0.5) == min(abs(at - 0.5) for at in best)


def test_the_histogram_of_pairs_is_that_of_the_scorer():
    random = np.random.default_rng(2)
    logits, truth = logits_between_thresholds(random, (9, 4)), random.random((9, 4)) < 0.3
    expected = score(logits, truth).histogram
    np.testing.assert_array_equal(histogram((1 / (1 + np.exp(-logits))).ravel(), truth.ravel()), expected)


def test_a_probability_equal_to_the_threshold_reaches_it():
    assert np.float32(0.5) in GRID
    logits, truth = np.full((2, 6), -9.0), np.zeros((2, 6), bool)
    logits[0, 0], truth[0, 0] = 0.0, True  # 0.5 exactly
    logits[1, 0] = -0.001  # a little less, not true
    scores = score(logits, truth)
    assert best_threshold(scores.histogram, 1) == 0.5
    assert scores.confusion.true_positives.sum() == 1
    assert scores.confusion.false_positives.sum() == 0


@pytest.mark.parametrize(
    "truth",
    [np.zeros((0, 7), bool), np.zeros((2, 7), bool), np.eye(7, dtype=bool)[[6]]],
    ids=["no documents", "no labels", "unseen labels alone"],
)
def test_the_threshold_is_one_half_without_labels_to_choose_it_on(truth):
    scores = score(np.ones((max(1, len(truth)), 6)), truth)
    assert best_threshold(scores.histogram, int(truth.sum())) == DEFAULT_THRESHOLD == 0.5
    assert scores.top.shape == (1, len(truth), NUM_RANKED)


def test_of_documents_with_candidates_no_other_label_is_ranked_or_predicted():
    random = np.random.default_rng(0)
    logits, truth = random.normal(size=(6, 9)).astype(np.float32), random.random((6, 9)) < 0.3
    proposed = np.array([random.permutation(9)[:3] for _ in range(6)], np.int32)
    proposed[2, 1:] = -1
    batches = Batches(make_split(truth), 9, 4, [1], candidates=proposed)
    mesh = sharding.make_mesh(jax.local_devices()[:1])
    scores = scorer.score_split(table(9), logits, batches, mesh, np.ones((1, 9), bool), NUM_RANKED, 0.5)
    listed = np.zeros((6, 9), bool)
    for row, labels in zip(listed, proposed, strict=True):
        row[labels[labels >= 0]] = True
    for ranked, row, group in zip(scores.top[0], logits, listed, strict=True):
        np.testing.assert_array_equal(ranked, best_of(row, group))
    other = scorer.score_split(
        table(9), np.where(listed, logits, -np.float32(1e9)), Batches(make_split(truth), 9, 4, [1]), mesh,
        np.ones((1, 9), bool), NUM_RANKED, 0.5,
    )  # fmt: skip
    # Of labels that are not scored, none reaches a threshold.
    np.testing.assert_array_equal(scores.histogram[:, 1:], other.histogram[:, 1:])
    assert_equal(scores.confusion, other.confusion)


def test_documents_with_fewer_candidates_do_not_count_as_predictions_of_the_last_label():
    truth = np.zeros((2, 4), bool)
    truth[:, 0] = True
    proposed = np.array([[0, -1, -1], [0, 1, -1]], np.int32)
    batches = Batches(make_split(truth), 4, 2, [1], candidates=proposed)
    mesh = sharding.make_mesh(jax.local_devices()[:1])
    logits = np.zeros((2, 4), np.float32)
    scores = scorer.score_split(table(4), logits, batches, mesh, np.ones((1, 4), bool), NUM_RANKED, 0.0)
    assert scores.confusion.false_positives.tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("devices", [1, 4])
def test_where_the_linear_model_decides_alone_its_lists_are_the_rankings(devices):
    """Also where logits are equal, and in groups of which a list has few labels or none."""
    ids = np.array([[4, 1, 5, -1], [2, -1, -1, -1], [3, 5, 0, 1], [-1, -1, -1, -1], [5, 0, 4, 2]], np.int32)
    logits = np.array([[6, 6, -7, -7], [1, 0, 0, 0], [2, 1, 1, 1], [0, 0, 0, 0], [-7, -7, -7, -7]], np.float32)
    truth = np.random.default_rng(0).random((5, 6)) < 0.4
    groups = np.array([[True] * 6, [True, False] * 3, [False, True] * 3])
    weights = LinearAlone(np.full(6, 0.5, np.float32), np.full(6, -0.25, np.float32))
    batches = Batches(make_split(truth), 6, 4, [1], devices, ranked=Ranked(ids, logits))
    mesh = sharding.make_mesh(jax.local_devices()[:devices])
    scores = scorer.score_split(table(6), {"fusion": weights}, batches, mesh, groups, NUM_RANKED, 0.5)
    np.testing.assert_array_equal(scores.top, best_of_groups(ids, groups, NUM_RANKED))
    probabilities = np.where(ids >= 0, 1 / (1 + np.exp(0.25 - 0.5 * logits)), 0)
    np.testing.assert_allclose(scores.probabilities, np.pad(probabilities, ((0, 0), (0, 1))), rtol=1e-5)
    predicted = np.zeros((5, 6), bool)
    for row, listed, reached in zip(predicted, ids, probabilities >= 0.5, strict=True):
        row[listed[reached]] = True
    counts = [predicted & truth, predicted & ~truth, ~predicted & truth]
    assert [x.tolist() for x in scores.confusion] == [x.sum(axis=0).tolist() for x in counts]


@pytest.mark.parametrize("with_candidates", [False, True])
def test_excluded_labels_are_neither_predicted_nor_counted(with_candidates):
    """As if the labels of the excluded pairs had never been scored."""
    random = np.random.default_rng(4)
    logits = logits_between_thresholds(random, (6, 7))
    truth = random.random((6, 7)) < 0.4
    pairs = [[2, 6], [], [0], [1, 3, 5], [], [4]]
    for document, labels in enumerate(pairs):
        truth[document, labels] = False
    candidates = np.argsort(random.random((6, 7)), axis=1).astype(np.int32) if with_candidates else None
    split = make_split(truth)
    batches = Batches(split, 7, 4, [1], candidates=candidates, excluded=Ragged.from_rows(pairs))
    mesh, groups = sharding.make_mesh(jax.local_devices()[:1]), np.ones((1, 7), bool)
    scores = scorer.score_split(table(7), logits, batches, mesh, groups, NUM_RANKED, 0.0)

    inside = np.ones((6, 7), bool)
    for document, labels in enumerate(pairs):
        inside[document, labels] = False
    assert scores.top[0].tolist() == [best_of(row, kept) for row, kept in zip(logits, inside, strict=True)]
    counts = [inside & truth, inside & ~truth, ~inside & truth]
    assert [x.tolist() for x in scores.confusion] == [x.sum(axis=0).tolist() for x in counts]
    assert scores.histogram.sum(axis=1).tolist() == [inside.sum(), truth.sum()]
