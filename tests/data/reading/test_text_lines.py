import io

import pytest

from lsfa_jax.data.reading.detect import ReadOptions
from lsfa_jax.data.reading.documents import Document, ReadReport, read_documents
from lsfa_jax.util.console import UserError


def read(content, **options):
    report = ReadReport()
    source = io.BytesIO(content.encode() if isinstance(content, str) else content)
    return list(read_documents(source, options=ReadOptions(**options), report=report)), report


def test_libmultilabel():
    documents, report = read('7\tcs.AI "q" наука\tone\ttwo\n7\t\tthree "\n\n8\ta\t')
    assert documents == [
        Document("one\ttwo", ("cs.AI", '"q"', "наука"), "7"),
        Document('three "', (), "7"),
        Document("", ("a",), "8"),
    ]
    assert report.notes == {"tab within a text": 1, "duplicate id": 1, "no labels": 1, "blank line": 1, "empty text": 1}
    assert [row.id for row in read("a b\tone\nc\ttwo\tthree\n")[0]] == ["", ""]
    with pytest.raises(
        UserError, match="standard input:3: too few columns: expected 2 columns between tabs: labels, text"
    ):
        read("a\tone\nb\ttwo\nthree\n", format="libmultilabel")


def test_plain_text_keeps_a_document_for_every_line():
    documents, report = read("one\n\n\tthree\r\n", format="txt", labelled=False)
    assert [row.text for row in documents] == ["one", "", "\tthree"]
    assert (report.read, report.kept, report.notes) == (3, 3, {"empty text": 1})
