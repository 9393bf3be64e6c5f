import sys
from contextlib import contextmanager

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import ranking, thresholded
from lsfa_jax.evaluation.groups import best_of_groups
from lsfa_jax.sparse import baselines
from lsfa_jax.util.console import UserError
from tests import training_corpus

NUM_RANKED = 5


def label_sets(documents, label_ids):
    indices = np.array([label_ids[label] for document in documents for label in document.labels], np.int32)
    return Ragged(indices, np.cumsum([0, *(len(document.labels) for document in documents)]))


@pytest.fixture(scope="module")
def problem():
    """Features, labels and groups of the tiny corpus; label 8 is in every training document, 9 in none."""
    splits = training_corpus.documents()
    label_ids = {f"label{number}": number for number in range(10)}
    labels = [label_sets(splits[name], label_ids) for name in ("train", "test")]
    dense = [np.asarray(_dense(own, 10)) for own in labels]
    dense[0][:, 8] = dense[1][0, 9] = True
    train, test = baselines.tf_idf(*([document.text for document in splits[name]] for name in ("train", "test")))
    sets = [Ragged(own.indices, own.indptr.astype(np.int64)) for own in map(csr_matrix, dense)]
    members = np.stack([np.ones(10, bool), np.arange(10) < 3, np.arange(10) >= 3])
    return train, sets[0], test, sets[1], members, dense


def _dense(labels, num_labels):
    rows = np.zeros((len(labels.offsets) - 1, num_labels), bool)
    rows[np.repeat(np.arange(len(rows)), np.diff(labels.offsets)), labels.values] = True
    return rows


def test_features_are_those_of_scikit_learn():
    texts = ["One fish, two fish", "red fish blue fish", "one red a"], ["Fish and one unknown", ""]
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2)
    expected = vectorizer.fit_transform(texts[0]), vectorizer.transform(texts[1])
    assert vectorizer.vocabulary_.keys() == {"one", "fish", "red"}
    for own, other in zip(baselines.tf_idf(iter(texts[0]), iter(texts[1])), expected, strict=True):
        np.testing.assert_allclose(own.toarray(), other.toarray(), rtol=1e-6)


def test_texts_without_a_common_word_are_refused():
    with pytest.raises(UserError, match="no words in the training texts"):
        baselines.tf_idf(["one", "two"], ["one"])


@pytest.mark.parametrize("block", [3, 64])
def test_svm_is_one_versus_rest(problem, block, monkeypatch):
    monkeypatch.setattr(baselines, "_BLOCK", block)
    train, labels, test, truth, members, dense = problem
    scored = baselines.svm(train, labels, test, truth, members, NUM_RANKED)

    machines = OneVsRestClassifier(LinearSVC(C=1.0, random_state=0)).fit(train, dense[0][:, :8].astype(int))
    decided = np.full((test.shape[0], 10), -np.inf)
    decided[:, :8] = machines.decision_function(test)
    decided[:, 8] = 1
    listed = np.argsort(-decided, axis=1, kind="stable")[:, :9].astype(np.int32)
    np.testing.assert_array_equal(scored.top, best_of_groups(listed, members, NUM_RANKED))
    given = csr_matrix(decided > 0)
    expected = thresholded.count(Ragged(given.indices, given.indptr.astype(np.int64)), truth, 10)
    for own, other in zip(scored.outcomes, expected, strict=True):
        np.testing.assert_array_equal(own, other)
    assert scored.outcomes.false_negatives[9] == 1
    assert 9 not in scored.top


def test_tree_finds_the_labels_that_the_words_tell(problem, capfd):
    train, labels, test, truth, members, _ = problem
    scored = baselines.tree(train, labels, test, truth, members, NUM_RANKED)
    assert scored.top.shape == (3, test.shape[0], NUM_RANKED)
    # Label 8, which all training documents have, comes first or second, or the tree has not learned a thing.
    assert (scored.top[0, :, :2] == 8).any(axis=1).mean() > 0.8
    assert set(scored.top[1].ravel().tolist()) <= {-1, 0, 1, 2}
    assert set(scored.top[2].ravel().tolist()) <= {-1, *range(3, 10)}
    hit = ranking.hits(scored.top[1], ranking.restrict(truth, members[1]))
    assert ranking.precision_at_k(hit, 1)[0] > 50
    outcomes = scored.outcomes
    np.testing.assert_array_equal(
        outcomes.true_positives + outcomes.false_negatives, np.bincount(truth.values, minlength=10)
    )
    assert outcomes.true_positives.sum() > 0
    # The library's own lines and bars are not shown beside ours.
    captured = capfd.readouterr()
    assert "omikuji" not in captured.out + captured.err


def test_a_failed_training_says_what_the_library_said(problem, monkeypatch):
    monkeypatch.setattr(baselines, "_TRAINING", "import sys; sys.exit('no room for trees')")
    with pytest.raises(UserError, match="no room for trees"):
        baselines.tree(*problem[:5], NUM_RANKED)


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "omikuji", None)
    monkeypatch.setattr(baselines, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'lsfa_jax\[baseline\]'"):
        baselines.check("tree")
    baselines.check("svm")


def test_the_librarys_bar_becomes_ours(tmp_path, monkeypatch):
    said = []

    @contextmanager
    def progress(title, total, unit):
        yield said.append

    states = ["Examples 5 / 5 [==>] 100.00 % 9/s ", "Labels 3 / 3 [==>] 100.00 % 9/s ", "1 / 4 [>--] 25.00 % 9/s 1s "]
    states += ["3 / 4 [=>-] 75.00 % 9/s 1s ", "3 / 5 [=>-] 60.00 % 9/s 1s ", "5 / 5 [==>] 100.00 % 9/s "]
    # In pieces, as a pipe hands them on.
    piece = "import sys, time\nfor x in sys.argv[3:]: sys.stderr.write(x); sys.stderr.flush(); time.sleep(0.01)"
    text = "".join(state + "\r" for state in states)
    pieces = [text[i : i + 7] for i in range(0, len(text), 7)]
    monkeypatch.setattr(baselines, "progress", progress)
    monkeypatch.setattr(baselines, "_TRAINING", f"import sys; sys.argv += {pieces!r}\n{piece}")
    baselines._train_tree(tmp_path, tmp_path)
    assert np.cumsum([moved for moved in said if moved]).tolist() == [25, 75, 100]
