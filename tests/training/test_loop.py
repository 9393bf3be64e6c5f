import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lsfa_jax.training import loop
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.state import TrainState, averaged, completed, init_state
from lsfa_jax.util import interrupts, known_sums
from lsfa_jax.util.console import UserError
from lsfa_jax.util.interrupts import Interrupted
from tests.reference.agreement import assert_equal

STEPS = 4
EPOCHS = 3
ALL_BATCHES = [(epoch, position) for epoch in range(1, EPOCHS + 1) for position in range(STEPS)]


class MemoryCheckpoints:
    """Checkpoints in memory, saved at the end only or after every step."""

    def __init__(self, state: TrainState, every_step: bool = False) -> None:
        self.every_step = every_step
        self.saved, self.complete, self.saves = jax.tree.map(jnp.array, state), False, 0

    def due(self) -> bool:
        return self.every_step

    def save(self, state: TrainState, complete: bool = False) -> None:
        self.saved, self.complete = jax.tree.map(jnp.array, state), complete
        self.saves += 1


def initial_state() -> TrainState:
    extra = {"epoch": jnp.int32(0)}
    return init_state(jax.random.key(0), {"w": jnp.zeros(2)}, optax.sgd(1.0), ("bce",), extra, average=True)


class Toy(loop.Stage):
    """A stage that sums numbers of its batches into one weight, and checks for signals wherever a real stage does."""

    name = "toy"
    epochs, steps_per_epoch, items_per_epoch, patience = EPOCHS, STEPS, 10, 99

    def __init__(self, scores: tuple[float, ...] = (), **attributes: object) -> None:
        self.scores = scores
        self.trained: list[tuple[int, int]] = []
        self.prepared: list[int] = []
        for name, value in attributes.items():
            setattr(self, name, value)

    def batches(self, epoch: int, start: int) -> Iterator[tuple[int, int]]:
        yield from ((epoch, position) for position in range(start, STEPS))

    def step(self, state: TrainState, batch: tuple[int, int], epoch: int, number: int) -> TrainState:
        assert batch[0] == epoch == int(state.extra["epoch"])
        assert number == int(state.step) + 1
        self.trained.append(batch)
        value = 100 * batch[0] + batch[1]
        state = replace(
            state,
            step=state.step + 1,
            params={"w": state.params["w"] * 1.1 + value},
            loss_sums={"bce": state.loss_sums["bce"] + value},
            loss_steps=state.loss_steps + 1,
        )
        return averaged(state) if value % 2 else state

    def before_epoch(self, state: TrainState, epoch: int) -> TrainState:
        self.prepared.append(epoch)
        interrupts.check()
        return replace(state, extra={"epoch": jnp.int32(epoch)})

    def validate(self, state: TrainState) -> tuple[Mapping[str, jax.Array], dict[str, float]] | None:
        if not self.scores:
            return None
        interrupts.check()
        validation = int(state.step) // (self.validate_every or STEPS) - 1
        score = self.scores[min(validation, len(self.scores) - 1)]
        return state.average, {"N@5": score, "P@1": 10.0 - validation}


def train(stage: Toy, folder: Path, checkpoints: MemoryCheckpoints | None = None) -> TrainState:
    """Runs a stage from the state in the checkpoints, else from the start."""
    folder.mkdir(exist_ok=True)
    checkpoints = checkpoints or MemoryCheckpoints(initial_state())
    return loop.run(stage, jax.tree.map(jnp.array, checkpoints.saved), checkpoints, RunFolder(folder))


def history(folder: Path) -> list[dict[str, object]]:
    """Returns the lines of history.jsonl without times."""
    path = folder / "history.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert all(line.pop("documents/s") >= 0 and 0 <= line.pop("input_wait") <= 1 for line in lines)
    assert all(0 <= time.time() - line.pop("time") < 3600 for line in lines)
    return lines


def without_key(state: TrainState) -> TrainState:
    return replace(state, key=jax.random.key_data(state.key))


def run(folder: Path, *scores: float, **attributes: object) -> tuple[Toy, MemoryCheckpoints, TrainState]:
    stage, checkpoints = Toy(scores, **attributes), MemoryCheckpoints(initial_state())
    return stage, checkpoints, train(stage, folder, checkpoints)


def test_every_batch_of_every_epoch_is_trained_once_in_order(tmp_path):
    stage, checkpoints, state = run(tmp_path)
    assert stage.trained == ALL_BATCHES
    assert int(state.step) == 12
    assert checkpoints.complete
    assert checkpoints.saves == 1
    assert_equal(without_key(checkpoints.saved), without_key(completed(state)))


def test_known_sums_are_checked_before_the_first_step(tmp_path, monkeypatch):
    stage, trained = Toy(), []
    monkeypatch.setattr(known_sums, "check", lambda: trained.append(len(stage.trained)))
    train(stage, tmp_path)
    assert trained == [0]


def test_history_has_a_line_an_epoch(tmp_path):
    run(tmp_path, 10.0, 30.0, 20.0)
    assert history(tmp_path) == [
        {
            "stage": "toy",
            "step": 4 * epoch,
            "epoch": float(epoch),
            # The mean over this epoch alone.
            "bce": 100.0 * epoch + 1.5,
            "validation": {"N@5": score, "P@1": 11.0 - epoch},
        }
        for epoch, score in ((1, 10.0), (2, 30.0), (3, 20.0))
    ]


def test_a_stage_without_validation_has_losses_in_its_history(tmp_path):
    stage, _, state = run(tmp_path, patience=0)
    assert len(stage.trained) == 12
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
        ((5.0, 5.0, 5.0, 5.0), 1, 1, 8),  # an equal score is no improvement
        ((5.0, 6.0, 5.0, 7.0), 2, 1, 20),
        ((5.0, 4.0, 4.0, 4.0), 1, 4, 16),
        ((0.0, 0.0), 1, 1, 8),
    ],
)
def test_stops_after_validations_without_improvement(tmp_path, scores, patience, first_stop, last):
    _, checkpoints, state = run(tmp_path, *scores, epochs=5, patience=patience, first_stop=first_stop)
    assert int(state.step) == last
    assert checkpoints.complete


def test_may_stop_within_an_epoch_where_it_validates_there(tmp_path):
    _, _, state = run(tmp_path / "stops", 5.0, 4.0, validate_every=3, patience=1)
    assert int(state.step) == 6
    _, _, state = run(tmp_path / "waits", 5.0, 4.0, validate_every=3, patience=1, first_stop=2)
    assert int(state.step) == 9


@pytest.mark.parametrize(("select", "best"), [("N@5", 2), ("P@1", 1)])
def test_the_selected_metric_decides_which_weights_are_kept(tmp_path, select, best):
    _, _, state = run(tmp_path / "all", 10.0, 30.0, 20.0, select=select)
    _, _, shorter = run(tmp_path / "shorter", 10.0, epochs=best)
    assert_equal(state.best, shorter.average)
    assert float(state.best_score) == (30.0 if select == "N@5" else 10.0)


def test_each_epoch_is_prepared_once(tmp_path):
    stage, _, _ = run(tmp_path)
    assert stage.prepared == [1, 2, 3]


def test_a_stage_of_no_epochs_is_complete_at_once(tmp_path):
    stage, checkpoints, state = run(tmp_path, epochs=0)
    assert stage.trained == []
    assert checkpoints.complete
    assert_equal(without_key(state), without_key(initial_state()))


@pytest.mark.parametrize("diverging", ["loss", "weight"])
@pytest.mark.parametrize("every_step", [False, True], ids=["saved at the end", "saved every step"])
def test_an_infinite_loss_or_weight_stops_the_stage_and_is_not_saved(tmp_path, diverging, every_step):
    class Diverging(Toy):
        def step(self, state, batch, epoch, number):
            state = super().step(state, batch, epoch, number)
            if batch != (2, 1):
                return state
            if diverging == "loss":
                return replace(state, loss_sums={"bce": jnp.float32(jnp.inf)})
            return replace(state, params={"w": jnp.array([1.0, jnp.nan])})

    checkpoints = MemoryCheckpoints(initial_state(), every_step)
    with pytest.raises(UserError, match="Lower the learning rate") as error:
        train(Diverging((1.0,)), tmp_path, checkpoints)
    message = str(error.value)
    assert ("a loss is inf" if diverging == "loss" else "a weight is not a finite number") in message
    assert f"at step {6 if every_step else 8}" in message
    assert not checkpoints.complete
    assert int(checkpoints.saved.step) == (5 if every_step else 0)
    assert bool(jnp.all(jnp.isfinite(checkpoints.saved.params["w"])))
    assert len(history(tmp_path)) == 1


def signal_at(call: int) -> Callable[[], None]:
    """Returns a stand-in for `interrupts.check` to which a signal comes at one call."""
    calls = iter(range(1, call + 1))

    def check() -> None:
        if next(calls, None) == call:
            raise Interrupted(15)

    return check


SCORES = (10.0, 30.0, 20.0, 40.0)


def test_interrupted_anywhere_and_resumed_the_stage_ends_where_the_uninterrupted_one_ends(tmp_path, monkeypatch):
    _, _, expected = run(tmp_path / "uninterrupted", *SCORES, validate_every=3)
    call, stopped_at = 0, []
    while True:
        call += 1
        folder = tmp_path / str(call)
        stage, checkpoints = Toy(SCORES, validate_every=3), MemoryCheckpoints(initial_state())
        monkeypatch.setattr(interrupts, "check", signal_at(call))
        try:
            train(stage, folder, checkpoints)
        except Interrupted:
            assert checkpoints.saves == 1
            assert not checkpoints.complete
        else:
            break
        stopped_at.append(int(checkpoints.saved.step))
        assert len(stage.trained) == stopped_at[-1]
        monkeypatch.setattr(interrupts, "check", lambda: None)
        state = train(stage, folder, checkpoints)
        assert stage.trained == ALL_BATCHES  # no step is lost or repeated
        assert_equal(without_key(state), without_key(expected))
        assert history(folder) == history(tmp_path / "uninterrupted")
    # Before each step, in the preparation of three epochs, in four validations.
    assert sorted(stopped_at) == sorted([*range(12), *(0, 4, 8), *(3, 6, 9, 12)])


class Killed(BaseException):
    """Ends a run at once, as a kill does: nothing in the package handles it."""


@pytest.mark.parametrize("every_step", [True, False], ids=["saved every step", "never saved"])
def test_killed_anywhere_and_resumed_the_stage_ends_where_the_uninterrupted_one_ends(tmp_path, every_step):
    _, _, expected = run(tmp_path / "uninterrupted", *SCORES, validate_every=3)
    for moment in range(1, 17):  # twelve steps and four lines of history
        folder = tmp_path / str(moment)
        folder.mkdir()
        moments = iter(range(1, moment + 1))

        def kill_now(moments=moments, moment=moment):
            if next(moments, None) == moment:
                raise Killed

        class KilledBeforeAStep(Toy):
            def step(self, state, batch, epoch, number, kill_now=kill_now):
                kill_now()
                return super().step(state, batch, epoch, number)

        class KilledAfterALine(RunFolder):
            def append_history(self, line, kill_now=kill_now):
                super().append_history(line)
                kill_now()

        checkpoints = MemoryCheckpoints(initial_state(), every_step)
        with pytest.raises(Killed):
            loop.run(
                KilledBeforeAStep(SCORES, validate_every=3), initial_state(), checkpoints, KilledAfterALine(folder)
            )
        state = train(Toy(SCORES, validate_every=3), folder, checkpoints)
        assert_equal(without_key(state), without_key(expected))
        assert history(folder) == history(tmp_path / "uninterrupted")


def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path):
    run(tmp_path, 1.0)
    complete = history(tmp_path)
    path = tmp_path / "history.jsonl"
    path.write_text(path.read_text()[:-20])
    checkpoints = MemoryCheckpoints(initial_state())
    checkpoints.saved = replace(
        checkpoints.saved, step=jnp.int32(8), validated=jnp.int32(8), extra={"epoch": jnp.int32(2)}
    )
    train(Toy((1.0,)), tmp_path, checkpoints)
    assert [line["step"] for line in history(tmp_path)] == [4, 8, 12]
    assert history(tmp_path)[:2] == complete[:2]


class Counting(loop.Stage):
    """Steps that cost almost nothing; batches, steps and validations sleep so many seconds."""

    name, epochs, steps_per_epoch, items_per_epoch = "counting", 2, 8, 20

    def __init__(self, batch: float = 0.0, step: float = 0.0, validation: float = 0.0) -> None:
        self.seconds = {"batch": batch, "step": step, "validation": validation}

    def batches(self, epoch: int, start: int) -> Iterator[int]:
        for position in range(start, self.steps_per_epoch):
            time.sleep(self.seconds["batch"])
            yield position

    def step(self, state: TrainState, batch: int, epoch: int, number: int) -> TrainState:
        time.sleep(self.seconds["step"])
        return replace(state, step=state.step + 1)

    def validate(self, state: TrainState) -> tuple[Mapping[str, jax.Array], dict[str, float]]:
        time.sleep(self.seconds["validation"])
        return state.params, {"N@5": 1.0}


def raw_history(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "waits"), [({"batch": 0.1, "validation": 1.0}, True), ({"step": 0.1}, False)], ids=["batches", "steps"]
)
def test_the_share_of_time_spent_waiting_for_input_leaves_out_validations(tmp_path, capsys, seconds, waits):
    loop.run(Counting(**seconds), initial_state(), folder=RunFolder(tmp_path))
    shares = [line["input_wait"] for line in raw_history(tmp_path)]
    assert len(shares) == 2
    assert all((share > 0.5) == waits for share in shares), shares
    (printed,) = (line for line in capsys.readouterr().out.splitlines() if "waited for input" in line)
    share = float(printed.removeprefix("counting: waited for input ").removesuffix(" % of the time"))
    # Of the total time, of which the two validations are most.
    assert 0 <= share < (60 if waits else 50)
    assert (share > 5) == waits


class Slow(Toy):
    """A stage whose steps take seconds, by a clock that is turned forward."""

    clock, seconds = 0.0, 5.0

    def step(self, state: TrainState, batch: tuple[int, int], epoch: int, number: int) -> TrainState:
        self.clock += self.seconds
        return super().step(state, batch, epoch, number)


@pytest.mark.parametrize(
    ("seconds", "epochs", "expected"),
    [
        (5.0, 100, ["20 s an epoch, at most about 33 min for the remaining 99.5 epochs", "use another"]),
        (200.0, 100, ["13 min an epoch, at most about 22 h 10 min for the remaining 99.8 epochs", "use another"]),
        (5.0, 10, ["20 s an epoch, at most about 3 min for the remaining 9.5 epochs"]),
        (5.0, 2, []),
        (0.001, 20, []),
    ],
)
def test_the_time_of_a_stage_is_estimated_once(tmp_path, capsys, monkeypatch, seconds, epochs, expected):
    stage = Slow(seconds=seconds, epochs=epochs)
    monkeypatch.setattr(time, "monotonic", lambda: stage.clock)
    loop.run(stage, initial_state(), folder=RunFolder(tmp_path), advice="use another")
    lines = [line for line in capsys.readouterr().out.splitlines() if "an epoch" in line or "use another" in line]
    assert len(lines) == len(expected)
    assert all(text in line for text, line in zip(expected, lines, strict=True))


def test_items_a_second_of_a_resumed_stage_count_the_steps_since_it_resumed(tmp_path):
    state = replace(initial_state(), step=jnp.int32(15), validated=jnp.int32(8))
    loop.run(Counting(step=0.05), state, folder=RunFolder(tmp_path))
    (line,) = raw_history(tmp_path)
    # A step has 2.5 documents and takes 0.05 s at least; were all 16 counted, it would be 800.
    assert 0 < line["documents/s"] <= 2.5 / 0.05


def test_batches_are_loaded_while_the_stage_validates(tmp_path):
    class Watching(Toy):
        def batches(self, epoch, start):
            for batch in super().batches(epoch, start):
                loaded.append(batch)
                yield batch

        def validate(self, state):
            expected = min(12, int(state.step) + 3)
            deadline = time.monotonic() + 60
            while len(loaded) < expected and time.monotonic() < deadline:
                time.sleep(0.001)
            assert len(loaded) == expected
            return super().validate(state)

    loaded: list[tuple[int, int]] = []
    stage = Watching((1.0,))
    train(stage, tmp_path)
    assert loaded == stage.trained


def test_the_host_waits_for_the_step_before_the_last(tmp_path, monkeypatch):
    """A device that works through its queue slowly does not get all steps at once: each would hold memory."""
    waited_for = [0]
    block_until_ready = jax.block_until_ready

    def recorded(x):
        waited_for.append(int(x or 0))
        return block_until_ready(x)

    class Queueing(Counting):
        def step(self, state, batch, epoch, number):
            # The step before may still run on the device, no earlier one.
            assert waited_for[-1] == max(0, number - 2)
            return super().step(state, batch, epoch, number)

    monkeypatch.setattr(jax, "block_until_ready", recorded)
    loop.run(Queueing(), initial_state(), folder=RunFolder(tmp_path))
    assert waited_for[1:] == list(range(16))


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), Interrupted(2), UserError("wrong")], ids=lambda e: type(e).__name__
)
def test_no_thread_remains_after_a_step_that_fails(tmp_path, error):
    class Failing(Toy):
        def step(self, state, batch, epoch, number):
            assert new_threads()
            if number == 6:
                raise error
            return super().step(state, batch, epoch, number)

    new_threads, checkpoints = thread_watch(), MemoryCheckpoints(initial_state())
    with pytest.raises(type(error)):
        train(Failing((1.0,)), tmp_path, checkpoints)
    assert not new_threads()
    assert int(checkpoints.saved.step) == (5 if isinstance(error, Interrupted) else 0)


def thread_watch() -> Callable[[], set[threading.Thread]]:
    """Returns a function that returns the threads that were started since."""
    before = set(threading.enumerate())
    return lambda: set(threading.enumerate()) - before


def test_no_thread_remains_after_early_stopping_and_after_the_end(tmp_path):
    new_threads = thread_watch()
    _, _, state = run(tmp_path / "early", 5.0, 4.0, epochs=9, patience=1)
    assert int(state.step) == 8
    assert not new_threads()
    run(tmp_path / "end")
    assert not new_threads()


def test_a_batch_that_cannot_be_loaded_stops_the_stage_in_its_place(tmp_path):
    class Unreadable(Toy):
        def batches(self, epoch, start):
            for batch in super().batches(epoch, start):
                if batch == (2, 1):
                    raise OSError("the disk is gone")
                yield batch

    new_threads, stage, checkpoints = thread_watch(), Unreadable((1.0,)), MemoryCheckpoints(initial_state())
    with pytest.raises(OSError, match="the disk is gone"):
        train(stage, tmp_path, checkpoints)
    assert stage.trained == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]
    assert checkpoints.saves == 0
    assert not new_threads()


def test_progress_names_the_epoch_of_each_step_and_no_losses_of_an_earlier_one(tmp_path, monkeypatch):
    shown: list[str] = []

    @contextmanager
    def progress(*_, **__):
        def advance(amount=1, status=None, apart=0.0):
            shown.append(status or shown[-1])

        yield advance

    monkeypatch.setattr(loop, "progress", progress)
    stage = Toy((1.0, 2.0, 3.0))
    train(stage, tmp_path)
    per_epoch = stage.steps_per_epoch
    assert len(shown) == 3 * per_epoch
    assert [text.split()[1] for text in shown] == [f"{1 + step // per_epoch}/3" for step in range(len(shown))]
    assert shown[0] == "epoch 1/3 bce 100"
    assert shown[per_epoch] == "epoch 2/3"


def test_the_time_of_steps_that_compile_is_reported_apart(tmp_path, monkeypatch):
    """The first step of a new shape is compiled; the progress bar leaves its time out of the estimate."""
    compiling: list[bool] = []

    @contextmanager
    def progress(*_, **__):
        yield lambda amount=1, status=None, apart=0.0: compiling.append(apart > 0)

    monkeypatch.setattr(loop, "progress", progress)
    add = jax.jit(lambda w, x: w + jnp.sum(x) * 0)

    class Shapes(Toy):
        def step(self, state, batch, epoch, number):
            state = super().step(state, batch, epoch, number)
            return replace(state, params={"w": add(state.params["w"], np.zeros(self.shapes[number - 1]))})

    def run_with(shapes, folder):
        # On one device, as the state of a run: an array without a device would compile separately.
        state = jax.device_put(initial_state(), jax.devices()[0])
        folder.mkdir()
        loop.run(Shapes(shapes=shapes), state, folder=RunFolder(folder))

    run_with([1] * 12, tmp_path / "warm")
    compiling.clear()
    run_with([1, 2, 2, 1, 2, 1, 3, 3, 2, 1, 1, 4], tmp_path / "measured")
    assert compiling == [number in (2, 7, 12) for number in range(1, 13)]
