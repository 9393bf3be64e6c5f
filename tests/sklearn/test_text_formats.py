import numpy as np
import pytest
from scipy import sparse

from lsfa_jax.sklearn.text_formats import parse_texts
from tests.sklearn.table import Table

TEXTS = ["the boiler is cold", "a ferry left"]


def assert_read(X):
    texts = parse_texts(X)
    assert texts == TEXTS
    assert all(type(text) is str for text in texts)


def test_lists_tuples_generators_and_arrays():
    objects = np.array(TEXTS, object)
    for X in (TEXTS, tuple(TEXTS), (text for text in TEXTS), np.array(TEXTS), objects, objects[:, None]):
        assert_read(X)


def test_other_tables():
    assert_read(Table({"text": TEXTS}))
    for columns in ({"id": [1, 2], "text": TEXTS}, {"text": TEXTS, "id": [1, 2]}, {"id": ["7", "8"], "text": TEXTS}):
        with pytest.raises(ValueError, match=r"'id'.*X\['text'\]"):
            parse_texts(Table(columns))


def test_words_that_were_split_before_are_joined():
    split = [text.split() for text in TEXTS]
    for X in (split, [tuple(row) for row in split], [np.array(row) for row in split]):
        assert_read(X)
    assert parse_texts([[], ["one"]]) == ["", "one"]


def test_series_and_tables_with_one_column_of_pandas():
    pd = pytest.importorskip("pandas")
    series = pd.Series(TEXTS, index=[7, 3])
    for X in (series, series.astype("string"), series.astype("category"), series.astype(object)):
        assert_read(X)
    assert_read(pd.DataFrame({"text": TEXTS}, index=[7, 3]))
    assert_read(pd.DataFrame({("a", "b"): TEXTS}))


def test_series_and_tables_with_one_column_of_polars():
    pl = pytest.importorskip("polars")
    assert_read(pl.Series(TEXTS))
    assert_read(pl.DataFrame({"text": TEXTS}))
    with pytest.raises(ValueError, match=r"'title', 'text'.*X\['text'\]"):
        parse_texts(pl.DataFrame({"title": ["a", "b"], "text": TEXTS}))


def test_tables_with_several_columns_are_refused_with_their_names():
    pd = pytest.importorskip("pandas")
    for columns in ({"id": [1, 2], "text": TEXTS}, {"text": TEXTS, "id": [1, 2]}):
        with pytest.raises(ValueError, match=r"'id'.*X\['text'\]|'text'.*X\['text'\]"):
            parse_texts(pd.DataFrame(columns))
    with pytest.raises(ValueError, match="columns"):
        parse_texts(pd.DataFrame(np.zeros((2, 3))))
    with pytest.raises(ValueError, match=r"columns \[\]"):
        parse_texts(pd.DataFrame(index=[0, 1]))
    with pytest.raises(ValueError, match=r"text 1 is missing \(nan\).*fillna"):
        parse_texts(pd.DataFrame({"text": ["a", np.nan]}))
    with pytest.raises(ValueError, match=r"text 1 is missing \(<NA>\).*fillna"):
        parse_texts(pd.Series(["a", None], dtype="string"))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("['a', 'b']", r"got one str; for one text, write \[text\]"),
        (b"a", "got one bytes"),
        (None, "got one NoneType"),
        ({"text": TEXTS, "id": [1, 2]}, r"X is a dict.*X\['text'\]"),
        ({"a", "b"}, "no order"),
        (sparse.csr_matrix((2, 3)), "list of texts"),
        (np.array([TEXTS, TEXTS], object), r"\(2, 2\).*X\[:, 0\]"),
        (np.array("a"), r"array \(\)"),
        (["a", None], r"text 1 is missing \(None\).*fillna"),
        (["a", float("nan")], r"text 1 is missing \(nan\).*fillna"),
        ([b"a"], "text 0 is bytes.*decode"),
        (["a", 3.5], "text 1 is a float"),
        ([{"text": "a"}], "text 0 is a dict"),
        ([["a", 1]], "text 0 is a list"),
        ([{"a", "b"}], "text 0 is a set"),
        (list(zip(TEXTS, ["heating", "harbour"], strict=True)), r"text 0 is a list of several texts.*row\[0\]"),
    ],
)
def test_anything_else_is_refused(X, message):
    with pytest.raises(ValueError, match=message):
        parse_texts(X)
