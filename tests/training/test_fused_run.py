"""Runs with a linear model: stages of metrics.json, the model that is kept, resuming, prediction."""

import json
import shutil
from typing import NamedTuple

import numpy as np
import pytest

from lsfa_jax import LSFA
from lsfa_jax.cli import export, predict
from lsfa_jax.cli.evaluate import EvaluateArguments, evaluate
from lsfa_jax.data.load import load_corpus, read_split
from lsfa_jax.data.ranked import FLOOR
from lsfa_jax.data.tokenizer import DEFAULT_TOKENIZER
from lsfa_jax.serving.predictor import Predictor
from lsfa_jax.training import fused, model_folder
from tests import training_corpus
from tests.reference import fusion as reference
from tests.reference.agreement import assert_equal
from tests.training import runs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_on_one_device")]


class Finished(NamedTuple):
    """A run of all stages with machines, on 40 validation documents; its folder is not to be changed."""

    folder: object
    config: object
    metrics: dict


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return training_corpus.write(tmp_path_factory.mktemp("data"), training_corpus.documents(validation=40))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    config = training_corpus.run_config(data, linear="svm")
    return Finished(folder, config, runs.train(folder, config))


def model_files(folder):
    """The content of the model's files, by name."""
    return {path.relative_to(folder): path.read_bytes() for path in model_folder.paths(folder) if path.is_file()}


def without_seconds(metrics):
    return {name: value for name, value in metrics.items() if name != "seconds"}


def test_metrics_have_the_linear_model_each_stage_and_the_fused_score(finished):
    metrics = json.loads((finished.folder / "metrics.json").read_text())
    assert metrics == finished.metrics
    assert set(metrics["stages"]) == {"svm", "representation", "adjusted", "fused"}
    assert set(metrics["seconds"]) == {"linear", "representation", "transfer", "adjustment"}
    assert metrics["kept"] == "fused"
    assert metrics["test"] == metrics["stages"]["fused"]["test"]
    for stage in metrics["stages"].values():
        for split in ("validation", "test"):
            assert {"P@1", "N@5", "PSP@5", "head", "tail"} <= set(stage[split])
        assert 0 < stage["threshold"] < 1


def test_the_fused_score_is_at_least_as_good_on_validation_as_either_model(finished):
    quality = {name: stage["validation"]["N@5"] for name, stage in finished.metrics["stages"].items()}
    assert quality["fused"] >= max(quality["svm"], quality["representation"], quality["adjusted"])


def test_the_kept_network_is_the_better_stage(finished):
    """The parameters beside the weights of the fused score are those of the stage with the better N@5."""
    quality = {name: stage["validation"]["N@5"] for name, stage in finished.metrics["stages"].items()}
    best = runs.last_state(finished.folder, "representation")["best"]
    if quality["adjusted"] >= quality["representation"]:
        best = best | {"classifier": runs.last_state(finished.folder, "adjustment")["best"]}
    assert_equal(model_folder.read(finished.folder).params, best)


@pytest.mark.parametrize("calls", [(3, 8), (14,), (30,)])
def test_an_interrupted_run_ends_with_the_same_metrics_and_model(finished, tmp_path, calls):
    folder = tmp_path / "run"
    # The machines of the finished run: all of them are trained before the first call.
    for number, call in enumerate(calls):
        runs.interrupt(folder, call, None if number else finished.config, resume=bool(number))
    content = runs.resume(folder)
    assert without_seconds(content) == without_seconds(finished.metrics)
    assert model_files(folder) == model_files(finished.folder)


def test_a_run_that_is_resumed_at_its_end_stays_as_it_is(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "copy")
    assert runs.resume(folder) == finished.metrics
    assert model_files(folder) == model_files(finished.folder)


def test_a_moved_folder_predicts_the_fused_probabilities(finished, tmp_path, capfd):
    moved = shutil.copytree(finished.folder, tmp_path / "moved")
    documents = training_corpus.documents(validation=40)["test"]
    texts = [document.text for document in documents]
    model = model_folder.read(moved)
    corpus = load_corpus(finished.config)

    network = training_corpus.make_model(finished.config)
    batch = training_corpus.batches(corpus.test, 12).gather(np.arange(12))
    logits = np.asarray(network.apply({"params": model.params}, batch.words, batch.lengths), np.float64)
    linear = reference.dense_lists(*model.linear.rank_texts(texts, DEFAULT_TOKENIZER), 8, FLOOR)
    expected = 1 / (1 + np.exp(-reference.fused(logits, linear, *model.fusion)))

    classifier = LSFA.load(moved)
    columns = [classifier.classes_.tolist().index(label) for label in model.labels]
    np.testing.assert_allclose(classifier.predict_proba(texts)[:, columns], expected, rtol=1e-4)
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    capfd.readouterr()
    assert predict.main(["--run", str(moved), str(tmp_path / "texts.jsonl"), "--threshold", "none", "--top", "8"]) == 0
    for line, row in zip(capfd.readouterr().out.splitlines(), expected, strict=True):
        predicted = json.loads(line)
        places = [model.labels.index(label) for label in predicted["labels"]]
        np.testing.assert_allclose(predicted["probabilities"], row[places], rtol=1e-4)
        assert predicted["probabilities"] == sorted(predicted["probabilities"], reverse=True)
    measured = np.mean([row.argmax() in corpus.test.labels.row(i) for i, row in enumerate(expected)])
    assert finished.metrics["test"]["P@1"] == pytest.approx(100 * measured)
    classifier.save(tmp_path / "saved")
    np.testing.assert_array_equal(LSFA.load(tmp_path / "saved").predict_proba(texts), classifier.predict_proba(texts))


def test_bin_evaluate_measures_the_fused_score(finished, data):
    report = evaluate(EvaluateArguments(run=str(finished.folder), file=str(data / "test.jsonl")))
    assert set(report["systems"]) == {"fused", "network", "svm"}
    measured = report["systems"]["fused"]["all"]
    for name in ("P@1", "N@5", "PSP@5"):
        assert measured[name] == pytest.approx(finished.metrics["test"][name])


def test_a_stage_that_is_worse_on_validation_is_not_kept(finished, tmp_path, capsys):
    folder = shutil.copytree(finished.folder, tmp_path / "copy")
    content = runs.train(folder, stages=("adjustment",), adjust={"learning_rate": 100.0, "epochs": 1})
    before, after = (content["stages"][name]["validation"]["N@5"] for name in ("representation", "adjusted"))
    assert after < before
    assert "adjusted is behind representation on validation (N@5" in capsys.readouterr().out
    assert_equal(model_folder.read(folder).params, runs.last_state(folder, "representation")["best"])


def test_without_fusion_the_better_stage_is_the_model_and_the_linear_one_is_measured(data, finished, tmp_path):
    content = runs.train(tmp_path / "run", finished.config, ("representation",), fusion="none")
    assert set(content["stages"]) == {"svm", "representation"}
    assert content["kept"] == "representation"
    assert content["test"] == content["stages"]["representation"]["test"]
    assert content["stages"]["svm"] == finished.metrics["stages"]["svm"]
    assert model_folder.read(tmp_path / "run").linear is None
    assert not (tmp_path / "run" / "linear").exists()


def test_few_validation_documents_are_fused_without_asking_for_evidence(finished, tmp_path, capsys):
    data = training_corpus.write(tmp_path / "data", training_corpus.documents(validation=29))
    config = training_corpus.run_config(data, linear="svm", representation={"epochs": 1})
    content = runs.train(tmp_path / "run", config, ("representation",))
    out = capsys.readouterr().out
    assert "Fused; 29 validation documents are too few to say what the network adds to the one-versus-rest SVM" in out
    assert content["kept"] == "fused"
    assert np.any(model_folder.read(tmp_path / "run").fusion.network > 0)


def test_where_the_linear_model_decides_alone_the_fused_score_ranks_as_it_does(
    finished, data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(fused, "_SHARE", 1.1)
    folder = shutil.copytree(finished.folder, tmp_path / "copy")
    content = runs.train(folder, stages=("adjustment",))
    alone = "one-versus-rest SVM ranks labels alone, since the network adds nothing on validation documents"
    assert alone in capsys.readouterr().out
    assert {"linear": "svm", "network": False}.items() <= content["evidence"].items()
    assert content["kept"] == "fused"
    for split in ("validation", "test"):
        of_fused, of_svm = (content["stages"][name][split] for name in ("fused", "svm"))
        assert {name: of_fused[name] for name in of_svm} == of_svm
    # Predictions, the evaluation and all pages follow.
    model, texts = model_folder.read(folder), [document.text for document in read_split(finished.config, "test")]
    for prediction, listed in zip(
        Predictor(model).predict(texts, 8), model.linear.rank_texts(texts, DEFAULT_TOKENIZER).label_ids, strict=True
    ):
        np.testing.assert_array_equal(prediction.label_ids, listed[listed >= 0])
    systems = evaluate(EvaluateArguments(run=str(folder), file=str(data / "test.jsonl")))["systems"]
    for name, value in systems["svm"]["tail"].items():
        assert name.startswith(("micro", "macro_")) or systems["fused"]["tail"][name] == value
    line = ["--run", str(folder), str(data / "test.jsonl"), "--explain", str(tmp_path / "why.html"), "--output"]
    assert predict.main([*line, str(tmp_path / "labels.jsonl")]) == 0
    assert export.main(["--run", str(folder), "--to", "huggingface", "--output", str(tmp_path / "card")]) == 0
    card = (tmp_path / "card" / "README.md").read_text()
    assert "| score | one-versus-rest SVM alone |" in card
    for page in (card, (tmp_path / "why.html").read_text(), (folder / "report.html").read_text()):
        assert alone in page
    assert "counts\nbeside the network's" not in (tmp_path / "why.html").read_text()


def test_a_run_over_candidates_is_predicted_over_them(data, tmp_path, shared_steps):
    """Three of eight labels are proposed and one is estimated; the linear model's list of all eight is fused."""
    sizes = {"num_candidates": 3, "num_estimated": 1, "num_sampled": 2, "epochs": 2}
    config = training_corpus.run_config(data, linear="svm", candidates="linear", fusion="none", representation=sizes)
    content = runs.train(tmp_path / "network", config)
    model = model_folder.read(tmp_path / "network")
    assert model.config.candidates == "linear"
    texts = [document.text for document in read_split(config, "test")]
    predicted = list(Predictor(model).predict(texts, 8))
    lists = model.linear.rank_texts(texts, DEFAULT_TOKENIZER).label_ids[:, :3]
    for prediction, listed in zip(predicted, lists, strict=True):
        assert len(set(prediction.label_ids.tolist())) == 4
        assert set(listed.tolist()) <= set(prediction.label_ids.tolist())
    complete = list(Predictor(model, all_labels=True).predict(texts, 8))
    for prediction, of_all in zip(predicted, complete, strict=True):
        assert sorted(of_all.label_ids.tolist()) == list(range(8))
        probabilities = dict(zip(of_all.label_ids.tolist(), of_all.probabilities.tolist(), strict=True))
        expected = [probabilities[label] for label in prediction.label_ids.tolist()]
        np.testing.assert_allclose(prediction.probabilities, expected, rtol=1e-4, atol=1e-6)
    report = evaluate(EvaluateArguments(run=str(tmp_path / "network"), file=str(data / "test.jsonl")))
    assert report["systems"]["model"]["all"]["N@5"] == pytest.approx(content["test"]["N@5"])

    fused = runs.train(tmp_path / "fused", config, fusion="auto")
    assert fused["stages"]["representation"] == content["stages"]["representation"]
    model = model_folder.read(tmp_path / "fused")
    assert all(len(prediction.label_ids) == 8 for prediction in Predictor(model).predict(texts, 8))
    report = evaluate(EvaluateArguments(run=str(tmp_path / "fused"), file=str(data / "test.jsonl")))
    assert report["systems"]["fused"]["all"]["N@5"] == pytest.approx(fused["test"]["N@5"])
