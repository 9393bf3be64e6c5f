"""The result of a search: the best trials beside each other, how much each setting matters, every trial in a table."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from lsfa_jax.experiments import page, plots
from lsfa_jax.experiments.page import Block, Grid, Heading, Picture, Text
from lsfa_jax.training import results, run
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.tuning.study import Search, best_of, epochs_of, error_of, is_in_use, seconds_of, values_of
from lsfa_jax.util import console
from lsfa_jax.util.console import UserError, note, plural
from lsfa_jax.util.duration import in_words

# Trials beside each other, as many as fit the width of a terminal.
_SHOWN = 5

# Importance is estimated from so many complete trials at least.
_FEWEST = 5

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "not done",
}

_IMPORTANCE, _TRIALS = "importance", "trials.csv"
_TEST_METRICS = ("P@1", "P@3", "P@5", "N@5", "PSP@5")


def finish(search: Search, study: Study) -> None:
    """Measures the best trial on test documents, prints and writes the tables, the plot and the page of a search.

    Raises:
        UserError: no trial is complete, or the folder cannot be written.
        Interrupted: after SIGINT or SIGTERM.
    """
    trials = study.get_trials(deepcopy=False)
    best = best_of(study)
    if best is None:
        errors = [error_of(trial) for trial in trials if trial.state == TrialState.FAIL]
        reason = f"the last error: {errors[-1]}" if errors else "the same command continues, perhaps with more time"
        raise UserError(f"{search.output}: no trial is complete; {reason}")
    in_use = is_in_use(search, study)
    test = {} if in_use else _measure_test(search, best)
    importance = _importances(search, study)
    grid = _beside_each_other(search, study, importance)
    title = f"Tuning of {search.config.corpus_name}"
    console.table(f"{title}: {_counts(trials)}", grid.header, grid.rows)
    verdicts = _verdicts(search, best)
    with search.lock():
        _write(search, title, trials, grid, importance, test, verdicts)
    for verdict in verdicts:
        note(verdict)
    if test:
        figures = ", ".join(f"{name} {test[name]:.2f}" for name in _TEST_METRICS)
        note(f"Test documents, measured once, by the model of the best trial: {figures}")
    note(f"Page: {search.output / 'index.html'}, all trials: {search.output / _TRIALS}")
    note(f"Best trial: {search.folder(best)}, a run folder for bin/predict, bin/evaluate and bin/serve")
    if in_use:
        note("Another command still runs trials; the last one measures the best on test documents")
    note(f"Settings: bin/train --config {search.output / 'best.toml'} --output FOLDER repeats it")


def _measure_test(search: Search, best: FrozenTrial) -> dict[str, float]:
    """Returns the metrics of the best trial on test documents, which no choice depends on; {} without any."""
    folder = RunFolder(search.folder(best))
    # Of two commands that end at the same time, one measures them and the other waits.
    with search.lock(), console.quiet():
        if "test" not in folder.read_metrics():
            run.train(folder.read_config(), folder.path, resume=True, linear=search.output / "linear")
    return dict(folder.read_metrics().get("test", {}))


def _verdicts(search: Search, best: FrozenTrial) -> list[str]:
    """Returns what limits the result of a search: nothing was gained, or the network has no part in the score."""
    verdicts = []
    if best.number == 0:
        verdicts.append("No trial is better than trial 0, which has the settings of bin/train.")
    if alone := results.linear_alone(RunFolder(search.folder(best)).read_metrics()):
        verdicts.append(f"In the best trial, the network has no part in the fused score. {alone}")
    return verdicts


def _importances(search: Search, study: Study) -> dict[str, float]:
    """Returns the share of each setting in the differences between complete trials; {} where they are too few."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < _FEWEST or len({trial.value for trial in complete}) == 1:
        return {}
    importance = optuna.importance.get_param_importances(study)
    return {key: float(importance.get(key, 0.0)) for key in search.space}


def _beside_each_other(search: Search, study: Study, importance: dict[str, float]) -> Grid:
    """Returns the table of the best trials, a column each, with a row for each setting."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    best = sorted(complete, key=lambda trial: (-_value(trial), trial.number))[:_SHOWN]
    rows = [
        [f"{search.metric} on validation", *(f"{_value(trial):.2f}" for trial in best)],
        ["fused with the linear model", *(_fused(search, trial) for trial in best)],
        ["epochs", *(f"{epochs_of(search, trial):.3g}" for trial in best)],
        ["time", *(in_words(seconds_of(trial)) for trial in best)],
        *([key, *(_shown(values_of(trial).get(key)) for trial in best)] for key in search.space),
    ]
    header = ["", *(f"trial {trial.number}" for trial in best)]
    if importance:
        header.append("importance")
        rows = [[*row, f"{100 * importance[row[0]]:.0f} %" if row[0] in importance else ""] for row in rows]
    return Grid(header, rows)


def _write(
    search: Search,
    title: str,
    trials: Sequence[FrozenTrial],
    best: Grid,
    importance: dict[str, float],
    test: dict[str, float],
    verdicts: Sequence[str],
) -> None:
    """Writes the page, the table of all trials and the plot."""
    table = _all_trials(search, trials)
    page.write_csv(search.output / _TRIALS, table)
    blocks: list[Block] = [
        Text(
            f"{_counts(trials)}. Settings were chosen by {search.metric} of the network on validation documents, where "
            "the best of many is higher than on new documents; test documents were measured once, for the best trial. "
            "Trial 0 has the settings of bin/train, as far as the space has them."
        ),
        *map(Text, verdicts),
        Heading("The best trials"),
        best,
    ]
    if test:
        row = ["the best trial", *(f"{test[name]:.2f}" for name in _TEST_METRICS)]
        blocks += [Heading("Test documents"), Grid(["percent", *_TEST_METRICS], [row])]
    if importance:
        caption = "Share of each setting in the differences between the best trials and the others (PED-ANOVA)"
        plots.shares(search.output / _IMPORTANCE, "Importance of settings", importance)
        blocks += [Heading("Importance of settings"), Picture(_IMPORTANCE, caption)]
    page.write(search.output, title, [*blocks, Heading("All trials"), table])


def _all_trials(search: Search, trials: Sequence[FrozenTrial]) -> Grid:
    rows = []
    for trial in trials:
        if trial.state == TrialState.WAITING:
            continue
        values = values_of(trial)
        rows.append(
            [
                str(trial.number),
                _STATES[trial.state],
                "" if trial.value is None else f"{trial.value:.2f}",
                f"{epochs_of(search, trial):.3g}",
                f"{seconds_of(trial):.0f}",
                *(_shown(values.get(key)) for key in search.space),
                error_of(trial),
            ]
        )
    return Grid(["trial", "state", search.metric, "epochs", "seconds", *search.space, "error"], rows)


def _counts(trials: Sequence[FrozenTrial]) -> str:
    states = Counter(_STATES[trial.state] for trial in trials if trial.state != TrialState.WAITING)
    return f"{plural(states.total(), 'trial')} ({', '.join(f'{number} {name}' for name, number in states.items())})"


def _fused(search: Search, trial: FrozenTrial) -> str:
    """Returns the metric of a trial's fused score on validation; "" where there is none."""
    stages = RunFolder(search.folder(trial)).read_metrics().get("stages", {})
    return f"{stages['fused']['validation'][search.metric]:.2f}" if "fused" in stages else ""


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
