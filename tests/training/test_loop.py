import json
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lsfa_jax.training import loop
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.state import averaged, init_state
from lsfa_jax.util import interrupts
from lsfa_jax.util.console import UserError
from lsfa_jax.util.interrupts import Interrupted
from tests.reference.agreement import assert_equal

STEPS = 4


class Kept:
    """Checkpoints in memory."""

    def __init__(self, state, save_every=1e9):
        self.saved, self.complete, self.saves = jax.tree.map(jnp.array, state), False, 0
        self.save_every, self.last_save = save_every, 0.0

    def save(self, state, complete=False):
        self.saved, self.complete = jax.tree.map(jnp.array, state), complete
        self.saves += 1


def begin():
    return init_state(jax.random.key(0), {"w": jnp.zeros(2)}, optax.sgd(1.0), {"epoch": jnp.int32(0)}, average=True)


class Toy:
    """A stage whose weight is a sum over the steps, and that checks for signals wherever a real one does."""

    def __init__(self, scores=(), **options):
        self.scores, self.seen = list(scores), []
        validates = bool(scores)
        self.stage = loop.Stage(
            **{
                "name": "toy",
                "epochs": 3,
                "steps_per_epoch": STEPS,
                "items_per_epoch": 10,
                "unit": "documents",
                "batches": self.batches,
                "step": self.step,
                "loss_names": ("bce", ""),
                "before_epoch": self.before_epoch,
                "validate": self.validate if validates else None,
                "patience": 99,
            }
            | options
        )

    def batches(self, epoch, start):
        return iter([(epoch, position) for position in range(start, STEPS)])

    def step(self, state, batch, epoch, number):
        assert batch[0] == epoch == int(state.extra["epoch"])
        assert number == int(state.step) + 1
        self.seen.append(batch)
        number = 100 * batch[0] + batch[1]
        state = replace(
            state,
            step=state.step + 1,
            params={"w": state.params["w"] * 1.1 + number},
            loss_sums=state.loss_sums + jnp.array([number, 7.0]),
            loss_steps=state.loss_steps + 1,
        )
        return averaged(state) if number % 2 else state

    def before_epoch(self, state, epoch):
        interrupts.check()
        return replace(state, extra={"epoch": jnp.int32(epoch)})

    def validate(self, state):
        interrupts.check()
        turn = int(state.step) // (self.stage.validate_every or STEPS) - 1
        return state.average, {"N@5": self.scores[min(turn, len(self.scores) - 1)], "P@1": 10.0 - turn}

    def run(self, folder, checkpoints):
        folder.mkdir(exist_ok=True)
        return loop.run(self.stage, jax.tree.map(jnp.array, checkpoints.saved), checkpoints, RunFolder(folder))


def history(folder):
    """The lines of history.jsonl without the times."""
    path = folder / "history.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert all(line.pop("documents/s") >= 0 and 0 <= line.pop("input_wait") <= 1 for line in lines)
    return lines


def plain(state):
    return replace(state, key=jax.random.key_data(state.key))


def run(folder, *scores, **options):
    toy, kept = Toy(scores, **options), Kept(begin())
    return toy, kept, toy.run(folder, kept)


def test_every_batch_of_every_epoch_is_seen_once_in_order(tmp_path):
    toy, kept, state = run(tmp_path)
    assert toy.seen == [(epoch, position) for epoch in (1, 2, 3) for position in range(STEPS)]
    assert int(state.step) == 12
    assert kept.complete
    assert kept.saves == 1
    assert_equal(plain(kept.saved), plain(state))


def test_history_has_a_line_an_epoch(tmp_path):
    run(tmp_path, 10.0, 30.0, 20.0)
    assert history(tmp_path) == [
        {
            "stage": "toy",
            "step": 4 * epoch,
            "epoch": float(epoch),
            # The mean over the epoch alone.
            "bce": 100.0 * epoch + 1.5,
            "validation": {"N@5": score, "P@1": 11.0 - epoch},
        }
        for epoch, score in ((1, 10.0), (2, 30.0), (3, 20.0))
    ]


def test_a_stage_without_validation_has_losses_in_its_history(tmp_path):
    toy, _, state = run(tmp_path, patience=0)
    assert len(toy.seen) == 12
    assert [line["bce"] for line in history(tmp_path)] == [101.5, 201.5, 301.5]
    assert all("validation" not in line for line in history(tmp_path))
    assert float(state.best_score) == -np.inf


@pytest.mark.parametrize(("every", "steps"), [(0, [4, 8, 12]), (5, [5, 10, 12]), (3, [3, 6, 9, 12]), (99, [12])])
def test_validates_every_so_many_steps_and_at_the_end(tmp_path, every, steps):
    run(tmp_path, 1.0, validate_every=every)
    assert [line["step"] for line in history(tmp_path)] == steps


@pytest.mark.parametrize(
    ("scores", "patience", "first_stop", "last"),
    [
        ((5.0, 4.0, 4.0, 4.0), 2, 1, 12),
        ((5.0, 5.0, 5.0, 5.0), 1, 1, 8),  # as good is not better
        ((5.0, 6.0, 5.0, 7.0), 2, 1, 20),
        ((5.0, 4.0, 4.0, 4.0), 1, 4, 16),
        ((0.0, 0.0), 1, 1, 8),
    ],
)
def test_stops_after_validations_without_improvement(tmp_path, scores, patience, first_stop, last):
    _, kept, state = run(tmp_path, *scores, epochs=5, patience=patience, first_stop=first_stop)
    assert int(state.step) == last
    assert kept.complete


def test_may_stop_within_an_epoch_where_it_validates_there(tmp_path):
    _, _, state = run(tmp_path, 5.0, 4.0, validate_every=3, patience=1)
    assert int(state.step) == 6
    _, _, state = run(tmp_path / "waits", 5.0, 4.0, validate_every=3, patience=1, first_stop=2)
    assert int(state.step) == 9


@pytest.mark.parametrize(("select", "best"), [("N@5", 2), ("P@1", 1)])
def test_the_named_metric_decides_which_weights_are_kept(tmp_path, select, best):
    _, _, state = run(tmp_path, 10.0, 30.0, 20.0, select=select)
    _, _, shorter = run(tmp_path / "shorter", 10.0, epochs=best)
    assert_equal(state.best, shorter.average)
    assert float(state.best_score) == (30.0 if select == "N@5" else 10.0)


def test_before_each_epoch_its_preparation_is_called_once(tmp_path):
    calls = []
    toy = Toy()
    stage = replace(toy.stage, before_epoch=lambda s, epoch: calls.append(epoch) or toy.before_epoch(s, epoch))
    loop.run(stage, begin(), Kept(begin()), RunFolder(tmp_path))
    assert calls == [1, 2, 3]


def test_a_stage_of_no_epochs_is_complete_at_once(tmp_path):
    toy, kept, state = run(tmp_path, epochs=0)
    assert toy.seen == []
    assert kept.complete
    assert_equal(plain(state), plain(begin()))


@pytest.mark.parametrize("what", ["loss", "weight"])
@pytest.mark.parametrize("save_every", [1e9, -1.0], ids=["at the end", "every step"])
def test_what_is_not_a_number_stops_the_stage_and_is_not_saved(tmp_path, what, save_every):
    toy, kept = Toy([1.0]), Kept(begin(), save_every)

    def step(state, batch, epoch, number):
        state = toy.step(state, batch, epoch, number)
        if batch != (2, 1):
            return state
        if what == "loss":
            return replace(state, loss_sums=jnp.array([jnp.inf, 1.0]))
        return replace(state, params={"w": jnp.array([1.0, jnp.nan])})

    with pytest.raises(UserError, match="Lower the learning rate") as error:
        loop.run(replace(toy.stage, step=step), begin(), kept, RunFolder(tmp_path))
    message = str(error.value)
    assert ("a loss is inf" if what == "loss" else "the weights are no longer numbers") in message
    assert f"at step {8 if save_every > 0 else 6}" in message
    assert not kept.complete
    assert int(kept.saved.step) == (0 if save_every > 0 else 5)
    assert bool(jnp.all(jnp.isfinite(kept.saved.params["w"])))
    assert len(history(tmp_path)) == 1


class Signals:
    """Stands in for `interrupts.check`: a signal comes at the given calls."""

    def __init__(self, *moments):
        self.moments, self.calls = moments, 0

    def __call__(self):
        self.calls += 1
        if self.calls in self.moments:
            raise Interrupted(15)


OPTIONS = {"validate_every": 3, "epochs": 3, "select": "N@5"}
SCORES = (10.0, 30.0, 20.0, 40.0)


def test_interrupted_anywhere_and_resumed_ends_where_the_uninterrupted_run_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(interrupts, "check", counted := Signals())
    _, _, expected = run(tmp_path / "whole", *SCORES, **OPTIONS)
    assert counted.calls == 12 + 3 + 4  # before each step, each epoch, each validation
    for moment in range(1, counted.calls + 1):
        folder = tmp_path / str(moment)
        toy, kept = Toy(SCORES, **OPTIONS), Kept(begin())
        monkeypatch.setattr(interrupts, "check", Signals(moment))
        with pytest.raises(Interrupted):
            toy.run(folder, kept)
        assert kept.saves == 1
        assert not kept.complete
        done = len(toy.seen)
        assert int(kept.saved.step) == done
        monkeypatch.setattr(interrupts, "check", lambda: None)
        state = toy.run(folder, kept)
        # No step is lost, none done twice.
        assert toy.seen == [(epoch, position) for epoch in (1, 2, 3) for position in range(STEPS)]
        assert_equal(plain(state), plain(expected))
        assert history(folder) == history(tmp_path / "whole")


class Killed(BaseException):
    """What no code gets to see."""


@pytest.mark.parametrize("save_every", [-1.0, 1e9], ids=["saved every step", "never saved"])
def test_killed_anywhere_and_resumed_ends_where_the_uninterrupted_run_ends(tmp_path, monkeypatch, save_every):
    _, _, expected = run(tmp_path / "whole", *SCORES, **OPTIONS)
    append = RunFolder.append_history
    for moment in range(1, 17):
        folder, count = tmp_path / str(moment), 0
        toy, kept = Toy(SCORES, **OPTIONS), Kept(begin(), save_every)

        def perhaps(kill_now=moment):
            nonlocal count
            count += 1
            if count == kill_now:
                raise Killed

        def step(state, batch, epoch, number, toy=toy):
            perhaps()
            return toy.step(state, batch, epoch, number)

        def written(self, line):
            append(self, line)
            perhaps()

        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "append_history", written)
            folder.mkdir()
            with pytest.raises(Killed):
                loop.run(replace(toy.stage, step=step), begin(), kept, RunFolder(folder))
        assert_equal(plain(toy.run(folder, kept)), plain(expected))
        assert history(folder) == history(tmp_path / "whole")


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
    run(tmp_path, 1.0)
    whole = history(tmp_path)
    path = tmp_path / "history.jsonl"
    path.write_text(path.read_text()[:-20])
    toy, kept = Toy([1.0]), Kept(begin())
    kept.saved = replace(kept.saved, step=jnp.int32(8), validated=jnp.int32(8), extra={"epoch": jnp.int32(2)})
    toy.run(tmp_path, kept)
    assert [line["step"] for line in history(tmp_path)] == [4, 8, 12]
    assert history(tmp_path)[:2] == whole[:2]


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_the_share_of_time_spent_waiting_for_input_is_told(tmp_path, monkeypatch, capsys):
    """A batch takes 3 s, a step 1 s, a validation 100 s, by a clock that moves only then."""
    toy, now = Toy([1.0]), [0.0]
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def taking(seconds, function):
        def call(*arguments):
            now[0] += seconds
            return function(*arguments)

        return call

    def slow(items):
        for item in items:
            now[0] += 3
            yield item

    monkeypatch.setattr(loop, "prefetch", slow)
    stage = replace(toy.stage, step=taking(1, toy.step), validate=taking(100, toy.validate))
    loop.run(stage, begin(), Kept(begin()), RunFolder(tmp_path))
    shares = [json.loads(line)["input_wait"] for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert shares == [0.75] * 3
    # 36 of 12 x 4 + 3 x 100 seconds.
    assert "toy: waited for input 10.3 % of the time\n" in capsys.readouterr().out


def test_batches_are_made_while_the_loop_validates(tmp_path):
    toy, asked = Toy([1.0]), []

    def batches(epoch, start):
        for batch in toy.batches(epoch, start):
            asked.append(batch)
            yield batch

    def validate(state):
        deadline = time.monotonic() + 10
        while len(asked) < min(12, int(state.step) + 3) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(asked) == min(12, int(state.step) + 3)
        return toy.validate(state)

    loop.run(replace(toy.stage, batches=batches, validate=validate), begin(), Kept(begin()), RunFolder(tmp_path))
    assert asked == toy.seen


def test_the_host_waits_for_the_step_before_the_last(tmp_path, monkeypatch):
    toy, waited = Toy(), [0]
    block = jax.block_until_ready

    def waiting(x):
        waited.append(int(x or 0))
        return block(x)

    def step(state, batch, epoch, number):
        # The one before may still run on the device, none else.
        assert waited[-1] == max(0, number - 2)
        return toy.step(state, batch, epoch, number)

    monkeypatch.setattr(jax, "block_until_ready", waiting)
    loop.run(replace(toy.stage, step=step), begin(), Kept(begin()), RunFolder(tmp_path))
    assert waited[1:] == list(range(12))


@pytest.mark.parametrize("error", [KeyboardInterrupt, Interrupted(2), UserError("wrong")])
def test_no_thread_is_left_when_a_step_fails_or_a_signal_comes(tmp_path, error):
    toy, kept = Toy([1.0]), Kept(begin())

    def step(state, batch, epoch, number):
        assert threads()
        if number == 6:
            raise error
        return toy.step(state, batch, epoch, number)

    with pytest.raises(error if isinstance(error, type) else type(error)):
        loop.run(replace(toy.stage, step=step), begin(), kept, RunFolder(tmp_path))
    assert not threads()
    assert int(kept.saved.step) == (5 if isinstance(error, Interrupted) else 0)


def test_no_thread_is_left_after_early_stopping_and_the_end(tmp_path):
    _, _, state = run(tmp_path / "early", 5.0, 4.0, epochs=9, patience=1)
    assert int(state.step) == 8
    assert not threads()
    run(tmp_path / "end")
    assert not threads()


def test_a_batch_that_cannot_be_made_stops_the_stage_in_its_place(tmp_path):
    toy, kept = Toy([1.0]), Kept(begin())

    def batches(epoch, start):
        for batch in toy.batches(epoch, start):
            if batch == (2, 1):
                raise OSError("the disk is gone")
            yield batch

    with pytest.raises(OSError, match="the disk is gone"):
        loop.run(replace(toy.stage, batches=batches), begin(), kept, RunFolder(tmp_path))
    assert toy.seen == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]
    assert kept.saves == 0
    assert not threads()


def test_compiling_steps_are_told_apart_from_the_others(tmp_path, monkeypatch):
    """Steps of a new shape are compiled; the bar is told so, and of no other step."""
    told = []

    @contextmanager
    def progress(*_, **__):
        yield lambda amount=1, status=None, apart=0.0: told.append(apart > 0)

    monkeypatch.setattr(loop, "progress", progress)
    add = jax.jit(lambda w, x: w + jnp.sum(x) * 0)

    def run_with(shapes, folder):
        toy = Toy()

        def step(state, batch, epoch, number):
            state = toy.step(state, batch, epoch, number)
            return replace(state, params={"w": add(state.params["w"], np.zeros(shapes[number - 1]))})

        folder.mkdir()
        # On one device from the start, as a run's state is: arrays that are nowhere in particular are other arguments.
        state = jax.device_put(begin(), jax.devices()[0])
        loop.run(replace(toy.stage, step=step), state, Kept(begin()), RunFolder(folder))

    run_with([1] * 12, tmp_path / "warm")
    told.clear()
    run_with([1, 2, 2, 1, 2, 1, 3, 3, 2, 1, 1, 4], tmp_path / "measured")
    assert told == [number in (2, 7, 12) for number in range(1, 13)]
