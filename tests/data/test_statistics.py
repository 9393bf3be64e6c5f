import pytest

from lsfa_jax.data.build_corpus import build
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.data.statistics import HEADER, PAPER, table_row


def documents(*pairs):
    return [Document(text, tuple(labels.split())) for text, labels in pairs]


def test_row_of_a_corpus_counted_by_hand():
    corpus = build(
        "corpus",
        documents(("a b c d", "x y"), ("a b", "x"), ("a e f g h i", "x z w"), ("a", ""), ("", "x")),
        documents(("a b q", "x only_test"), ("a", "")),
        None,
        max_words=3,
        max_vocabulary=100,
        validation_fraction=0.25,
        seed=0,
    )
    assert len(corpus.validation) == 1
    row = table_row(corpus)
    assert (row.num_train, row.num_test, row.num_labels) == (4, 2, 5)
    assert row.labels_per_document == 6 / 4
    assert row.documents_per_label == 6 / 4  # x y z w; only_test has no training document
    assert row.train_length == 13 / 4
    assert row.test_length == 4 / 2
    assert row.num_words == len(corpus.words) <= 5  # a b c e f, less what only the validation document has


def test_without_test_documents():
    corpus = build(
        "corpus", documents(("a", "x")), [], None, max_words=3, max_vocabulary=9, validation_fraction=0, seed=0
    )
    assert table_row(corpus).test_length == 0


def test_figures_as_people_see_them():
    shown = PAPER["eurlex4k"].shown()
    assert shown == ["11,585", "3,865", "171,120", "3,956", "5.32", "15.59", "1,225.20", "1,248.07"]
    assert len(HEADER) == len(shown)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_rows_agree_with_themselves(name):
    row = PAPER[name]
    pairs = row.num_train * row.labels_per_document
    # RCV1 has 103 labels, 101 of them in training.
    assert row.documents_per_label * row.num_labels == pytest.approx(pairs, rel=0.025)
