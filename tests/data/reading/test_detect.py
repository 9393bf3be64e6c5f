# ruff: noqa: E501
import pytest

from lsfa_jax.data.reading.detect import describe, detect
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.util.console import UserError

LONG = "a text of more words than three"


def layout(content, **options):
    return detect(content.encode() if isinstance(content, str) else content, "x", ReadOptions(**options))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"text": "a", "labels": ["b"]}', "jsonl, text from 'text', labels from 'labels'"),
        ('{"Content": "a", "tags": "b;c", "doc_id": 1}', "jsonl, text from 'Content', labels from 'tags' separated by ';', ids from 'doc_id'"),
        ('{"text": "cut o\n{"text": "a", "labels": []}', "jsonl, text from 'text', labels from 'labels'"),
        ("text,labels\na,b", "csv, text from 'text', labels from 'labels' one a row"),
        ("text;labels\na;b,c", "csv, text from 'text', labels from 'labels' separated by ','"),
        ('\n"Text","Label"\na,"[""x y"", ""z""]"', "csv, text from 'Text', labels from 'Label' as a list"),
        ("text,labels\na,\"['x y', 'z']\"\nb,[]", "csv, text from 'text', labels from 'labels' as a list"),
        ("text,body,labels\na,b,c|d", "csv, text from 'text', labels from 'labels' separated by '|', not read: 'body'"),
        ("labels\ttext\na;b\tc", "tsv, text from 'text', labels from 'labels' separated by ';'"),
        ("a b\tone two words\nc\tthree\tfour", "tsv without a header, text from 'column 2', labels from 'column 1' separated by spaces"),
        ("one two words\ta;b\nthree four\tc", "tsv without a header, text from 'column 1', labels from 'column 2' separated by ';'"),
        ("__label__a __label__b some words", "fasttext, words that begin with __label__ are the labels"),
        ("sep=;\ntext;labels\na;b,c", "csv, text from 'text', labels from 'labels' separated by ','"),
        (".I 1\n.W\nword", "lyrl2004"),
    ],
)  # fmt: skip
def test_formats_that_are_clear(content, expected):
    assert describe(layout(content)) == expected


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("Abstract,Tags\na,b c", {"text_field": "Abstract", "labels_field": "Tags", "label_separator": " "}, "csv, text from 'Abstract', labels from 'Tags' separated by spaces"),
        ("Abstract,Tags\na,b c", {"text_field": "Abstract", "labelled": False}, "csv, text from 'Abstract', not read: 'Tags'"),
        (f"Abstract\tTags\n{LONG}\tb", {"text_field": "Abstract", "labels_field": "Tags"}, "tsv, text from 'Abstract', labels from 'Tags' one a row"),
        (f"1\tab c\t{LONG}", {"labelled": False, "format": "libmultilabel"}, "libmultilabel without a header, text from 'text', ids from 'id', not read: 'labels'"),
        ("Hello, world\nall by itself", {"labelled": False}, "txt, one document a line"),
        ("", {"labelled": False}, "txt, one document a line"),
        ("text\na\nb", {"labelled": False}, "csv, text from 'text'"),
        ('{"text": "a", "tags": 3}', {"labelled": False}, "jsonl, text from 'text', not read: 'tags'"),
        ("1 2\tx", {"format": "pair", "label_separator": ","}, "pair, labels separated by ','"),
        ("a,b;c", {"format": "txt"}, "txt, one document a line"),
    ],
)  # fmt: skip
def test_formats_that_options_make_clear(content, options, expected):
    assert describe(layout(content, **options)) == expected


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("Abstract,Tags\na,b", {}, r"not clear which column holds the text. Choose with --data.text-field NAME. The columns are 'Abstract', such as 'a'; 'Tags', such as 'b'."),
        ("text,Themes\na,b", {}, r"not clear which column holds the labels. Choose with --data.labels-field NAME. The columns are 'text', such as 'a'; 'Themes'"),
        ("id,text\n1,a\n2,b", {}, r"no column looks like labels.* Add one to the file, such as labels, .*--data.labels-field NAME. The columns are 'id', such as '1'; 'text', such as 'a'."),
        ("text,remark\n" + "\n".join(f"{i} of many,row {i} is unlike others" for i in range(9)), {}, r"no column looks like labels"),
        ("a,b\nc,d", {}, r"not clear which of its 2 columns, which have no header, .* in order: --data.columns text,labels"),
        ("content,body,labels\na,b,c", {}, r"'content' and 'body' both could hold the text"),
        ("text,text,labels\na,b,c", {}, r"'text' and 'text' both could hold the text"),
        ("text,text,labels\na,b,c", {"text_field": "text"}, r"more than one column 'text' \(--data.text-field\)"),
        ("text,labels\na,b", {"labels_field": "tag"}, r"no column 'tag' \(--data.labels-field\); there are 'text', 'labels'"),
        ("a,b\nc,d", {"text_field": "t", "labelled": False, "prefix": "--"}, r"no header \(\['a', 'b'\]\), so --text-field names no column"),
        ('{"words": "a", "labels": []}', {}, r"not clear which column holds the text. .* 'words', such as 'a'; 'labels', such as ''"),
        ("text,labels\na,b;c|d", {}, r"hold ';' and '\|', as in 'b;c\|d'. Set --data.label-separator"),
        ("text,labels\na,machine learning", {}, r"hold only white space, as in 'machine learning'"),
        (f"Themes\tAbstract\nb\t{LONG}", {}, r"not clear which column holds the labels.* If the first row is a document, set --data.columns"),
        ("a\tb\nc\td", {"labelled": False}, r"which of its 2 columns, which have no header, hold the text"),
        ("x\t1\tone two\nx\t2\tthree\nx\t3\tfour", {}, r"which of its 3 columns"),
        ("text\njust words\nand words", {}, r"has a column of texts, 'text', but none of labels, .* --data.labels-field NAME"),
        ("words, text, and\nmore, words\n", {}, r"the format is not clear from its first lines"),
        ("just words\nand words", {}, r"the format is not clear from its first lines \('just words'\)"),
        ("text,labels\n".encode("utf-16-le"), {}, r"UTF-16 without a byte order mark. .* --data.encoding utf-16-le"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\0\0\0\x1b$B", {}, r"is a PNG picture, not text"),
        (bytes(range(256)) * 20, {}, r"is a binary file, not text"),
        ("2 8 2\n0,1 3:1 4:2\n1 5:1\n", {}, r"bag-of-words features .* not texts"),
        ("0,1 3:1 4:2.5\n1 5:1e-3\n", {}, r"bag-of-words features"),
        (b"PK\x03\x04rest", {}, r"is a zip \(or an Excel file\) archive"),
        (b"name" + b"\0" * 253 + b"ustar\x0000", {}, r"is a tar archive"),
        (b"text,labels\ra,b\rc,d\r", {}, r"carriage return alone"),
        ("", {"format": "csv"}, r"no header can be read"),
    ],
)  # fmt: skip
def test_an_unclear_format_is_an_error_that_names_the_option(content, options, message):
    with pytest.raises(UserError, match=message):
        layout(content, **options)


def test_a_separator_that_never_occurs_is_a_warning(capsys):
    assert layout("text,labels\na,b;c", label_separator="|").separator == "|"
    assert (
        "'|' separates labels, but the first rows hold none, and ';': each cell is one label" in capsys.readouterr().out
    )
    assert layout("text,labels\na,b;c\nd,e|f", label_separator="|").separator == "|"
    assert capsys.readouterr().out == ""


def test_unknown_format():
    with pytest.raises(UserError, match=r"--data\.format xls: expected auto, jsonl, json, csv"):
        ReadOptions(format="xls")


def test_a_row_cut_by_the_end_of_the_head_decides_nothing():
    head = b"text,labels\na,b;c\n" + b"word " * 209_711 + b",d|e"
    assert len(head) >= 2**20 - 3
    assert layout(head).separator == ";"
    with pytest.raises(UserError, match="hold ';' and"):
        layout(head[:1_000] + b",d|e")
