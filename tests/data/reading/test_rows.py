import csv
import io

import pyarrow.csv
import pytest

from lsfa_jax.data.reading import rows
from lsfa_jax.data.reading.detect import ReadOptions
from lsfa_jax.data.reading.documents import Document, ReadReport, read_documents
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
    assert [(one.id, one.text) for one in documents] == [(row["id"], row["text"]) for row in table]
    assert {one.labels for one in documents} == {("a", "b")}
    assert report.notes == {"row over several lines": 1, "empty text": 1}
    assert report.first["row over several lines"] == "standard input:5"


def test_row_with_wrong_quotes_takes_no_other_with_it():
    content = 'text,labels\n"never closed,a\ngood one,b\n"closed" badly,c\n"two\nlines",d\nlast,e\n'
    documents, report = read(content, bad_rows="skip")
    assert [(one.text, one.labels) for one in documents] == [
        ("good one", ("b",)),
        ("two\nlines", ("d",)),
        ("last", ("e",)),
    ]
    assert (report.read, report.skipped) == (5, {"wrong quotes": 2})
    assert report.first["wrong quotes"] == "standard input:2"
    with pytest.raises(UserError, match=r"^standard input:2: wrong quotes: .*, got b'\"never closed,a'"):
        read(content)


def test_rest_of_a_broken_row_is_no_document():
    documents, report = read('text,labels\n"he said "hello" to\nme",a\ngood,b\n', bad_rows="skip")
    assert [one.text for one in documents] == ["good"]
    assert report.skipped == {"wrong quotes": 2}


def test_quote_open_to_the_end_of_a_long_file_is_found_quickly():
    documents, report = read('text,labels\n"open,a\n' + "row,b\n" * 50_000, bad_rows="skip")
    assert (len(documents), report.skipped) == (50_000, {"wrong quotes": 1})


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
    assert [one.text for one in documents] == ["nul inside", "x"]
    assert report.skipped == {"invalid UTF-8": 1}
    assert report.notes == {"NUL in a text, taken as a space": 1, "blank line": 2, "no labels": 1}
    with pytest.raises(
        UserError, match=r"standard input:2: invalid UTF-8: .* \(byte 7 of the line is 0xe9; .* iconv -f latin1"
    ):
        read(b"text,labels\nlatin \xe9,a\n", label_separator=";")


# --- TSV and LibMultiLabel: stray tabs and quotes


def test_tabs_in_a_text_that_is_the_last_column_remain():
    documents, report = read("id\tlabels\ttext\n1\ta\tone\ttwo\n2\tb\tthree\n")
    assert [one.text for one in documents] == ["one\ttwo", "three"]
    assert report.notes == {"tab within a text": 1}
    with pytest.raises(UserError, match="standard input:2: too many columns: expected 2"):
        read("text\tlabels\none\ttwo\ta\n")


def test_tsv_without_quoting_is_taken_as_it_is():
    content = 'labels\ttext\na\t"Hello" he said\nb\t"never closed\nc\tends so"\nd\t"well ""quoted"""\n'
    documents, report = read(content)
    assert [one.text for one in documents] == ['"Hello" he said', '"never closed', 'ends so"', 'well "quoted"']
    assert report.notes == {"quotes taken as they are": 2}


def test_tsv_text_over_several_lines():
    documents, report = read('labels\ttext\na\t"one\ntwo"\nb\tthree\n')
    assert [one.text for one in documents] == ["one\ntwo", "three"]
    assert report.notes == {"row over several lines": 1}


def test_libmultilabel():
    documents, report = read('7\tcs.AI "q" наука\tone\ttwo\n7\t\tthree "\n\n8\ta\t')
    assert documents == [
        Document("one\ttwo", ("cs.AI", '"q"', "наука"), "7"),
        Document('three "', (), "7"),
        Document("", ("a",), "8"),
    ]
    assert report.notes == {"tab within a text": 1, "duplicate id": 1, "no labels": 1, "blank line": 1, "empty text": 1}
    assert [one.id for one in read("a b\tone\nc\ttwo\tthree\n")[0]] == ["", ""]
    with pytest.raises(
        UserError, match="standard input:3: too few columns: expected 2 columns between tabs: labels, text"
    ):
        read("a\tone\nb\ttwo\nthree\n", format="libmultilabel")


def test_plain_text_keeps_a_document_for_every_line():
    documents, report = read("one\n\n\tthree\r\n", format="txt", labelled=False)
    assert [one.text for one in documents] == ["one", "", "\tthree"]
    assert (report.read, report.kept, report.notes) == (3, 3, {"empty text": 1})


# --- labels that share a string


@pytest.mark.parametrize(
    ("cell", "separator", "labels"),
    [
        ("a;b c; d ;;", ";", ["a", "b c", "d"]),
        (" a  b\tc ", " ", ["a", "b", "c"]),
        ("a::b", "::", ["a", "b"]),
        ("", ";", []),
        ("[]", rows.LIST, []),
        ('["a;b", "c \\"d\\"", "наука"]', rows.LIST, ["a;b", 'c "d"', "наука"]),
        ("['a', \"b's\", 'c\\'d', '日本',]", rows.LIST, ["a", "b's", "c'd", "日本"]),
        ("cs.AI", rows.WHOLE, ["cs.AI"]),
    ],
)
def test_labels_in_one_string(cell, separator, labels):
    assert rows.split_labels(cell, separator)[0] == labels


@pytest.mark.parametrize(
    "cell",
    [
        "[1]",
        "a",
        "[['a']]",
        "[__import__('os').getcwd()]",
        "['a' 'b']",
        "['" + "a" * 10 + "\\x']",
        "[" * 10_000,
        "[''",
        '["a", ""]',
    ],
)
def test_what_is_no_list_of_strings(cell):
    with pytest.raises(rows.BadRowError):
        rows.split_labels(cell, rows.LIST)


def test_one_label_a_row_turns_out_wrong_far_down():
    rows = "".join(f"t{i},x\n" for i in range(2000))
    with pytest.raises(UserError, match=r"standard input:2002: more than one label perhaps: .*, got 'x;y'"):
        read(f"text,labels\n{rows}last,x;y\n")
    assert read(f"text,labels\n{rows}last,x;y\n", label_separator=";")[0][-1].labels == ("x", "y")


def test_json_labels_in_one_string():
    assert read('{"text": "a", "labels": "x y|z"}')[0] == [Document("a", ("x y", "z"))]
    with pytest.raises(UserError, match="standard input:2: 'labels' is not a list: expected a list of strings, or one"):
        read('{"text": "a", "labels": ["x"]}\n{"text": "a", "labels": "x"}')


def test_labels_are_not_read_where_they_are_not_asked_for():
    assert read('{"text": "a", "labels": 3}', labelled=False)[0] == [Document("a", ())]
    assert read("text,labels\na,b|c;d\n", labelled=False)[0] == [Document("a", ())]
