import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import DataConversionWarning
from sklearn.preprocessing import MultiLabelBinarizer

from lsfa_jax.sklearn.label_formats import ParsedLabels
from tests.sklearn.table import Table

ROOT = Path(__file__).parents[2]
NAMES = ["garden", "harbour", "kitchen"]
SETS = [["kitchen", "garden"], ["harbour"], [], ["garden", "kitchen", "harbour"]]
NUMBERS = [[NAMES.index(name) for name in row] for row in SETS]
MATRIX = np.array([[int(name in row) for name in NAMES] for row in SETS])


def objects(rows):
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


def parse(y):
    """Parses without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ParsedLabels.of(y)


def assert_sets(y, classes=NAMES, rows=SETS):
    labels = parse(y)
    assert labels.form == "sets"
    assert labels.values.tolist() == classes
    assert [sorted(row) for row in labels.names] == [sorted(map(str, row)) for row in rows]


def assert_matrix(y, classes, form="dense"):
    labels = parse(y)
    assert labels.form == form
    assert labels.values.tolist() == classes
    rows = [tuple(str(name) for name, value in zip(classes, row, strict=True) if value) for row in MATRIX]
    assert labels.names == rows


def assert_single(y, classes, rows):
    labels = parse(y)
    assert labels.form == "single"
    assert labels.values.tolist() == classes
    assert labels.names == [(str(row),) for row in rows]


def test_lists_tuples_and_sets_of_names():
    assert_sets(SETS)
    assert_sets([tuple(row) for row in SETS])
    assert_sets([set(row) for row in SETS])
    assert_sets([frozenset(row) for row in SETS])
    assert_sets([np.array(row, str) for row in SETS])
    assert_sets(objects(SETS))
    assert_sets(row for row in SETS)
    # Rows of the same length become a matrix of strings.
    pairs = [["garden", "kitchen"], ["harbour", "garden"]]
    assert_sets(np.array(pairs), rows=pairs)
    assert_sets(np.array(pairs, object), rows=pairs)


def test_lists_keep_their_order_and_repeat_no_name():
    assert parse([["b", "a", "b"]]).names == [("b", "a")]


def test_sets_have_the_same_order_in_each_process():
    code = """if True:
        from lsfa_jax.sklearn.label_formats import ParsedLabels
        names = [f"label{number}" for number in range(12)]
        print(ParsedLabels.of([set(names), frozenset(names[3:]), dict.fromkeys(names).keys()]).names)"""

    def names(seed):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert names("1") == names("2") != ""


def test_lists_of_integers_keep_them_as_classes():
    assert_sets(NUMBERS, [0, 1, 2], NUMBERS)
    assert_sets([{np.int64(number) for number in row} for row in NUMBERS], [0, 1, 2], NUMBERS)
    assert_sets([np.array(row, np.int32) for row in NUMBERS], [0, 1, 2], NUMBERS)
    assert_sets([[10], [9, 100]], [9, 10, 100], [[10], [9, 100]])
    # Labels 0 and 1, not an indicator matrix.
    assert_sets([[0], [1], [1]], [0, 1], [[0], [1], [1]])
    assert_sets([[0, 1], [1]], [0, 1], [[0, 1], [1]])


def test_dicts_of_booleans_zeros_and_ones_or_scores():
    for positive, negative in [(1, 0), (True, False), (1.0, 0.0), (np.True_, np.False_), (0.9, 0.0), (3, -1)]:
        assert_sets([{name: positive if name in row else negative for name in NAMES} for row in SETS])
    assert_sets([dict.fromkeys(row, 1) for row in SETS])
    assert_sets([dict.fromkeys(row, 1) for row in NUMBERS], [0, 1, 2], NUMBERS)


def test_indicator_matrices():
    dense = [MATRIX, MATRIX.astype(float), MATRIX.astype(bool), MATRIX.astype(object), MATRIX.tolist()]
    dense += [MATRIX.astype(bool).tolist(), MATRIX.astype(float).tolist(), objects(list(MATRIX))]
    for y in dense:
        assert_matrix(y, [0, 1, 2])
    for kind in (sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix, sparse.lil_matrix):
        assert_matrix(kind(MATRIX), [0, 1, 2], "sparse")
    assert_matrix(MultiLabelBinarizer().fit_transform(SETS), [0, 1, 2])
    # One label a row of two.
    assert parse([[0, 1], [1, 0]]).names == [("1",), ("0",)]
    with pytest.warns(DataConversionWarning):
        assert ParsedLabels.of(MATRIX[:, :1]).form == "single"


def test_single_labels():
    names = ["b", "a", "b"]
    for y in (names, tuple(names), np.array(names), np.array(names, object), iter(names)):
        assert_single(y, ["a", "b"], names)
    for y in ([2, 1, 2], np.array([2, 1, 2], np.int32), np.array([2, 1, 2], object)):
        assert_single(y, [1, 2], [2, 1, 2])
    assert_single([True, False], [False, True], [True, False])
    assert_single([1.0, 0.0], [0.0, 1.0], [1.0, 0.0])
    assert parse(np.array([2, 1], np.int32)).values.dtype == np.int32


def test_names_are_normalised_as_those_of_files():
    decomposed = "Cafe\u0301"
    assert_sets([["Caf\u00e9"], [f" {decomposed}\n", "Caf\u00e9"]], ["Caf\u00e9"], [["Caf\u00e9"], ["Caf\u00e9"]])
    assert_single([decomposed, " Caf\u00e9"], ["Caf\u00e9"], ["Caf\u00e9"] * 2)


def test_series_of_pandas():
    pd = pytest.importorskip("pandas")
    assert_sets(pd.Series(SETS, index=[7, 3, 5, 1]))
    assert_sets(pd.Series([set(row) for row in SETS]))
    assert_sets(pd.Series([{name: name in row for name in NAMES} for row in SETS]))
    assert_sets(pd.Series(NUMBERS), [0, 1, 2], NUMBERS)
    assert_matrix(pd.Series(MATRIX.tolist()), [0, 1, 2])
    names = pd.Series(["b", "a", "b"], index=[7, 3, 5])
    for y in (names, names.astype("category"), names.astype("string"), names.astype(object)):
        assert_single(y, ["a", "b"], ["b", "a", "b"])
    assert_single(pd.Series([2, 1]).astype("category"), [1, 2], [2, 1])
    assert_single(pd.Series([2, 1], dtype="Int64"), [1, 2], [2, 1])
    with pytest.raises(ValueError, match=r"NaN.*text 1"):
        ParsedLabels.of(pd.Series(["a", None], dtype="string"))
    with pytest.raises(ValueError, match=r"NaN.*text 1"):
        ParsedLabels.of(pd.Series(["a", None], dtype="category"))


def test_tables_of_pandas_keep_the_names_of_their_columns():
    pd = pytest.importorskip("pandas")
    names = ["kitchen", "garden", "harbour"]
    table = pd.DataFrame(MATRIX, columns=names, index=[7, 3, 5, 1])
    for y in (table, table.astype(bool), table.astype(float), table.astype(object), table.astype("boolean")):
        assert_matrix(y, names)
    assert_matrix(table.astype(pd.SparseDtype(int, 0)), names)
    assert_matrix(pd.DataFrame(MATRIX), [0, 1, 2])
    assert_matrix(pd.DataFrame(MATRIX, columns=[("x", 1), ("x", 2), ("y", 1)]), ["('x', 1)", "('x', 2)", "('y', 1)"])
    with pytest.warns(DataConversionWarning):
        assert ParsedLabels.of(pd.DataFrame({"label": ["b", "a"]})).names == [("b",), ("a",)]
    with pytest.warns(DataConversionWarning):
        assert ParsedLabels.of(pd.DataFrame({"labels": SETS})).values.tolist() == NAMES
    for extra in (["x", "y", "z", ""], [0, 1, 0, 2], [0, 1, 0, np.nan], ["0", "1", "0", "1"]):
        with pytest.raises(ValueError, match=r"column 'extra'.*zeros and ones"):
            ParsedLabels.of(table.assign(extra=extra))
    with pytest.raises(ValueError, match="same name"):
        ParsedLabels.of(pd.concat([table, table], axis=1))


def test_other_tables_keep_the_names_of_their_columns():
    assert_matrix(Table(dict(zip(NAMES, MATRIX.T.tolist(), strict=True))), NAMES)
    with pytest.warns(DataConversionWarning):
        assert ParsedLabels.of(Table({"label": ["b", "a"]})).names == [("b",), ("a",)]


def test_series_and_tables_of_polars():
    pl = pytest.importorskip("polars")
    assert_matrix(pl.DataFrame(MATRIX, schema=NAMES), NAMES)
    assert_matrix(pl.DataFrame(MATRIX.astype(bool), schema=NAMES), NAMES)
    assert_sets(pl.Series(SETS))
    assert_sets(pl.Series(NUMBERS), [0, 1, 2], NUMBERS)
    assert_single(pl.Series(["b", "a"]), ["a", "b"], ["b", "a"])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "y is None"),
        ("ab", "one str"),
        ({"a": 1}, "one dict"),
        ({"a", "b"}, "one set"),
        ([["a"], None], r"text 1 are missing.*write \[\]"),
        ([None, ["a"]], r"text 0 are missing.*write \[\]"),
        ([["a"], float("nan")], r"text 1 are missing.*write \[\]"),
        ([["a"], [None]], "labels of text 1.*None"),
        ([["a"], [float("nan")]], "labels of text 1.*nan"),
        ([["a"], ["  "]], "labels of text 1.*empty"),
        ([["a"], "b"], "labels of text 1.*'b'"),
        ([["a"], [3]], "names and numbers.*'a' and 3"),
        ([["a"], [0.5]], "labels of text 1.*0.5"),
        ([["a"], {"b": 1}], "labels of text 1.*list"),
        ([{"a": 1}, ["b"]], "labels of text 1.*dict"),
        ([{"a": 1}, None], "labels of text 1.*dict"),
        ([{"a": 1}, {"a": None}], "labels of text 1.*None"),
        ([{"a": 1}, {"a": float("nan")}], "labels of text 1.*nan"),
        ([{"a": 1}, {"a": "yes"}], "labels of text 1.*'yes'"),
        ([{"a": 0.9, "b": 0.1}], "text 0.*'b'.*score >= 0.5"),
        ([[0.1, 0.9, 0.0], [0.0, 0.0, 1.0]], "labels of text 0.*0.1"),
        (["a", None], "NaN.*text 1"),
        (["a", float("nan")], "NaN.*text 1"),
        ([1.0, np.nan], "NaN.*text 1"),
        ([1.0, np.inf], "infinity"),
        ([0.5, 1.7], "continuous"),
        (["a", " "], "text 1.*empty"),
        (["a", "x\ud83d"], "surrogate"),
        (Table({"a": [0, 1], "": [1, 0]}), "empty"),
        (Table({"a": [0, 1], "b": ["x", "y"]}), "column 'b'.*zeros and ones"),
        (["a", 3], "text 1.*label name.*3"),
        ([3, "a"], "text 0.*label name.*3"),
        (["a", ["b"]], "text 1.*label name"),
        (2 * MATRIX, "zeros and ones"),
        (np.where(MATRIX == 1, 1.0, np.nan), "zeros and ones"),
        (MATRIX[None], "dim 3"),
    ],
)
def test_anything_else_is_refused(y, message):
    with pytest.raises(ValueError, match=message):
        ParsedLabels.of(y)


@pytest.mark.parametrize(
    "names",
    [
        [repr(row) for row in SETS],
        [repr(tuple(row)) for row in SETS if row],
        [repr(set(row)) for row in SETS if row],
        [str(np.array(row)) for row in SETS],
        ["[garden, kitchen]", "harbour"],
        ["garden", '"kitchen"'],
        ["garden]", "kitchen"],
    ],
)
def test_printed_lists_are_no_single_labels(names):
    with pytest.raises(ValueError, match=r"ast\.literal_eval.*\[\[label\] for label in y\]"):
        ParsedLabels.of(names)
    with pytest.warns(UserWarning, match=r"ast\.literal_eval"):
        labels = ParsedLabels.of([[name] for name in names])
    assert labels.names == [(name,) for name in names]


@pytest.mark.parametrize(
    ("names", "separator"),
    [
        (["garden;kitchen", "kitchen;harbour", "garden"], ";"),
        (["garden, kitchen", "kitchen, harbour", "garden"], ","),
        (["garden,kitchen", "kitchen,garden"], ","),
        (["garden,kitchen", "harbour", "kitchen", "garden", "harbour,garden"], ","),
        (["a|b", "c|d", "e|f"], "|"),
        (["a\nb", "c\nd"], "\\n"),
    ],
)
def test_joined_labels_are_no_single_labels(names, separator):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        ParsedLabels.of(names * 3)
    assert f"joined by '{separator}'" in str(error.value)
    assert f"label.split('{separator}')" in str(error.value)
    # Names that a model has are labels however they look.
    assert ParsedLabels.of(names, known=names).names == [(name,) for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ["Heating, ventilation", "Roads, paths", "Library"],
        ["Portland, Oregon", "Portland, Maine", "Salem, Oregon"],
        ["Books, Travel", "Books, History", "Books, Art", "Music"],
    ],
)
def test_names_with_commas_are_single_labels_with_a_warning(names):
    with pytest.warns(UserWarning, match=f"each string is read as one label, such as '{min(names)}'"):
        assert ParsedLabels.of(names).names == [(name,) for name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ParsedLabels.of(names, known=names)


@pytest.mark.parametrize(
    "names",
    [
        ["Heating, ventilation", "Roads", "Library"],
        ["Books|Travel", "Books", "Music", "Travel guides"],
        ["Heating (oil)", "(un)paid", "C++", ".NET", "Children's"],
        ["x > 3, y", "z"],
    ],
)
def test_names_with_a_comma_or_parentheses_are_single_labels(names):
    assert_single(names, sorted(names), names)
