import subprocess
import sys
from pathlib import Path

import pytest

from lsfa_jax.training import model_folder
from tests import training_corpus

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow

START = """
import os, sys
import numpy as np
from lsfa_jax import LSFA, FeatureAugmenter
from lsfa_jax.serving.predictor import Predictor

classifier = LSFA.load(sys.argv[1])

def in_child(function):
    child = os.fork()
    if child == 0:
        try:
            print(function.__name__, "returns", function(), flush=True)
        except RuntimeError as error:
            print(function.__name__, "raises", error, flush=True)
        finally:
            os._exit(0)
    os.waitpid(child, 0)

def predict():
    return len(classifier.predict(["boiler"]))

def fit():
    return classifier.fit(["boiler", "ferry"], ["a", "b"])

def features():
    return FeatureAugmenter(head_threshold=2).fit(np.eye(3), [0, 0, 1])

def predictor():
    return Predictor(classifier.model_)
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Runs code in a process that has loaded a model and not yet used JAX, and returns the lines that it prints."""
    folder = tmp_path_factory.mktemp("model")
    model = training_corpus.trained_model(["boiler", "ferry"], [f"label{i}" for i in range(8)], (4,), 0.5)
    model_folder.write(folder, model)

    def run(code):
        command = [sys.executable, "-W", "ignore", "-c", START + code, str(folder)]
        environment = {"PYTHONPATH": ":".join(sys.path)}
        # Without the exception, a child hangs.
        finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout.splitlines()

    return run


@pytest.mark.parametrize("use", ["predict()", "import jax; jax.devices()"])
def test_a_process_forked_after_jax_was_used_fails_at_once(output, use):
    lines = output(f"{use}\nfor function in (predict, fit, features, predictor): in_child(function)\npredict()")
    assert [line.split(" this process was forked")[0] for line in lines] == [
        "predict raises",
        "fit raises",
        "features raises",
        "predictor raises",
    ]
    assert all("loky" in line and "spawn" in line for line in lines)


def test_processes_forked_before_jax_was_used_predict(output):
    assert output("in_child(predict)\nin_child(predict)\nprint(predict())") == ["predict returns 1"] * 2 + ["1"]
