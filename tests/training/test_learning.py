"""What is learned: on the embedded corpus with the quick preset, through the command, with three seeds (0, 1, 2).

Each bound stands below what was seen; the spread over seeds is printed where one fails.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lsfa_jax.config import Config
from lsfa_jax.data.load import load_corpus
from lsfa_jax.evaluation import ranking

SEEDS = (0, 1, 2)


def train(folder: Path, *options: str) -> dict:
    """Runs the command on one device, as a user has it, and returns ranking.json."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    command = [sys.executable, "-m", "lsfa_jax.cli.train", "--output", str(folder), *options]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return json.loads((folder / "ranking.json").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """For each seed: metrics of the whole run, and of its last stage done again without generated features."""
    results = []
    for seed in SEEDS:
        folder = tmp_path_factory.mktemp("learning")
        whole = train(folder / "run", "--preset", "quick", "--seed", str(seed))
        shutil.copytree(folder / "run", folder / "without")
        without = train(folder / "without", "--stages", "adjustment", "--adjust.augmented-weight", "0")
        results.append((whole, without))
    return results


def test_beats_the_most_frequent_labels_by_a_wide_margin(runs):
    for seed, (whole, _) in zip(SEEDS, runs, strict=True):
        corpus = load_corpus(Config(seed=seed))
        top = np.tile(np.arange(5, dtype=np.int32), (len(corpus.test), 1))
        baseline = ranking.evaluate(top, corpus.test.labels, corpus.published_counts, corpus.published_documents)
        for name, margin in (("P@1", 40), ("N@5", 40), ("PSP@5", 40)):
            assert whole["test"][name] > baseline[name] + margin, (seed, name)


def test_generated_features_raise_the_tail(runs):
    """Compared with the same stage without them, all else equal: in the mean over seeds, and in most seeds."""
    gains = [whole["test"]["tail"]["PSP@5"] - without["test"]["tail"]["PSP@5"] for whole, without in runs]
    assert np.mean(gains) > 0.3, gains
    assert sum(gain > 0 for gain in gains) >= 2, gains


def test_the_last_stage_raises_the_tail_and_costs_the_others_nothing(runs):
    """Compared with the first stage: what the closing table shows."""

    def gains(read):
        return [
            read(whole["stages"]["adjusted"]["test"]) - read(whole["stages"]["representation"]["test"])
            for whole, _ in runs
        ]

    assert np.mean(gains(lambda test: test["tail"]["PSP@5"])) > 0.3
    assert np.mean(gains(lambda test: test["PSP@5"])) > 0.2
    assert np.mean(gains(lambda test: test["N@5"])) > -0.1
    assert np.mean(gains(lambda test: test["head"]["N@5"])) > -0.1


def test_generated_features_look_like_real_ones(runs):
    for whole, _ in runs:
        assert whole["pvae"]["relative_mean_error"] < 0.2
        assert 0.4 < whole["pvae"]["variance_ratio"] < 1.6
