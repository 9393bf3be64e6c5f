import math
from pathlib import Path

import napkinxc.metrics as napkinxc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import ranking
from tests.reference import metrics as reference


def label_sets(truths):
    indices = [label for truth in truths for label in truth]
    offsets = np.cumsum([0, *(len(truth) for truth in truths)])
    return Ragged(np.array(indices, np.int32), offsets.astype(np.int64))


def as_sets(truth):
    return [set(truth.values[start:end].tolist()) for start, end in zip(truth.offsets, truth.offsets[1:], strict=False)]


def ranked(scores, places=5):
    """The top labels of dense scores, -1 where there are fewer labels than places."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :places].astype(np.int32)
    return np.pad(order, ((0, 0), (0, places - order.shape[1])), constant_values=-1)


@st.composite
def problems(draw):
    """Rankings and truth of 0 to 6 documents over 0 to 8 seen and 0 to 3 unseen labels; labels in any order."""
    num_seen, num_unseen = draw(st.integers(0, 8)), draw(st.integers(0, 3))
    truths, tops = [], []
    for _ in range(draw(st.integers(0, 6))):
        labels = draw(st.permutations(range(num_seen + num_unseen)))
        truths.append(labels[: draw(st.integers(0, len(labels)))])
        top = draw(st.permutations(range(num_seen)))[:6]
        tops.append(top + [-1] * (6 - len(top)))
    counts = np.array(draw(st.lists(st.integers(0, 40), min_size=num_seen, max_size=num_seen)), np.int64)
    return np.array(tops, np.int32).reshape(-1, 6), truths, counts, draw(st.integers(0, 100))


@pytest.fixture(scope="module")
def long_tailed():
    """300 documents, some without labels; 60 labels of which the last 6 never occur in training."""
    rng = np.random.default_rng(7)
    num_labels, num_seen = 60, 54
    frequency = 0.8 / np.arange(1, num_labels + 1)
    frequency[num_seen:] = 0.03
    train = rng.random((500, num_labels)) < frequency
    train[:, num_seen:] = False
    test = rng.random((300, num_labels)) < frequency
    test[::17] = False
    test[3, -1] = True
    scores = rng.random((300, num_labels)) + 0.4 * test
    scores[:, num_seen:] = 0
    return train, test, scores


@pytest.mark.parametrize(("a", "b"), [(0.55, 1.5), (0.6, 2.6)])
def test_agrees_with_napkinxc(long_tailed, a, b):
    train, test, scores = long_tailed
    train, truth, predicted = csr_matrix(train.astype(float)), csr_matrix(test.astype(float)), csr_matrix(scores)
    weights = napkinxc.Jain_et_al_inverse_propensity(train, A=a, B=b)
    expected = {
        "P@{}": napkinxc.precision_at_k(truth, predicted, k=5),
        "N@{}": napkinxc.ndcg_at_k(truth, predicted, k=5),
        "R@{}": napkinxc.recall_at_k(truth, predicted, k=5, zero_division=0),
        "PSP@{}": napkinxc.psprecision_at_k(truth, predicted, weights, k=5),
        "macro_P@{}": napkinxc.macro_precision_at_k(truth, predicted, k=5),
    }
    counts = np.asarray(train.sum(axis=0), int).ravel()
    sets = Ragged(truth.indices, truth.indptr.astype(np.int64))
    seen_counts = counts[:54]  # what a model knows of
    places = (1, 2, 3, 4, 5)
    measured = ranking.evaluate(ranked(scores), sets, seen_counts, train.shape[0], places, ranking.Propensity(a, b))

    np.testing.assert_allclose(ranking.inverse_propensity(counts, train.shape[0], a, b), weights, rtol=1e-12)
    assert set(range(7)) <= set(np.diff(sets.offsets).tolist())  # no labels, fewer than k, more than k
    assert (sets.values >= 54).any()
    for name, values in expected.items():
        for k in (5,) if name == "macro_P@{}" else places:
            np.testing.assert_allclose(measured[name.format(k)] / 100, values[k - 1], rtol=1e-6, err_msg=name)
            assert 0.05 < values[k - 1] < 0.95


@given(problems())
def test_agrees_with_plain_loops(problem):
    tops, truths, counts, num_documents = problem
    truth = label_sets(truths)
    measured = ranking.evaluate(tops, truth, counts, num_documents)
    num_labels = max([len(counts), *(label + 1 for labels in truths for label in labels)])
    all_counts = [*counts, *[0] * (num_labels - len(counts))]
    expected = reference.evaluate(tops.tolist(), [set(labels) for labels in truths], all_counts, num_documents)
    assert measured.keys() == expected.keys()
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, rel=1e-9), name
        assert 0 <= measured[name] <= 100 + 1e-9, name


@given(problems(), st.data())
def test_groups_agree_with_plain_loops(problem, data):
    tops, truths, counts, num_documents = problem
    truth = label_sets(truths)
    all_counts = ranking.with_unseen_labels(counts, truth)
    group = np.array([data.draw(st.booleans()) for _ in all_counts], bool)
    labels = set(np.flatnonzero(group).tolist())
    group_tops = np.full_like(tops, -1)
    for row, top in zip(group_tops, tops, strict=True):
        kept = [label for label in top if label in labels]
        row[: len(kept)] = kept
    measured = ranking.evaluate_group(tops, group_tops, truth, group, counts, num_documents)
    expected = reference.evaluate_group(
        tops.tolist(), group_tops.tolist(), [set(t) for t in truths], labels, all_counts.tolist(), num_documents
    )
    assert measured.keys() == expected.keys()
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, rel=1e-9), name


@given(problems(), st.randoms(use_true_random=False))
def test_order_of_documents_changes_nothing(problem, random):
    tops, truths, counts, num_documents = problem
    order = random.sample(range(len(truths)), len(truths))
    before = ranking.evaluate(tops, label_sets(truths), counts, num_documents)
    after = ranking.evaluate(tops[order], label_sets([truths[i] for i in order]), counts, num_documents)
    assert after == pytest.approx(before, rel=1e-12)


@given(problems())
def test_perfect_ranking_scores_100(problem):
    _, truths, counts, num_documents = problem
    truths = [labels for labels in truths if labels] or [[0]]
    truth = label_sets(truths)
    counts = ranking.with_unseen_labels(counts, truth)
    tops = np.full((len(truths), 5), -1, np.int32)
    for row, labels in zip(tops, truths, strict=True):
        best = sorted(labels, key=lambda label: counts[label])[:5]  # the rarest weigh most
        row[: len(best)] = best
    measured = ranking.evaluate(tops, truth, counts, num_documents)
    for name, value in measured.items():
        if name.startswith(("N@", "PSP@")):
            assert value == pytest.approx(100), name


def test_by_hand():
    # Document 0 has labels 0 and 4 and hits at places 1 and 3; document 1 has label 2 and hits at place 2;
    # document 2 has none.
    tops = np.array([[0, 1, 4, 3, 2], [1, 2, 0, 3, 4], [4, 3, 2, 1, 0]], np.int32)
    truth = label_sets([[4, 0], [2], []])
    hit = ranking.hits(tops, truth)
    assert hit.tolist() == [
        [True, False, True, False, False],
        [False, True, False, False, False],
        [False, False, False, False, False],
    ]
    np.testing.assert_allclose(
        ranking.precision_at_k(hit, 5), [100 / 3, 100 * 2 / 6, 100 * 3 / 9, 100 * 3 / 12, 100 * 3 / 15]
    )
    at_2, at_3 = 1 / math.log2(3), 1 / 2
    np.testing.assert_allclose(
        ranking.ndcg_at_k(hit, truth, 3),
        [100 * 1 / 3, 100 * (1 / (1 + at_2) + at_2) / 3, 100 * ((1 + at_3) / (1 + at_2) + at_2) / 3],
    )
    np.testing.assert_allclose(ranking.recall_at_k(hit, truth, 3), [100 * 0.5 / 3, 100 * 1.5 / 3, 100 * 2 / 3])
    # Largest attainable: 4 + 3 at place 1 (labels 4 and 2), 2 more at place 2 (label 0).
    weights = np.array([2.0, 1.0, 3.0, 1.0, 4.0])
    np.testing.assert_allclose(ranking.psp_at_k(hit, tops, truth, weights, 3), [100 * 2 / 7, 100 * 5 / 9, 100 * 9 / 9])
    # In the top 3 label 0 is predicted twice and right once, 1 twice and never, 2 twice and once, 3 once, 4 twice.
    assert ranking.macro_precision_at_k(hit, tops, 6, 3).tolist() == [50, 0, 50, 0, 50, 0]


def test_inverse_propensity_by_hand():
    # ln N - 1 = 1 and (b + 1) ** a = 2 make C = 2; (N_l + 3) ** 0.5 is 2 and 4.
    num_documents = math.e**2
    np.testing.assert_allclose(ranking.inverse_propensity(np.array([1, 13]), num_documents, a=0.5, b=3), [2, 1.5])


@pytest.mark.parametrize("num_documents", [0, 1, 2])
def test_inverse_propensity_of_a_tiny_corpus_is_one(num_documents):
    assert ranking.inverse_propensity(np.array([0, 1, 2]), num_documents).tolist() == [1, 1, 1]


def test_unseen_labels_lower_every_metric_but_hit_nothing():
    tops = np.array([[0, 1, -1, -1, -1]], np.int32)
    counts = np.array([5, 5])
    seen = ranking.evaluate(tops, label_sets([[0, 1]]), counts, 10)
    unseen = ranking.evaluate(tops, label_sets([[0, 1, 2]]), counts, 10)
    assert seen["macro_P@5"] == 100
    assert unseen["macro_P@5"] == pytest.approx(200 / 3)
    for name in ("N@5", "PSP@1", "PSP@5"):
        assert seen[name] == pytest.approx(100)
        assert unseen[name] < 95
    assert unseen["P@5"] == seen["P@5"] == 40
    assert seen["R@5"] == 100
    assert unseen["R@5"] == pytest.approx(200 / 3)


@pytest.mark.parametrize("truths", [[], [[], []]], ids=["no documents", "no labels"])
def test_nothing_to_measure_is_zero(truths):
    tops = np.full((len(truths), 5), -1, np.int32)
    measured = ranking.evaluate(tops, label_sets(truths), np.zeros(0, np.int64), 0)
    assert len(measured) == 16
    assert set(measured.values()) == {0.0}


def test_bins_are_filled_from_the_most_frequent_label_down():
    per_label = np.array([10.0, 20.0, 30.0, 40.0, 50.0])
    counts = np.array([1, 7, 7, 0, 9])
    assert ranking.bin_means(per_label, counts, bin_size=2).tolist() == [35.0, 20.0, 40.0]
    assert ranking.bin_means(per_label, counts).tolist() == [30.0]
    assert ranking.bin_means(np.zeros(0), np.zeros(0, int)).tolist() == []


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 5)), max_size=30), st.integers(1, 12))
def test_bins_agree_with_plain_loops(labels, bin_size):
    per_label = np.array([value for value, _ in labels])
    counts = np.array([count for _, count in labels], np.int64)
    expected = reference.bin_means(per_label, counts, bin_size)
    np.testing.assert_allclose(ranking.bin_means(per_label, counts, bin_size), expected, rtol=1e-9, atol=1e-12)


def test_restricting_and_selecting():
    truth = label_sets([[4, 0], [], [2, 4], [1]])
    restricted = ranking.restrict(truth, np.array([False, False, True, False, True]))
    assert as_sets(restricted) == [{4}, set(), {2, 4}, set()]
    documents = ranking.documents_with_labels(restricted)
    assert documents.tolist() == [True, False, True, False]
    assert as_sets(restricted.take(documents)) == [{4}, {2, 4}]


def test_shapes_that_do_not_match_raise():
    truth = label_sets([[0], [3]])
    tops = np.zeros((2, 3), np.int32)
    hit = ranking.hits(tops, truth)
    with pytest.raises(ValueError, match="top lists 1 documents, truth 2"):
        ranking.hits(tops[:1], truth)
    with pytest.raises(ValueError, match="too few for k = 5"):
        ranking.precision_at_k(hit, 5)
    with pytest.raises(ValueError, match="too few for k = 6"):
        ranking.recall_at_k(hit, truth, 6)
    with pytest.raises(ValueError, match="too few for k = 4"):
        ranking.ndcg_at_k(hit, truth, 4)
    with pytest.raises(ValueError, match="truth names label 3, but only 3 labels"):
        ranking.psp_at_k(hit, tops, truth, np.ones(3), 1)
    with pytest.raises(ValueError, match="truth names label 3, but only 3 labels"):
        ranking.restrict(truth, np.ones(3, bool))
    with pytest.raises(ValueError, match="top names label 7"):
        ranking.macro_precision_at_k(hit, tops + 7, 4, 1)
    with pytest.raises(ValueError, match="group_top lists 1 documents, truth 2"):
        ranking.evaluate_group(tops, tops[:1], truth, np.ones(4, bool), np.ones(4, int), 2)


def test_metrics_that_need_training_counts_are_left_out_without_them():
    values = ranking.evaluate(np.array([[0, 1, -1, -1, -1]]), label_sets([[0]]), np.array([5, 5]), 10)
    assert values.keys() - ranking.without_training_counts(values).keys() == {"PSP@1", "PSP@3", "PSP@5"}


def test_every_metric_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name in ranking.METRICS:
        assert f"- **{name}@k**" in page


def test_recall_of_lists_is_the_share_of_all_true_labels_that_they_have():
    listed = np.array([[4, 1, -1], [2, 0, 3], [-1, -1, -1]], np.int32)
    assert ranking.recall(listed, Ragged.from_rows([[1, 2], [3], []])) == pytest.approx(200 / 3)
    assert ranking.recall(listed, Ragged.from_rows([[], [], []])) == 0
