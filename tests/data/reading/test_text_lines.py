import io

import pytest

from lsfa_jax.data.reading.documents import Document, ReadReport, read_documents
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.util.console import UserError

EDGE = "label with a bracket or quote at its edge"


def read(content, **options):
    report = ReadReport()
    source = io.BytesIO(content.encode() if isinstance(content, str) else content)
    return list(read_documents(source, options=ReadOptions(**options), report=report)), report


def test_libmultilabel():
    documents, report = read('7\tcs.AI "q" наука\tone\ttwo\n7\t\tthree "\n\n8\ta\t', format="libmultilabel")
    assert documents == [
        Document("one\ttwo", ("cs.AI", '"q"', "наука"), "7"),
        Document('three "', (), "7"),
        Document("", ("a",), "8"),
    ]
    assert report.notes == {
        "tab within a text": 1,
        "duplicate id": 1,
        "no labels": 1,
        "blank line": 1,
        "empty text": 1,
        EDGE: 1,
    }
    assert [row.id for row in read("a b\tone\nc\ttwo\tthree\n", format="libmultilabel")[0]] == ["", ""]
    with pytest.raises(UserError, match="standard input:3: too few columns: expected 2 as in the first rows"):
        read("a\tone\nb\ttwo\nthree\n", format="libmultilabel")


def test_plain_text_keeps_a_document_for_every_line():
    documents, report = read("one\n\n\tthree\r\n", format="txt", labelled=False)
    assert [row.text for row in documents] == ["one", "", "\tthree"]
    assert (report.read, report.kept, report.notes) == (3, 3, {"empty text": 1})


def test_fasttext_labels_are_no_words_of_the_text():
    lines = "__label__a b __label__c\n__label__a,  , one\ntwo\n\n__label__ three\n"
    documents, report = read(lines)
    assert documents == [
        Document("b", ("a", "c")),
        Document(" , one", ("a",)),
        Document("two", ()),
        Document("three", ()),
    ]
    assert report.notes == {"blank line": 1, "no labels": 2, "empty label left out": 1}
    assert [document.text for document in read(lines, labelled=False)[0]] == ["b", " , one", "two", "three"]
    assert read("__class__a one\n__class__b two")[0] == [Document("one", ("a",)), Document("two", ("b",))]
