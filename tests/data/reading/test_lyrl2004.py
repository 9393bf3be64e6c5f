import gzip

import pytest

from lsfa_jax.data.reading import lyrl2004
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.data.reading.splits import Files, find_splits
from lsfa_jax.util.console import UserError
from tests.data.reading.files import read, write

TOKENS = ".I 2286\n.W\nrecov recov\nexcit\n\n.I 2287\n.W\n\n.I 2288\n.W\nlast\n"
TOPICS = "E11 2286 1\nECAT 2286 1\nM11 2288 1\nM12 2288 0\nGCAT 99 1\n"


@pytest.fixture
def lyrl(tmp_path):
    write(tmp_path, **{f"lyrl2004_tokens_test_pt{i}__dat": f".I {i}\n.W\ntest\n" for i in range(4)})
    return write(
        tmp_path,
        lyrl2004_tokens_train__dat__gz=gzip.compress(TOKENS.encode(), mtime=0),
        **{"rcv1-v2__topics__qrels": TOPICS},
    )


def test_token_files_with_their_topics(lyrl, capsys):
    splits = find_splits(lyrl)
    documents, report = read(splits["train"])
    assert documents == [
        Document("recov recov excit", ("E11", "ECAT"), "2286"),
        Document("", (), "2287"),
        Document("last", ("M11",), "2288"),
    ]
    assert report.first == {
        "no labels": f"{lyrl / 'lyrl2004_tokens_train.dat.gz'}:6",
        "empty text": f"{lyrl / 'lyrl2004_tokens_train.dat.gz'}:6",
    }
    assert [row.id for row in read(splits["test"])[0]] == ["0", "1", "2", "3"]
    printed = capsys.readouterr().out
    assert "warning: lyrl2004_tokens_train: 3 documents, the official split has 23,149" in printed
    assert "warning: lyrl2004_tokens_test: 4 documents, the official split has 781,265" in printed
    alone = lyrl / "lyrl2004_tokens_train.dat.gz"
    assert read(alone)[0] == documents
    assert [row.labels for row in read(alone, labelled=False)[0]] == [()] * 3


def test_token_files_in_another_encoding(lyrl):
    write(lyrl, lyrl2004_tokens_train__dat__gz=TOKENS.replace("excit", "été").encode("cp1252"))
    assert read(find_splits(lyrl)["train"], encoding="cp1252")[0][0].text == "recov recov été"


def test_official_counts_are_no_warning(lyrl, monkeypatch, capsys):
    monkeypatch.setitem(lyrl2004.NUM_DOCUMENTS, "lyrl2004_tokens_train", 3)
    read(find_splits(lyrl)["train"])
    assert "warning" not in capsys.readouterr().out


def test_all_parts_and_the_topics_are_needed(lyrl):
    (lyrl / "lyrl2004_tokens_test_pt2.dat").unlink()
    with pytest.raises(UserError, match=r"expected one file lyrl2004_tokens_test_pt2.dat .*missing"):
        find_splits(lyrl)
    (lyrl / "rcv1-v2.topics.qrels").unlink()
    with pytest.raises(UserError, match=r"rcv1-v2.topics.qrels"):
        find_splits(lyrl)
    with pytest.raises(UserError, match=r"expected the file of its labels, rcv1-v2.topics.qrels, once"):
        read(lyrl / "lyrl2004_tokens_train.dat.gz")


@pytest.mark.parametrize(
    ("tokens", "number", "reason"),
    [
        (".I 1\n.W\na\n.I\n.W\nb\n", 4, "no document id"),
        (".I 1\n.W\na\n.I 2\nb\n", 4, "no .W line"),
        (".I 1\n.W\na\n.I 2\n", 4, "no .W line"),
        ("lost words\n.I 1\n.W\na\n", 1, "a line outside a document"),
        (".I 1\n.W\na\n.I 2\n.W\n\udce9\n", 4, "invalid UTF-8"),
    ],
)
def test_broken_tokens(lyrl, tokens, number, reason):
    path = lyrl / "tokens.dat"
    path.write_bytes(tokens.encode("utf-8", "surrogateescape"))
    source = Files((path,), lyrl / "rcv1-v2.topics.qrels")
    with pytest.raises(UserError, match=f"tokens.dat:{number}: {reason}: expected"):
        read(source, format="lyrl2004")
    documents, report = read(source, format="lyrl2004", bad_rows="skip")
    assert [row.text for row in documents] == ["a"]
    assert report.skipped == {reason: 1}


@pytest.mark.parametrize("line", ["E11 2286", "E11 2286 7", "\udce9 2286 1"])
def test_broken_topics_stop_the_reading(lyrl, line):
    (lyrl / "rcv1-v2.topics.qrels").write_bytes((TOPICS + line).encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"rcv1-v2.topics.qrels:6: .*expected"):
        read(find_splits(lyrl)["train"], bad_rows="skip")


def test_document_without_end_is_refused(lyrl, monkeypatch):
    monkeypatch.setattr(lyrl2004, "MAX_LINE", 100)
    (lyrl / "long.dat").write_text(".I 1\n.W\n" + "words and words\n" * 10)
    with pytest.raises(UserError, match=r"long.dat:9: the document is longer than"):
        read(Files((lyrl / "long.dat",), lyrl / "rcv1-v2.topics.qrels"))
