import copy
import gc
import json
import pickle
import signal
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import jax
import joblib
import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import ndcg_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from lsfa_jax import LSFA
from lsfa_jax.training import loop, model_folder
from lsfa_jax.util.compilation_cache import programs
from tests import training_corpus

pytestmark = pytest.mark.usefixtures("module_on_one_device")

SETTINGS = {
    f"{section}.{key}": list(value) if isinstance(value, tuple) else value
    for section, values in training_corpus.TINY.items()
    if isinstance(values, dict)
    for key, value in values.items()
    if key not in ("max_words", "hidden_size", "feature_size", "epochs", "head_threshold", "batch_size")
} | {"linear": "none", "adjust.epochs": 1, "pvae.epochs": 1, "pvae.batch_size": 16, "report.batch_size": 8}


def tiny(**arguments):
    """An estimator whose fit takes its time from compilation alone."""
    sizes = {"epochs": 2, "max_words": 16, "hidden_size": 4, "feature_size": 5, "batch_size": 8}
    settings = SETTINGS | {"pvae.hidden_size": 6} | arguments.pop("settings", {})
    return LSFA(**{**sizes, "head_threshold": 4, "settings": settings, **arguments})


def documents(name="train"):
    rows = training_corpus.documents()[name]
    return [row.text for row in rows], [row.labels for row in rows]


def indicator(labels, classes):
    return np.array([[name in row for name in classes] for row in labels], int)


@pytest.fixture(scope="module")
def fitted():
    return tiny().fit(*documents())


@pytest.mark.slow
def test_fit_leaves_no_files_and_prints_nothing(capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    estimator = tiny()
    before = estimator.get_params()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        assert estimator.fit(*documents()) is estimator
        gc.collect()
    assert [str(one.message) for one in caught if one.category is ResourceWarning] == []
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert estimator.get_params() == before


@pytest.mark.slow
def test_predictions_agree_with_each_other(fitted):
    texts, _ = documents("test")
    assert fitted.classes_.tolist() == [f"label{number}" for number in range(8)]
    dense = fitted.predict_proba(texts)
    assert dense.shape == (len(texts), 8)
    assert np.all((dense > 0) & (dense < 1))
    for predicted, best, row in zip(fitted.predict(texts), fitted.predict(texts, top=3), dense, strict=True):
        order = np.argsort(-row, kind="stable")
        expected = [fitted.classes_[column] for column in order if row[column] >= fitted.threshold_]
        assert Counter(predicted) == Counter(expected)
        assert [row[list(fitted.classes_).index(name)] for name in best] == sorted(row, reverse=True)[:3]
    few = clone(fitted).set_params(top_k=2, proba="sparse")._keep(fitted.model_, fitted._labels).predict_proba(texts)
    assert isinstance(few, sparse.csr_array)
    assert few.has_canonical_format
    for row, kept in zip(dense, few.toarray(), strict=True):
        expected = np.where(row >= np.sort(row)[-2], row, 0)
        np.testing.assert_array_equal(kept, expected)
    assert fitted.predict([]) == []
    assert fitted.predict_proba([]).shape == (0, 8)


def weights_on_devices(estimator):
    """Where the devices keep arrays of the shape of the word vectors."""
    shape = estimator.model_.params["encoder"]["embedding"].shape
    return {x.addressable_data(0).unsafe_buffer_pointer() for x in jax.live_arrays() if x.shape == shape}


@pytest.mark.slow
def test_a_second_prediction_neither_compiles_nor_copies_the_weights_again(fitted):
    texts, _ = documents("test")
    first = fitted.predict(texts)
    compiled, weights = programs(), weights_on_devices(fitted)
    assert weights
    assert fitted.predict(texts) == first
    assert programs() == compiled
    assert weights_on_devices(fitted) == weights


@pytest.mark.slow
def test_copies_predict_the_same_and_leave_the_devices_arrays_behind(fitted, tmp_path):
    texts, _ = documents("test")
    first = fitted.predict(texts)
    stored = pickle.dumps(fitted)
    size = sum(x.nbytes for x in jax.tree.leaves(fitted.model_.params))
    assert len(stored) < 2 * size + 20_000
    joblib.dump(fitted, tmp_path / "fitted.joblib")
    for copied in (pickle.loads(stored), joblib.load(tmp_path / "fitted.joblib"), copy.deepcopy(fitted)):
        before = weights_on_devices(fitted)
        assert copied.predict(texts) == first
        assert len(weights_on_devices(copied)) > len(before)
    assert not hasattr(clone(fitted), "model_")
    assert fitted.predict(texts) == first


@pytest.mark.slow
def test_score_is_ndcg_at_5(fitted):
    texts, labels = documents("test")
    truth = indicator(labels, fitted.classes_)
    expected = ndcg_score(truth, fitted.predict_proba(texts), k=5)
    assert fitted.score(texts, labels) == pytest.approx(expected, abs=1e-6)
    # A label that training lacks counts as one that was missed.
    assert fitted.score(texts, [[*row, "never seen"] for row in labels]) < expected
    assert fitted.score(texts, [["never seen"]] * len(texts)) == 0.0


@pytest.mark.slow
def test_each_form_of_labels_trains_the_same_model_and_is_returned(fitted):
    texts, labels = documents()
    matrix = indicator(labels, fitted.classes_)
    truth = indicator(documents("test")[1], fitted.classes_)
    tests = documents("test")[0]
    expected = fitted.predict_proba(tests)
    named = np.zeros(truth.shape, int)
    for row, names in zip(named, fitted.predict(tests), strict=True):
        row[[list(fitted.classes_).index(name) for name in names]] = 1
    objects = np.empty(len(labels), object)
    objects[:] = [list(row) for row in labels]
    for form in ([set(row) for row in labels], objects, matrix, sparse.coo_matrix(matrix), matrix.astype(bool)):
        estimator = tiny().fit(np.array(texts, object), form)
        predicted = estimator.predict(tests)
        if isinstance(form, np.ndarray) and form.ndim == 2:
            assert isinstance(predicted, np.ndarray)
            np.testing.assert_array_equal(predicted, named)
        elif sparse.issparse(form):
            np.testing.assert_array_equal(predicted.toarray(), named)
        if form is not objects and not isinstance(form, list):
            assert estimator.classes_.tolist() == list(range(8))
            assert estimator.score(tests, truth) == pytest.approx(fitted.score(tests, documents("test")[1]))
        np.testing.assert_allclose(estimator.predict_proba(tests), expected, rtol=1e-3, atol=1e-4)


def single_labels(kind):
    """The first label of each document, its name or its number; models of both have the same programs."""
    return [row[0] if kind is str else int(row[0][-1]) for row in documents()[1]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [str, int], ids=["names", "numbers"])
def test_single_labels(kind):
    texts, first = documents()[0], single_labels(kind)
    estimator = tiny(head_threshold=None).fit(texts, first)
    assert estimator.classes_.tolist() == sorted(set(first))
    predicted = estimator.predict(texts)
    assert predicted.shape == (len(texts),)
    assert set(predicted.tolist()) <= set(first)
    assert estimator.score(texts, first) == pytest.approx(np.mean(predicted == np.array(first)))
    best = estimator.predict_proba(texts).argmax(axis=1)
    np.testing.assert_array_equal(estimator.classes_[best], predicted)
    assert all(row[0] == one for row, one in zip(estimator.predict(texts, top=2), predicted.tolist(), strict=True))


@pytest.mark.slow
def test_equal_seeds_give_equal_models(fitted):
    texts, labels = documents()
    again = clone(fitted).fit(texts, labels)
    np.testing.assert_array_equal(again.predict_proba(texts), fitted.predict_proba(texts))
    different = clone(fitted).set_params(random_state=np.random.RandomState(7)).fit(texts, labels)
    assert np.any(different.predict_proba(texts) != fitted.predict_proba(texts))


@pytest.mark.slow
@pytest.mark.parametrize("single", [False, True], ids=["sets", "single"])
def test_a_saved_model_is_loaded_unchanged(fitted, single, tmp_path):
    texts, labels = documents()[0], single_labels(int) if single else documents()[1]
    estimator = tiny(head_threshold=None, random_state=np.int64(3)).fit(texts, labels) if single else fitted
    estimator.save(tmp_path / "model")
    again = LSFA.load(tmp_path / "model")
    assert again.get_params() == estimator.get_params()
    assert again.classes_.dtype.kind == estimator.classes_.dtype.kind
    assert list(again.predict(texts)) == list(estimator.predict(texts))
    assert again.score(texts, labels) >= 0
    assert model_folder.read(tmp_path / "model").labels == estimator.model_.labels


@pytest.mark.slow
def test_a_run_folder_can_be_loaded_and_a_damaged_one_is_refused(fitted, tmp_path):
    model_folder.write(tmp_path, fitted.model_)
    texts, _ = documents("test")
    assert LSFA.load(tmp_path).predict(texts) == fitted.predict(texts)
    fitted.save(tmp_path)
    (tmp_path / "estimator.json").write_text('{"params": {}, "form": "none", "classes": []}')
    with pytest.raises(ValueError, match=r"estimator\.json"):
        LSFA.load(tmp_path)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"weights\.safetensors"):
        LSFA.load(tmp_path)
    with pytest.raises(ValueError, match="no model"):
        LSFA.load(tmp_path / "nothing")


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_holds_no_model_and_raises_value_error(fitted, tmp_path):
    model_folder.write(tmp_path, fitted.model_)
    (tmp_path / "estimator.json").mkdir()
    with pytest.raises(ValueError, match=r"estimator\.json"):
        fitted.save(tmp_path)
    assert not (tmp_path / "model.json").exists()


@pytest.mark.slow
def test_classes_of_another_model_are_refused(fitted, tmp_path):
    fitted.save(tmp_path)
    about = json.loads((tmp_path / "estimator.json").read_text())
    about["classes"][0] = "another"
    (tmp_path / "estimator.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"estimator\.json: .*its classes lack labels of the model, such as"):
        LSFA.load(tmp_path)


# scikit-learn's checks that do not fit on numbers: this estimator takes texts.
CHECKS = {
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_estimators_unfitted",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
    "check_estimators_partial_fit_n_features",
    "check_supervised_y_no_nan",
    "check_non_transformer_estimators_n_iter",
    "check_decision_proba_consistency",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_fit1d",
}


@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks():
    class Unasked(LSFA):
        """With the tag of text classifiers, scikit-learn would skip every check but the first."""

        def __sklearn_tags__(self):
            tags = super().__sklearn_tags__()
            tags.input_tags.two_d_array = True
            return tags

    results = check_estimator(Unasked(), on_skip=None, on_fail=None)
    assert {one["check_name"] for one in results if one["status"] == "passed"} >= CHECKS
    for one in results:
        if one["status"] == "failed":
            # Numbers raise ValueError, and a few checks expect a different message.
            assert isinstance(one["exception"], ValueError | AssertionError), one["check_name"]
    tags = LSFA().__sklearn_tags__()
    assert tags.input_tags.string
    assert not tags.input_tags.two_d_array
    assert tags.classifier_tags.multi_label


@pytest.mark.slow
def test_in_scikit_learns_tools():
    texts, labels = documents()
    matrix = indicator(labels, [f"label{number}" for number in range(8)])
    scorers = {"ndcg": lambda estimator, X, y: estimator.score(X, y), "precision": "average_precision"}
    measured = cross_validate(tiny(), texts, matrix, cv=2, scoring=scorers)
    scores = measured["test_ndcg"]
    assert scores.shape == (2,)
    assert np.all((measured["test_precision"] > 0) & (measured["test_precision"] <= 1))
    assert np.all((scores > 0) & (scores <= 1))
    # scikit-learn accepts a sequence of sequences with a splitter.
    assert cross_val_score(tiny(), texts, labels, cv=KFold(2)) == pytest.approx(scores)
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    halves = [(np.arange(18, 36), np.arange(18))]
    search = GridSearchCV(make_pipeline(lower, tiny()), {"lsfa__random_state": [0, 1]}, cv=halves)
    search.fit(texts, labels)
    assert search.best_estimator_[-1].model_.config.seed == search.best_params_["lsfa__random_state"]
    assert len(search.predict(texts)) == len(texts)


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["a b", 3.5], [["x"], ["y"]], "text 1 is a float"),
        (np.zeros((2, 3)), [["x"], ["y"]], "array"),
        ([], [], "0 sample"),
        (["a", "b"], [["x"]], "inconsistent numbers of samples"),
        (["a", "b"], None, "y is None"),
        (["a", "b"], ["['x', 'y']", "['y']"], "ast.literal_eval"),
        (["a", "b"], [[], []], "no training document has both a word and a label"),
        (["", "!"], [["x"], ["y"]], "no training document has both a word and a label"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*have no word")
def test_bad_input(texts, labels, message):
    with pytest.raises(ValueError, match=message):
        tiny().fit(texts, labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "fast"}, "preset='fast'"),
        ({"settings": {"encoder": "cnn"}}, r'LSFA\(encoder="cnn"\).*settings=\{"encoder.kind": "cnn"\}'),
        ({"settings": {"encoder.attention": "lsan"}, "encoder": "cnn"}, r'settings\["encoder.attention"\] lsan'),
        ({"hidden_size": 0}, "encoder.hidden_size = 0"),
        ({"settings": {"psc.temprature": 0.1}}, r"did you mean psc\.temperature"),
        ({"validation_fraction": 1.5}, "data.validation_fraction"),
        ({"vectors": "no/such/file"}, "no/such/file"),
        ({"proba": "both"}, "proba='both'"),
        ({"top_k": 0}, "top_k=0"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        LSFA(**arguments).fit(["a b", "b c"], [["x"], ["y"]])
    with pytest.raises(NotFittedError):
        LSFA(**arguments).predict(["a"])


@pytest.mark.slow
def test_documents_without_words_are_warned_about():
    texts, labels = documents()
    with pytest.warns(UserWarning, match="2 training documents have no word"):
        tiny().fit([*texts, "", "..."], [*labels, ["x"], ["y"]])


@pytest.mark.slow
def test_warnings_name_arguments_where_those_of_commands_name_options():
    with pytest.warns(UserWarning, match=r"no label has N_t = 1000 .*; lower head_threshold$"):
        tiny(head_threshold=1000).fit(*documents())


def test_ctrl_c_stops_at_once_and_removes_temporary_files(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = []

    def interrupt(*_):
        seen.append(list(tmp_path.iterdir()))
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop, "after_validation", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tiny().fit(*documents())
    assert [len(folders) for folders in seen] == [1]
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_for_temporary_files_raises(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError):
        tiny().fit(*documents())
    assert not Path(tmp_path / "gone").exists()
