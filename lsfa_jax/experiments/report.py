"""Pages of experiments: the tables beside the paper's, the plots, and for every claim whether it holds."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lsfa_jax.config import get
from lsfa_jax.data.load import load_corpus
from lsfa_jax.evaluation.ranking import Floats, macro_precision_bins
from lsfa_jax.experiments import plots, statistics
from lsfa_jax.experiments.execute import Base, Measured, environment, read, run_of, runs_of
from lsfa_jax.experiments.page import Block, Grid, Heading, Link, Picture, Text, write, write_csv
from lsfa_jax.experiments.plan import Plan, paper_rows, resolved, sweep_name
from lsfa_jax.model.prototypes import is_head
from lsfa_jax.training import policy
from lsfa_jax.training.run_folder import RunFolder
from lsfa_jax.util import atomic
from lsfa_jax.util.console import UserError, note, plural, quiet

_CLAIMS = "claims.json"
_SWEPT_NAMES = {"pvae.head_threshold": "N_t", "adjust.num_augmented": "N_a"}


@dataclass(frozen=True)
class Decided:
    """A claim and what the runs say about it."""

    corpus: str
    text: str
    metric: str
    difference: float
    low: float
    high: float
    verdict: str
    seeds: int
    documents: int


@dataclass(frozen=True)
class Results:
    """What the variants of a plan reached on a corpus; those that failed are left out."""

    plan: Plan
    base: Base
    corpus: str
    measured: Mapping[str, Sequence[Measured]]
    """By variant: its results by seed."""


def write_page(
    folder: Path, plan: Plan, base: Base, corpora: Sequence[str], seeds: int, failed: Mapping[str, str]
) -> None:
    """Writes the page of an experiment with its tables and plots into a folder, beside those of other experiments.

    Raises:
        UserError: the folder cannot be written.
    """
    blocks: list[Block] = [Text(plan.about)] if plan.about else []
    decided: list[Decided] = []
    for corpus in corpora:
        results = _read(plan, base, corpus, seeds)
        try:
            of_corpus = _SHOW[plan.show](results, folder)
        except UserError as error:  # a corpus that is not there
            blocks += [Heading(corpus), Text(str(error))]
            continue
        claims = decide(results)
        decided += claims
        if of_corpus or claims:
            blocks += [Heading(corpus), *_about_runs(plan, base, corpus, seeds), *of_corpus]
        if claims:
            blocks.append(_claims_grid(claims))
    titles = {run.title for run in runs_of(plan, base, corpora, seeds)}
    if errors := [[title, error] for title, error in failed.items() if title in titles]:
        blocks += [Heading("Runs that failed"), Grid(["run", "error"], errors)]
    atomic.write_text(folder / _CLAIMS, json.dumps([asdict(claim) for claim in decided], indent=2) + "\n")
    title = page_title(plan, corpora)
    write(folder, title, [*blocks, Link("All experiments", "../index")])
    note(f"{title}: {folder / 'index.html'}")


def page_title(plan: Plan, corpora: Sequence[str]) -> str:
    """Returns the title of a plan's page, which names the corpora where they are not the plan's."""
    others = [corpus for corpus in corpora if corpus not in plan.corpora]
    return f"{plan.title}; the same on {', '.join(others)}" if others else plan.title


def write_index(pages: Path, titles: Mapping[str, str]) -> None:
    """Writes the first page: every claim of the experiments in the folder, and the links to their pages.

    Args:
        pages: the folder with the pages, each in one that has its experiment's name.
        titles: of the experiments by name, those that have no page too.
    """
    blocks: list[Block] = [
        Text(
            "Each claim says that one variant is above another in a metric of the test documents. Differences are in "
            "percentage points, with the 95 % interval of a paired bootstrap over documents and seeds. A claim holds "
            "where the whole interval is above 0, does not hold where none of it is, and is undecided otherwise. The "
            "intervals are on the page of each experiment."
        )
    ]
    for name, title in titles.items():
        file = pages / name / _CLAIMS
        if file.is_file():
            decided = [Decided(**claim) for claim in json.loads(file.read_text(encoding="utf-8"))]
            blocks += [Heading(title), *([_verdicts_grid(decided)] if decided else []), Link(title, f"{name}/index")]
    write(pages, "Experiments", blocks)


def decide(results: Results) -> list[Decided]:
    """Decides the claims of a plan whose variants have results."""
    decided = []
    for claim in results.plan.claims:
        better, worse = results.measured.get(claim.better), results.measured.get(claim.worse)
        if not better or not worse:
            continue
        for metric in claim.metrics:
            pairs = [[statistics.contributions(metric, run.top, run.truth) for run in runs] for runs in (better, worse)]
            interval = statistics.interval(pairs[0], pairs[1])
            sizes = len(better), better[0].truth.labels.num_rows
            decided.append(Decided(results.corpus, claim.text, metric, *interval, interval.verdict, *sizes))
    return decided


def _read(plan: Plan, base: Base, corpus: str, seeds: int) -> Results:
    measured = {}
    for name, variant in plan.all_variants().items():
        runs = [read(run_of(plan, variant, base, corpus, seed), variant.result) for seed in range(seeds)]
        if runs and all(run is not None for run in runs):
            measured[name] = [run for run in runs if run is not None]
    return Results(plan, base, corpus, measured)


def _about_runs(plan: Plan, base: Base, corpus: str, seeds: int) -> list[Block]:
    """Names what a reader needs to repeat the runs: preset, seeds, the commits that trained them, machine."""
    of_runs = [environment(needed) for needed in runs_of(plan, base, [corpus], seeds) if needed.is_done]
    if not of_runs:
        return []
    about = of_runs[0]
    devices = ", ".join(sorted(set(about["devices"])))
    commits = dict.fromkeys((each["git_commit"] or "unknown")[:12] for each in of_runs)
    return [
        Text(
            f"Preset {base.preset}, encoder {base.encoder}, {plural(seeds, 'seed')}; commit {', '.join(commits)}, jax "
            f"{about['packages']['jax']}, {len(about['devices'])} x {devices}, {about['machine']}."
        )
    ]


def _verdicts_grid(decided: Sequence[Decided]) -> Grid:
    """Returns a row for each claim and corpus: in which metrics it holds, by how much, and in which it does not."""
    verdicts = ("holds", "undecided", "does not hold")
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}
    for claim in decided:
        cells = rows.setdefault((claim.text, claim.corpus), {verdict: [] for verdict in verdicts})
        cells[claim.verdict].append(f"{claim.metric} {claim.difference:+.2f}")
    header = ["claim", "corpus", *verdicts]
    return Grid(header, [[*key, *map(", ".join, cells.values())] for key, cells in rows.items()])


def _claims_grid(decided: Sequence[Decided]) -> Grid:
    rows = [
        [
            claim.text,
            claim.corpus,
            claim.metric,
            f"{claim.difference:+.2f}",
            f"{claim.low:+.2f} to {claim.high:+.2f}",
            claim.verdict,
            f"{claim.seeds} x {claim.documents:,}",
        ]
        for claim in decided
    ]
    return Grid(["claim", "corpus", "metric", "difference", "95 % interval", "verdict", "seeds x documents"], rows)


def _values(results: Results, metrics: Sequence[str]) -> dict[str, Floats]:
    """Computes the metrics of each variant, float64[seeds, metrics], in percent."""
    return {
        name: np.array(
            [[statistics.value(statistics.contributions(m, run.top, run.truth)) for m in metrics] for run in runs]
        )
        for name, runs in results.measured.items()
    }


def _main_table(results: Results, folder: Path) -> tuple[Grid, dict[str, Floats]]:
    metrics, values = results.plan.metrics, _values(results, results.plan.metrics)
    # The paper's figures are of the plan's corpora; another one can be named on the command line.
    rows = [
        [f"paper: {model}", *(f"{figures[m]:.2f}" if m in figures else "" for m in metrics)]
        for model, figures in paper_rows(results.plan.paper)
        if results.corpus in results.plan.corpora
    ]
    rows += [[name, *map(_shown, by_seed.T)] for name, by_seed in values.items()]
    grid = Grid(["test documents, percent", *metrics], rows)
    write_csv(folder / f"{results.corpus}.csv", grid)
    return grid, values


def _shown(by_seed: Floats) -> str:
    """Returns the mean over seeds, and behind it the standard deviation."""
    spread = f" ± {by_seed.std(ddof=1):.2f}" if len(by_seed) > 1 else ""
    return f"{by_seed.mean():.2f}{spread}"


def _table(results: Results, folder: Path) -> list[Block]:
    return [_main_table(results, folder)[0]] if results.measured else []


def _bars(results: Results, folder: Path) -> list[Block]:
    if not results.measured:
        return []
    grid, values = _main_table(results, folder)
    title = f"{results.plan.title}, {results.corpus}"
    plots.bars(folder / results.corpus, title, results.plan.metrics, values)
    return [grid, Picture(results.corpus, f"{title}: means over seeds, with their range")]


def _curve(results: Results, folder: Path) -> list[Block]:
    if not results.measured:
        return []
    plan, corpus = results.plan, results.corpus
    grid, values = _main_table(results, folder)
    swept = {}
    for key, factors in plan.sweep.items():
        shown = [factor for factor in factors if sweep_name(key, factor) in values]
        if shown:
            needed = run_of(plan, plan.all_variants()[sweep_name(key, shown[0])], results.base, corpus, 0)
            config = RunFolder(needed.first_stage.run).read_config()
            xs = [resolved(config, {}, {key: factor})[key] for factor in shown]
            stacked = np.stack([values[sweep_name(key, factor)] for factor in shown], axis=1)
            swept[_SWEPT_NAMES.get(key, key)] = (xs, stacked)
    title = f"{plan.title}, {corpus}"
    plots.curves(folder / corpus, title, plan.metrics, swept)
    return [grid, Picture(corpus, f"{title}: means over seeds, with their range")]


def _bins(results: Results, folder: Path) -> list[Block]:
    if not results.measured:
        return []
    grid, _ = _main_table(results, folder)
    size = results.plan.bin_size
    by_bin = {
        name: np.stack(
            [macro_precision_bins(run.top[0], run.truth.labels, run.truth.label_counts, size) for run in runs]
        )
        for name, runs in results.measured.items()
    }
    header = ["labels by frequency", *by_bin]
    number = next(iter(by_bin.values())).shape[1]
    rows = [
        [f"{size * place + 1:,} to {size * (place + 1):,}", *(_shown(values[:, place]) for values in by_bin.values())]
        for place in range(number)
    ]
    bins = Grid(header, rows)
    write_csv(folder / f"{results.corpus}-bins.csv", bins)
    title = f"{results.plan.title}, {results.corpus}"
    xlabel = f"bin of {size} labels, by frequency"
    plots.lines(folder / results.corpus, title, xlabel, {"macro P@5, percent": by_bin})
    return [grid, bins, Picture(results.corpus, f"{title}: means over seeds, with their range")]


def _counts(results: Results, folder: Path) -> list[Block]:
    """Counts the pairs of each label before and after augmentation; nothing is trained."""
    config, chosen = results.base.config(results.corpus, 0, results.plan.settings)
    with quiet():
        corpus = load_corpus(config)
        config = policy.resolved(config, corpus, chosen)
    threshold, number = get(config, "pvae.head_threshold"), get(config, "adjust.num_augmented")
    counts = corpus.label_counts
    tail = ~is_head(counts, threshold) & (counts > 0)
    # A new document for a tail label is one of its documents, each with the same probability.
    labels, rows = corpus.train.labels.values, corpus.train.labels.row_ids
    share = np.where(tail, number / np.maximum(counts, 1), 0.0)
    copies = np.bincount(rows, share[labels], minlength=len(corpus.train))
    kinds = {
        "original": counts.astype(np.float64),
        "augmented documents": counts + np.bincount(labels, copies[rows], minlength=len(counts)),
        "augmented pairs": counts + number * tail,
    }
    name, title = results.corpus, f"{results.plan.title}, {results.corpus}"
    plots.counts(folder / name, title, kinds)
    grid = Grid(
        ["", "pairs of head labels", "pairs of tail labels", "most / median", "Gini coefficient"],
        [
            [
                kind,
                f"{values[~tail].sum():,.0f}",
                f"{values[tail].sum():,.0f}",
                f"{values.max() / max(np.median(values), 1):,.1f}",
                f"{statistics.gini(values):.3f}",
            ]
            for kind, values in kinds.items()
        ],
    )
    write_csv(folder / f"{name}.csv", grid)
    text = f"N_t = {threshold:,}, N_a = {number:,}; the Gini coefficient is 0 where all labels are equally frequent."
    return [Text(text), grid, Picture(name, title)]


def _features(results: Results, folder: Path) -> list[Block]:
    from lsfa_jax.experiments import features  # with scikit-learn's estimators, which take a second to import

    plan, panels, rows = results.plan, {}, []
    for name, variant in plan.all_variants().items():
        needed = run_of(plan, variant, results.base, results.corpus, 0)
        if needed.is_done:
            with quiet():
                drawn = features.draw(needed.first_stage)
            panels[name] = drawn.labels
            rows.append([name, *(f"{value:.3f}" for value in drawn.diagnostics.values())])
    if not panels:
        return []
    title = f"{plan.title}, {results.corpus}"
    plots.scatter(folder / results.corpus, title, panels)
    grid = Grid(["seed 0", "relative mean error", "variance ratio"], rows)
    write_csv(folder / f"{results.corpus}.csv", grid)
    return [grid, Picture(results.corpus, f"{title}: dark points are real features, light ones generated")]


_SHOW: dict[str, Callable[[Results, Path], list[Block]]] = {
    "table": _table,
    "bars": _bars,
    "curve": _curve,
    "bins": _bins,
    "counts": _counts,
    "features": _features,
}
