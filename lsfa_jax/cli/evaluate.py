"""The command behind bin/evaluate: every metric of a model, of a file of predictions, and of linear baselines."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro
from pydantic import Field, NonNegativeFloat, PositiveInt

from lsfa_jax.cli import common
from lsfa_jax.cli.common import Reading, ReadingOptions
from lsfa_jax.cli.compared import Problem, score_baseline, score_model, score_predictions
from lsfa_jax.config import Section
from lsfa_jax.evaluation import baselines, prediction_files, ranking, tables
from lsfa_jax.evaluation.document_store import DocumentStore
from lsfa_jax.evaluation.groups import (
    BINS,
    GroupMetrics,
    Scores,
    TrainingCounts,
    group_metrics,
    make_groups,
)
from lsfa_jax.evaluation.prediction_files import Irregularities, Predicted
from lsfa_jax.evaluation.ranking import Propensity
from lsfa_jax.evaluation.thresholded import DEFAULT_THRESHOLD
from lsfa_jax.util import atomic, console
from lsfa_jax.util.console import UserError, note, plural

if TYPE_CHECKING:
    from lsfa_jax.data.reading.documents import Source
    from lsfa_jax.data.reading.options import ReadOptions
    from lsfa_jax.training.model_folder import TrainedModel


_HEAD_THRESHOLD = 50
_GROUPS = ("head", "tail")


class EvaluateArguments(Section):
    """Measures a trained model, or a file of predictions, on documents with labels.

    Examples:
      bin/evaluate --run runs/first                          the test documents of the run's corpus
      bin/evaluate --run runs/first test.csv --output metrics.json --per-label labels.tsv
      bin/evaluate --run runs/first --baseline tree          beside a linear label tree on TF-IDF
      bin/evaluate --run runs/first --plots runs/first/plots PSP and F1 by label frequency, and the run's page
      bin/evaluate test.jsonl --predictions predictions.jsonl --train train.jsonl

    Predictions: JSON Lines {"id", "labels", "probabilities"} as bin/predict writes them, or TSV or CSV with the columns
    document, rank, label, probability. Metrics are percentages; docs/metrics.md defines each.
    """

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[FILE]")] = Field(
        "",
        description="Documents with labels, in any format that bin/train reads; by default the run's test split.",
    )
    run: str = Field("", description="Folder of a finished bin/train, or of a model that LSFA.save wrote.")
    predictions: str = Field("", description="File of predictions to score instead of a model.")
    baseline: Literal["none", "tree", "svm"] = Field(
        "none", description="Train a linear model on TF-IDF too: a label tree, or one-versus-rest SVM."
    )
    train: str = Field(
        "",
        description="Training documents, a file or folder, for --baseline (by default the run's), and without --run "
        "for the label counts of PSP, head and tail.",
    )
    k: tuple[PositiveInt, ...] = Field(ranking.PLACES, description="The k of P@k, N@k and PSP@k.")
    threshold: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = Field(
        "auto", description="Probability from which a label is predicted. auto: the run's, else 0.5."
    )
    head_threshold: Literal["auto"] | PositiveInt = Field(
        "auto", description="N_t, labels with fewer training documents are the tail. auto: the run's, else 50."
    )
    bins: tuple[PositiveInt, ...] = Field(BINS, description="Training counts at which a bin of labels begins.")
    propensity_a: Literal["auto"] | NonNegativeFloat = Field(
        "auto", description="A of PSP. auto: the run's, else 0.55."
    )
    propensity_b: Literal["auto"] | NonNegativeFloat = Field("auto", description="B of PSP. auto: the run's, else 1.5.")
    output: str = Field("", description="File for all metrics, not rounded, as JSON.")
    per_label: str = Field(
        "", description="File for counts, precision, recall and F1 of each label and system, as TSV."
    )
    plots: str = Field(
        "",
        description="Folder for PSP@5 and F1 of each system by label frequency (by-frequency.svg, .png and .csv), and "
        "of a run for its page, report.html, which bin/train writes into the run folder.",
    )
    batch_size: int = Field(0, ge=0, description="Documents computed at a time. 0: the run's report.batch_size.")
    all_labels: bool = Field(
        False,
        description="Score all labels, also with a model of many labels that scores those its linear model proposes.",
    )
    reading: Reading = ReadingOptions()


IN_HELP = (
    *("file", "run", "predictions", "baseline", "train", "threshold", "output", "per_label", "plots"),
    *("text_field", "labels_field", "label_separator"),
)


def parse(argv: list[str], prog: str = "bin/evaluate") -> EvaluateArguments:
    """Reads a command line; raises UserError at an unknown option or a wrong value."""
    return common.parse(EvaluateArguments, argv, prog, in_help=IN_HELP)


def evaluate(arguments: EvaluateArguments) -> dict[str, Any]:
    """Measures what the arguments name, prints the tables, writes the files and returns what --output holds.

    Raises:
        UserError: a file cannot be read or written, or there is nothing to measure.
    """
    _check(arguments)
    from lsfa_jax.training import model_folder

    model = model_folder.read(Path(arguments.run)) if arguments.run else None
    if model:
        common.warn_if_unfinished(Path(arguments.run))
        common.check_outputs(_outputs(arguments), "", [model.config.data_dir, model.config.data.label_names])
    documents = _test_documents(arguments, model)
    if not any(documents.labels):
        raise UserError("none of the documents has a label, so there is nothing to measure; bin/predict needs none")
    train = _training_documents(arguments, model)
    irregularities = Irregularities()
    predicted = _predictions(arguments, documents, irregularities)
    problem = _problem(arguments, model, documents, train, predicted)
    systems = _systems(arguments, model, predicted, problem)
    if irregularities.counts:
        console.warn(f"{arguments.predictions}: {irregularities.summary()}")
    propensity = _propensity(arguments, model)
    metrics = {
        name: group_metrics(scores, problem.truth, problem.groups, problem.training, arguments.k, propensity)
        for name, scores in systems.items()
    }
    metrics |= _stages_of_run(arguments, model, problem, propensity)
    report = _report(problem, propensity, metrics)
    # Written first: a closed pipe would end the program while it prints.
    if arguments.output:
        tables.write_json(Path(arguments.output), report)
    if arguments.per_label:
        confusions = {name: scores.confusion for name, scores in systems.items() if scores.confusion is not None}
        tables.write_per_label(
            Path(arguments.per_label), list(problem.label_ids), problem.training, problem.truth, confusions
        )
    if arguments.plots:
        _write_plots(arguments, metrics)
    tables.print_tables(metrics, len(documents), arguments.k, propensity)
    return report


def _check(arguments: EvaluateArguments) -> None:
    """Raises UserError where options contradict each other or lack something, before anything is read."""
    if not (arguments.run or arguments.predictions or arguments.baseline != "none"):
        raise UserError("nothing to measure: give --run DIR, --predictions FILE or --baseline tree")
    if not (arguments.run or arguments.file):
        raise UserError("FILE: give documents with labels to measure on; without --run there is no test split")
    if not arguments.k:
        raise UserError("--k: expected one place or more, such as --k 1 3 5")
    if list(arguments.bins) != sorted(set(arguments.bins)):
        raise UserError(f"--bins {' '.join(map(str, arguments.bins))}: expected increasing counts")
    files = arguments.file, arguments.predictions, arguments.train, arguments.reading.label_names
    common.check_outputs(_outputs(arguments), arguments.run, files)
    if arguments.plots:
        if not (arguments.run or arguments.train):
            raise UserError("--plots: labels are sorted by their training documents: give --run DIR or --train FILE")
        if not arguments.bins:
            raise UserError("--plots: give the training counts at which bins begin, such as --bins 1 10 100")
        with atomic.errors(Path(arguments.plots), "choose another --plots"):
            Path(arguments.plots).mkdir(parents=True, exist_ok=True)
    if arguments.baseline != "none":
        baselines.check(arguments.baseline)
        if not (arguments.run or arguments.train):
            raise UserError("--baseline: give --train FILE, the documents to train it on, or --run DIR for its corpus")


def _outputs(arguments: EvaluateArguments) -> dict[str, str]:
    return {"--output": arguments.output, "--per-label": arguments.per_label}


def _test_documents(arguments: EvaluateArguments, model: "TrainedModel | None") -> DocumentStore:
    keep_texts = arguments.baseline != "none" or not arguments.predictions
    if arguments.file:
        return _read(Path(arguments.file), arguments, model, keep_texts)
    from lsfa_jax.data.load import read_split

    assert model is not None
    try:
        return DocumentStore(read_split(model.config, "test"), keep_texts)
    except UserError as error:
        raise UserError(f"{error}\nThe run's test documents cannot be read: give FILE, documents with labels") from None


def _training_documents(arguments: EvaluateArguments, model: "TrainedModel | None") -> DocumentStore | None:
    """Reads the training documents where they are needed."""
    with_baseline = arguments.baseline != "none"
    if arguments.train:
        from lsfa_jax.data.reading.splits import find_splits

        path = Path(arguments.train)
        return _read(find_splits(path)["train"] if path.is_dir() else path, arguments, model, with_baseline)
    if not with_baseline or model is None:
        return None
    from lsfa_jax.data.load import read_split

    try:
        return DocumentStore(read_split(model.config, "train"))
    except UserError as error:
        raise UserError(f"{error}\n--baseline needs the run's training documents: give --train FILE") from None


def _read(
    source: "Source", arguments: EvaluateArguments, model: "TrainedModel | None", keep_texts: bool
) -> DocumentStore:
    from lsfa_jax.config import Data
    from lsfa_jax.data.reading.documents import ReadReport, read_documents
    from lsfa_jax.data.same_text import Rows
    from lsfa_jax.data.tokenizer import Tokenizer

    # The run's settings say how its files are read; other files of the kind are read likewise.
    data, reading = model.config.data if model else Data(), arguments.reading
    options = reading.like_run(data)
    report = ReadReport()
    try:
        with console.progress(f"reading {source}", None, "documents") as advance:
            documents = read_documents(source, options=options, report=report)
            # A file of predictions has one for each row.
            rows = None if arguments.predictions else Rows(Tokenizer.from_settings(data), data.max_words)
            store = DocumentStore(console.counted(documents, advance), keep_texts, rows)
    except UserError as error:
        if report.read or not _holds_texts(source, options):
            raise
        reason = str(error).removeprefix(f"{source}: ")
        raise UserError(
            f"{source}: holds texts, and no labels are recognised, which bin/evaluate needs (bin/predict takes texts "
            f"alone): {reason}"
        ) from None
    note(f"{source}: {report.summary()}")
    if len(store) < report.kept:
        note(f"{source}: rows with the same text are merged: {report.kept:,} rows, {len(store):,} documents")
    return store


def _holds_texts(source: "Source", options: "ReadOptions") -> bool:
    """Whether a file can be read as documents without labels."""
    from lsfa_jax.data.reading.documents import ReadReport, read_documents

    with console.quiet():
        try:
            return any(read_documents(source, options=replace(options, labelled=False), report=ReadReport()))
        except UserError:
            return False


def _predictions(
    arguments: EvaluateArguments, documents: DocumentStore, irregularities: Irregularities
) -> list[Predicted] | None:
    """Reads --predictions in the order of the documents."""
    if not arguments.predictions:
        return None
    path = Path(arguments.predictions)
    predicted = prediction_files.read_predictions(path, irregularities)
    if arguments.per_label and not prediction_files.have_probabilities(predicted):
        raise UserError(
            f"--per-label: {path} has no probabilities, so no label can be compared to a threshold; leave it out"
        )
    matched = prediction_files.matched(predicted, documents.ids, path, irregularities)
    return [prediction_files.without(*pair) for pair in zip(matched, documents.excluded, strict=True)]


def _problem(
    arguments: EvaluateArguments,
    model: "TrainedModel | None",
    documents: DocumentStore,
    train: DocumentStore | None,
    predicted: list[Predicted] | None,
) -> Problem:
    label_ids = _label_ids(model, documents, train, predicted)
    training = _training_counts(model, train, label_ids)
    head_threshold, threshold, source = arguments.head_threshold, arguments.threshold, ""
    if head_threshold == "auto":
        head_threshold = model.config.pvae.head_threshold if model else _HEAD_THRESHOLD
    if threshold == "auto":
        threshold = model.threshold if model else DEFAULT_THRESHOLD
        source = ", chosen on the run's validation documents" if model else ""
    note(
        f"{plural(len(documents), 'document')}, {plural(len(label_ids), 'label')}; a label is predicted from "
        f"probability {threshold:.2g}{source}"
    )
    if training:
        note(
            f"Head labels have at least {head_threshold:,} of the {training.num_documents:,} training documents, "
            "documents that were held out for validation included; bin/train counts without those"
        )
    return Problem(
        documents=documents,
        train=train,
        truth=documents.label_ids(label_ids),
        excluded=documents.excluded_ids(label_ids),
        label_ids=label_ids,
        training=training,
        groups=make_groups(len(label_ids), training, head_threshold, arguments.bins),
        num_ranked=max(*arguments.k, ranking.MACRO_PLACE),
        threshold=threshold,
    )


def _label_ids(
    model: "TrainedModel | None",
    documents: DocumentStore,
    train: DocumentStore | None,
    predicted: list[Predicted] | None,
) -> dict[str, int]:
    """Numbers the labels: first those of the model or of training, then those of the documents, then predicted ones."""
    label_ids: dict[str, int] = {}
    train_labels = train.labels if train else []
    _add(label_ids, [model.labels] if model else train_labels)
    in_training = len(label_ids)
    _add(label_ids, train_labels)
    _add(label_ids, documents.labels)
    pairs = [label for labels in documents.labels for label in labels]
    unseen = [label for label in pairs if label_ids[label] >= in_training]
    if (model or train is not None) and unseen:
        note(
            f"Labels that training never saw, never predicted, in every denominator: {len(set(unseen)):,} "
            f"({len(unseen):,} of {len(pairs):,} labels of documents, e.g. {unseen[0]!r})"
        )
    if model and len(unseen) == len(pairs):
        # Every metric would be zero.
        folded = {label.casefold(): label for label in model.labels}
        alike = next((label for label in unseen if label.casefold() in folded), None)
        hint = f"; {alike!r} differs from the model's {folded[alike.casefold()]!r} by case only" if alike else ""
        raise UserError(
            f"the model knows none of the {len(set(unseen)):,} labels of these documents, such as {unseen[0]!r}: its "
            f"labels are such as {model.labels[0]!r}{hint}. Give documents with the labels that it was trained on."
        )
    tested = len(label_ids)
    _add(label_ids, (document.labels for document in predicted or ()))
    if len(label_ids) > tested:
        example = list(label_ids)[tested]
        where = "neither the training nor the test documents have" if model or train is not None else "no document has"
        console.warn(
            f"{plural(len(label_ids) - tested, 'predicted label')} that {where}, counted as wrong (e.g. {example!r})"
        )
    return label_ids


def _add(label_ids: dict[str, int], label_sets: Iterable[Iterable[str]]) -> None:
    for labels in label_sets:
        for label in labels:
            label_ids.setdefault(label, len(label_ids))


def _training_counts(
    model: "TrainedModel | None", train: DocumentStore | None, label_ids: dict[str, int]
) -> TrainingCounts | None:
    num_labels = len(label_ids)
    if model:
        counts = np.pad(model.label_counts, (0, num_labels - len(model.label_counts)))
        return TrainingCounts(counts, model.num_documents)
    if train is not None:
        return TrainingCounts(np.bincount(train.label_ids(label_ids).values, minlength=num_labels), len(train))
    note("Without --run or --train no training counts are known: no PSP, no head and tail, no bins")
    return None


def _systems(
    arguments: EvaluateArguments, model: "TrainedModel | None", predicted: list[Predicted] | None, problem: Problem
) -> dict[str, Scores]:
    """Returns the scores of the predictions or the model and its parts, and of the baseline."""
    systems: dict[str, Scores] = {}
    if predicted is not None:
        systems["predictions"] = score_predictions(predicted, problem)
    elif model is not None:
        systems |= score_model(model, problem, Path(arguments.run), arguments.batch_size, arguments.all_labels)
    if (baseline := arguments.baseline) != "none":
        # The model may hold a linear model of this kind itself.
        name = f"baseline {baseline}" if baseline in systems else baseline
        systems[name] = score_baseline(baseline, problem, model)
    return systems


def _stages_of_run(
    arguments: EvaluateArguments, model: "TrainedModel | None", problem: Problem, propensity: Propensity
) -> dict[str, GroupMetrics]:
    """Returns what bin/train measured of the network after each stage, on the run's test documents.

    The folder holds the weights of the better stage alone.
    """
    from lsfa_jax.training.results import NETWORKS
    from lsfa_jax.training.run_folder import RunFolder

    if model is None or arguments.file or arguments.predictions:
        return {}
    config, measured = model.config, RunFolder(Path(arguments.run)).read_metrics()
    usual = Propensity(config.report.propensity_a, config.report.propensity_b)
    if propensity != usual or measured.get("split", {}).get("test") != len(problem.documents):
        return {}
    stages: dict[str, GroupMetrics] = {
        # Its head and tail are others: those of the documents that were trained on.
        name: {"all": {key: value for key, value in measured["stages"][name]["test"].items() if key not in _GROUPS}}
        for name in NETWORKS
        if "test" in measured["stages"].get(name, {})
    }
    if stages:
        note(f"{' and '.join(stages)}: the network after each stage, as bin/train measured it (metrics.json)")
    return stages


def _write_plots(arguments: EvaluateArguments, metrics: dict[str, GroupMetrics]) -> None:
    """Writes the metrics by label frequency as picture and table, and the page of the run."""
    from lsfa_jax.experiments import plots
    from lsfa_jax.training import report

    folder, psp = Path(arguments.plots), f"PSP@{max(arguments.k)}"
    by_bin = tables.by_frequency(metrics)
    panels = {}
    for metric in (psp, "micro_F1"):
        lines = {name: [one.get(metric, np.nan) for one in bins.values()] for name, bins in by_bin.items()}
        panels[f"{metric.replace('_', ' ')}, percent"] = {
            name: np.array([values]) for name, values in lines.items() if not np.isnan(values).all()
        }
    bins = list(next(iter(by_bin.values()), ()))
    plots.lines(
        folder / "by-frequency",
        "Labels by their number of training documents",
        "training documents",
        {title: lines for title, lines in panels.items() if lines},
        bins,
    )
    tables.write_by_frequency(folder / "by-frequency.csv", by_bin, (psp, "micro_F1", "macro_F1"))
    note(f"By label frequency: {folder / 'by-frequency.svg'}, .png and .csv")
    if arguments.run and (Path(arguments.run) / "metrics.json").is_file():
        report.write(Path(arguments.run), folder / report.NAME)
        note(f"The run's page: {folder / report.NAME}")


def _propensity(arguments: EvaluateArguments, model: "TrainedModel | None") -> Propensity:
    report = model.config.report if model else None
    usual = Propensity(report.propensity_a, report.propensity_b) if report else ranking.USUAL
    a, b = arguments.propensity_a, arguments.propensity_b
    return Propensity(usual.a if a == "auto" else a, usual.b if b == "auto" else b)


def _report(problem: Problem, propensity: Propensity, metrics: dict[str, GroupMetrics]) -> dict[str, Any]:
    """Returns what --output holds."""
    training = problem.training
    return {
        "documents": len(problem.documents),
        "labels": len(problem.label_ids),
        "labels_without_training": int((training.label_counts == 0).sum()) if training else None,
        "training_documents": training.num_documents if training else None,
        "threshold": problem.threshold,
        "propensity": propensity._asdict(),
        "systems": metrics,
    }


def main(argv: list[str] | None = None, prog: str = "bin/evaluate") -> int:
    """Runs bin/evaluate and returns its exit code, as `common.run` describes; messages name the command `prog`."""
    return common.run(lambda line: _command(line, prog), argv)


def _command(argv: list[str], prog: str) -> None:
    evaluate(parse(argv, prog))


if __name__ == "__main__":
    raise SystemExit(main())
