import numpy as np

from lsfa_jax.data.reading.documents import Document
from lsfa_jax.data.same_text import Rows
from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER, Tokenizer
from lsfa_jax.data.vocabulary import Words
from lsfa_jax.evaluation.document_store import DocumentStore, encode

ROWS = [Document("a b", ("x",), "1"), Document("c\n\ud800", ("y",), "2"), Document("A b!", ("z",), "1")]


def rows():
    return Rows(DEFAULT_TOKENIZER, 9)


def contents(store):
    return store.ids, store.labels, list(store.texts())


def test_rows_of_one_document_are_merged_on_request():
    assert contents(DocumentStore(ROWS)) == (["1", "2", "1"], [("x",), ("y",), ("z",)], ["a b", "c\n\ud800", "A b!"])
    store = DocumentStore(iter(ROWS), rows=rows())
    assert len(store) == 2
    assert contents(store) == (["1", "2"], [("x", "z"), ("y",)], ["a b", "c\n\ud800"])
    assert list(store.texts()) == ["a b", "c\n\ud800"]
    assert store.label_ids({"x": 0, "y": 1, "z": 2}).values.tolist() == [0, 2, 1]
    assert contents(DocumentStore(ROWS, keep_texts=False, rows=rows())) == (["1", "2"], [("x", "z"), ("y",)], [])


def test_where_a_row_has_several_labels_each_is_a_document():
    several = [*ROWS, Document("d", ("x", "y")), Document("d", ("z",))]
    assert contents(DocumentStore(several, rows=rows())) == contents(DocumentStore(several))


def test_texts_are_encoded_by_the_tokenizer():
    words = encode(["C++ c", "", "c++"], Words(["c++"], Tokenizer("spaces"), 2))
    np.testing.assert_array_equal(words.values, [2, 1, 2])
    np.testing.assert_array_equal(words.sizes, [2, 0, 1])
