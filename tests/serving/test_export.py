"""Programs of a trained network, read by a Python file that imports nothing of this package, and model cards."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from lsfa_jax import LSFA
from lsfa_jax.config import with_values
from lsfa_jax.data.pieces import read_tokenizer
from lsfa_jax.data.tokenizer import Tokenizer
from lsfa_jax.data.vocabulary import Words
from lsfa_jax.model.encoders import EncoderShape
from lsfa_jax.model.lsfa import make_model
from lsfa_jax.serving.export import hugging_face, program_folder, stablehlo
from lsfa_jax.serving.export.network import Network
from lsfa_jax.serving.predictor import Predictor
from lsfa_jax.training import model_folder, pretrained
from lsfa_jax.util.console import UserError
from tests import training_corpus
from tests.training import pretrained_folder

WORDS = [*(f"word{i}" for i in range(18)), "東", "&"]
LABELS = ["comma, and\ttab", "line\u2028separator", *(f"label {i}" for i in range(training_corpus.NUM_LABELS - 2))]
TEXTS = [
    "word1 Word2, word3!",
    "",
    "no known word",
    "word4 " * 30,
    "word5 東東 word6",
    *["word7 " * i for i in range(20)],
]


def of_words(**encoder):
    model = training_corpus.trained_model(WORDS, LABELS, (5, 8), 0.75)
    config = training_corpus.config(encoder=encoder, data={"length_buckets": (5, 8)})
    module = training_corpus.make_model(config, len(WORDS) + 2)
    params = jax.tree.map(np.asarray, training_corpus.init_params(module))
    return replace(model, config=config, params=params)


def of_pieces(folder):
    """A model with a pretrained encoder, whose windows are shorter than the longest text."""
    architecture, encoder = pretrained.read(pretrained_folder.write(folder))
    config = training_corpus.config(encoder={"kind": "transformer", "pretrained": "bert", "feature_head": False})
    shape = EncoderShape(architecture.vocabulary_size, architecture.hidden_size, architecture)
    params = jax.tree.map(np.asarray, training_corpus.init_params(make_model(config, shape, len(LABELS))))
    model = training_corpus.trained_model([], LABELS, (16,), 0.5)
    return replace(
        model,
        config=config,
        params=params | {"encoder": encoder},
        tokenizer=read_tokenizer(folder),
        architecture=architecture,
    )


def imported(folder):
    """The predict.py of a folder as a module."""
    spec = importlib.util.spec_from_file_location("exported_predict", folder / "predict.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def expected(model, texts):
    """The network's probabilities of all labels, float32[N, L]."""
    alone = replace(model, linear=None, fusion=None)
    result = np.zeros((len(texts), len(LABELS)), np.float32)
    for row, prediction in zip(result, Predictor(alone).predict(texts, len(LABELS)), strict=True):
        row[prediction.label_ids] = prediction.probabilities
    return result


@pytest.fixture(scope="module")
def fused():
    return training_corpus.fused_model(of_words(), "svm")


@pytest.fixture(scope="module")
def exported(fused, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    program_folder.write(folder, fused, 0.375, "stablehlo")
    return folder


def test_predict_py_gives_the_networks_labels_without_this_package(fused, exported, tmp_path):
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    program = "import runpy, sys; sys.modules['lsfa_jax'] = None; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    line = [sys.executable, "-c", program, exported / "predict.py", "texts.txt", "--top", "3"]
    ended = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ)
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(row) for row in ended.stdout.split("\n")[:-1]]
    probabilities = expected(fused, TEXTS)
    assert len(rows) == len(TEXTS)
    for row, values in zip(rows, probabilities, strict=True):
        assert row["labels"] == [LABELS[i] for i in np.argsort(-values, kind="stable")[:3]]
        np.testing.assert_allclose(row["probabilities"], np.sort(values)[::-1][:3], atol=1e-6)
    assert json.loads((exported / "network.json").read_text())["threshold"] == 0.375


ENCODERS = [
    ("onnx", "bilstm"),
    ("stablehlo", "cnn"),
    ("onnx", "cnn"),
    ("stablehlo", "transformer"),
    ("onnx", "transformer"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("to", "kind"), ENCODERS)
def test_each_encoder_is_exported(to, kind, tmp_path, monkeypatch):
    if to == "onnx":
        pytest.importorskip("jax2onnx")
        pytest.importorskip("onnxruntime").set_default_logger_severity(3)
    model = of_pieces(tmp_path / "bert") if kind == "transformer" else of_words(kind=kind)
    monkeypatch.setattr(Network, "largest_error", lambda *_: 0.0)  # the comparison below is another one
    short, long = TEXTS[:3], ["about0w1 common3 " * 9]
    (tmp_path / "exported").mkdir()
    program_folder.write(tmp_path / "exported", model, 0.5, to)
    probabilities = imported(tmp_path / "exported").probabilities
    computed = np.concatenate([probabilities(short), probabilities(long)])
    np.testing.assert_allclose(computed, expected(model, short + long), atol=1e-6)


def test_a_program_runs_on_all_kinds_of_devices(exported):
    (name,) = (path.name for path in exported.glob("*.stablehlo"))
    program = jax.export.deserialize(bytearray((exported / name).read_bytes()))
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}


def test_programs_have_no_weights_inside(exported):
    """A folder can have two of them, which share a file."""
    zeros = {name: 0 * values for name, values in np.load(exported / "weights.npz").items()}
    program = jax.export.deserialize(bytearray((exported / "network.stablehlo").read_bytes()))
    probabilities = program.call(zeros, np.ones((1, 8), np.int32), np.array([8], np.int32))
    np.testing.assert_array_equal(probabilities, np.full((1, len(LABELS)), 0.5))


def test_a_program_with_other_results_is_not_written(fused, tmp_path, monkeypatch):
    run = stablehlo.run
    monkeypatch.setattr(stablehlo, "run", lambda *arguments: run(*arguments) + 1e-4)
    with pytest.raises(UserError, match=r"--to stablehlo: .*differ.* 0\.0001"):
        program_folder.write(tmp_path, fused, 0.5, "stablehlo")


ALL = [Tokenizer(kind, html) for kind in ("words", "spaces", "characters") for html in ("keep", "strip")]
TRICKY = "aB9_ ΣσİK\u0301\u093f\u200b\u00ad\ufe0f.é東カーทเီ\u1039ﬁＡ™👍🏽❤🇫🇷<>&;\"'=/!-]"


@pytest.fixture(scope="module")
def module(exported):
    return imported(exported)


@settings(max_examples=200)
@given(st.one_of(st.text(), st.text(TRICKY)), st.sampled_from(ALL))
def test_texts_are_split_into_the_same_words(module, text, tokenizer):
    module.encoder.cache_clear()
    module.TEXT.update(tokenizer.patterns())
    words = tokenizer.words(text)
    vocabulary = Words(sorted(set(words)), tokenizer, 16)
    module.lines = lambda name: sorted(set(words))
    assert module.encoder()(text) == vocabulary.encode(text).tolist()


METRICS = {
    "split": {"train": 30, "validation": 6, "test": 12},
    "kept": "adjusted",
    "stages": {"tree": {}, "adjusted": {"test": {"P@1": 81.256, "tail": {"N@5": 70.0}}}},
    "test": {"P@1": 81.256},
}


@pytest.mark.slow
@pytest.mark.parametrize("metrics", [METRICS, {}], ids=["run", "saved"])
def test_a_model_with_a_card_is_loaded_from_wherever_it_is(fused, metrics, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "card").mkdir()
    place = "/home/somebody/x"
    places = {"data_dir": place, "start": place, "vectors": place, "data.label_names": place}
    local = with_values(fused.config, places | {"encoder.pretrained": place})
    more = {"data.label_names": place, "encoder.pretrained": place}
    about = {"params": {"encoder": place, "settings": more}, "form": "sets", "classes": sorted(LABELS)}
    (tmp_path / "run" / "estimator.json").write_text(json.dumps(about))
    hugging_face.write(tmp_path / "card", tmp_path / "run", replace(fused, config=local), metrics)
    assert "somebody" not in "".join(path.read_text() for path in (tmp_path / "card").glob("*.[mtj]*"))
    written = model_folder.read_config(tmp_path / "card")
    assert (written.start, written.data.label_names) == ("", "")
    assert (written.vectors, written.encoder.pretrained) == ("x", "x")
    (tmp_path / "card").rename(tmp_path / "moved")
    card = ModelCard.load(tmp_path / "moved" / "README.md")
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.license is None
    results = [(one.metric_name, one.metric_value) for one in card.data.eval_results or []]
    assert results == ([("P@1", 81.26)] if metrics else [])
    assert ("| **adjusted** | 81.26 |  |  |  |  |  |  | 70.00 |  |" in card.text) == bool(metrics)
    loaded = LSFA.from_pretrained(tmp_path / "moved")
    assert (loaded.encoder, loaded.settings) == ("x", {"data.label_names": "", "encoder.pretrained": "x"})
    assert [list(row) for row in loaded.predict(TEXTS, top=2)] == [
        [LABELS[i] for i in one.label_ids] for one in Predictor(fused).predict(TEXTS, 2)
    ]
    (tmp_path / "moved" / "labels").write_bytes(b"")
    with pytest.raises(ValueError, match=r"moved/labels.*bytes"):
        LSFA.from_pretrained(tmp_path / "moved")
