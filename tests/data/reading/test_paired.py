import gzip

import pytest

from lsfa_jax.data.reading import paired
from lsfa_jax.data.reading.detect import ReadOptions
from lsfa_jax.data.reading.documents import Document, Files, ReadReport, find_splits, read_documents
from lsfa_jax.util.console import UserError


def read(source, **options):
    report = ReadReport()
    return list(read_documents(source, options=ReadOptions(**options), report=report)), report


def write(folder, **files):
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


# --- texts and labels line by line


@pytest.mark.parametrize(
    "names",
    [
        ("train_texts.txt", "train_labels.txt"),
        ("text_train", "label_train"),
        ("train_texts.txt.gz", "train_labels.txt"),
        ("text_train", "label_train.gz"),
    ],
)
def test_the_file_of_labels_is_found_beside_the_texts(tmp_path, names, capsys):
    for name, content in zip(names, ('one two\n\n{three, "3"\tx\n', "cs.AI math.CO\r\na\n\n"), strict=True):
        packed = gzip.compress(content.encode(), mtime=0) if name.endswith(".gz") else content.encode()
        (tmp_path / name).write_bytes(packed)
    expected = [Document("one two", ("cs.AI", "math.CO")), Document("", ("a",)), Document('{three, "3"\tx', ())]
    splits = find_splits(tmp_path)
    assert splits == {"train": Files((tmp_path / names[0],), tmp_path / names[1])}
    for source in (splits["train"], tmp_path / names[0], find_splits(tmp_path / names[0])["train"]):
        documents, report = read(source)
        assert documents == expected
        assert report.notes == {"empty text": 1, "no labels": 1}
        assert report.first["empty text"] == f"{tmp_path / names[0]}:2"
    assert (
        f"{tmp_path / names[0]} with {tmp_path / names[1]}: read as pair, labels separated by spaces"
        in capsys.readouterr().out
    )
    if not names[0].endswith(".gz"):
        assert [one.text for one in read(tmp_path / names[0], labelled=False, format="txt")[0]] == [
            one.text for one in expected
        ]


@pytest.mark.parametrize(("texts", "labels"), [("a\nb\nc\n", "x\ny\n"), ("a\n", "x\ny\nz\n\n"), ("a\nb\n", "")])
def test_as_many_labels_as_texts(tmp_path, texts, labels):
    write(tmp_path, text_train=texts, label_train=labels)
    counts = {"text_train": texts.count("\n"), "label_train": labels.count("\n")}
    shorter, longer = sorted(counts, key=counts.get)
    message = (
        f"{tmp_path / shorter} has {counts[shorter]} lines and {tmp_path / longer} {counts[longer]}; expected as many"
    )
    for bad_rows in ("stop", "skip"):
        with pytest.raises(UserError) as error:
            read(tmp_path / "text_train", bad_rows=bad_rows)
        assert str(error.value).startswith(message)


def test_bad_line_is_named_in_its_own_file(tmp_path):
    write(tmp_path, text_train=b"a\nb\nc\n", label_train=b"x\n\xe9\ny\n")
    with pytest.raises(UserError, match=r"label_train:2: invalid UTF-8: .*\(byte 1 of the line is 0xe9"):
        read(tmp_path / "text_train")
    documents, report = read(tmp_path / "text_train", bad_rows="skip")
    assert [one.text for one in documents] == ["a", "c"]
    assert report.first == {"invalid UTF-8": f"{tmp_path / 'label_train'}:2"}


def test_separator_and_splits_of_a_pair(tmp_path):
    for split in ("train", "test", "val"):
        write(tmp_path, **{f"text_{split}": f"{split}\n", f"label_{split}": "a b;c\n"})
    splits = find_splits(tmp_path)
    assert set(splits) == {"train", "test", "validation"}
    assert read(splits["validation"], label_separator=";")[0] == [Document("val", ("a b", "c"))]
    (tmp_path / "label_test").unlink()
    with pytest.raises(UserError, match=r"expected one file label_test \(plain or compressed\), but it is missing"):
        find_splits(tmp_path)


def test_texts_without_labels_are_a_pair_that_lacks_one(tmp_path):
    write(tmp_path, train_texts__txt="one\ntwo\n")
    with pytest.raises(UserError, match=r"cannot be read as pair. Expected texts in a file named like train_texts.txt"):
        read(tmp_path / "train_texts.txt", format="pair")


# --- LYRL2004

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
    assert [one.id for one in read(splits["test"])[0]] == ["0", "1", "2", "3"]
    printed = capsys.readouterr().out
    assert "warning: lyrl2004_tokens_train: 3 documents, the official split has 23,149" in printed
    assert "warning: lyrl2004_tokens_test: 4 documents, the official split has 781,265" in printed
    alone = lyrl / "lyrl2004_tokens_train.dat.gz"
    assert read(alone)[0] == documents
    assert [one.labels for one in read(alone, labelled=False)[0]] == [()] * 3


def test_official_counts_are_no_warning(lyrl, monkeypatch, capsys):
    monkeypatch.setitem(paired._LYRL2004_DOCUMENTS, "lyrl2004_tokens_train", 3)
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
    assert [one.text for one in documents] == ["a"]
    assert report.skipped == {reason: 1}


@pytest.mark.parametrize("line", ["E11 2286", "E11 2286 7", "\udce9 2286 1"])
def test_broken_topics_stop_the_reading(lyrl, line):
    (lyrl / "rcv1-v2.topics.qrels").write_bytes((TOPICS + line).encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"rcv1-v2.topics.qrels:6: .*expected"):
        read(find_splits(lyrl)["train"], bad_rows="skip")


def test_document_without_end_is_refused(lyrl, monkeypatch):
    monkeypatch.setattr(paired, "MAX_LINE", 100)
    (lyrl / "long.dat").write_text(".I 1\n.W\n" + "words and words\n" * 10)
    with pytest.raises(UserError, match=r"long.dat:9: the document is longer than"):
        read(Files((lyrl / "long.dat",), lyrl / "rcv1-v2.topics.qrels"))
