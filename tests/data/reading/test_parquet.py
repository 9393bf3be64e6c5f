import gzip
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lsfa_jax.data.reading import compression
from lsfa_jax.data.reading.documents import Document, ReadReport, read_documents
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.data.reading.splits import Files, find_splits
from lsfa_jax.util.console import UserError
from tests.data.reading.files import read


def parquet(path, **columns):
    path.parent.mkdir(exist_ok=True, parents=True)
    pq.write_table(pa.table(columns), path)
    return path


TEXTS = ["one", "two\twords\n", "日本"]
LABELS = [["a b", 'q"'], [], ["наука"]]
WANTED = [(text, tuple(labels)) for text, labels in zip(TEXTS, LABELS, strict=True)]


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary", "list", "large_list"])
def test_parquet_columns_of_every_kind_of_string(tmp_path, kind, capsys):
    texts, labels = pa.array(TEXTS), pa.array(LABELS)
    if kind == "large_string":
        texts = texts.cast(pa.large_string())
    elif kind == "dictionary":
        texts = texts.dictionary_encode()
    elif kind == "list":
        texts = pa.array([[text] for text in TEXTS])
    elif kind == "large_list":
        labels = labels.cast(pa.large_list(pa.large_string()))
    path = parquet(tmp_path / "x", id=[1, 2, 3], text=texts, labels=labels, other=[0.5, 1, 2])
    documents, report = read(path)
    assert [(row.text, row.labels) for row in documents] == WANTED
    assert [row.id for row in documents] == ["1", "2", "3"]
    edge = "label with a bracket or quote at its edge"
    assert report.first == {"no labels": f"{path}:2", edge: f"{path}:1"}
    assert f"{path}: read as parquet, text from 'text', labels from 'labels', ids from 'id'" in capsys.readouterr().out


def test_parquet_labels_in_one_string(tmp_path):
    path = parquet(tmp_path / "x", text=["one", "two"], labels=["a b;c", "d"])
    assert [row.labels for row in read(path)[0]] == [("a b", "c"), ("d",)]
    assert [row.labels for row in read(path, label_separator=" ")[0]] == [("a", "b;c"), ("d",)]
    with pytest.raises(UserError, match="not clear what separates labels"):
        read(parquet(tmp_path / "x", text=["one"], labels=["a;b|c"]))


def test_parquet_in_many_row_groups_and_files(tmp_path):
    table = pa.table({"text": [f"t{i}" for i in range(1000)], "labels": [[f"l{i % 7}"] for i in range(1000)]})
    for shard in range(3):
        pq.write_table(table, tmp_path / f"train-0000{shard}-of-00003.parquet", row_group_size=130)
    source = find_splits(tmp_path)["train"]
    assert isinstance(source, Files)
    documents, report = read(source)
    assert [row.text for row in documents] == table["text"].to_pylist() * 3
    assert report.kept == 3000
    (tmp_path / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(UserError, match=r"expected one file train-00001-of-00003.parquet .*missing"):
        find_splits(tmp_path)


def test_parquet_rows_with_missing_values(tmp_path):
    path = parquet(tmp_path / "x", text=["one", None, "three", "four"], labels=[["a"], ["b"], None, [None]])
    documents, report = read(path)
    assert documents == [Document("one", ("a",)), Document("", ("b",)), Document("three", ()), Document("four", ())]
    assert report.notes == {"empty text": 1, "no labels": 2, "missing label left out": 1}


def test_parquet_text_that_is_no_utf8_is_a_bad_row(tmp_path):
    offsets, content = b"\0\0\0\0\3\0\0\0\7\0\0\0\x0c\0\0\0", b"onecaf\xe9three"
    texts = pa.StringArray.from_buffers(3, pa.py_buffer(offsets), pa.py_buffer(content))
    documents, report = read(parquet(tmp_path / "x", text=texts, labels=[["a"]] * 3), bad_rows="skip")
    assert [row.text for row in documents] == ["one", "three"]
    assert report.first == {"invalid UTF-8": f"{tmp_path / 'x'}:2"}


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"a": ["x"], "b": [["y"]]}, {}, "not clear which column holds the text. .*'a', such as 'x'; 'b', such as 'y'"),
        ({"a": [b"x"], "b": [b"y"]}, {}, r"no column can hold texts; there are 'a' \(binary\), 'b' .*. Write texts"),
        ({"text": ["x"]}, {}, "no column looks like labels"),
        ({"text": [1], "labels": [["y"]]}, {}, "'text' holds int64, expected strings. .*; there are 'text', 'labels'"),
        ({"text": ["x"], "labels": [0.5]}, {}, "a label in 'labels' is not a string: .* got 0.5"),
        ({"text": ["x"], "labels": [[["y"]]]}, {}, r"a label in 'labels' is not a string: .* got \['y'\]"),
        ({"a": ["x"], "b": [["y"]]}, {"text_field": "c"}, r"no column 'c' \(--data.text-field\)"),
    ],
)  # fmt: skip
def test_parquet_with_other_columns(tmp_path, columns, options, message):
    with pytest.raises(UserError, match=message):
        read(parquet(tmp_path / "x", **columns), **options)


def test_parquet_without_labels_is_fine_where_none_are_read(tmp_path):
    assert read(parquet(tmp_path / "x", text=["one"], labels=[1]), labelled=False)[0] == [Document("one", ())]
    assert read(parquet(tmp_path / "x", text=["one"], labels=[[]]))[0] == [Document("one", ())]


def test_parquet_that_is_damaged_compressed_or_in_a_pipe(tmp_path):
    path = parquet(tmp_path / "x", text=TEXTS * 500, labels=LABELS * 500)
    content = path.read_bytes()
    for end in (4, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(UserError, match="x: is no Parquet file that can be read"):
            read(path)
    altered = bytearray(content)
    altered[30:60] = b"\xff" * 30
    path.write_bytes(altered)
    with pytest.raises(UserError, match="x: is no Parquet file that can be read"):
        read(path)
    path.write_bytes(gzip.compress(content, mtime=0))
    with pytest.raises(UserError, match="a Parquet file that is compressed again"):
        read(path)
    with pytest.raises(UserError, match="standard input: a Parquet file that cannot be read from a pipe"):
        read(io.BytesIO(content))
    path.write_bytes(b"text,labels\na,b\n")
    with pytest.raises(UserError, match="x: is no Parquet file"):
        read(path, format="parquet")


def test_parquet_that_repeats_one_text_is_a_bomb(tmp_path, monkeypatch):
    path = parquet(tmp_path / "x", text=["word " * 2_000] * 1000, labels=[["a"]] * 1000)
    assert path.stat().st_size < 10_000
    assert len(read(path)[0]) == 1000
    monkeypatch.setattr(compression, "_BOMB_SIZE", 2**20)
    report = ReadReport()
    with pytest.raises(UserError, match="x: unpacks to more than 1 MiB and 200 times its compressed size"):
        list(read_documents(path, options=ReadOptions(), report=report))
    assert 0 < report.kept < 1000
