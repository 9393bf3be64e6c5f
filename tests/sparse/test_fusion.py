import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lsfa_jax.data.ranked import FLOOR, Ranked
from lsfa_jax.sparse import fusion
from lsfa_jax.sparse.fusion import Cells, Fusion
from tests.reference import fusion as reference


def random_lists(random, num_documents, num_labels, width):
    """Lists of different lengths, the empty one among them; what stands beside padding counts for nothing."""
    label_ids = np.full((num_documents, width), -1, np.int32)
    logits = np.full((num_documents, width), 5, np.float32)
    for row in range(num_documents):
        length = min(row, width, num_labels)
        label_ids[row, :length] = random.permutation(num_labels)[:length]
        logits[row, :length] = np.sort(random.normal(size=length))[::-1]
    return Ranked(label_ids, logits)


def random_fusion(random, num_labels):
    return Fusion(*random.uniform(0, 2, (2, num_labels)).astype(np.float32), random.normal(size=num_labels).astype("f"))


@pytest.mark.parametrize(("num_labels", "width"), [(1, 1), (7, 7), (7, 3), (30, 5)])
def test_the_fused_score_is_the_weighted_sum_of_both_models(num_labels, width):
    random = np.random.default_rng(num_labels)
    network = random.normal(size=(6, num_labels)).astype(np.float32)
    ranked, weights = random_lists(random, 6, num_labels, width), random_fusion(random, num_labels)
    assert (ranked.label_ids < 0).any()
    linear = reference.dense_lists(*ranked, num_labels, FLOOR)
    expected = reference.fused(network.astype(np.float64), linear, *(x.astype(np.float64) for x in weights))
    for compute in (Fusion.__call__, jax.jit(Fusion.__call__)):
        scores = compute(jax.tree.map(jax.numpy.asarray, weights), network, ranked)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


def test_the_scores_of_cells_are_the_fused_scores_of_their_documents_and_labels():
    random = np.random.default_rng(0)
    network = random.normal(size=(5, 12)).astype(np.float32)
    ranked, weights = random_lists(random, 5, 12, 4), random_fusion(random, 12)
    chosen = fusion.chosen_cells(np.arange(5), network, ranked, [np.array([0, 3])] * 5, random)
    every = np.asarray(jax.tree.map(jax.numpy.asarray, weights)(network, ranked))
    np.testing.assert_allclose(
        fusion.score(weights, chosen), every[chosen.documents, chosen.label_ids], rtol=1e-5, atol=1e-5
    )


# --- cells


def test_of_few_labels_all_are_cells_each_once():
    random = np.random.default_rng(1)
    network, ranked = random.normal(size=(4, 9)).astype(np.float32), random_lists(random, 4, 9, 5)
    # Labels from 9 on are those that training never saw.
    truth = [np.array([0, 8]), np.array([], int), np.array([2, 11]), np.array([9])]
    chosen = fusion.chosen_cells(np.array([7, 3, 5, 1]), network, ranked, truth, random)
    linear = reference.dense_lists(*ranked, 9, FLOOR)
    for row, document in enumerate([7, 3, 5, 1]):
        inside = chosen.documents == document
        label_ids = chosen.label_ids[inside]
        assert sorted(label_ids) == list(range(9))
        np.testing.assert_array_equal(chosen.network[inside], network[row, label_ids])
        np.testing.assert_array_equal(chosen.linear[inside], linear[row, label_ids])
        np.testing.assert_array_equal(chosen.true[inside], np.isin(label_ids, truth[row]))
    assert set(chosen.weights) == {1.0}


def test_the_excluded_labels_of_a_document_are_no_cells():
    random = np.random.default_rng(2)
    network, ranked = random.normal(size=(3, 9)).astype(np.float32), random_lists(random, 3, 9, 5)
    network[1, ranked.label_ids[1, 0]] = network[2, [0, 8]] = -np.inf
    chosen = fusion.chosen_cells(np.arange(3), network, ranked, [np.array([4])] * 3, random)
    assert np.isfinite(chosen.network).all()
    for row in range(3):
        inside = chosen.documents == row
        assert sorted(chosen.label_ids[inside]) == np.flatnonzero(np.isfinite(network[row])).tolist()
    assert np.isfinite(fusion.fit(chosen, np.full(9, 40), "tree")).all()


@pytest.fixture(scope="module")
def many_labels():
    """Two documents and 700 labels, of which the linear model lists 200."""
    random = np.random.default_rng(3)
    network = random.normal(size=(2, 700)).astype(np.float32)
    label_ids = np.stack([random.permutation(700)[:200] for _ in range(2)]).astype(np.int32)
    ranked = Ranked(label_ids, np.sort(random.normal(size=(2, 200)).astype(np.float32))[:, ::-1])
    truth = [np.array([int(network[0].argmin()), 5]), np.array([], int)]

    def choose(seed):
        return fusion.chosen_cells(np.arange(2), network, ranked, truth, np.random.default_rng(seed))

    return network, ranked, truth, choose


def test_what_a_document_has_or_a_model_ranks_high_stands_for_itself(many_labels):
    network, ranked, truth, choose = many_labels
    chosen = choose(0)
    for row in range(2):
        certain = set(chosen.label_ids[(chosen.documents == row) & (chosen.weights == 1)].tolist())
        best = np.argsort(-network[row])[:128]
        assert certain == {*best.tolist(), *ranked.label_ids[row, :128].tolist(), *truth[row].tolist()}
        drawn = (chosen.documents == row) & (chosen.weights != 1)
        assert drawn.sum() == 64
        assert not certain & set(chosen.label_ids[drawn].tolist())


def test_sums_over_cells_are_unbiased_estimates_of_sums_over_all_labels(many_labels):
    network, ranked, _, choose = many_labels
    linear = reference.dense_lists(*ranked, 700, FLOOR)
    expected = [700, network[0].astype(np.float64).sum(), np.exp(0.1 * linear[0]).sum()]
    sums = []
    for seed in range(300):
        chosen = choose(seed)
        of = Cells(*(values[chosen.documents == 0] for values in chosen))
        sums.append([of.weights.sum(), of.weights @ of.network, of.weights @ np.exp(0.1 * of.linear)])
    mean, error = np.mean(sums, axis=0), np.std(sums, axis=0) / np.sqrt(len(sums))
    np.testing.assert_allclose(np.array(sums)[:, 0], 700)
    assert np.all(np.abs(mean - expected)[1:] < 4 * error[1:])
    assert np.all(error[1:] < 0.01 * np.abs(network[0]).sum())


# --- the fit


def simulated(random, num_documents, counts, a, c, d):
    """Cells of all labels of documents whose labels are drawn with the probabilities of the fused score."""
    num_labels = len(counts)
    network, linear = 2 * random.normal(size=(2, num_documents, num_labels))
    true = random.random(network.shape) < 1 / (1 + np.exp(-(a * network + c * linear + d)))
    documents, label_ids = np.indices(network.shape)
    parts = (documents, label_ids, network, linear, true.astype(np.float64))
    cells = Cells(*(part.ravel() for part in parts), weights=np.ones(network.size))
    return cells._replace(weights=np.where(label_ids.ravel() == 0, 2.5, 1.0))


def pairs(of, counts):
    return reference.Pairs(fusion.bins(counts)[of.label_ids], of.network, of.linear, of.true, of.weights)


SHRINKAGE = reference.Shrinkage(fusion._TO_COMMON, fusion._TO_USUAL, fusion.USUAL["tree"])

COUNTS = np.array([500, 40, 5, 1])
"""Training counts of labels in the bins 5, 4, 1 and 0: no label is in the bins 2 and 3."""


@pytest.mark.parametrize(("a", "c"), [(0.6, 0.5), (0.8, -0.7), (-0.7, 0.5)])
def test_the_fit_is_the_minimum_of_the_objective(a, c):
    of = simulated(np.random.default_rng(5), 30, COUNTS, a, c, -1)
    fitted = np.stack(fusion.fit(of, COUNTS, "tree"), axis=1).astype(np.float64)
    expected = reference.fit(pairs(of, COUNTS), 6, SHRINKAGE)
    np.testing.assert_allclose(fitted, expected[fusion.bins(COUNTS)], atol=1e-3)
    assert np.all(fitted[:, :2] >= 0)
    if a < 0 or c < 0:
        assert np.any(fitted[:, :2] == 0)


def test_without_the_network_the_fit_is_the_minimum_with_the_linear_model_alone():
    of = simulated(np.random.default_rng(6), 30, COUNTS, 0.6, 0.5, -1)
    fitted = fusion.fit_linear(of, COUNTS, "tree")
    assert not np.any(fitted.network)
    expected = reference.fit(pairs(of._replace(network=0 * of.network), np.zeros(4)), 1, SHRINKAGE)
    # Equal weights keep the linear model's order.
    np.testing.assert_allclose(np.stack(fitted[1:], axis=1), np.tile(expected[0, 1:], (4, 1)), atol=1e-3)


def test_the_weights_behind_the_labels_of_many_documents_are_recovered():
    counts = np.array([2000, 50, 4])
    of = simulated(np.random.default_rng(7), 4000, counts, 0.6, 0.4, -1)
    fitted = np.stack(fusion.fit(of, counts, "tree"), axis=1)
    np.testing.assert_allclose(fitted, np.tile([0.6, 0.4, -1], (3, 1)), atol=0.12)


def test_a_bin_without_documents_gets_the_common_weights():
    counts = np.array([2000, 50, 1])
    of = simulated(np.random.default_rng(8), 200, counts, 0.6, 0.4, -1)
    of = Cells(*(values[of.label_ids < 2] for values in of))
    fitted = np.stack(fusion.fit(of, counts, "tree"), axis=1)
    # The bins 4 and 6 have documents; the common weights are the mean of theirs and the usual ones, so weighed.
    to_common, to_usual, usual = SHRINKAGE
    mean = (to_common * (fitted[0] + fitted[1]) + to_usual * np.array(usual)) / (2 * to_common + to_usual)
    np.testing.assert_allclose(fitted[2], mean, atol=1e-3)
    assert np.abs(fitted[0] - fitted[1]).max() > 0.01


def test_a_bin_with_few_documents_stays_near_the_common_weights():
    counts, random = np.array([2000, 1]), np.random.default_rng(9)
    common = simulated(random, 2000, counts, 0.6, 0.4, -1)
    other = simulated(random, 2000, counts, 0.6, 0.4, -5)
    distances = []
    for few in (5, 2000):
        frequent, rare = common.label_ids == 0, (other.label_ids == 1) & (other.documents < few)
        of = fusion.concatenate([Cells(*(x[frequent] for x in common)), Cells(*(x[rare] for x in other))])
        fitted = fusion.fit(of, counts, "tree")
        distances.append(abs(fitted.offset[1] - fitted.offset[0]))
    assert distances[0] < 0.5
    assert distances[1] > 4 * distances[0]


def test_labels_of_a_bin_have_the_same_weights():
    counts = np.array([999, 300, 299, 2, 0])
    fitted = fusion.fit(simulated(np.random.default_rng(10), 50, counts, 0.6, 0.4, -1), counts, "tree")
    for weights in fitted:
        assert weights.dtype == np.float32
        assert weights[0] == weights[1] != weights[2]
        assert weights[3] == weights[4]


def test_one_label_that_every_document_has_is_fitted():
    of = simulated(np.random.default_rng(11), 40, np.array([40]), 0.6, 0.4, -1)._replace(true=np.ones(40))
    fitted = fusion.fit(of, np.array([40]), "tree")
    assert np.isfinite(fitted).all()
    assert fusion.score(fitted, of).min() > 0


def test_without_documents_the_weights_are_the_usual_ones():
    fitted = fusion.fit(fusion.concatenate([]), COUNTS, "svm")
    np.testing.assert_allclose(np.stack(fitted, axis=1), np.tile(fusion.USUAL["svm"], (4, 1)), rtol=1e-6)


# --- calibration


def test_calibration_keeps_the_order_and_brings_the_probabilities_of_the_best_labels_near_to_how_often_they_are_right():
    random = np.random.default_rng(12)
    counts = np.full(20, 40)
    of = simulated(random, 400, counts, 0.6, 0.4, -1)
    steep = fusion.Fusion(*(3 * weights for weights in fusion.fit(of, counts, "tree")))
    calibrated = fusion.calibrated(steep, of, 400)
    top = fusion.best(fusion.score(steep, of), of, 400, 5)
    np.testing.assert_array_equal(fusion.best(fusion.score(calibrated, of), of, 400, 5), top)
    is_best = (top[of.documents] == of.label_ids[:, None]).any(axis=1)
    before, after = (
        abs(np.mean(of.true[is_best] - 1 / (1 + np.exp(-fusion.score(weights, of)[is_best]))))
        for weights in (steep, calibrated)
    )
    assert after < 0.01 < before


# --- candidates


def test_candidates_and_listed_labels_are_fused_each_once():
    random = np.random.default_rng(13)
    weights = fusion.Fusion(*random.random((3, 6)).astype(np.float32))
    listed = np.array([[1, 4, 2], [0, -1, -1], [-1, -1, -1]], np.int32)
    values = np.where(listed < 0, FLOOR, random.normal(size=listed.shape)).astype(np.float32)
    label_ids = np.array([[4, 5], [3, -1], [2, 0]], np.int32)
    logits = random.normal(size=label_ids.shape).astype(np.float32)
    ids, fused = map(
        np.asarray, weights.of_candidates(jnp.asarray(label_ids), jnp.asarray(logits), Ranked(listed, values))
    )
    dense = reference.dense_lists(listed, values, 6, FLOOR)
    network = reference.dense_lists(label_ids, logits, 6, FLOOR)
    expected = reference.fused(network, dense, *weights)
    assert [sorted(row[row >= 0].tolist()) for row in ids] == [[1, 2, 4, 5], [0, 3], [0, 2]]
    for row in range(3):
        kept = ids[row] >= 0
        np.testing.assert_allclose(fused[row, kept], expected[row, ids[row, kept]], rtol=1e-5)


def test_cells_of_candidates_have_both_logits():
    ranked = Ranked(np.array([[1, 3], [0, -1]], np.int32), np.array([[0.5, -1], [2, FLOOR]], np.float32))
    label_ids, logits = np.array([[3, 2], [0, -1]], np.int32), np.array([[4, 5], [6, -np.inf]], np.float32)
    of = fusion.candidate_cells(np.array([7, 9]), label_ids, logits, ranked, [np.array([2]), np.array([0, 5])])
    assert of.documents.tolist() == [7, 7, 9]
    assert of.label_ids.tolist() == [3, 2, 0]
    assert of.network.tolist() == [4, 5, 6]
    assert of.linear.tolist() == [-1, FLOOR, 2]
    assert of.true.tolist() == [0, 1, 1]
    assert of.weights.tolist() == [1, 1, 1]


# --- ranking


def test_the_cells_of_each_document_are_ranked():
    of = Cells(np.array([2, 0, 2, 0, 2]), np.array([4, 1, 3, 0, 9]), *np.zeros((3, 5)), weights=np.ones(5))
    top = fusion.best(np.array([0.1, 0.2, 0.7, 0.9, 0.3]), of, 4, 2)
    assert top.tolist() == [[0, 1], [-1, -1], [3, 9], [-1, -1]]
    assert fusion.best(np.zeros(5), of, 4, 5)[0].tolist()[2:] == [-1, -1, -1]
