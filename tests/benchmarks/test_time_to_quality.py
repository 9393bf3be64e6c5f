"""The training time of a run to a label tree's P@5."""

import numpy as np
import pytest

from benchmarks import time_to_quality
from lsfa_jax.config import Config, to_toml
from lsfa_jax.data.corpus import Corpus, Split
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.util.console import UserError


def line(epoch, precision, rate=20.0):
    return {"stage": "representation", "epoch": epoch, "documents/s": rate, "validation": {"P@5": precision}}


def test_the_time_to_a_goal_is_that_of_all_training_up_to_the_first_validation_that_reaches_it():
    history = [line(0.5, 40.0), line(1.0, 50.0, rate=25.0), line(1.5, 55.0)]
    assert time_to_quality.seconds_to(history, 80, 50.0) == pytest.approx(80 / 25)
    assert time_to_quality.seconds_to(history, 80, 40.0) == pytest.approx(0.5 * 80 / 20)
    assert time_to_quality.seconds_to(history, 80, 55.1) is None


def test_a_folder_without_a_run_or_without_a_validation_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no such settings file"):
        time_to_quality.main([str(tmp_path)])
    (tmp_path / "config.toml").write_text(to_toml(Config()), encoding="utf-8")
    (tmp_path / "history.jsonl").write_text('{"stage": "transfer", "epoch": 1}\n', encoding="utf-8")
    with pytest.raises(UserError, match="no validation of the first stage"):
        time_to_quality.main([str(tmp_path)])


def test_the_tree_learns_a_corpus_whose_words_name_its_labels():
    label = np.tile(np.arange(12, dtype=np.int32), 10)
    words = np.stack([2 + label, 2 + label, np.full(120, 14)], axis=1).astype(np.int32).ravel()
    words.flags.writeable = False  # as a mapped file is
    split = Split(Ragged(words, np.arange(121) * 3), Ragged(label, np.arange(121)))
    corpus = Corpus(
        name="synthetic",
        train=split,
        validation=split.take(np.arange(24)),
        test=split,
        words=list("abcdefghijklm"),
        labels=list("nopqrstuvwxy"),
        num_labels=12,
        published_counts=np.bincount(label),
    )
    seconds, precision = time_to_quality.train_tree_on(corpus)
    assert seconds > 0
    # One right label of five.
    assert precision == pytest.approx(20.0)
