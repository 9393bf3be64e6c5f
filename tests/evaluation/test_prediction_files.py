import csv
import gzip
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.evaluation.prediction_files import (
    Irregularities,
    Predicted,
    as_arrays,
    matched,
    neutralised,
    read_predictions,
    wide_writer,
    writer,
)
from lsfa_jax.util.console import UserError


def read(tmp_path, content, name="predictions"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    irregularities = Irregularities()
    return read_predictions(path, irregularities), irregularities


JSON = (
    '{"id": "a", "labels": ["x", "y"], "probabilities": [0.9, 0.2]}\n\n{"id": 7, "labels": [], "probabilities": []}\n'
)
EXPECTED = [Predicted("a", ["x", "y"], [0.9, 0.2]), Predicted("7", [], [])]


@pytest.mark.parametrize(
    "content",
    [
        JSON,
        "\ufeff" + JSON.replace("\n", "\r\n"),
        gzip.compress(JSON.encode(), mtime=0),
        "document,rank,label,probability\na,1,x,0.9\na,2,y,0.2\n7,,,\n",
        "document\trank\tlabel\tprobability\na\t2\ty\t0.2\na\t1\tx\t0.9\n7\t\t\t\n",
        "Probability,Label,Document\n0.2,y,a\n,,7\n0.9,x,a\n",
        'document,label,probability\n"a","x",0.9\na,y,0.2\n7,,\n',
    ],
    ids=["JSON Lines", "BOM and CRLF", "gzip", "CSV", "TSV, ranks in disorder", "no ranks", "quotes"],
)
def test_every_form_of_the_same_predictions(tmp_path, content):
    predicted, irregularities = read(tmp_path, content)
    assert predicted == EXPECTED
    assert irregularities.summary() == ""


def test_labels_keep_their_characters(tmp_path):
    labels = ["a;b", 'say "x"', "tab\there", "línea", "市場", " spaced "]
    assert read(tmp_path, json.dumps({"labels": labels}))[0] == [Predicted("", labels, None)]
    rows = "document,label\n" + "".join('1,"{}"\n'.format(label.replace('"', '""')) for label in labels)
    assert read(tmp_path, rows)[0] == [Predicted("1", labels, None)]


def test_repeated_labels_and_rising_probabilities_are_corrected_and_counted(tmp_path):
    rows = [{"labels": ["x", "y", "x"], "probabilities": [0.3, 0.9, 0.5]}, {"labels": ["y", "y"]}]
    predicted, irregularities = read(tmp_path, "\n".join(map(json.dumps, rows)))
    assert predicted == [Predicted("", ["y", "x"], [0.9, 0.5]), Predicted("", ["y"], None)]
    assert irregularities.counts == {
        "with a label predicted twice, counted once": 2,
        "whose probabilities rise, sorted": 1,
    }
    assert "predictions:1" in irregularities.summary()


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ("", "", "holds no predictions"),
        ("\n \n", "", "holds no predictions"),
        ('{"labels": ["x"]}\n{"labels": ', ":2", "not JSON"),
        ('{"labels": ["x"]}\n[1]', ":2", 'no list "labels"'),
        ('{"label": ["x"]}', ":1", 'no list "labels"'),
        ('{"labels": [3]}', ":1", "no string"),
        ('{"labels": ["x"], "probabilities": [0.1, 0.2]}', ":1", "expected 1 probabilities"),
        ('{"labels": ["x"], "probabilities": [NaN]}', ":1", "expected a number"),
        ('{"labels": ["x"], "probabilities": [[1]]}', ":1", "expected a number"),
        (b'{"labels": ["\xff"]}', ":1", "not JSON"),
        ("text\nx\n", ":1", "expected a header with document, label"),
        ("document,label,label\na,x,y\n", ":1", "expected a header"),
        ("document,rank,label\na,1\n", ":2", "2 columns, but the header has 3"),
        ("document,rank,label\na,first,x\n", ":2", "expected a number, got 'first'"),
        (b"document,label\na,x\na,\xff\n", ":3", "UTF-8"),
        (gzip.compress(JSON.encode(), mtime=0)[:-9], "", "damaged or cut off"),
    ],
)
def test_a_row_that_is_not_a_prediction_raises_with_its_line(tmp_path, content, line, what):
    with pytest.raises(UserError, match=what) as error:
        read(tmp_path, content)
    assert f"predictions{line}" in str(error.value)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_raise_a_user_error(tmp_path_factory, content):
    for start in (b"", b"document,label,probability\n", b"document\tlabel\n", b'{"labels": ['):
        try:
            predicted, _ = read(tmp_path_factory.getbasetemp(), start + content, "fuzzed")
        except UserError:
            continue
        assert all(len(set(one.labels)) == len(one.labels) for one in predicted)


def documents(*ids):
    return [Predicted(name, ["x"], None) for name in ids]


def match(predicted, ids, tmp_path):
    irregularities = Irregularities()
    return matched(predicted, ids, tmp_path / "predictions", irregularities), irregularities


def test_ids_decide_where_both_sides_have_them(tmp_path):
    predicted, irregularities = match(documents("c", "a", "z"), ["a", "b", "c"], tmp_path)
    assert [(one.id, one.labels) for one in predicted] == [("a", ["x"]), ("b", []), ("c", ["x"])]
    assert irregularities.counts == {
        "not among those with labels, left out": 1,
        "without a prediction, scored 0": 1,
    }


@pytest.mark.parametrize("ids", [("", ""), ("a", "")])
def test_otherwise_the_order_decides(tmp_path, ids):
    for predicted, names in ((documents("u", "v"), ids), (documents(*ids), ("u", "v"))):
        assert match(predicted, names, tmp_path)[0] == predicted
        with pytest.raises(UserError, match="predictions: 3 documents with predictions, but 2 with labels"):
            match([*predicted, *documents("w")], names, tmp_path)


def test_ids_that_cannot_be_matched_raise(tmp_path):
    with pytest.raises(UserError, match="predictions: the id 'a' occurs twice"):
        match(documents("a", "a"), ["a", "b"], tmp_path)
    with pytest.raises(UserError, match="with the labels: the id 'b' occurs twice"):
        match(documents("a", "b"), ["b", "b"], tmp_path)
    with pytest.raises(UserError, match="no document is among the 2"):
        match(documents("a"), ["b", "c"], tmp_path)
    for ids in (["b", "c"], ["", ""]):
        with pytest.raises(UserError, match="predictions: holds a header and no predictions"):
            match([], ids, tmp_path)


def test_arrays_hold_rankings_and_what_reaches_the_threshold():
    # As float32, in which a model's threshold was chosen, 0.3 is a little more: written as 0.3 it still reaches it.
    predicted = [Predicted("", ["y", "x"], [0.5, 0.3]), Predicted("", [], []), Predicted("", ["z"], [0.1])]
    ranked, probabilities, reached = as_arrays(predicted, {"x": 0, "y": 1, "z": 2}, float(np.float32(0.3)))
    assert ranked.tolist() == [[1, 0], [-1, -1], [2, -1]]
    np.testing.assert_array_equal(probabilities, np.float32([[0.5, 0.3], [0, 0], [0.1, 0]]))
    assert reached.values.tolist() == [1, 0]
    assert reached.offsets.tolist() == [0, 2, 2, 2]


# Labels with separators, quotes, line ends, tabs, other scripts, a formula, markup of rich and HTML.
ODD = ["a,b", 'say "x"', "two\nlines", "\ttab", "日本語", "=1+1", "[bold]", "<script>", "", " ", "\r", "é\u202e"]
DOCUMENTS = [
    Predicted(1, ["one", "two"], [0.75, 0.25], "text"),
    Predicted("CELEX:1", [], []),
    Predicted('a,"\t', ODD, [1.0 - 0.01 * i for i in range(len(ODD))], "x"),
]


def written(name, documents, **options):
    stream = io.StringIO(newline="")
    write = writer(name, stream, **options)
    for document in documents:
        write(document)
    return stream.getvalue()


def test_json_lines_as_written():
    lines = written("jsonl", DOCUMENTS).split("\n")
    assert lines.pop() == ""
    assert lines[0] == '{"id": 1, "labels": ["one", "two"], "probabilities": [0.75, 0.25]}'
    assert [json.loads(line) for line in lines] == [
        {"id": d.id, "labels": d.labels, "probabilities": d.probabilities} for d in DOCUMENTS
    ]


def test_csv_as_written():
    assert written("csv", DOCUMENTS[:2]) == "document,rank,label,probability\n1,1,one,0.75\n1,2,two,0.25\nCELEX:1,,,\n"


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
predictions = st.lists(st.tuples(names, st.floats(0, 1)), max_size=4).map(
    lambda pairs: Predicted("", [name for name, _ in pairs], [p for _, p in pairs])
)


@pytest.mark.parametrize(("name", "delimiter"), [("csv", ","), ("tsv", "\t")])
@settings(deadline=None)
@given(rows=st.lists(st.tuples(names, predictions), max_size=5))
def test_csv_and_tsv_are_read_back_by_the_csv_module(name, delimiter, rows):
    documents = [document._replace(id=document_id) for document_id, document in rows]
    content = written(name, documents, neutralise=False)
    cells = list(csv.reader(io.StringIO(content, newline=""), delimiter=delimiter))
    expected = [["document", "rank", "label", "probability"]]
    for document in documents:
        pairs = zip(document.labels, document.probabilities, strict=True)
        of_document = [[document.id, str(rank), label, str(p)] for rank, (label, p) in enumerate(pairs, start=1)]
        # No document is missing for lack of labels.
        expected += of_document or [[document.id, "", "", ""]]
    assert cells == expected


@pytest.mark.parametrize("name", ["jsonl", "csv", "tsv"])
def test_predictions_are_read_back_as_they_were_written(tmp_path, name):
    documents = [Predicted(str(number), labels, [0.5 / (i + 1) for i in range(len(labels))]) for number, labels in
                 enumerate([["one", "a,b", 'say "x"', "日本語"], [], ["two"]])]  # fmt: skip
    predicted, irregularities = read(tmp_path, written(name, documents), f"predictions.{name}")
    assert predicted == documents
    assert irregularities.summary() == ""


FORMULAS = {"=1+1": "'=1+1", "+a": "'+a", "-a": "'-a", "@a": "'@a", "\tx": "'\tx", "'=1": "''=1", "''@": "'''@"}
HARMLESS = ["-1", "+1.5e-3", "-.5", "a=b", "'a", "", "'", " =", "C++"]


@pytest.mark.parametrize("name", ["csv", "tsv"])
def test_no_spreadsheet_runs_a_label_or_an_id(tmp_path, name):
    texts = [*FORMULAS, *HARMLESS[:5], "C++"]
    documents = [Predicted(text, [text], [0.5]) for text in texts]
    content = written(name, documents)
    _, *rows = csv.reader(io.StringIO(content, newline=""), delimiter="," if name == "csv" else "\t")
    assert [(row[0], row[2]) for row in rows] == [(FORMULAS.get(text, text),) * 2 for text in texts]
    assert read(tmp_path, content, f"predictions.{name}")[0] == documents
    assert [*map(neutralised, HARMLESS)] == HARMLESS
    assert neutralised(-1) == -1


def test_float32_is_written_short_and_exact():
    values = np.random.default_rng(0).random(100, np.float32) ** 20
    line = json.loads(written("jsonl", [Predicted(1, [""] * 100, [float(str(p)) for p in values])]))
    np.testing.assert_array_equal(np.array(line["probabilities"], np.float32), values)


# --- the wide layout

LABEL_NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1, max_size=8)


@pytest.mark.parametrize("name", ["csv", "tsv"])
@settings(deadline=None)
@given(
    labels=st.lists(
        LABEL_NAMES | st.sampled_from(["document", "label", "Label", "id", "rank"]), min_size=1, unique=True
    ),
    values=st.lists(st.lists(st.none() | st.floats(0, 1, width=32), min_size=9, max_size=9), max_size=4),
)
def test_a_wide_table_is_read_back(tmp_path_factory, name, labels, values):
    labels = labels[:9]
    documents = []
    for number, cells in enumerate(values, 1):
        pairs = [(p, label) for p, label in zip(cells, labels, strict=False) if p is not None]
        pairs.sort(key=lambda pair: -pair[0])
        documents.append(Predicted(str(number), [label for _, label in pairs], [p for p, _ in pairs]))
    stream = io.StringIO(newline="")
    write = wide_writer(name, stream, labels)
    for document in documents:
        write(document)
    predicted, irregularities = read(tmp_path_factory.getbasetemp(), stream.getvalue(), "wide")
    assert predicted == documents
    assert irregularities.summary() == ""
    rows = list(csv.reader(io.StringIO(stream.getvalue(), newline=""), delimiter="," if name == "csv" else "\t"))
    assert rows[0][1:] == [*map(neutralised, labels)]
    assert rows[0][0] not in labels
    assert [len(row) for row in rows] == [len(labels) + 1] * (len(documents) + 1)


def test_a_table_with_a_column_for_each_label_may_be_of_another_program(tmp_path):
    content = "id,toxic,obscene\n7,0.5,0.75\n8,,\n\n9,1,0\n"
    predicted, _ = read(tmp_path, content)
    assert predicted == [
        Predicted("7", ["obscene", "toxic"], [0.75, 0.5]),
        Predicted("8", [], []),
        Predicted("9", ["toxic", "obscene"], [1.0, 0.0]),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,a,b\n7,0.5\n", "predictions:2: 2 columns, but the header has 3 (id, a, b)"),
        ("id,a,b\n7,0.5,yes\n", "predictions:2: expected a number, got 'yes'"),
        ("id,a,a\n7,0.5,0.5\n", "predictions:1: expected a header"),
        ("id\n7\n", "predictions:1: expected a header"),
    ],
)
def test_a_wide_table_that_cannot_be_read_is_an_error(tmp_path, content, message):
    with pytest.raises(UserError) as error:
        read(tmp_path, content)
    assert message in str(error.value)


def test_one_is_counted_in_the_singular():
    irregularities = Irregularities()
    irregularities.add("without a prediction", "rows:1")
    assert irregularities.summary() == "1 document without a prediction (first rows:1)"
    irregularities.add("without a prediction", "rows:2")
    assert irregularities.summary() == "2 documents without a prediction (first rows:1)"
