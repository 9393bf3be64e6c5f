import jax
import numpy as np
import pytest

from lsfa_jax.data.batches import Batches
from lsfa_jax.data.corpus import Split
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import scoring, thresholded
from lsfa_jax.evaluation.groups import best_of_groups
from lsfa_jax.util import sharding


class Table:
    """A model whose logits are the parameters' rows that the first words name."""

    def __init__(self, num_labels):
        self.num_labels = num_labels

    def apply(self, variables, words, lengths):
        return variables["params"][words[:, 0]]


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("known", [3, 9])
def test_rankings_and_counts_are_those_of_all_probabilities(count, known):
    random = np.random.default_rng(known)
    num_labels, num_ranked, threshold = known + 2, 5, 0.4
    truth = random.random((11, num_labels)) < 0.3  # the last two labels are none of the model's
    truth[4] = False
    logits = random.permutation(11 * known).reshape(11, known).astype(np.float32) / 10 - known / 2
    logits[0, 0] = np.log(0.4 / 0.6)  # at the threshold, up to rounding
    sizes = truth.sum(axis=1)
    labels = Ragged(np.nonzero(truth)[1].astype(np.int32), np.concatenate([[0], np.cumsum(sizes)]))
    split = Split(Ragged(np.arange(11, dtype=np.int32), np.arange(12)), labels)
    mesh = sharding.make_mesh(jax.local_devices()[:count])
    members = np.stack([np.ones(num_labels, bool), random.random(num_labels) < 0.5, np.arange(num_labels) >= known])
    batches = Batches(split, known, 4, [1], count)
    scored = scoring.score_split(Table(known), logits, batches, mesh, members, num_ranked, threshold)

    probabilities = np.asarray(jax.nn.sigmoid(logits))
    listed = np.argsort(-probabilities, axis=1, kind="stable").astype(np.int32)
    np.testing.assert_array_equal(scored.top, best_of_groups(listed, members, num_ranked))
    rows, given = np.nonzero(probabilities >= np.float32(threshold))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=11))])
    expected = thresholded.count(Ragged(given, offsets), labels, num_labels)
    for counts, own in zip(scored.outcomes, expected, strict=True):
        np.testing.assert_array_equal(counts, own)
    assert scored.outcomes.false_negatives[known:].sum() == truth[:, known:].sum() > 0
