import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsfa_jax.evaluation.prediction_files import Findings, Listed, as_arrays, matched, read_predictions
from lsfa_jax.util.console import UserError


def read(tmp_path, content, name="predictions"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    findings = Findings()
    return read_predictions(path, findings), findings


JSON = (
    '{"id": "a", "labels": ["x", "y"], "probabilities": [0.9, 0.2]}\n\n{"id": 7, "labels": [], "probabilities": []}\n'
)
WANTED = [Listed("a", ["x", "y"], [0.9, 0.2]), Listed("7", [], [])]


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
def test_one_prediction_in_every_form(tmp_path, content):
    listed, findings = read(tmp_path, content)
    assert listed == WANTED
    assert findings.summary() == ""


def test_labels_keep_their_characters(tmp_path):
    labels = ["a;b", 'say "x"', "tab\there", "línea", "市場", " spaced "]
    assert read(tmp_path, json.dumps({"labels": labels}))[0] == [Listed("", labels, None)]
    rows = "document,label\n" + "".join('1,"{}"\n'.format(label.replace('"', '""')) for label in labels)
    assert read(tmp_path, rows)[0] == [Listed("1", labels, None)]


def test_repeated_labels_and_rising_probabilities_are_mended_and_said(tmp_path):
    rows = [{"labels": ["x", "y", "x"], "probabilities": [0.3, 0.9, 0.5]}, {"labels": ["y", "y"]}]
    listed, findings = read(tmp_path, "\n".join(map(json.dumps, rows)))
    assert listed == [Listed("", ["y", "x"], [0.9, 0.5]), Listed("", ["y"], None)]
    assert findings.counts == {
        "documents with a label predicted twice, counted once": 2,
        "documents whose probabilities do not fall, put in order": 1,
    }
    assert "predictions:1" in findings.summary()


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
def test_what_is_no_prediction_is_refused_with_its_line(tmp_path, content, line, what):
    with pytest.raises(UserError, match=what) as error:
        read(tmp_path, content)
    assert f"predictions{line}" in str(error.value)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    for start in (b"", b"document,label,probability\n", b"document\tlabel\n", b'{"labels": ['):
        try:
            listed, _ = read(tmp_path_factory.getbasetemp(), start + content, "fuzzed")
        except UserError:
            continue
        assert all(len(set(one.labels)) == len(one.labels) for one in listed)


def documents(*ids):
    return [Listed(name, ["x"], None) for name in ids]


def match(listed, ids, tmp_path):
    findings = Findings()
    return matched(listed, ids, tmp_path / "theirs", findings), findings


def test_ids_decide_where_both_sides_have_them(tmp_path):
    listed, findings = match(documents("c", "a", "z"), ["a", "b", "c"], tmp_path)
    assert [(one.id, one.labels) for one in listed] == [("a", ["x"]), ("b", []), ("c", ["x"])]
    assert findings.counts == {
        "documents that are not among those with labels, left out": 1,
        "documents without a prediction, which score 0": 1,
    }


@pytest.mark.parametrize("ids", [("", ""), ("a", "")])
def test_otherwise_the_order_decides(tmp_path, ids):
    for listed, own in ((documents("u", "v"), ids), (documents(*ids), ("u", "v"))):
        assert match(listed, own, tmp_path)[0] == listed
        with pytest.raises(UserError, match="theirs: 3 documents with predictions, but 2 with labels"):
            match([*listed, *documents("w")], own, tmp_path)


def test_ids_that_cannot_be_matched_are_refused(tmp_path):
    with pytest.raises(UserError, match="theirs: the id 'a' occurs twice"):
        match(documents("a", "a"), ["a", "b"], tmp_path)
    with pytest.raises(UserError, match="with the labels: the id 'b' occurs twice"):
        match(documents("a", "b"), ["b", "b"], tmp_path)
    with pytest.raises(UserError, match="none of its 1 documents is among the 2"):
        match(documents("a"), ["b", "c"], tmp_path)


def test_arrays_hold_rankings_and_what_reaches_the_threshold():
    # As float32, in which a model's threshold was chosen, 0.3 is a little more: written as 0.3 it still reaches it.
    listed = [Listed("", ["y", "x"], [0.5, 0.3]), Listed("", [], []), Listed("", ["z"], [0.1])]
    ranked, given = as_arrays(listed, {"x": 0, "y": 1, "z": 2}, float(np.float32(0.3)))
    assert ranked.tolist() == [[1, 0], [-1, -1], [2, -1]]
    assert given.values.tolist() == [1, 0]
    assert given.offsets.tolist() == [0, 2, 2, 2]
