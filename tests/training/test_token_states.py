import errno
import os
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lsfa_jax.data.batches import Batches
from lsfa_jax.data.corpus import Split
from lsfa_jax.data.ragged import Ragged
from lsfa_jax.training.stages import transfer
from lsfa_jax.training.token_states import TokenStates
from lsfa_jax.util import sharding
from lsfa_jax.util.console import UserError
from tests import training_corpus
from tests.reference import encoder as reference_encoder
from tests.reference.agreement import float64

L, STATES = training_corpus.NUM_LABELS, 8

# Full, one word, none, and a last batch that does not fill.
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


def filled(path, split, model, params, count=1):
    mesh = sharding.make_mesh(jax.local_devices()[:count])
    states = TokenStates(path, split, STATES)
    collect = transfer.make_collector(model)
    with states.filling() as keep:
        batches = Batches(split, L, 4, [4, 16], count)
        transfer.collect_features(collect, sharding.replicate(mesh, params), batches, 5, mesh, keep)
    return states


@pytest.mark.parametrize("count", [1, 4])
def test_states_in_the_file_are_equation_1(split, model, params, tmp_path, count):
    exact = float64(params)
    sides = {
        side: {name: exact[f"lstm_{side}_{name}"] for name in ("w_input", "w_hidden", "bias", "h0", "c0")}
        for side in ("forward", "backward")
    }
    expected = [
        reference_encoder.bilstm(sides, exact["embedding"][words][None], [len(words)])[0]
        for words in np.split(split.words.values, split.words.offsets[1:-1])
        if len(words)
    ]
    kept = filled(tmp_path / "states.npy", split, model, params, count).split()
    assert kept.words.values.shape == (sum(LENGTHS), STATES)
    assert kept.words.values.dtype == np.float16
    # Half a unit in the eleventh bit below 1, and float32's own rounding.
    np.testing.assert_allclose(kept.words.values, np.concatenate(expected), rtol=0, atol=2.0**-12 + 1e-6)
    assert kept.labels is split.labels


def test_scores_from_the_file_are_those_of_the_words(split, model, params, tmp_path):
    kept = filled(tmp_path / "states.npy", split, model, params).split()
    plan = Batches(split, L, 4, [4, 16]).in_order()
    pairs = zip(Batches(split, L, 4, [4, 16]).load(plan), Batches(kept, L, 4, [4, 16]).load(plan), strict=True)
    for words, states in pairs:
        assert states.words.dtype == np.float16
        assert not states.words[np.arange(states.words.shape[1]) >= states.lengths[:, None]].any()
        for name in ("lengths", "label_ids", "label_mask", "document_mask", "rows"):
            np.testing.assert_array_equal(getattr(words, name), getattr(states, name))
        ours, theirs = (model.apply({"params": params}, batch.words, batch.lengths) for batch in (states, words))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-3)


def disk(monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))


def refuse(*_):
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


SIZE = sum(LENGTHS) * STATES * 2


@pytest.mark.parametrize(("free", "expected"), [(2 * SIZE, True), (2 * SIZE - 1, False)])
def test_auto_keeps_states_where_they_take_up_half_of_the_free_room(split, tmp_path, monkeypatch, free, expected):
    disk(monkeypatch, free)
    assert TokenStates(tmp_path / "new" / "states.npy", split, STATES).wanted("auto") == expected


def test_auto_gives_up_where_the_room_is_not_for_this_user(split, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    assert not TokenStates(tmp_path / "states.npy", split, STATES).wanted("auto")
    assert "quota" in capsys.readouterr().out.lower()
    assert [path.name for path in tmp_path.iterdir()] == ["states.npy"]


@pytest.mark.parametrize("room", [True, False])
def test_auto_decides_once(split, model, params, tmp_path, monkeypatch, room):
    disk(monkeypatch, 10**9 if room else 10)
    states = TokenStates(tmp_path / "states.npy", split, STATES)
    assert states.wanted("auto") == room
    assert states.decided != room
    if room:
        filled(tmp_path / "states.npy", split, model, params)
    disk(monkeypatch, 10 if room else 10**9)
    again = TokenStates(tmp_path / "states.npy", split, STATES)
    assert again.decided
    assert again.wanted("auto") == room
    again.remove()
    assert not list(tmp_path.iterdir())


def test_room_that_a_killed_run_took_counts_as_free(split, tmp_path, monkeypatch):
    (tmp_path / ".states.npy.partial").write_bytes(b"much")
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: SimpleNamespace(free=0 if list(folder.iterdir()) else 2 * SIZE)
    )
    assert TokenStates(tmp_path / "states.npy", split, STATES).wanted("auto")


def test_yes_without_room_says_so(split, tmp_path, monkeypatch):
    disk(monkeypatch, 10)
    assert TokenStates(tmp_path / "states.npy", split, STATES).wanted("yes")
    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with pytest.raises(
        UserError, match=r"states\.npy: .*quota.*token states; make room, or .*--adjust.cache-states no"
    ):
        TokenStates(tmp_path / "states.npy", split, STATES).wanted("yes")
    assert not list(tmp_path.iterdir())


def test_without_words_there_is_nothing_to_keep(split, tmp_path):
    empty = split.take(np.flatnonzero(split.lengths == 0))
    assert not TokenStates(tmp_path / "states.npy", empty, STATES).wanted("yes")
    assert not TokenStates(tmp_path / "states.npy", split, STATES).wanted("no")
    assert not list(tmp_path.iterdir())
