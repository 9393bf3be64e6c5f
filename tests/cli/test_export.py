import json

import pytest

from lsfa_jax.cli import export
from lsfa_jax.serving.export import program_folder
from lsfa_jax.training import model_folder
from lsfa_jax.util.console import UserError
from tests import training_corpus

LABELS = [f"label {i}" for i in range(training_corpus.NUM_LABELS)]
WORDS = [f"word{i}" for i in range(20)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a fused model, of which the first network was better on validation."""
    folder = tmp_path_factory.mktemp("run")
    model = training_corpus.fused_model(training_corpus.trained_model(WORDS, LABELS, (8,), 0.75), "svm")
    model_folder.write(folder, model)
    figures = {"representation": (60, 0.25, 71.2), "adjusted": (50, 0.5, 99.0)}
    stages = {
        name: {"threshold": threshold, "validation": {"N@5": validation}, "test": {"N@5": test}}
        for name, (validation, threshold, test) in figures.items()
    }
    (folder / "metrics.json").write_text(json.dumps({"stages": stages, "test": {"N@5": 80.0}}))
    return folder


def test_the_network_of_a_fused_model_is_exported_with_its_threshold_and_a_warning(run, tmp_path, capsys):
    assert export.main(["--run", str(run), "--to", "stablehlo", "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "N@5 71.20 instead of 80.00" in printed.out + printed.err
    about = json.loads((tmp_path / "out" / "network.json").read_text())
    assert about["threshold"] == 0.25
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "network.stablehlo", "weights.npz", "network.json", "vocabulary", "labels", "predict.py",
    }  # fmt: skip


def test_a_folder_with_a_card_and_the_figures(run, tmp_path):
    tmp_path.chmod(0o750)
    (tmp_path / "out").mkdir()  # an empty folder is written into
    assert export.main(["--run", str(run), "--to", "huggingface", "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "README.md").read_text().startswith("---\nlibrary_name: lsfa_jax\n")
    assert (tmp_path / "out" / "metrics.json").read_bytes() == (run / "metrics.json").read_bytes()
    assert model_folder.read(tmp_path / "out").fusion is not None
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750


def test_a_failed_export_leaves_nothing(run, tmp_path, capsys, monkeypatch):
    def fail(folder, *_):
        (folder / "network.stablehlo").write_bytes(b"")
        raise UserError("no such program")

    monkeypatch.setattr(program_folder, "write", fail)
    line = ["--run", str(run), "--to", "stablehlo", "--output"]
    assert export.main([*line, str(tmp_path / "out")]) == 2
    assert "no such program" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    assert export.main([*line, str(tmp_path / "full")]) == 2
    assert "new or empty folder" in capsys.readouterr().err
    assert (tmp_path / "full" / "file").read_text() == "kept"


def test_missing_packages_are_named(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "_FOR_ONNX", {"no_such_module": "no-such-package"})
    assert export.main(["--run", str(run), "--to", "onnx", "--output", str(tmp_path / "out")]) == 2
    assert "extra export" in (error := capsys.readouterr().err)
    assert "pip install no-such-package" in error
