"""Broken files of every format: nothing but UserError, every row accounted for, no document lost.

A case is one file read once. The environment variable LSFA_FUZZ multiplies their number (20 for 200,000 and more).
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import warnings
from collections import Counter
from dataclasses import replace
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lsfa_jax.data.reading.detect import detect
from lsfa_jax.data.reading.documents import Document, ReadReport, _Labels, read_documents
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.data.reading.rows import Row
from lsfa_jax.data.reading.splits import Files
from lsfa_jax.data.reading.tables import table_rows
from lsfa_jax.util.console import UserError, quiet

FACTOR = int(os.environ.get("LSFA_FUZZ", "1"))
# Files read in one example: drawing an example costs more than reading one.
BATCH = 25
PACKERS = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress, "zst": zstandard.compress}

PIECES = [
    *(b"\0", b"\t", b'"', b"'", b"\r", b"\n", b"\r\n", b"\n\n", b",", b";", b"|", b"{", b"}", b"[", b"]", b"\\", b" "),
    *(
        b"\xff",
        b"\xe9",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\\ud83d",
        b'""',
        b'",',
        b',"',
        b"\x1f\x8b",
        b"PAR1",
        b".I ",
        b".W",
    ),
    *("é", "日本", "\u2028", "\x85", "😀", "null", "1e999", "NaN"),
]
PIECES = [piece if isinstance(piece, bytes) else piece.encode() for piece in PIECES]
TEXTS = [
    "plain words",
    "",
    "tab\tinside",
    'a "quoted" word',
    "comma, semi; pipe|",
    "naïve 日本語 عربى 😀",
    "line\nend",
    "\\n",
    "0",
]
LABELS = ["cs.AI", "machine learning", 'l"quote', "наука", "a'b", "c_d", "日本", "x-1"]


@pytest.fixture(autouse=True)
def _quiet():
    """Printing takes longer than reading."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def cases(number):
    """Settings under which a test of BATCH files an example reads that many."""
    return settings(
        max_examples=max(1, number * FACTOR // BATCH),
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


seeds = given(seed=st.integers(0, 2**32 - 1))


def random_documents(choice, *, lines=False, spaces=True):
    """A few documents; `lines`: each text in one line, without tabs; `spaces`: labels may hold them."""
    texts = [text for text in TEXTS if not lines or not set(text) & {"\t", "\n"}]
    names = [label for label in LABELS if spaces or " " not in label]
    return [
        Document(f"{choice.choice(texts)} t{i}", tuple(choice.sample(names, choice.randint(0, 3))), f"i{i}")
        for i in range(choice.randint(1, 8))
    ]


def jsonl(documents):
    rows = ({"id": document.id, "labels": document.labels, "text": document.text} for document in documents)
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def table(documents, delimiter):
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(["id", "labels", "text"])
    # A list that is never empty, in the first row, makes the separator clear.
    writer.writerows(
        (document.id, json.dumps(document.labels, ensure_ascii=False), document.text) for document in documents
    )
    return file.getvalue().encode()


def libmultilabel(documents):
    return "\n".join(f"{document.id}\t{' '.join(document.labels)}\t{document.text}" for document in documents).encode()


def lyrl2004(documents):
    return "\n".join(f".I {document.id}\n.W\n{document.text}\n" for document in documents).encode()


FORMATS = ("jsonl", "csv", "tsv", "libmultilabel", "txt")


def written(choice, form):
    """Random documents, and a file of them in a format of which each line or record is one."""
    documents = random_documents(choice, lines=form in ("libmultilabel", "txt"), spaces=form != "libmultilabel")
    if form == "jsonl":
        return documents, jsonl(documents)
    if form in ("csv", "tsv"):
        return documents, table(documents, "," if form == "csv" else "\t")
    if form == "libmultilabel":
        return documents, libmultilabel(documents)
    return [Document(document.text, ()) for document in documents], "\n".join(
        document.text for document in documents
    ).encode()


def mutated(choice, content):
    """The content with one to four errors, without a byte order mark of UTF-16, after which it would be in UTF-16."""
    data = bytearray(content)
    for _ in range(choice.randint(1, 4)):
        at = choice.randint(0, len(data))
        kind = choice.randint(0, 5)
        if kind <= 1:
            data[at:at] = choice.choice(PIECES)
        elif kind == 2:
            del data[at : at + choice.randint(1, 20)]
        elif kind == 3:
            source = choice.randint(0, len(data))
            data[at:at] = data[source : source + choice.randint(1, 60)]
        elif kind == 4 and data:
            data[at % len(data)] = choice.randint(0, 255)
        else:
            del data[at:]
    return bytes(data).removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff")


def labels_as_they_are():
    """Within the block, labels are not brought into one form: the tests compare what was in the files."""
    return mock.patch.object(_Labels, "__call__", lambda self, row: row)


def read(source, **options):
    """Reads all, checks that every row is accounted for, and returns documents, report and the error that ended it."""
    report = ReadReport()
    documents = []
    problem = None
    try:
        documents.extend(read_documents(source, options=ReadOptions(**options), report=report))
    except UserError as error:
        problem = str(error)
        assert problem
    assert len(documents) == report.kept
    lost = report.read - report.kept - report.skipped.total()
    # Only the row that stopped the reading is neither kept nor skipped.
    assert lost == 0 or (lost == 1 and problem and options.get("bad_rows", "stop") == "stop")
    for document in documents:
        document.text.encode()
        assert "\0" not in document.text
        assert all(label.strip() for label in document.labels)
        assert len(set(document.labels)) == len(document.labels)
    return documents, report, problem


@cases(2_000)
@given(
    st.lists(st.one_of(st.binary(max_size=80), st.sampled_from(PIECES)).map(bytes), min_size=3, max_size=3), st.data()
)
def test_arbitrary_bytes(parts, data):
    choice = random.Random(b"".join(parts))
    for _ in range(BATCH):
        content = b"".join(choice.choice([*parts, *PIECES]) for _ in range(choice.randint(1, 8)))
        form = choice.choice(["auto", *FORMATS, "lyrl2004", "pair"])
        read(io.BytesIO(content), format=form, labelled=choice.random() < 0.5, bad_rows=choice.choice(["stop", "skip"]))


@pytest.mark.parametrize("form", FORMATS)
@cases(250)
@seeds
def test_written_documents_are_read_back(form, seed):
    choice = random.Random(seed)
    for _ in range(BATCH):
        expected, content = written(choice, form)
        if choice.random() < 0.3:
            content = b"\xef\xbb\xbf" + content
        if choice.random() < 0.3 and form != "jsonl" and b"line\nend" not in content:
            content = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        if choice.random() < 0.3:
            content = choice.choice(list(PACKERS.values()))(content)
        labelled = form != "txt"
        separator = " " if form == "libmultilabel" else ""
        documents, report, error = read(io.BytesIO(content), format=form, labelled=labelled, label_separator=separator)
        assert error is None
        assert documents == expected
        assert report.kept == len(expected)


@pytest.mark.parametrize("form", ["auto", "jsonl"])
@cases(1_000)
@seeds
def test_broken_json_lines(form, seed):
    choice = random.Random(seed)
    for _ in range(BATCH):
        content = mutated(choice, written(choice, "jsonl")[1])
        fields = {} if form == "auto" else {"text_field": "text", "labels_field": "labels"}
        with labels_as_they_are():
            documents, report, error = read(io.BytesIO(content), format=form, bad_rows="skip", **fields)
        if error and not report.read and (form == "auto" or "separates labels" in error or "no column" in error):
            continue
        lines = [line for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip(b" \t\r\x0b\x0c")]
        if error and not report.read and ("UTF-16" in error or "old Macs" in error):
            continue
        assert report.read == len(lines)
        # Independently: what json reads is what is kept.
        expected = []
        for line in lines:
            try:
                row = json.loads(line.decode())
                labels, text = row["labels"], row["text"]
                if isinstance(labels, list):
                    labels = [label for label in labels if not _is_missing(label)]
                elif _is_missing(labels):
                    labels = []
                else:
                    # A string among lists is one label, an object holds scores: not compared.
                    expected = None
                    break
                if isinstance(text, str) and isinstance(labels, list) and all(map(str.strip, labels)):
                    (text + "".join(labels) + str(row.get("id"))).encode()
                    expected.append((text.replace("\0", " "), tuple(dict.fromkeys(labels))))
            except (ValueError, KeyError, TypeError):
                continue
        if expected is not None and (form == "jsonl" or expected):
            assert [(document.text, document.labels) for document in documents] == expected


def _is_missing(value):
    return value is None or value != value


@pytest.mark.parametrize("delimiter", [",", "\t"], ids=["csv", "tsv"])
@cases(1_500)
@seeds
def test_broken_tables(delimiter, seed):
    choice = random.Random(seed)
    form = "csv" if delimiter == "," else "tsv"
    for _ in range(BATCH):
        content = mutated(choice, written(choice, form)[1])
        options = {"format": form, "label_separator": "none"}
        with labels_as_they_are():
            documents, report, error = read(io.BytesIO(content), bad_rows="skip", **options)
        if error and not report.read:
            continue
        lines = [line.rstrip(b"\r") for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
        try:
            layout = detect(b"\n".join(lines), "x", ReadOptions(**options))
        except UserError:
            continue
        rows = list(table_rows(iter(enumerate(lines, 1)), layout))
        kept = [row for row in rows if isinstance(row, Row)]
        assert [document.text for document in documents] == [row.text.replace("\0", " ") for row in kept]
        # A broken header may name one column more, which belongs to none of ours.
        if len(layout.columns) == 3 and not layout.unread:
            _check_no_word_is_lost(lines, rows)
        # A lone carriage return ends a line for the csv module, and is an error in ours.
        expected = None if b"\r" in b"".join(lines) else _by_csv(lines, delimiter, len(layout.columns))
        if form == "csv" and expected is not None and layout.columns.count("") == 0 and layout.header:
            at = layout.columns.index(layout.texts[0])
            # Without labels: a cell of labels that is a part of a list makes a row a bad one.
            rows = table_rows(iter(enumerate(lines, 1)), replace(layout, labels=()))
            expected = [fields[at] for fields in expected if fields != list(layout.columns)]
            assert [row.text for row in rows if isinstance(row, Row)] == expected


def _check_no_word_is_lost(lines, rows):
    """Each t0, t1 ... is in a kept row, or in the lines of a bad or blank one."""
    starts = [row.number for row in rows] + [len(lines) + 1]
    present = Counter()
    for row, end in zip(rows, starts[1:], strict=True):
        content = b"\n".join(lines[row.number - 1 : end - 1])
        if isinstance(row, Row):
            content = "\n".join([row.text, *row.labels, row.id]).encode()
        present.update(content.split())
    header_end = starts[0] - 1
    expected = Counter(
        word for line in lines[header_end:] for word in line.split() if word[:1] == b"t" and word[1:].isdigit()
    )
    assert not expected - present


def _by_csv(lines, delimiter, width):
    """The rows of the right width as the csv module alone has them, or None where it meets an error or joins rows."""
    try:
        text = b"\n".join(lines).decode()
        rows = list(csv.reader(io.StringIO(text + "\n", newline=""), delimiter=delimiter, strict=True))
    except (csv.Error, UnicodeDecodeError):
        return None
    # Where a quote joins rows, csv loses them.
    if any(len(row) != width and "\n" in "".join(row) for row in rows):
        return None
    return [row for row in rows[1:] if len(row) == width and (width > 1 or row != [""])]


@pytest.mark.parametrize("form", ["libmultilabel", "txt"])
@cases(600)
@seeds
def test_broken_lines(form, seed):
    choice = random.Random(seed)
    for _ in range(BATCH):
        content = mutated(choice, written(choice, form)[1])
        documents, report, error = read(io.BytesIO(content), format=form, labelled=form != "txt", bad_rows="skip")
        if error and not report.read:
            continue
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        lines = lines[:-1] if not lines[-1] else lines
        assert report.read + report.notes["blank line"] == len(lines)
        texts = [document.text for document in documents]
        for line in lines:
            if form == "txt" and _is_utf8(line):
                assert line.rstrip(b"\r").decode().replace("\0", " ") in texts


def _is_utf8(line):
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


@cases(1_000)
@seeds
def test_broken_pairs(seed, tmp_path_factory):
    choice = random.Random(seed)
    folder = tmp_path_factory.mktemp("pair")
    for _ in range(BATCH):
        rows = random_documents(choice, lines=True, spaces=False)
        texts = "\n".join(document.text for document in rows).encode()
        labels = "\n".join(" ".join(document.labels) for document in rows).encode()
        broken = choice.randint(0, 2)
        texts = mutated(choice, texts) if broken == 1 else texts
        labels = mutated(choice, labels) if broken == 2 else labels
        (folder / "text_train").write_bytes(texts)
        (folder / "label_train").write_bytes(labels)
        documents, report, error = read(folder / "text_train", format="pair", bad_rows="skip")
        counts = [len(io.BytesIO(content.removeprefix(b"\xef\xbb\xbf")).readlines()) for content in (texts, labels)]
        if counts[0] != counts[1]:
            assert error is not None
        elif error is None:
            assert report.read == counts[0]
        if not broken and counts[0] == counts[1]:
            assert [(row.text, row.labels) for row in documents] == [(row.text, row.labels) for row in rows]


@pytest.mark.slow
@cases(1_000)
@seeds
def test_broken_token_files(seed, tmp_path_factory):
    choice = random.Random(seed)
    folder = tmp_path_factory.mktemp("lyrl")
    for _ in range(BATCH):
        rows = random_documents(choice, lines=True, spaces=False)
        tokens = lyrl2004(rows)
        topics = "\n".join(f"{label} {document.id} 1" for document in rows for label in document.labels).encode()
        broken = choice.randint(0, 2)
        tokens = mutated(choice, tokens) if broken == 1 else tokens
        topics = mutated(choice, topics) if broken == 2 else topics
        (folder / "lyrl2004_tokens_x.dat").write_bytes(tokens)
        (folder / "rcv1-v2.topics.qrels").write_bytes(topics)
        source = Files((folder / "lyrl2004_tokens_x.dat",), folder / "rcv1-v2.topics.qrels")
        documents, report, error = read(source, format="lyrl2004", bad_rows="skip")
        if not broken:
            assert error is None
            assert documents == rows
        if error is None or report.read:
            wanted = sum(line.startswith(b".I") for line in tokens.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
            assert report.read >= wanted


@pytest.mark.parametrize("packer", PACKERS)
@cases(500)
@seeds
def test_damaged_archives(packer, seed):
    choice = random.Random(seed)
    rows, content = written(choice, "jsonl")
    packed = PACKERS[packer](content)
    for _ in range(BATCH):
        if choice.random() < 0.5:
            broken = packed[: choice.randint(0, len(packed) - 1)]
        else:
            broken = bytearray(packed)
            for _ in range(choice.randint(1, 3)):
                broken[choice.randrange(len(broken))] = choice.randint(0, 255)
            broken = bytes(broken)
        documents, _, error = read(io.BytesIO(broken), format="jsonl", bad_rows="skip")
        # zstd's library writes no checksum unless asked: of its files, only truncation is always detected.
        if broken == packed or packer != "zst" or len(broken) < len(packed):
            assert (error is None) == (documents == rows and len(broken) == len(packed))


@cases(200)
@seeds
def test_broken_json_documents(seed, tmp_path_factory):
    choice = random.Random(seed)
    folder = tmp_path_factory.mktemp("eurlex")
    for number in range(BATCH):
        whole = {"celex_id": f"c{number}", "title": "T", "header": "H", "main_body": ["a", "b"], "concepts": ["1", "2"]}
        content = mutated(choice, json.dumps(whole).encode())
        (folder / f"{number}.json").write_bytes(content)
    _, report, _ = read(folder, bad_rows="skip")
    assert report.read == BATCH


@cases(700)
@seeds
def test_broken_parquet(seed, tmp_path_factory):
    choice = random.Random(seed)
    path = tmp_path_factory.mktemp("parquet") / "x.parquet"
    rows = random_documents(choice)
    columns = {
        "text": [document.text for document in rows],
        "labels": [document.labels for document in rows],
        "id": [document.id for document in rows],
    }
    pq.write_table(pa.table(columns), path, compression=choice.choice(["none", "snappy", "zstd"]))
    content = path.read_bytes()
    assert read(path)[0] == rows
    for _ in range(BATCH):
        path.write_bytes(mutated(choice, content))
        read(path, bad_rows="skip", format=choice.choice(["auto", "parquet"]))
