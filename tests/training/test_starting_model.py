"""Runs that start from a trained model: on the same corpus, and on one with other labels and words."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from lsfa_jax.cli import train as command
from lsfa_jax.config import Config, merged
from lsfa_jax.data.reading.documents import Document
from lsfa_jax.data.vocabulary import NUM_SPECIAL
from lsfa_jax.training import model_folder, report
from lsfa_jax.training.model_folder import TrainedModel
from tests import training_corpus
from tests.training import runs
from tests.training.runs import history, last_params, last_state

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_on_one_device")]


class Trained(NamedTuple):
    """A run of stage 1; its folder is not to be changed."""

    folder: Path
    config: Config
    validation: dict[str, float]


def documents() -> dict[str, list[Document]]:
    """Returns the documents of the tiny corpus in 40 different words, so that a model can know all of them."""

    def text(row: Document) -> str:
        return re.sub(r"common(\d+)", lambda word: f"common{int(word[1]) % 24}", row.text)

    return {name: [row._replace(text=text(row)) for row in rows] for name, rows in training_corpus.documents().items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    data = training_corpus.write(tmp_path_factory.mktemp("data"), documents())
    folder, config = tmp_path_factory.mktemp("runs") / "trained", training_corpus.run_config(data)
    metrics = runs.train(folder, config, ("representation",))
    return Trained(folder, config, metrics["stages"]["representation"]["validation"])


def starting(config: Config, folder: Path) -> Config:
    """Returns settings with which a run starts from the model in a folder."""
    return Config.model_validate(merged(config.model_dump(), {"start": str(folder)}))


def test_a_run_starts_at_the_metrics_of_its_model_and_resumes_without_it(trained, tmp_path):
    source = shutil.copytree(trained.folder, tmp_path / "source")
    config, (uninterrupted, folder) = starting(trained.config, source), (tmp_path / "uninterrupted", tmp_path / "run")
    runs.train(uninterrupted, config, ("representation",))
    first = history(uninterrupted)[0]
    reached = first.pop("validation")
    assert first == {"stage": "representation", "step": 0, "epoch": 0.0}
    assert reached == {name: trained.validation[name] for name in reached}
    assert report.TITLES["bce"] in (uninterrupted / "report.html").read_text()

    runs.interrupt(folder, 4, config, ("representation",))
    shutil.rmtree(source)
    assert 0 < last_state(folder, "representation")["step"] < 15
    runs.train(folder, stages=("representation",), resume=True)
    assert history(folder) == history(uninterrupted)
    params = [last_params(path, "representation") for path in (uninterrupted, folder)]
    for (path, actual), (_, expected) in zip(*map(training_corpus.rows, params), strict=True):
        np.testing.assert_array_equal(actual, expected, err_msg=path)


def logits(model: TrainedModel, params: Any, texts: list[str]) -> dict[str, np.ndarray]:
    """Computes the logits of each label for each text in NumPy."""
    encoded = [model.vocabulary().encode(text) for text in texts]
    lengths = [len(ids) for ids in encoded]
    words = np.stack([np.pad(ids, (0, 16 - len(ids))) for ids in encoded])
    features = training_corpus.reference_features(params, words, lengths)
    table = np.einsum("bld,ld->lb", features, params["classifier"]["weights"])
    return dict(zip(model.labels, table + params["classifier"]["bias"][:, None], strict=True))


def test_known_labels_keep_their_scores_and_new_ones_start_from_their_documents(trained, tmp_path, capsys):
    splits = documents()
    words = sorted({word for rows in splits.values() for row in rows for word in row.text.split()})[3:]
    labels = [*(f"label{i}" for i in range(6)), "of no document"]
    network = training_corpus.make_model(trained.config, NUM_SPECIAL + len(words), len(labels))
    before = replace(
        training_corpus.trained_model(words, labels, (16,), 0.5),
        config=trained.config,
        params=jax.tree.map(np.asarray, training_corpus.init_params(network)),
    )
    model_folder.write(tmp_path / "model", before)
    # After the collection of five batches and the validation of two, before the first step.
    runs.interrupt(tmp_path / "run", 8, starting(trained.config, tmp_path / "model"), ("representation",))
    printed = capsys.readouterr().out
    assert f"From {tmp_path / 'model'}: 6 labels kept, 2 new" in printed
    assert "1 label dropped, which no training document has: 'of no document'" in printed
    assert "was trained on" not in printed  # which a model without its run does not say
    assert "3 new words of the vocabulary start as the unknown one" in printed
    vocabulary, names = ((tmp_path / "run" / name).read_text().splitlines() for name in ("vocabulary", "labels"))
    assert vocabulary[: len(words)] == words
    after = replace(before, words=vocabulary, labels=[name.strip('"') for name in names])
    state, texts = last_state(tmp_path / "run", "representation"), [row.text for row in splits["train"]]
    assert state["step"] == 0
    expected, actual = logits(before, before.params, texts), logits(after, state["params"], texts)
    for label in labels[:6]:
        np.testing.assert_allclose(actual[label], expected[label], rtol=1e-5, atol=1e-6)
    for label in ("label6", "label7"):
        has = np.array([label in row.labels for row in splits["train"]])
        assert actual[label][has].mean() > actual[label][~has].mean()


def test_documents_that_the_model_or_its_start_was_trained_on_are_counted(trained, tmp_path, capsys):
    """Of a run on other documents that started from the trained model, as a third run starts from it."""
    first, other = documents(), documents()
    other["train"] = [row._replace(text=f"{row.text} {row.text}") for row in other["train"]]
    config = starting(training_corpus.run_config(training_corpus.write(tmp_path / "other", other)), trained.folder)
    runs.interrupt(tmp_path / "second", 8, config, ("representation",))
    assert "was trained on" not in capsys.readouterr().out
    model_folder.write(tmp_path / "second", model_folder.read(trained.folder))
    mixed = documents()
    mixed["test"] = [*first["train"][:3], other["train"][0], *mixed["test"]]
    config = training_corpus.run_config(training_corpus.write(tmp_path / "mixed", mixed))
    runs.interrupt(tmp_path / "third", 8, starting(config, tmp_path / "second"), ("representation",))
    printed = capsys.readouterr().out
    assert f"test documents that {tmp_path / 'second'} was trained on: 4 of {len(mixed['test'])}" in printed
    assert "validation documents that" not in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--from", "{data}"), "{data}: no model in this folder"),
        (("--from",), "--from: expected the folder of a run or model"),
        (("--from", "{run}", "--encoder", "cnn"), "has encoder.kind = 'bilstm', and 'cnn' needs another model"),
        (("--from", "{run}", "--vectors", "glove-50d"), "its model has vectors = 'none'"),
        (("--from", "{run}", "--resume"), "--from: a run that goes on has started"),
    ],
)
def test_what_a_run_cannot_start_from_is_an_error(trained, tmp_path, capsys, options, message):
    names = {"run": trained.folder, "data": trained.config.data_dir}
    line = [word.format(**names) for word in options]
    output = tmp_path / "new"
    assert command.main(["--data-dir", trained.config.data_dir, "--output", str(output), *line]) == 2
    assert message.format(**names) in capsys.readouterr().err
    assert not output.exists()
