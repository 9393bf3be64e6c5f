from functools import cache

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from lsfa_jax.data.batches import Batches
from lsfa_jax.data.corpus import Split
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import threshold
from lsfa_jax.evaluation.threshold import GRID, choose_threshold
from lsfa_jax.util import sharding

NUM_LABELS = 6


class Table:
    """A model whose logits are the parameters' rows that the first words name."""

    def apply(self, variables, words, lengths):
        return variables["params"][words[:, 0]]


TABLE = Table()


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threshold, "_make_counter", cache(threshold._make_counter))
        yield


def split_of(truths):
    """One document a row of logits, of one word each."""
    sizes = [len(truth) for truth in truths]
    labels = Ragged(
        np.array([label for truth in truths for label in truth], np.int32), np.cumsum([0, *sizes]).astype(np.int64)
    )
    return Split(Ragged(np.arange(len(truths), dtype=np.int32), np.arange(len(truths) + 1)), labels)


def choose(logits, truths, size=4, count=1):
    mesh = sharding.make_mesh(jax.local_devices()[:count])
    batches = Batches(split_of(truths), NUM_LABELS, size, [1], count)
    # Padding rows look up row 0, whose probabilities must not count.
    return choose_threshold(TABLE, np.asarray(logits, np.float32), batches, mesh)


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10**6), count=st.sampled_from([1, 4]))
def test_is_the_best_of_the_grid_by_scikit_learn(seed, count):
    random = np.random.default_rng(seed)
    truth = random.random((13, NUM_LABELS + 1)) < 0.3  # the last label is one that training never saw
    logits = 2 * random.normal(size=(13, NUM_LABELS)) + 3 * truth[:, :-1] - 1
    chosen = choose(logits, [np.flatnonzero(row) for row in truth], count=count)
    probabilities = np.asarray(jax.nn.sigmoid(np.float32(logits)))
    probabilities = np.pad(probabilities, ((0, 0), (0, 1)))

    f1 = {float(at): f1_score(truth, probabilities >= at, average="micro", zero_division=0) for at in GRID}
    as_good = [at for at, value in f1.items() if value == pytest.approx(max(f1.values()), abs=1e-12)]
    assert chosen in as_good
    assert abs(chosen - 0.5) == min(abs(at - 0.5) for at in as_good)


def test_a_probability_at_the_threshold_reaches_it():
    given = np.array([int((np.float32(0.5) >= GRID).sum())])
    assert GRID[given - 1] == np.float32(0.5)
    logits = np.full((2, NUM_LABELS), -9.0)
    logits[0, 0] = 0.0  # 0.5 exactly, true
    logits[1, 0] = -0.001  # a little less, not true
    assert choose(logits, [[0], []]) == 0.5


@pytest.mark.parametrize(
    "truths", [[], [[], []], [[NUM_LABELS], []]], ids=["no documents", "no labels", "unseen alone"]
)
def test_is_one_half_where_there_is_nothing_to_choose_it_on(truths):
    assert choose(np.zeros((2, NUM_LABELS)) + 1, truths) == threshold.DEFAULT == 0.5
