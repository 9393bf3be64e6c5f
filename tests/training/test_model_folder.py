import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.training import model_folder
from lsfa_jax.util.console import UserError
from tests import training_corpus
from tests.reference.agreement import assert_equal

WORDS = ["one", "zwei", "три", "a\u2028b"]
LABELS = ["plain", 'with "quotes", commas', "two\nlines", "日本", " space "]
FILES = ("config.toml", "vocabulary", "labels", "weights.safetensors", "model.json")


def trained(words=WORDS, labels=LABELS):
    random = np.random.default_rng(0)
    return model_folder.TrainedModel(
        config=training_corpus.config(seed=7),
        words=words,
        labels=labels,
        label_counts=np.arange(len(labels), 0, -1),
        num_documents=20,
        threshold=0.375,
        params={
            "embedding": random.normal(size=(6, 3)).astype(np.float32),
            "classifier": {"weights": random.normal(size=(5, 2)).astype(np.float32).T},
        },
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model"
    model_folder.write(folder, trained())
    return folder


@pytest.fixture
def copy(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


def test_what_is_read_is_what_was_written_also_after_the_folder_moved(copy):
    ours, theirs = model_folder.read(copy), trained()
    for name in ("config", "words", "labels", "num_documents", "threshold"):
        assert getattr(ours, name) == getattr(theirs, name)
    np.testing.assert_array_equal(ours.label_counts, theirs.label_counts)
    assert_equal(ours.params, theirs.params)
    assert {path.name for path in copy.iterdir()} == set(FILES)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=5, unique=True))
def test_any_label_name_comes_back(tmp_path_factory, labels):
    folder = tmp_path_factory.mktemp("labels")
    model_folder.write(folder, trained(labels=labels))
    assert model_folder.read(folder).labels == labels


def test_labels_that_only_test_documents_have_are_no_labels_of_the_model(copy):
    """A run's list of labels is longer than its model's."""
    manifest = json.loads((copy / "model.json").read_text())
    del manifest["sha256"]
    manifest["num_labels"] = 3
    manifest["sha256"] = model_folder._own_digest(manifest)
    (copy / "model.json").write_text(json.dumps(manifest))
    assert model_folder.read(copy).labels == LABELS[:3]


def test_a_runs_longer_list_of_labels_stays_and_another_list_goes(copy):
    model_folder.write(copy, trained(labels=LABELS[:3]))
    lines = (copy / "labels").read_bytes().decode().split("\n")[:-1]
    assert [json.loads(line) for line in lines] == LABELS
    assert model_folder.read(copy).labels == LABELS[:3]
    model_folder.write(copy, trained(labels=LABELS[1:3]))
    assert model_folder.read(copy).labels == LABELS[1:3]
    assert len((copy / "labels").read_bytes().splitlines()) == 2


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.999])
def test_one_changed_byte_is_found_and_its_file_named(copy, name, share):
    data = bytearray((copy / name).read_bytes())
    place = int(share * len(data))
    # A digit stays a digit and a letter a letter, so that the manifest is still JSON.
    data[place] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(UserError, match="changed or damaged") as caught:
        model_folder.read(copy)
    assert str(copy / name) in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_cut_off_or_missing_file_is_named(copy, name):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=f"{name}: changed or damaged"):
        model_folder.read(copy)
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"no {name}" if name == "model.json" else f"{name}: changed or damaged"):
        model_folder.read(copy) if name != "model.json" else model_folder.read(_without_settings(copy))


def _without_settings(folder):
    (folder / "config.toml").unlink()
    return folder


def test_a_model_of_another_version_is_refused_by_name(copy):
    manifest = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(manifest | {"format": 99, "lsfa_jax": "9.1"}))
    with pytest.raises(UserError, match=r"written by lsfa_jax 9\.1 in format 99"):
        model_folder.read(copy)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"7", b'{"format": 1}', b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_none_is_refused(copy, content):
    (copy / "model.json").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.json: changed or damaged"):
        model_folder.read(copy)


def test_a_run_without_a_model_is_told_from_a_folder_without_a_run(copy, tmp_path):
    model_folder.forget(copy)
    with pytest.raises(UserError, match="no model yet; finish it with bin/train"):
        model_folder.read(copy)
    with pytest.raises(UserError, match="no model here"):
        model_folder.read(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_written_is_told_of(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written.*another --output"):
        model_folder.write(tmp_path / "file", trained())
