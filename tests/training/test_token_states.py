import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lsfa_jax.data.batches import Batches
from lsfa_jax.data.corpus import Split
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.model.lsfa import Lsfa
from lsfa_jax.training.collection import collect_features
from lsfa_jax.training.token_states import TokenStates
from lsfa_jax.util import sharding
from lsfa_jax.util.console import UserError
from tests import training_corpus
from tests.reference.agreement import float64

L, STATES = training_corpus.NUM_LABELS, 8
ENCODER = training_corpus.make_model(training_corpus.config()).encoder

# As many words as fit, one, none; and a last batch that is not full.
LENGTHS = [16, 1, 0, 5, 16, 2, 0, 11, 1, 7, 3]


@pytest.fixture(scope="module")
def split():
    random = np.random.default_rng(1)
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int64)
    labels = Ragged(random.integers(0, L, len(LENGTHS)).astype(np.int32), np.arange(len(LENGTHS) + 1))
    return Split(Ragged(random.integers(2, 42, offsets[-1]).astype(np.int32), offsets), labels)


@pytest.fixture(scope="module")
def model():
    return training_corpus.make_model(training_corpus.config())


@pytest.fixture(scope="module")
def params(model):
    return training_corpus.init_params(model)


def filled(path: Path, split: Split, model: Lsfa, params: dict, devices: int = 1) -> TokenStates:
    mesh = sharding.make_mesh(jax.local_devices()[:devices])
    states = TokenStates(path, split, model.encoder)
    with states.filling() as keep:
        batches = Batches(split, L, 4, [4, 16], devices)
        collect_features(model, sharding.replicate(mesh, params), batches, mesh, keep, states_dtype=states.dtype)
    return states


@pytest.mark.parametrize("devices", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_states_in_the_file_are_equation_1(split, model, params, tmp_path, devices):
    exact = float64(params)
    expected = [
        training_corpus.reference_states(exact, words[None], [len(words)])[0]
        for words in np.split(split.words.values, split.words.offsets[1:-1])
        if len(words)
    ]
    stored = filled(tmp_path / "states.npy", split, model, params, devices).split()
    assert stored.states.values.shape == (sum(LENGTHS), STATES)
    assert stored.states.values.dtype == np.float16
    # Half a unit in the eleventh bit below 1, and the rounding of float32.
    np.testing.assert_allclose(stored.states.values, np.concatenate(expected), rtol=0, atol=2.0**-12 + 1e-6)
    assert stored.labels is split.labels


def test_scores_from_the_file_are_those_of_the_token_ids(split, model, params, tmp_path):
    stored = filled(tmp_path / "states.npy", split, model, params).split()
    plan = Batches(split, L, 4, [4, 16]).in_order()
    lsfa = model.bind({"params": params})

    @jax.jit
    def logits(batch):
        return lsfa.scores(lsfa.states(batch.words, batch.lengths, stored=batch.states), batch.lengths)

    pairs = zip(Batches(split, L, 4, [4, 16]).load(plan), Batches(stored, L, 4, [4, 16]).load(plan), strict=True)
    for words, states in pairs:
        assert states.states.dtype == np.float16
        assert not states.states[np.arange(states.states.shape[1]) >= states.lengths[:, None]].any()
        for name in ("lengths", "label_ids", "label_mask", "document_mask", "rows"):
            np.testing.assert_array_equal(getattr(words, name), getattr(states, name))
        from_states, from_words = (logits(batch) for batch in (states, words))
        np.testing.assert_allclose(from_states, from_words, rtol=0, atol=2e-3)


def set_free_space(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))


def over_quota(*_: object) -> None:
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


SIZE = sum(LENGTHS) * STATES * 2


@pytest.mark.parametrize(("free", "expected"), [(2 * SIZE, True), (2 * SIZE - 1, False)])
def test_auto_stores_states_that_fit_in_half_of_the_free_space(split, tmp_path, monkeypatch, free, expected):
    set_free_space(monkeypatch, free)
    assert TokenStates(tmp_path / "new" / "states.npy", split, ENCODER).keep_on_disk("auto") == expected


def test_auto_stores_nothing_beyond_the_users_quota(split, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "posix_fallocate", over_quota, raising=False)
    assert not TokenStates(tmp_path / "states.npy", split, ENCODER).keep_on_disk("auto")
    assert "quota" in capsys.readouterr().out.lower()
    assert [path.name for path in tmp_path.iterdir()] == ["states.npy"]


@pytest.mark.parametrize("fits", [True, False])
def test_auto_decides_once(split, model, params, tmp_path, monkeypatch, fits):
    set_free_space(monkeypatch, 10**9 if fits else 10)
    states = TokenStates(tmp_path / "states.npy", split, ENCODER)
    assert states.keep_on_disk("auto") == fits
    assert states.decided != fits
    if fits:
        filled(tmp_path / "states.npy", split, model, params)
    set_free_space(monkeypatch, 10 if fits else 10**9)
    again = TokenStates(tmp_path / "states.npy", split, ENCODER)
    assert again.decided
    assert again.keep_on_disk("auto") == fits
    again.remove()
    assert not list(tmp_path.iterdir())


def test_space_that_a_killed_run_reserved_counts_as_free(split, tmp_path, monkeypatch):
    (tmp_path / ".states.npy.partial").write_bytes(b"much")
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: SimpleNamespace(free=0 if list(folder.iterdir()) else 2 * SIZE)
    )
    assert TokenStates(tmp_path / "states.npy", split, ENCODER).keep_on_disk("auto")


def test_yes_without_space_is_an_error(split, tmp_path, monkeypatch):
    set_free_space(monkeypatch, 10)
    assert TokenStates(tmp_path / "states.npy", split, ENCODER).keep_on_disk("yes")
    monkeypatch.setattr(os, "posix_fallocate", over_quota, raising=False)
    with pytest.raises(
        UserError, match=r"states\.npy: .*quota.*token states; make room, or .*--adjust.cache-states no"
    ):
        TokenStates(tmp_path / "states.npy", split, ENCODER).keep_on_disk("yes")
    assert not list(tmp_path.iterdir())


def test_without_words_there_is_nothing_to_store(split, tmp_path):
    empty = split.take(np.flatnonzero(split.lengths == 0))
    assert not TokenStates(tmp_path / "states.npy", empty, ENCODER).keep_on_disk("yes")
    assert not TokenStates(tmp_path / "states.npy", split, ENCODER).keep_on_disk("no")
    assert not list(tmp_path.iterdir())
