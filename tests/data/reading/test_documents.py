import gzip
import json
import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.data.reading import compression
from lsfa_jax.data.reading.documents import Document, ReadReport, read_documents
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.util.console import UserError

# Labels that are in the form that all are brought into.
label_names = st.text("aZ7é東😀 ,;\"'_-", min_size=1).filter(lambda label: label == label.strip())
ROW = b'{"labels": ["a", "b"], "text": "some words"}\n'


def read(tmp_path, content, **settings):
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    report = ReadReport()
    return list(read_documents(path, options=ReadOptions(**settings), report=report)), report


# Every kind of line, with the reason or note it must be counted under (None: an ordinary document).
SKIPPED = {
    b'{"labels": ["a"], "text": "cut o': "not JSON",
    b"[" * 100_000: "not JSON",
    b'["a", "text"]': "not an object",
    b'{"labels": ["a"]}': "no field 'text'",
    b'{"text": "x"}': "no field 'labels'",
    b'{"labels": ["a"], "text": ["x", 3]}': "'text' is not text",
    b'{"labels": [7.5], "text": "x"}': "a label in 'labels' is not a string",
    b'{"labels": [true], "text": "x"}': "a label in 'labels' is not a string",
    b'{"labels": ["[\'a\', \'b\']"], "text": "x"}': "a label is a list in a string",
    b'{"labels": ["a", " "], "text": "x"}': "a label in 'labels' is empty",
    b'{"labels": ["a"], "text": "caf\xe9"}': "invalid UTF-8",
    b'{"labels": ["a"], "text": "cut \\ud83d"}': "invalid Unicode",
}
KEPT = {
    b'{"labels": ["a"], "text": "x", "id": 3}': None,
    b'{"labels": ["a", "b", "a"], "text": "x"}': "duplicate labels",
    b'{"labels": [], "text": "x"}': "no labels",
    b'{"labels": ["a"], "text": " \\n"}': "empty text",
    b'{"labels": ["a"], "text": []}': "empty text",
    b'{"labels": [7, 8.0], "text": "x"}': None,
    b'{"labels": 7, "text": "x"}': None,
    b'{"labels": "a", "text": "x"}': None,
    b'{"labels": ["a"], "text": null}': "empty text",
    b'{"labels": [{"id": 18, "name": "Drama"}], "text": "x"}': None,
    b'{"labels": {"a": true, "b": 0.0, "c": null}, "text": "x"}': None,
    b'{"labels": ["a", null], "text": "x"}': "missing label left out",
    b'{"labels": ["a", "\xc2\xad"], "text": "x"}': "empty label left out",
    b'{"labels": ["Physics (general)"], "text": "x"}': "label with a bracket or quote at its edge",
}


def test_reads_text_and_tokens_and_ignores_other_fields(tmp_path):
    content = (
        b'{"doc_label": ["b", "a", "b"], "doc_token": ["Two", "words"], "x": 1}\n{"doc_label": [], "doc_token": ""}'
    )
    documents, report = read(tmp_path, content, text_field="doc_token", labels_field="doc_label")
    assert documents == [Document("Two words", ("b", "a")), Document("", ())]
    assert report.notes == {"duplicate labels": 1, "no labels": 1, "empty text": 1}


def test_byte_order_mark_crlf_and_blank_lines(tmp_path):
    documents, report = read(tmp_path, b"\xef\xbb\xbf" + ROW.replace(b"\n", b"\r\n") + b"\r\n" + ROW.strip())
    assert documents == [Document("some words", ("a", "b"))] * 2
    assert (report.read, report.kept, report.notes) == (2, 2, {"blank line": 1})
    assert report.first["blank line"] == f"{tmp_path / 'train.jsonl'}:2"


@pytest.mark.parametrize(("line", "reason"), SKIPPED.items(), ids=SKIPPED.values())
def test_bad_row_stops_with_its_place_or_is_counted(tmp_path, line, reason):
    place = f"{tmp_path / 'train.jsonl'}:2"
    with pytest.raises(UserError) as stopped:
        read(tmp_path, ROW + line + b"\n" + ROW)
    message = str(stopped.value)
    assert message.startswith(f"{place}: {reason}: expected ")
    assert "--data.bad-rows skip" in message
    assert len(message) < 500

    documents, report = read(tmp_path, ROW + line + b"\n" + ROW, bad_rows="skip")
    assert len(documents) == 2
    assert (report.read, report.kept, report.skipped) == (3, 2, {reason: 1})
    assert report.first[reason] == place
    assert f"3 rows read, 2 kept; skipped: 1 {reason} (first {place})" in report.summary()


def test_numbers_and_scores_are_labels(tmp_path):
    lines = b'{"labels": [7, 8.0], "text": "x"}\n{"labels": {"a": true, "b": 0, "c": 0.3}, "text": "y"}\n'
    assert [document.labels for document in read(tmp_path, lines)[0]] == [("7", "8"), ("a", "c")]


def test_labels_that_look_the_same_are_one(tmp_path):
    lines = '{"labels": ["jard\\u00edn", " jardi\\u0301n", "jar\\u00addín\\ufeff"], "text": "x"}\n'.encode()
    documents, report = read(tmp_path, lines)
    assert documents == [Document("x", ("jard\u00edn",))]
    assert report.notes == {"duplicate labels": 1}


def test_report_names_the_first_of_several(tmp_path):
    _, report = read(tmp_path, ROW + b"1\n" + b"x\n" + b"2\n" + b"\n" * 2, bad_rows="skip")
    path = tmp_path / "train.jsonl"
    assert report.skipped == {"not an object": 2, "not JSON": 1}
    assert report.first == {"not an object": f"{path}:2", "not JSON": f"{path}:3", "blank line": f"{path}:5"}


@settings(deadline=None)
@given(st.lists(st.sampled_from([*SKIPPED, *KEPT, b"", b"  "]), max_size=30))
def test_every_line_is_accounted_for(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("rows") / "x.jsonl"
    path.write_bytes(b"\n".join([*lines, ROW]))
    report = ReadReport()
    documents = list(read_documents(path, options=ReadOptions(format="jsonl", bad_rows="skip"), report=report))
    assert report.read == report.kept + report.skipped.total() == sum(bool(line.strip()) for line in lines) + 1
    assert report.kept == len(documents) == sum(line in KEPT for line in lines) + 1
    assert report.notes["blank line"] == sum(not line.strip() for line in lines)
    for table, counts in ((SKIPPED, report.skipped), (KEPT, report.notes)):
        for reason in set(table.values()) - {None}:
            assert counts[reason] == sum(table.get(line) == reason for line in lines)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(), st.lists(label_names, unique=True)), min_size=1))
def test_what_json_wrote_comes_back(tmp_path_factory, rows):
    rows = [(text.encode(errors="replace").decode(), labels) for text, labels in rows]
    path = tmp_path_factory.mktemp("rows") / "x.jsonl"
    lines = [json.dumps({"text": text, "labels": labels}, ensure_ascii=len(text) % 2 == 0) for text, labels in rows]
    path.write_bytes("\n".join(lines).encode())
    assert list(read_documents(path, options=ReadOptions(), report=ReadReport())) == [
        Document(text.replace("\0", " "), tuple(labels)) for text, labels in rows
    ]


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress], ids=["gz", "xz"])
def test_compression_is_recognised_by_content(tmp_path, compress):
    content = ROW + b'{"labels": [], "text": ""}\n'
    assert read(tmp_path, compress(content)) == read(tmp_path, content)


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress], ids=["gz", "xz"])
@pytest.mark.parametrize("damage", ["cut off", "altered"])
def test_damaged_compressed_file_names_the_line_reached(tmp_path, compress, damage):
    rows = [json.dumps({"labels": ["a"], "text": str(number**5)}) for number in range(8_000)]
    data = bytearray(compress("\n".join(rows).encode()))
    if damage == "cut off":
        del data[len(data) * 3 // 4 :]
    else:
        data[-6] ^= 0xFF  # in the checksum at the end of a gzip file, in the footer of an xz file
    (tmp_path / "x.jsonl").write_bytes(data)
    report = ReadReport()
    with pytest.raises(UserError, match="damaged or cut off") as error:
        list(read_documents(tmp_path / "x.jsonl", options=ReadOptions(bad_rows="skip"), report=report))
    assert str(error.value).startswith(f"{tmp_path / 'x.jsonl'}:{report.read + 1}: ")
    assert report.read > 1000


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
def test_empty_file_is_an_error(tmp_path, content, capsys):
    with pytest.raises(UserError, match=r"train\.jsonl: holds no documents: there are no rows"):
        read(tmp_path, content)
    assert "read as" not in capsys.readouterr().out


def test_nothing_but_bad_rows_is_an_error_even_in_a_second_file(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(ROW)
    (tmp_path / "b.jsonl").write_bytes(b"1\n2\n")
    report = ReadReport()
    list(read_documents(tmp_path / "a.jsonl", options=ReadOptions(bad_rows="skip"), report=report))
    with pytest.raises(UserError, match=r"b\.jsonl: holds no documents: all 2 rows were skipped"):
        list(read_documents(tmp_path / "b.jsonl", options=ReadOptions(format="jsonl", bad_rows="skip"), report=report))


def test_line_length_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(compression, "MAX_LINE", len(ROW))
    assert len(read(tmp_path, ROW * 3)[0]) == 3
    with pytest.raises(UserError, match=r"train\.jsonl:2: the line is longer than"):
        read(tmp_path, ROW + b" " + ROW, bad_rows="skip")


@pytest.mark.parametrize(
    ("name", "message"), [("missing.jsonl", "cannot be opened"), (".", "neither JSON documents nor texts")]
)
def test_file_that_cannot_be_opened(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        list(read_documents(tmp_path / name, options=ReadOptions(), report=ReadReport()))
