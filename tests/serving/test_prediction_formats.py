import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.serving.prediction_formats import Predicted, writer

# Labels as they occur: separators, quotes, line ends, tabs, other scripts, a formula, markup of rich and HTML.
ODD = ["a,b", 'say "x"', "two\nlines", "\ttab", "日本語", "=1+1", "[bold]", "<script>", "", " ", "\r", "é\u202e"]
DOCUMENTS = [
    Predicted(1, "text", ["one", "two"], [0.75, 0.25]),
    Predicted("CELEX:1", "", [], []),
    Predicted('a,"\t', "x", ODD, [1.0 - 0.01 * i for i in range(len(ODD))]),
]


def written(name, documents):
    stream = io.StringIO(newline="")
    write = writer(name, stream)
    for document in documents:
        write(document)
    return stream.getvalue()


def test_json_lines():
    lines = written("jsonl", DOCUMENTS).split("\n")
    assert lines.pop() == ""
    assert lines[0] == '{"id": 1, "labels": ["one", "two"], "probabilities": [0.75, 0.25]}'
    assert [json.loads(line) for line in lines] == [
        {"id": d.id, "labels": d.labels, "probabilities": d.probabilities} for d in DOCUMENTS
    ]


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
predicted = st.lists(st.tuples(names, st.floats(0, 1)), max_size=4).map(
    lambda pairs: Predicted("", "", [name for name, _ in pairs], [p for _, p in pairs])
)


@pytest.mark.parametrize(("name", "delimiter"), [("csv", ","), ("tsv", "\t")])
@settings(deadline=None)
@given(rows=st.lists(st.tuples(names, predicted), max_size=5))
def test_csv_and_tsv_are_read_back_as_they_were(name, delimiter, rows):
    documents = [document._replace(id=own) for own, document in rows]
    found = list(csv.reader(io.StringIO(written(name, documents), newline=""), delimiter=delimiter))
    expected = [["document", "rank", "label", "probability"]]
    for document in documents:
        pairs = zip(document.labels, document.probabilities, strict=True)
        of_document = [[document.id, str(rank), label, str(p)] for rank, (label, p) in enumerate(pairs, start=1)]
        # No document goes missing for want of labels.
        expected += of_document or [[document.id, "", "", ""]]
    assert found == expected


def test_csv_as_it_looks():
    assert written("csv", DOCUMENTS[:2]) == "document,rank,label,probability\n1,1,one,0.75\n1,2,two,0.25\nCELEX:1,,,\n"


def test_table_shows_the_start_of_the_text_beside_the_labels():
    text = " ".join(f"word{i:02d}" for i in range(40))
    lines = written("table", [Predicted(7, text, ["first", "second"], [0.987, 0.012]), Predicted("x", "", [], [])])
    lines = [line.rstrip() for line in lines.splitlines()]
    assert lines[0].split() == ["document", "text", "label", "prob."]
    assert set(lines[1]) == {"─"}
    assert lines[2].split() == ["7", *(f"word{i:02d}" for i in range(8)), "first", "0.99"]
    assert lines[3].split()[:8] == [f"word{i:02d}" for i in range(8, 16)]
    assert lines[3].split()[-2:] == ["second", "0.01"]
    assert "…" in lines[3]
    assert lines[4].split() == ["x", "(none)"]


def test_table_keeps_its_columns_and_lets_no_control_character_through():
    text = "\x1b[31mred \x07\x9b2J\u202eright to left 日本語のとても長い文章" * 3
    shown = written("table", [Predicted("id " * 9, text, ODD, [0.5] * len(ODD))])
    assert not [c for c in shown if (c < " " and c != "\n") or c in "\x7f\x9b\u202e"]
    for label in ("a,b", 'say "x"', "two lines", "日本語", "[bold]", "<script>"):
        assert label in shown
    assert shown.count("0.50") == len(ODD)


def test_float32_is_written_short_and_exact():
    values = np.random.default_rng(0).random(100, np.float32) ** 20
    line = json.loads(written("jsonl", [Predicted(1, "", [""] * 100, [float(str(p)) for p in values])]))
    np.testing.assert_array_equal(np.array(line["probabilities"], np.float32), values)
