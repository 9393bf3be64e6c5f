import math
import time
from collections.abc import Iterator
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lsfa_jax.cli.train import main
from lsfa_jax.config import Config
from lsfa_jax.training import loop, run, time_limit
from lsfa_jax.training.initial_encoder import initial_encoder
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.training.state import TrainState, init_state
from lsfa_jax.training.three_stages import Run
from lsfa_jax.training.time_limit import Sizes, Timing
from lsfa_jax.util import processes
from lsfa_jax.util.console import UserError
from lsfa_jax.util.interrupts import Interrupted
from tests import training_corpus
from tests.training import runs

SIZES = Sizes(train=900, validation=90, test=300)


class Sleeper(loop.Stage):
    """A stage whose steps take a known time, and the first one of each shape a longer one."""

    name, epochs, steps_per_epoch, items_per_epoch = "sleeper", 10, 20, 900
    step_seconds, first_seconds = 0.01, 0.1

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.steps: list[int] = []

    def batches(self, epoch: int, start: int) -> Iterator[np.ndarray]:
        yield from (np.zeros(1 + number % 2) for number in range(start, self.steps_per_epoch))

    def step(self, state: TrainState, batch: np.ndarray, epoch: int, number: int) -> TrainState:
        time.sleep(self.step_seconds if len(batch) in self.seen else self.first_seconds)
        self.seen.add(len(batch))
        self.steps.append(epoch)
        return replace(state, step=state.step + 1)


def initial_state() -> TrainState:
    return init_state(jax.random.key(0), {"w": jnp.zeros(2)}, optax.sgd(1.0), ("bce",))


def test_the_time_of_an_epoch_leaves_compilation_out():
    stage = Sleeper()
    timing = time_limit.time_steps(stage, initial_state(), epoch=2)
    assert 0.2 <= timing.epoch < 0.8
    assert 0.2 <= timing.compilation < 0.5
    assert stage.steps == [2] * 22  # all steps of a short epoch, and the first of each shape once more


def test_few_steps_are_timed_where_each_takes_long(monkeypatch):
    monkeypatch.setattr(time_limit, "_MOST_SECONDS", 0.03)
    stage = Sleeper()
    time_limit.time_steps(stage, initial_state())
    assert len(stage.steps) <= 5


def config_with(**sections) -> Config:
    return Config.model_validate({"psc": {"start_epoch": 3}, "adjust": {"epochs": 3}} | sections)


@pytest.mark.parametrize(("start", "passes"), [("random", 1), ("discriminant", 2)])
@pytest.mark.parametrize(("epochs", "with_contrast"), [(1, 1), (2, 1), (3, 1), (5, 3)])
def test_the_plan_counts_what_every_epoch_and_what_the_whole_run_computes(epochs, with_contrast, start, passes):
    config = config_with(classifier={"weights_start": start})
    timing = Timing(epoch=90.0, compilation=5.0)
    # 0.1 s a document with gradients, a third of that without, a tenth of it from stored states.
    in_epochs = epochs * (90 + 90 / 30) + with_contrast * 900 / 30
    # Training documents are also read for classifiers to start from.
    once, later = passes * 900 + 390, 3 * 990 + 3 * 390 + 90
    seconds = time_limit.seconds_of(epochs, timing, SIZES, config, stores_states=True)
    assert seconds == pytest.approx(5 + in_epochs + once / 30 + later / 100)
    seconds = time_limit.seconds_of(epochs, timing, SIZES, config, stores_states=False)
    assert seconds == pytest.approx(5 + in_epochs + once / 30 + later / 30)


def test_the_plan_counts_validations_within_epochs():
    timing = Timing(epoch=90.0, compilation=5.0)

    def seconds(every: int) -> float:
        config = config_with(optimizer={"batch_size": 30}, representation={"validate_every": every})
        return time_limit.seconds_of(4, timing, SIZES, config, True)

    # 4 epochs of 30 steps: 12 validations every 10 steps, 3 every 50 and at the end, of 3 s each.
    assert seconds(0) == seconds(30)
    assert seconds(10) - seconds(0) == pytest.approx((12 - 4) * 3)
    assert seconds(50) - seconds(0) == pytest.approx((3 - 4) * 3)


def test_without_the_contrastive_loss_no_prototypes_are_collected_in_stage_1():
    timing, without = Timing(epoch=90.0, compilation=5.0), config_with(psc={"weight": 0.0})
    more = time_limit.seconds_of(4, timing, SIZES, without, True) - time_limit.seconds_of(
        3, timing, SIZES, without, True
    )
    assert more == pytest.approx(90 + 90 / 30)


@pytest.mark.parametrize(("seconds", "epochs"), [(945, 7), (944, 6), (2000, 9), (100, 1), (0, 1), (-5, 1)])
def test_the_largest_number_of_epochs_fits_in_90_percent_of_the_time(seconds, epochs):
    assert time_limit.epochs_that_fit(seconds, lambda number: 100.0 * number + 150, most=9) == epochs


@pytest.mark.parametrize(
    ("seconds", "epochs", "line"),
    [(20.0, 30, "--time-limit: at most 30 epochs of about "), (0.1, 1, "not even one epoch fits; with one, the run")],
)
def test_the_plan_is_printed(seconds, epochs, line, capsys):
    config = config_with(representation={"epochs": 30})
    deadline = time.monotonic() + seconds
    assert time_limit.fitted_epochs(Sleeper(), initial_state(), config, SIZES, 30, deadline, True) == epochs
    assert line in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("adjust", "count", "expected"),
    [({}, 1, True), ({}, 2, False), ({"cache_states": "no"}, 1, False), ({"encoder_dropout": True}, 1, False)],
)
def test_the_plan_reads_stored_states_only_where_a_run_stores_them(
    tiny, tmp_path, monkeypatch, adjust, count, expected
):
    planned = []
    monkeypatch.setattr(time_limit, "fitted_epochs", lambda *arguments: planned.append(arguments[-1]) or 2)
    monkeypatch.setattr(Run, "_first_state", lambda *_: None)
    config = training_corpus.config(adjust=adjust)
    folder = RunFolder(tmp_path / "run")
    one = Run(config, tiny, initial_encoder(config, tiny), folder, math.inf, deadline=time.monotonic() + 100)
    monkeypatch.setattr(processes, "count", lambda: count)
    one._plan_epochs(one.inputs.train, {})
    assert planned == [expected]
    assert one.inputs.keeps(one.inputs.token_states["train"]) == expected


@pytest.mark.slow
def test_the_measured_number_of_epochs_is_written_down_and_a_resumed_run_measures_nothing(
    tmp_path, monkeypatch, shared_steps
):
    data, calls = training_corpus.write(tmp_path / "data"), []
    real = time_limit.fitted_epochs

    def measured(*arguments):
        calls.append(real(*arguments))
        return 2

    monkeypatch.setattr(time_limit, "fitted_epochs", measured)
    config = training_corpus.run_config(data, representation={"epochs": 3})
    run.train(config, tmp_path / "run", ("representation",), seconds=1e6)
    assert calls == [3]
    stored = RunFolder(tmp_path / "run").read_config()
    assert stored.representation.epochs == 2
    run.train(stored, tmp_path / "run", ("representation",), resume=True, seconds=1e6)
    assert len(calls) == 1


@pytest.mark.slow
def test_the_same_command_resumes_a_run_of_which_fewer_epochs_were_planned_than_chosen(
    tmp_path, monkeypatch, shared_steps, capsys
):
    monkeypatch.setattr(time_limit, "fitted_epochs", lambda *_: 1)
    config = training_corpus.run_config(training_corpus.write(tmp_path / "data"), representation={"epochs": 3})
    folder, chosen = tmp_path / "run", {"representation.epochs"}
    with runs.raised_at(4, Interrupted(15)), pytest.raises(Interrupted):
        run.train(config, folder, ("representation",), chosen=chosen, seconds=1e6)
    # Without the time limit, the number of epochs is another setting.
    with pytest.raises(UserError, match=r"different settings \(.*representation\.epochs.*\)"):
        run.train(config, folder, ("representation",), resume=True, chosen=chosen)
    run.train(config, folder, ("representation",), resume=True, chosen=chosen, seconds=1e6)
    assert "The run began with at most 1 epoch of stage 1, which stay" in capsys.readouterr().out
    assert RunFolder(folder).read_config().representation.epochs == 1
    assert [line["epoch"] for line in runs.history(folder)] == [1]


def test_a_time_limit_without_a_unit_is_refused_before_anything_else(capsys):
    assert main(["--time-limit", "15", "--data-dir", "missing"]) == 2
    assert "--time-limit 15: expected a number with its unit" in capsys.readouterr().err
