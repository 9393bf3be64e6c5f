import hashlib
import json
import os
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax.data.pieces import read_tokenizer
from lsfa_jax.model.encoders import EncoderShape
from lsfa_jax.model.lsfa import make_model
from lsfa_jax.training import model_folder, pretrained
from lsfa_jax.training.model_folder import TrainedModel
from lsfa_jax.util.console import UserError
from lsfa_jax.util.folder_lock import FolderLock
from tests import training_corpus
from tests.reference.agreement import assert_equal
from tests.training import pretrained_folder

WORDS = ["one", "zwei", "три", "a\u2028b"]
LABELS = ["plain", 'with "quotes", commas', "two\nlines", "日本", " space "]
FILES = ("config.toml", "vocabulary", "labels", "weights.safetensors", "model.json")


def trained(words=WORDS, labels=LABELS):
    model = training_corpus.trained_model(words, labels, (4, 8), 0.375)
    return replace(model, label_counts=np.arange(len(labels), 0, -1), num_documents=20)


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


def test_a_changed_space_or_digit_of_the_manifest_is_an_error(copy):
    text = (copy / "model.json").read_text()
    for changed in (
        text.replace("  ", " "),
        text.replace("0.375", "0.3750"),
        text.replace("0.375", "0.376"),
        text + "\n",
        text.removesuffix("\n"),
        text.replace('"sha256"', '"sha257"'),
        json.dumps(json.loads(text)),
    ):
        assert changed != text
        (copy / "model.json").write_text(changed)
        with pytest.raises(UserError, match=r"model\.json: changed or damaged .*checksum differs"):
            model_folder.read(copy)


def test_the_last_line_but_one_of_the_manifest_is_the_checksum_of_the_other_lines(copy):
    lines = (copy / "model.json").read_bytes().splitlines(keepends=True)
    seal = lines.pop(-2)
    assert json.loads(b"{%s}" % seal) == {"sha256": sha256(b"".join(lines))}


@pytest.mark.parametrize("number", [model_folder.FORMAT - 1, model_folder.FORMAT + 1])
def test_a_model_of_another_format_is_an_error_that_names_the_version(copy, number):
    seal(copy, format=number, lsfa_jax="9.1")
    expected = rf"written by lsfa_jax 9\.1 in format {number}, .* reads format {model_folder.FORMAT}\. Train again"
    with pytest.raises(UserError, match=expected):
        model_folder.read(copy)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def seal(folder, **values):
    """Writes model.json with the checksums of the folder's files, as a program that changed them could."""
    manifest = json.loads((folder / "model.json").read_text())
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": sha256(data)}
    del manifest["sha256"]
    lines = json.dumps(manifest | values, indent=2).split("\n")
    lines[-2] += ","
    lines.insert(-1, f'  "sha256": "{sha256(chr(10).join([*lines, ""]).encode())}"')
    (folder / "model.json").write_text("\n".join([*lines, ""]))


def test_the_tokenizer_of_a_model_is_kept(tmp_path):
    model = trained()
    data = model.config.data.model_copy(update={"tokenizer": "spaces"})
    model_folder.write(tmp_path, replace(model, config=model.config.model_copy(update={"data": data})))
    assert model_folder.read(tmp_path).config.data.tokenizer == "spaces"


def with_array(name, change):
    """Returns a function that changes an array of a folder's weights; None removes it."""

    def apply(folder):
        path = folder / "weights.safetensors"
        arrays = safetensors.numpy.load(path.read_bytes())
        arrays[name] = change(arrays.get(name))
        kept = {key: np.ascontiguousarray(array) for key, array in arrays.items() if array is not None}
        path.write_bytes(safetensors.numpy.save(kept))

    return apply


def with_text(name, change):
    """Returns a function that changes the bytes of a file of a folder."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def with_nan(array):
    return np.concatenate([array[:-1], np.full_like(array[-1:], np.nan)])


QUERIES, WORD_VECTORS = "params/labels/queries", "params/encoder/embedding"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_text("config.toml", lambda b: b.replace(b"hidden_size = 4", b"hidden_size = 5")),
         r"weights\.safetensors: .*array params/encoder/.* is float32\[.*by the settings.* it is float32\["),
        (with_text("config.toml", lambda b: b.replace(b"hidden_size = 4", b"hidden_size = 1000000000000000000000")),
         r"(config\.toml|weights\.safetensors): "),
        (with_text("config.toml", lambda b: b.replace(b"bilstm", b"bi\xff")), r"config\.toml: .*not TOML"),
        (with_text("config.toml", lambda b: b + b"x = " + b"[" * 100_000), r"config\.toml: .*not TOML"),
        (with_text("config.toml", lambda b: b.replace(b"hidden_size", b"hidden")), r"config\.toml: unknown setting"),
        (with_array(QUERIES, lambda x: x[:, :-1]), rf"array {QUERIES} is float32\[5, 7\], .* it is float32\[5, 8\]"),
        (with_array(QUERIES, lambda x: x.astype(np.float16)), rf"array {QUERIES} is float16\[5, 8\]"),
        (with_array(QUERIES, lambda x: None), rf"array {QUERIES} is missing"),
        (with_array("params/labels", lambda x: np.zeros(1)), "array params/labels is no part of the model"),
        (with_array(QUERIES, with_nan), rf"array {QUERIES} has a number that is not finite"),
        (with_array(WORD_VECTORS, lambda x: x.ravel()), f"no table {WORD_VECTORS}"),
        (with_array("label_counts", lambda x: -x), "label_counts has a negative number"),
        (with_array("label_counts", lambda x: x[:-1]), r"label_counts is int64\[4\]"),
        (with_array("label_counts", lambda x: x.astype(np.float32)), r"label_counts is float32"),
        (with_text("weights.safetensors", lambda b: b.replace(b'"F32"', b'"F8_E4M3"')), r"weights\.safetensors: "),
        (with_text("vocabulary", lambda b: b + b"more\n"), rf"array {WORD_VECTORS} is float32\[6, 3\]"),
        (with_text("vocabulary", lambda b: b.replace(b"zwei", b"one")), "vocabulary: .*a word is listed twice"),
        (with_text("vocabulary", lambda b: b"\xff" + b), "vocabulary: .*not UTF-8"),
        (with_text("labels", lambda b: b'"plain\xff"\n' + b), "labels: .*not UTF-8"),
        (with_text("labels", lambda b: b"[" * 100_000 + b"\n" + b), "labels: .*line 1 is not a JSON string"),
        (with_text("labels", lambda b: b.replace(b'"plain"', b"7")), "labels: .*line 1 is not a JSON string"),
        (with_text("labels", lambda b: b.replace(b'"plain"', b'"\\ud800"')), "labels: .*line 1 is not a JSON string"),
        (with_text("labels", lambda b: b.replace(b'"plain"', b'" space "')), "labels: .*a label is listed twice"),
        (with_text("labels", lambda b: b.split(b"\n")[0] + b"\n"), r"labels: .*1 labels, and model\.json 5"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_together_are_an_error_although_their_checksums_are_right(copy, change, message):
    change(copy)
    seal(copy)
    with pytest.raises(UserError, match=message):
        model_folder.read(copy)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", float("nan")),
        ("threshold", float("inf")),
        ("threshold", "0.5"),
        ("threshold", 2),
        ("num_labels", -1),
        ("num_labels", 10**30),
        ("num_labels", None),
        ("num_documents", -5),
        ("files", []),
        ("format", True),
    ],
)
def test_values_of_the_manifest_that_cannot_be_are_an_error(copy, name, value):
    seal(copy, **{name: value})
    with pytest.raises(UserError, match="changed or damaged"):
        model_folder.read(copy)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"7", b'{"format": %d}' % model_folder.FORMAT, b"\xff\xfe", b"[" * 100_000]
)
def test_a_manifest_that_is_not_one_is_an_error(copy, content):
    (copy / "model.json").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.json: changed or damaged"):
        model_folder.read(copy)


def test_a_run_without_a_model_and_a_folder_without_a_run_are_different_errors(copy, tmp_path):
    model_folder.invalidate(copy)
    with pytest.raises(UserError, match=r"no model yet; finish it with: bin/train .*--resume"):
        model_folder.read(copy)
    with (
        FolderLock(copy).held("-"),
        pytest.raises(UserError, match=f"no model yet; it is being trained by process {os.getpid()} on this machine"),
    ):
        model_folder.read(copy)
    with pytest.raises(UserError, match=r"no model .*model\.json"):
        model_folder.read(tmp_path / "nowhere")
    (tmp_path / "network.json").write_text("{}")
    with pytest.raises(UserError, match=r"programs that bin/export wrote, which its predict\.py runs"):
        model_folder.read(tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: cannot .*another --output"):
        model_folder.write(tmp_path / "file", trained())


# --- with a pretrained encoder


@pytest.fixture
def pretrained_copy(tmp_path):
    """A model folder with a pretrained encoder."""
    architecture, params = pretrained.read(pretrained_folder.write(tmp_path / "bert"))
    settings = training_corpus.config(encoder={"kind": "transformer", "pretrained": "bert", "feature_head": False})
    model = make_model(settings, EncoderShape(architecture.vocabulary_size, architecture.hidden_size, architecture), 3)
    drawn = jax.tree.map(np.asarray, training_corpus.init_params(model))
    model_folder.write(
        tmp_path / "model",
        TrainedModel(
            config=settings,
            words=[],
            labels=["a", "b", "c"],
            label_counts=np.ones(3, np.int64),
            num_documents=3,
            threshold=0.375,
            params=drawn | {"encoder": params},
            tokenizer=read_tokenizer(tmp_path / "bert"),
            architecture=architecture,
        ),
    )
    return tmp_path / "model"


def test_a_pretrained_encoder_is_read_as_it_was_written(pretrained_copy, tmp_path):
    model = model_folder.read(pretrained_copy)
    expected = pretrained.read(tmp_path / "bert")
    assert model.architecture == expected.architecture
    assert_equal(model.params["encoder"], expected.params)
    assert model.vocabulary().encode("about1w0 xyz").tolist() == [4, 8, 6, 7, 1]
    assert not (pretrained_copy / "vocabulary").exists()


def test_a_model_of_words_replaces_one_of_pieces(pretrained_copy):
    model_folder.write(pretrained_copy, training_corpus.trained_model(["x"], ["a"], (4,), 0.5))
    assert model_folder.read(pretrained_copy).words == ["x"]
    assert not (pretrained_copy / "tokenizer.json").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_heads", 0), ("num_heads", 3), ("first_id", 10**6), ("last_id", -1), ("norm_epsilon", -1.0),
     ("num_layers", 10**9), ("num_layers", 3), ("hidden_size", 6), ("vocabulary_size", 17), ("activation", "tanh"),
     ("num_positions", 2)],
)  # fmt: skip
def test_an_encoder_of_other_sizes_is_an_error(pretrained_copy, name, value):
    manifest = json.loads((pretrained_copy / "model.json").read_text())
    manifest["encoder"][name] = value
    (pretrained_copy / "model.json").write_text(json.dumps(manifest))
    seal(pretrained_copy)
    with pytest.raises(UserError, match=r"(model\.json|weights\.safetensors): changed or damaged"):
        model_folder.read(pretrained_copy)


@pytest.mark.parametrize("change", [lambda b: b[:-9], lambda b: b"{}", lambda b: b.replace(b'"!"', b'"?"')])
def test_a_changed_tokenizer_is_an_error(pretrained_copy, change):
    file = pretrained_copy / "tokenizer.json"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(UserError, match=r"tokenizer\.json: changed or damaged"):
        model_folder.read(pretrained_copy)


@pytest.mark.parametrize("content", [b"{}", b"\xff", b"[1]"])
def test_a_tokenizer_that_cannot_be_read_is_an_error_although_its_checksum_is_right(pretrained_copy, content):
    (pretrained_copy / "tokenizer.json").write_bytes(content)
    seal(pretrained_copy)
    with pytest.raises(UserError, match=r"tokenizer\.json: changed or damaged"):
        model_folder.read(pretrained_copy)


# --- the linear model of the fused score

KINDS = ("svm", "tree")
LINEAR = {"svm": ["words", "model.safetensors"], "tree": ["words", "model.safetensors", "tree/settings.json"]}
LINEAR["tree"] += [f"tree/tree{number}.cbor" for number in range(3)]


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    """A folder of a fused model of each kind."""
    models = {kind: training_corpus.fused_model(trained(), kind) for kind in KINDS}
    folder = tmp_path_factory.mktemp("fused")
    for kind, model in models.items():
        model_folder.write(folder / kind, model)
    return folder, models


def linear_files(folder):
    return sorted(file.relative_to(folder).as_posix() for file in (folder / "linear").rglob("*") if file.is_file())


@pytest.mark.parametrize("kind", KINDS)
def test_a_fused_model_is_read_as_it_was_written_also_after_the_folder_moved(fused, tmp_path, kind):
    folder, models = fused
    moved = shutil.copytree(folder / kind, tmp_path / "moved")
    assert linear_files(moved) == sorted(f"linear/{name}" for name in LINEAR[kind])
    actual, expected = model_folder.read(moved), models[kind]
    assert actual.linear.files() == expected.linear.files()
    assert_equal(actual.fusion, expected.fusion)
    assert_equal(actual.params, expected.params)
    assert actual.scoring_params.keys() == {*expected.params, "fusion"}
    assert {moved / name for name in linear_files(moved)} <= set(model_folder.paths(moved))


@pytest.mark.parametrize("change", ["changed", "truncated", "missing"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_of_the_linear_model_is_an_error_that_names_it(fused, tmp_path, kind, change):
    for name in LINEAR[kind]:
        copy = shutil.copytree(fused[0] / kind, tmp_path / name.replace("/", "-"))
        file = copy / "linear" / name
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data if change == "changed" else data[: len(data) // 2])
        if change == "missing":
            file.unlink()
        with pytest.raises(UserError, match=f"{file}: changed or damaged"):
            model_folder.read(copy)


def test_a_model_without_a_linear_one_replaces_one_with_it(fused, tmp_path):
    copy = shutil.copytree(fused[0] / "tree", tmp_path / "copy")
    model_folder.write(copy, fused[1]["svm"])
    assert model_folder.read(copy).linear.kind == "svm"
    assert linear_files(copy) == ["linear/model.safetensors", "linear/words"]
    model_folder.write(copy, trained())
    assert model_folder.read(copy).linear is None
    assert model_folder.read(copy).fusion is None
    assert not (copy / "linear").exists()


def test_a_linear_model_that_only_proposes_labels_has_no_weights(fused, tmp_path):
    model = replace(fused[1]["svm"], fusion=None)
    model_folder.write(tmp_path, model)
    read = model_folder.read(tmp_path)
    assert read.fusion is None
    assert read.linear.files() == model.linear.files()


@pytest.mark.parametrize("change", ["fewer", "none", "another type", "not finite", "unknown"])
def test_weights_of_the_fused_score_that_do_not_fit_are_an_error(fused, tmp_path, change):
    copy = shutil.copytree(fused[0] / "svm", tmp_path / "copy")
    arrays = safetensors.numpy.load((copy / "weights.safetensors").read_bytes())
    weights = arrays["fusion/network"]
    arrays["fusion/network"] = {
        "fewer": weights[1:], "another type": weights.astype(np.float64), "not finite": weights * np.float32(np.inf)
    }.get(change, weights)  # fmt: skip
    if change == "none":
        del arrays["fusion/network"]
    if change == "unknown":
        arrays["fusion/more"] = weights
    (copy / "weights.safetensors").write_bytes(safetensors.numpy.save(arrays))
    seal(copy)
    with pytest.raises(UserError, match=r"weights\.safetensors: changed or damaged .*fused score"):
        model_folder.read(copy)


@pytest.mark.parametrize(
    "name", ["linear/../labels", "linear/tree/../../labels", "linear/.hidden", "linear//etc/hosts"]
)
def test_files_outside_of_the_linear_model_are_not_read(fused, tmp_path, name):
    copy = shutil.copytree(fused[0] / "svm", tmp_path / "copy")
    files = json.loads((copy / "model.json").read_text())["files"]
    seal(copy, files=files | {name: files["labels"]})
    with pytest.raises(UserError, match=r"model\.json: .*a file that no linear model has"):
        model_folder.read(copy)
