import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix, vstack

from lsfa_jax.data import build_corpus
from lsfa_jax.data.corpus import Corpus, Split
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.data.ranked import FLOOR, Ranked
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.sparse import linear, tf_idf, tree
from lsfa_jax.training import linear_side
from lsfa_jax.util.console import UserError
from tests import training_corpus
from tests.bag_features import features_of

RARE = 7


def train(corpus, folder, kind, num_candidates=3):
    return linear_side.train(training_corpus.config(linear=kind), corpus, num_candidates, folder, "make room")


def without_label(split: Split, label: int) -> Split:
    rows = [[other for other in split.labels.row(i) if other != label] for i in range(len(split))]
    return replace(split, labels=Ragged.from_rows(rows))


@pytest.fixture(scope="module")
def drawn(tiny) -> Corpus:
    """The tiny corpus as if validation had been drawn from training, and only one of its documents had label 7."""
    validation = without_label(tiny.validation, RARE)
    rows = [list(validation.labels.row(i)) for i in range(len(validation))]
    rows[0].append(RARE)
    return replace(
        tiny,
        train=without_label(tiny.train, RARE),
        validation=replace(validation, labels=Ragged.from_rows(rows)),
        published_documents=len(tiny.train) + len(tiny.validation),
    )


@pytest.fixture(scope="module")
def kept(drawn, tmp_path_factory):
    """The folder in which machines were kept."""
    folder = tmp_path_factory.mktemp("linear")
    train(drawn, folder, "svm")
    return folder


def test_lists_of_validation_documents_are_by_a_model_that_never_saw_them(drawn, kept):
    side = train(drawn, kept, "svm")
    assert RARE not in side.ranked("validation").label_ids
    assert RARE in side.ranked("test").label_ids
    assert RARE in side.model.trained.label_ids
    blind = linear.train("svm", [drawn.train.bags], drawn.bag_terms, drawn.train.labels, 8)
    expected = blind.rank(features_of(blind, drawn.validation.bags, drawn.bag_terms))
    np.testing.assert_array_equal(side.ranked("validation").logits, expected.logits)
    np.testing.assert_array_equal(side.ranked("validation").label_ids, expected.label_ids)
    candidates = blind.rank(features_of(blind, drawn.train.bags, drawn.bag_terms), most=3)
    np.testing.assert_array_equal(side.ranked("train").label_ids, candidates.label_ids)


def test_lists_do_not_depend_on_how_many_documents_are_in_a_block(drawn, kept, tmp_path, monkeypatch):
    expected = train(drawn, kept, "svm")
    monkeypatch.setattr(tf_idf, "_BLOCK", 64)
    assert all(len(list(tf_idf.blocks_of_rows([split.bags]))) > 2 for split in (drawn.train, drawn.validation))
    side = train(drawn, tmp_path, "svm")
    for split in ("train", "validation", "test"):
        for actual, of_one_block in zip(side.ranked(split), expected.ranked(split), strict=True):
            np.testing.assert_array_equal(actual, of_one_block)


def test_training_documents_have_no_lists_where_no_candidates_are_needed(drawn, tmp_path):
    assert train(drawn, tmp_path, "svm", num_candidates=0).ranked("train").label_ids.shape == (0, 0)


def test_the_model_that_is_kept_is_trained_on_all_published_training_documents(drawn, kept):
    side = train(drawn, kept, "svm")
    rows = [*(drawn.train.labels.row(i) for i in range(36)), *(drawn.validation.labels.row(i) for i in range(12))]
    bags = vstack([drawn.train.bags, drawn.validation.bags], format="csr")
    complete = linear.train("svm", [bags], drawn.bag_terms, Ragged.from_rows(rows), 8)
    for actual, expected in zip(side.model.trained, complete.trained, strict=True):
        np.testing.assert_array_equal(actual, expected)
    expected = complete.rank(features_of(complete, drawn.test.bags, drawn.bag_terms))
    np.testing.assert_array_equal(side.ranked("test").logits, expected.logits)


def test_a_given_validation_split_is_not_trained_on(tiny, tmp_path, monkeypatch):
    sizes, original = [], linear.train

    def counted(kind, counts, *rest):
        sizes.append([part.shape[0] for part in counts])
        return original(kind, counts, *rest)

    monkeypatch.setattr(linear, "train", counted)
    side = train(tiny, tmp_path, "svm")
    assert sizes == [[36]]
    assert side.ranked("validation").label_ids.shape == side.ranked("test").label_ids.shape == (12, 8)


@pytest.mark.parametrize("kind", ["tree", "svm"])
def test_what_was_trained_is_read_again(drawn, tmp_path, kind, monkeypatch):
    side = train(drawn, tmp_path, kind)
    assert side.model.kind == kind
    monkeypatch.setattr(linear, "train", None)
    again = train(drawn, tmp_path, kind)
    for split in ("validation", "test"):
        for actual, expected in zip(again.ranked(split), side.ranked(split), strict=True):
            np.testing.assert_array_equal(actual, expected)
    assert again.model.files() == side.model.files()


def test_a_damaged_folder_is_an_error_that_names_it(drawn, kept, tmp_path):
    files = sorted(file.relative_to(kept) for file in kept.rglob("*") if file.is_file())
    assert len(files) == 9
    for number, file in enumerate(files):
        for change in ("flipped", "missing", "truncated"):
            folder = shutil.copytree(kept, tmp_path / f"{number}-{change}")
            data = bytearray((folder / file).read_bytes())
            data[len(data) // 2] ^= 1
            (folder / file).write_bytes(data if change == "flipped" else data[: len(data) // 2])
            if change == "missing":
                (folder / file).unlink()
            with pytest.raises(UserError, match=f"{folder / 'svm'}: damaged .*remove it"):
                train(drawn, folder, "svm")


def test_none_is_asked_for(drawn, tmp_path):
    assert train(drawn, tmp_path / "linear", "none") is None
    assert not (tmp_path / "linear").exists()


# --- models that cannot be trained


def fail(*arguments):
    raise UserError("omikuji could not train a label tree: no room for trees")


def test_a_tree_that_fails_is_warned_of_and_the_machines_go_on(drawn, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tree, "train_file", fail)
    assert train(drawn, tmp_path, "auto").model.kind == "svm"
    assert "warning: no label tree: omikuji could not train a label tree: no room" in capsys.readouterr().out
    assert train(drawn, tmp_path, "tree") is None
    assert [path.name for path in tmp_path.iterdir()] == ["svm"]


def test_without_the_library_there_are_machines_where_they_are_affordable(drawn, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "omikuji", None)
    assert train(drawn, tmp_path, "auto").model.kind == "svm"
    assert train(drawn, tmp_path, "tree") is None
    assert "pip install omikuji" in capsys.readouterr().out
    monkeypatch.setattr(linear, "_MOST_PAIRS", 0)
    assert train(drawn, tmp_path, "auto") is None
    out = capsys.readouterr().out
    assert "no linear model is trained beside the network" in out
    assert "pip install omikuji" in out
    assert "--linear svm" in out
    assert train(drawn, tmp_path, "svm").model.kind == "svm"


def corpus_of(texts):
    rows = [Document(text, (f"l{number % 2}",)) for number, text in enumerate(texts)]
    return build_corpus.build(
        "c", rows, [], None, max_words=9, max_vocabulary=99, validation_fraction=0.0, seed=0
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["auto", "tree", "svm"])
def test_without_a_word_of_two_texts_there_is_no_linear_model(tmp_path, kind, capsys):
    assert train(corpus_of([f"word{number}" for number in range(9)]), tmp_path, kind) is None
    assert "warning: no word is in two training texts" in capsys.readouterr().out


def test_words_that_only_validation_documents_share_are_no_features_without_them(drawn, tmp_path, capsys):
    bags = csr_matrix(np.eye(36, len(drawn.bag_terms), dtype=np.int32))
    assert train(replace(drawn, train=replace(drawn.train, bags=bags)), tmp_path, "auto") is None
    out = capsys.readouterr().out
    assert "no label tree: no word is in two of its training texts" in out
    assert "no one-versus-rest SVM: no word is in two of its training texts" in out


def test_without_validation_documents_machines_are_preferred(tmp_path):
    corpus = corpus_of(["red fish", "blue fish", "red bird", "blue bird"])
    assert len(corpus.validation) == 0
    side = train(corpus, tmp_path, "auto")
    assert side.model.kind == "svm"
    assert set(side.lists) == {"tree", "svm"}
    assert side.ranked("validation").label_ids.shape == (0, 2)


# --- the choice


def lists(corpus, num_right):
    """Lists that begin with the label of the first documents and with another one for the others."""
    truth = corpus.validation.labels
    label_ids = np.array([[truth.row(i)[0] if i < num_right else 8, -1] for i in range(12)], np.int32)
    return {"validation": Ranked(label_ids, np.full((12, 2), FLOOR, np.float32))}


@pytest.mark.parametrize(("of_tree", "of_svm", "best"), [(6, 5, "tree"), (5, 5, "svm"), (5, 6, "svm")])
def test_the_model_that_is_better_on_validation_is_fused_machines_where_both_are_equal(tiny, of_tree, of_svm, best):
    assert linear_side._best(tiny, {"tree": lists(tiny, of_tree), "svm": lists(tiny, of_svm)}) == best
