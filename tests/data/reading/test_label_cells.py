import io

import pytest

from lsfa_jax.data.reading.documents import Document, ReadReport, read_documents
from lsfa_jax.data.reading.label_cells import LIST, SINGLE, WHOLE, split_labels
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.data.reading.rows import BadRowError
from lsfa_jax.util.console import UserError


def read(content, **options):
    report = ReadReport()
    source = io.BytesIO(content.encode() if isinstance(content, str) else content)
    return list(read_documents(source, options=ReadOptions(**options), report=report)), report


@pytest.mark.parametrize(
    ("cell", "separator", "labels"),
    [
        ("a;b c; d ;;", ";", ["a", "b c", "d"]),
        (" a  b\tc ", " ", ["a", "b", "c"]),
        ("a::b", "::", ["a", "b"]),
        ("", ";", []),
        ("[]", LIST, []),
        ('["a;b", "c \\"d\\"", "наука"]', LIST, ["a;b", 'c "d"', "наука"]),
        ("[1, 2.0]", LIST, ["1", "2"]),
        ("['a' 'b c'\n 'd']", LIST, ["a", "b c", "d"]),
        ("('a',)", LIST, ["a"]),
        ("{'a', 'b'}", LIST, ["a", "b"]),
        ("set()", LIST, []),
        ("frozenset({'a'})", LIST, ["a"]),
        ("array(['a', 'b'], dtype=object)", LIST, ["a", "b"]),
        ("[np.str_('a'), np.str_('b')]", LIST, ["a", "b"]),
        ("[a, b c]", LIST, ["a", "b c"]),
        ("['it''s', nan, None]", LIST, ["it's"]),
        ('{"road works",rail}', LIST, ["road works", "rail"]),
        ("{'a': 1.0, 'b': 0.0, 'c': True}", LIST, ["a", "c"]),
        ("'a', 'b'", LIST, ["a", "b"]),
        ("nan", LIST, []),
        ("[__import__('os').getcwd()]", LIST, ["__import__('os').getcwd()"]),
        ("road traffic; C++", WHOLE, ["road traffic; C++"]),
        ("['a', \"b's\", 'c\\'d', '日本',]", LIST, ["a", "b's", "c'd", "日本"]),
        ("cs.AI", SINGLE, ["cs.AI"]),
    ],
)
def test_labels_in_one_string(cell, separator, labels):
    assert split_labels(cell, separator)[0] == labels


@pytest.mark.parametrize(
    "cell",
    [
        "a",
        "[['a']]",
        "['a' ... 'b']",
        "[a, ..., b]",
        "(none)",
        "[1.5]",
        "{'a': 'b'}",
        "['" + "a" * 10 + "\\x']",
        "[" * 10_000,
        "[''",
        '["a", ""]',
    ],
)
def test_a_cell_that_is_not_a_list_of_strings_is_bad(cell):
    with pytest.raises(BadRowError):
        split_labels(cell, LIST)


def test_a_cell_of_several_labels_far_below_rows_of_one_is_an_error():
    rows = "".join(f"t{i},x\n" for i in range(2000))
    with pytest.raises(UserError, match=r"standard input:2002: more than one label perhaps: .*, got 'x;y'"):
        read(f"text,labels\n{rows}last,x;y\n")
    assert read(f"text,labels\n{rows}last,x;y\n", label_separator=";")[0][-1].labels == ("x", "y")


def test_json_labels_in_one_string():
    assert read('{"text": "a", "labels": "x y|z"}')[0] == [Document("a", ("x y", "z"))]
    rows = '{"text": "a", "labels": ["x"]}\n{"text": "a", "labels": "x y"}'
    assert [document.labels for document in read(rows)[0]] == [("x",), ("x y",)]


def test_unlabelled_reading_ignores_labels():
    assert read('{"text": "a", "labels": 3}', labelled=False)[0] == [Document("a", ())]
    assert read("text,labels\na,b|c;d\n", labelled=False)[0] == [Document("a", ())]
