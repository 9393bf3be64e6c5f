import hashlib
import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict
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


def test_a_model_is_read_as_it_was_written_also_after_the_folder_moved(copy):
    actual, expected = model_folder.read(copy), trained()
    for name in ("config", "words", "labels", "num_documents", "threshold"):
        assert getattr(actual, name) == getattr(expected, name)
    np.testing.assert_array_equal(actual.label_counts, expected.label_counts)
    assert_equal(actual.params, expected.params)
    assert {path.name for path in copy.iterdir()} == set(FILES)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=5, unique=True))
def test_any_label_name_is_read_as_it_was_written(tmp_path_factory, labels):
    folder = tmp_path_factory.mktemp("labels")
    model_folder.write(folder, trained(labels=labels))
    assert model_folder.read(folder).labels == labels


def test_a_longer_list_of_labels_of_a_run_is_kept_and_another_list_is_replaced(copy):
    """The list of a run continues with labels that only its test documents have; they are not labels of the model."""
    model_folder.write(copy, trained(labels=LABELS[:3]))
    lines = (copy / "labels").read_bytes().decode().split("\n")[:-1]
    assert [json.loads(line) for line in lines] == LABELS
    assert model_folder.read(copy).labels == LABELS[:3]
    model_folder.write(copy, trained(labels=LABELS[1:3]))
    assert model_folder.read(copy).labels == LABELS[1:3]
    assert len((copy / "labels").read_bytes().splitlines()) == 2


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.999])
def test_one_changed_byte_is_an_error_that_names_the_file(copy, name, share):
    data = bytearray((copy / name).read_bytes())
    place = int(share * len(data))
    # Digits and letters remain digits and letters, so that the manifest is still JSON.
    data[place] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(UserError, match="changed or damaged") as caught:
        model_folder.read(copy)
    assert str(copy / name) in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_or_missing_file_is_an_error_that_names_it(copy, name):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=f"{name}: changed or damaged"):
        model_folder.read(copy)
    (copy / name).unlink()
    if name == "model.json":
        # With its settings, the folder would be a run that has not finished.
        (copy / "config.toml").unlink()
    with pytest.raises(UserError, match=f"no {name}" if name == "model.json" else f"{name}: changed or damaged"):
        model_folder.read(copy)


def test_a_model_of_another_format_is_an_error_that_names_the_version(copy):
    manifest = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(manifest | {"format": 99, "lsfa_jax": "9.1"}))
    with pytest.raises(UserError, match=r"written by lsfa_jax 9\.1 in format 99"):
        model_folder.read(copy)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_a_model_of_format_1_is_read_into_the_parameter_tree(copy):
    flat = {
        "embedding": ("encoder", "embedding"),
        "lstm_forward_w_input": ("encoder", "forward", "w_input"),
        "lstm_backward_h0": ("encoder", "backward", "h0"),
        "label_queries": ("labels", "queries"),
        "head_kernel": ("labels", "head", "kernel"),
        "head_bias": ("labels", "head", "bias"),
        "classifier/weights": ("classifier", "weights"),
    }
    arrays = {f"params/{name}": np.full(2, number, np.float32) for number, name in enumerate(flat)}
    weights = safetensors.numpy.save(arrays | {"label_counts": np.arange(len(LABELS))})
    (copy / "weights.safetensors").write_bytes(weights)
    manifest = json.loads((copy / "model.json").read_text()) | {"format": 1}
    manifest["files"]["weights.safetensors"] = {"bytes": len(weights), "sha256": sha256(weights)}
    del manifest["sha256"]
    manifest["sha256"] = sha256(json.dumps(manifest, sort_keys=True).encode())
    (copy / "model.json").write_text(json.dumps(manifest))
    params = flatten_dict(model_folder.read(copy).params)
    assert {path: array[0] for path, array in params.items()} == {path: n for n, path in enumerate(flat.values())}


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"7", b'{"format": 1}', b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_not_one_is_an_error(copy, content):
    (copy / "model.json").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.json: changed or damaged"):
        model_folder.read(copy)


def test_a_run_without_a_model_and_a_folder_without_a_run_are_different_errors(copy, tmp_path):
    model_folder.invalidate(copy)
    with pytest.raises(UserError, match="no model yet; finish it with bin/train"):
        model_folder.read(copy)
    with pytest.raises(UserError, match=r"no model .*model\.json"):
        model_folder.read(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: cannot .*another --output"):
        model_folder.write(tmp_path / "file", trained())
