import csv
import io

import pyarrow.csv
import pytest

from lsfa_jax.data.reading.documents import ReadReport, read_documents
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.util.console import UserError


def read(content, **options):
    report = ReadReport()
    source = io.BytesIO(content.encode() if isinstance(content, str) else content)
    return list(read_documents(source, options=ReadOptions(**options), report=report)), report


def texts(content, **options):
    return [document.text for document in read(content, **options)[0]]


# --- CSV


def test_csv_is_read_as_arrow_reads_it():
    cells = [
        "plain",
        "comma, inside",
        'quote " inside',
        "line\nend",
        "",
        " spaces ",
        "日本語 naïve",
        "tab\there",
        "'single'",
        '""',
    ]
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(["id", "text", "labels"])
    writer.writerows([str(i), cell, "a;b"] for i, cell in enumerate(cells))
    content = file.getvalue().encode()
    table = pyarrow.csv.read_csv(
        io.BytesIO(content),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types={"id": "string", "text": "string"}),
    ).to_pylist()
    documents, report = read(content)
    assert [(row.id, row.text) for row in documents] == [(row["id"], row["text"]) for row in table]
    assert {row.labels for row in documents} == {("a", "b")}
    assert report.notes == {"row over several lines": 1, "empty text": 1}
    assert report.first["row over several lines"] == "standard input:5"


def test_a_row_with_wrong_quotes_costs_no_other_row():
    content = 'text,labels\n"never closed,a\ngood one,b\n"closed" badly,c\n"two\nlines",d\nlast,e\n'
    documents, report = read(content, bad_rows="skip")
    assert [(row.text, row.labels) for row in documents] == [
        ("good one", ("b",)),
        ("two\nlines", ("d",)),
        ("last", ("e",)),
    ]
    assert (report.read, report.skipped) == (5, {"wrong quotes": 2})
    assert report.first["wrong quotes"] == "standard input:2"
    with pytest.raises(UserError, match=r"^standard input:2: wrong quotes: .*, got b'\"never closed,a'"):
        read(content)


def test_a_quote_that_a_later_row_closes_costs_its_row_alone():
    content = 'text,labels\none,a\n"two,a\nthree,b\nfour,"b\nfive,a\n'
    documents, report = read(content, bad_rows="skip")
    assert [row.text for row in documents] == ["one", "three", "five"]
    assert report.skipped.total() == 2
    assert (report.read, report.kept) == (5, 3)


def test_the_rest_of_a_broken_row_is_not_a_document():
    documents, report = read('text,labels\n"he said "hello" to\nme",a\ngood,b\n', bad_rows="skip")
    assert [row.text for row in documents] == ["good"]
    assert report.skipped == {"wrong quotes": 2}


def test_a_quote_open_to_the_end_of_a_long_file_takes_linear_time():
    documents, report = read('text,labels\n"open,a\n' + "row,b\n" * 50_000, bad_rows="skip")
    assert (len(documents), report.skipped) == (50_000, {"wrong quotes": 1})


# --- broken quotes: which rows do other readers keep?


def by_csv(content, strict):
    """The texts of all rows that Python's csv reads, going on after each error."""
    reader = csv.reader(io.StringIO(content, newline=""), strict=strict)
    rows = []
    while True:
        try:
            rows.append(next(reader))
        except StopIteration:
            return [row[0] for row in rows[1:] if len(row) == 2]
        except csv.Error:
            continue


def by_arrow(content):
    """The texts of all rows that pyarrow reads, where rows of another width are skipped."""
    options = pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda row: "skip")
    return pyarrow.csv.read_csv(io.BytesIO(content.encode()), parse_options=options)["text"].to_pylist()


BROKEN_QUOTES = {
    "a quote that is never closed": (['"never closed,b'], {"csv, strict", "csv", "pyarrow"}),
    "quotes within that are not doubled": (['"he said "hello" to me",b'], {"csv", "pyarrow"}),
    "text behind the closing quote": (['"closed" badly,b'], {"csv", "pyarrow"}),
    "inches": (['"5" disk,b'], {"csv", "pyarrow"}),
    "quotes that are not doubled, in two lines": (['"he said "hello" to', 'me",b'], {"csv, strict", "csv", "pyarrow"}),
    "two quotes that are never closed": (['"first,b', '"second,b'], {"csv", "pyarrow"}),
}


@pytest.mark.parametrize(("broken", "losers"), BROKEN_QUOTES.values(), ids=BROKEN_QUOTES)
def test_rows_around_broken_quotes_that_csv_and_pyarrow_lose_or_alter_are_kept(broken, losers):
    intact = [f"text {i}" for i in range(6)]
    rows = [f"{text},a" for text in intact]
    content = "\n".join(["text,labels", *rows[:2], *broken, *rows[2:]]) + "\n"
    readers = {
        "ours": lambda: texts(content, bad_rows="skip"),
        "csv, strict": lambda: by_csv(content, strict=True),
        "csv": lambda: by_csv(content, strict=False),
        "pyarrow": lambda: by_arrow(content),
    }
    # No reader can tell what the broken rows should have been: it leaves them out, or its texts are not the file's.
    assert {name for name, read_texts in readers.items() if read_texts() != intact} == losers


def test_a_quote_in_the_middle_of_an_unquoted_text_is_no_error():
    assert texts('text,labels\nhe said "hi" to,b\na 5" disk,c\n') == ['he said "hi" to', 'a 5" disk']


@pytest.mark.parametrize(("row", "reason"), [("a", "few"), ("a,b,c", "many"), ("a, and more,b", "many")])
def test_csv_row_of_another_width_is_bad(row, reason):
    with pytest.raises(UserError, match=f"standard input:3: too {reason} columns: expected 2 as in the header"):
        read(f"text,labels\nfine,a\n{row}\n")


def test_long_field_and_strange_bytes():
    long = "word " * 2_000_000
    assert texts(f'text,labels\n"{long}",a\n') == [long]
    documents, report = read(
        b"text,labels\nnul\0inside,a\nlatin \xe9,a\n\n \nx,\n", bad_rows="skip", label_separator=";"
    )
    assert [row.text for row in documents] == ["nul inside", "x"]
    assert report.skipped == {"invalid UTF-8": 1}
    assert report.notes == {"NUL in a text, read as a space": 1, "blank line": 2, "no labels": 1}
    with pytest.raises(
        UserError, match=r"standard input:2: invalid UTF-8: .* \(byte 7 of the line is 0xe9\).* cp1252 reads 'é,a'"
    ):
        read(b"text,labels\nlatin \xe9,a\n", label_separator=";")


# --- TSV: stray tabs and quotes


def test_tabs_in_a_text_that_is_the_last_column_remain():
    documents, report = read("id\tlabels\ttext\n1\ta\tone\ttwo\n2\tb\tthree\n")
    assert [row.text for row in documents] == ["one\ttwo", "three"]
    assert report.notes == {"tab within a text": 1}
    with pytest.raises(UserError, match="standard input:2: too many columns: expected 2"):
        read("text\tlabels\none\ttwo\ta\n")


def test_tsv_without_quoting_keeps_its_quotes():
    content = 'labels\ttext\na\t"Hello" he said\nb\t"never closed\nc\tends so"\nd\t"well ""quoted"""\n'
    documents, report = read(content)
    assert [row.text for row in documents] == ['"Hello" he said', '"never closed', 'ends so"', 'well "quoted"']
    assert report.notes == {"quotes kept as they are": 2}


def test_tsv_text_over_several_lines():
    documents, report = read('labels\ttext\na\t"one\ntwo"\nb\tthree\n')
    assert [row.text for row in documents] == ["one\ntwo", "three"]
    assert report.notes == {"row over several lines": 1}
