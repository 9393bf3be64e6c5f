"""The scripts in docs/examples run unchanged and print what the docs describe."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

pytestmark = pytest.mark.usefixtures("one_device")


def run(name, capsys):
    """Runs an example in this process, which has JAX loaded; returns its output as a dict from `key: value` lines."""
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return dict(line.rsplit(": ", 1) for line in capsys.readouterr().out.splitlines())


def test_every_example_has_a_test():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"classify_texts.py", "augment_features.py"}


@pytest.mark.slow
@pytest.mark.filterwarnings("error::UserWarning")
def test_texts_are_classified_and_the_model_survives_saving(capsys):
    lines = run("classify_texts.py", capsys)
    assert lines["labels"] == "account, email, laptop, licence, network, printer, projector"
    assert float(lines["nDCG@5 on 200 new messages"]) > 0.95
    assert "projector" in lines["'the beamer has no hdmi and its lamp is dark'"]
    assert set(lines["'my password expired and the vpn is offline'"].split(", ")) >= {"account", "network"}
    assert lines["the same after loading"] == "True"


@pytest.mark.slow
def test_generated_features_improve_rare_labels(capsys):
    lines = run("augment_features.py", capsys)
    assert lines["rare labels"] == "10 of 20"
    assert 0.4 < float(lines["variance of generated over real features"]) < 1.5
    assert lines["three features of label 15"] == "(1, 3, 16)"
    before, adjusted = (
        [float(part.split()[-1]) for part in lines[name].replace("F1 of frequent labels ", "").split(", rare ")]
        for name in ("before", "adjusted")
    )
    assert adjusted[1] > before[1] + 0.1
    assert adjusted[0] > before[0] - 0.02
    assert lines["in scikit-learn again"] == "True"
