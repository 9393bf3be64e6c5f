import gzip

import pytest

from lsfa_jax.data.reading.documents import Document
from lsfa_jax.data.reading.splits import Files, find_splits
from lsfa_jax.util.console import UserError
from tests.data.reading.files import read, write


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
        assert [row.text for row in read(tmp_path / names[0], labelled=False, format="txt")[0]] == [
            row.text for row in expected
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
    assert [row.text for row in documents] == ["a", "c"]
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


@pytest.mark.parametrize(
    ("lines", "separator"),
    [
        (["cs.it math.it", "a,b c", ""], " "),
        (["0,5", "3", "1,2,4"], ","),
        (["heating, traffic", "garden"], ","),
        (["heating;traffic", "garden"], ";"),
    ],
)
def test_what_separates_the_labels_of_a_line(tmp_path, lines, separator, capsys):
    texts = "".join(f"text {i}\n" for i in range(len(lines)))
    write(tmp_path, train_texts__txt=texts, train_labels__txt="".join(f"{line}\n" for line in lines))
    documents, _ = read(find_splits(tmp_path)["train"])
    parts = [[part.strip() for part in line.split(separator)] for line in lines]
    assert [list(document.labels) for document in documents] == [[part for part in row if part] for row in parts]
    assert ("labels are separated by spaces, and hold ','" in capsys.readouterr().out) == (separator == " ")
