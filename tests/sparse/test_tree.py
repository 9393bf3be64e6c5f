import sys
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.datasets import load_svmlight_file

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.sparse import tree
from lsfa_jax.util.console import UserError

STATES = [
    b"Examples 5 / 5 [==>] 100.00 % 9/s ",
    b"Labels 3 / 3 [==>] 100.00 % 9/s ",
    b"1 / 4 [>--] 25.00 % 9/s 1s ",
    b"3 / 4 [=>-] 75.00 % 9/s 1s ",
    b"3 / 5 [=>-] 60.00 % 9/s 1s ",
    b"5 / 5 [==>] 100.00 % 9/s ",
]


@given(st.integers(1, 40))
def test_the_librarys_progress_bar_is_parsed_however_a_pipe_cuts_it(size):
    text = b"".join(state + b"\r" for state in STATES) + b"the end"
    chunks = [text[i : i + size] for i in range(0, len(text), size)]
    parsed = list(tree.percentages(chunks))
    percent = [value for value, _ in parsed]
    assert len(parsed) == len(chunks)
    assert percent == sorted(percent)
    assert set(percent) <= {0, 25, 75, 100}
    if size < 20:
        assert set(percent) == {0, 25, 75, 100}
    assert parsed[-1] == (100, b"the end")


def test_the_file_to_train_on_has_the_documents_with_a_feature_and_their_labels(tmp_path):
    features = csr_matrix(np.array([[0.5, 0, 0], [0, 0, 0], [0, 0.25, 1], [0, 0, 2], [4, 0, 0]], np.float32))
    labels = Ragged.from_rows([[2], [0], [0, 1], [], [1, 3]])
    tree.write_features(tmp_path / "data", [features[:3], features[3:]], labels, 4)
    header, *lines = (tmp_path / "data").read_bytes().splitlines(keepends=True)
    assert [int(size) for size in header.split()] == [4, 3, 4]
    read, of_documents = load_svmlight_file(BytesIO(b"".join(lines)), n_features=3, multilabel=True, zero_based=True)
    np.testing.assert_array_equal(read.toarray(), features[[0, 2, 3, 4]].toarray())
    assert of_documents == [(2,), (0, 1), (), (1, 3)]


def test_a_failed_training_reports_the_librarys_error(tmp_path):
    with pytest.raises(UserError, match="could not train a label tree: no room for trees"):
        tree.train_file(tmp_path / "data", tmp_path / "model", "import sys; sys.exit('no room for trees')")


def test_the_training_program_gets_both_paths(tmp_path):
    program = "import sys, pathlib; pathlib.Path(sys.argv[2]).write_text(sys.argv[1])"
    tree.train_file(tmp_path / "data", tmp_path / "model", program)
    assert (tmp_path / "model").read_text() == str(tmp_path / "data")


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch):
    tree.check()
    monkeypatch.setitem(sys.modules, "omikuji", None)
    with pytest.raises(UserError, match=r"pip install omikuji"):
        tree.check()
