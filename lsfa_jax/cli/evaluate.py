"""The command behind bin/evaluate: every figure of a model, of anyone's predictions, and of linear baselines."""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

# XLA's own log lines concern nobody who evaluates.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# An error about an option is for people, who need no link to a validation library.
os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")

import numpy as np
import tyro
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, ValidationError

from lsfa_jax.data.ragged import Ragged
from lsfa_jax.evaluation import prediction_files, ranking, tables, thresholded
from lsfa_jax.evaluation.groups import BINS, Groups, Scored, Training, best_of_groups, group_metrics, make_groups
from lsfa_jax.evaluation.ranking import Propensity
from lsfa_jax.sparse import baselines
from lsfa_jax.util import console
from lsfa_jax.util.console import UserError, note

if TYPE_CHECKING:
    from lsfa_jax.data.reading.documents import Document
    from lsfa_jax.training.model_folder import TrainedModel

_HEAD_THRESHOLD = 50
_THRESHOLD = 0.5


class EvaluateArguments(BaseModel):
    """Measures a trained model, or anyone's predictions, on documents with labels.

    Examples:
      bin/evaluate --run runs/mine                           the test documents of the run's own corpus
      bin/evaluate --run runs/mine test.csv --output figures.json --per-label labels.tsv
      bin/evaluate --run runs/mine --baseline tree           beside a linear label tree on TF-IDF
      bin/evaluate test.jsonl --predictions theirs.jsonl --train train.jsonl

    Predictions: JSON Lines {"id", "labels", "probabilities"} as bin/predict writes them, or TSV or CSV with the columns
    document, rank, label, probability. GroupMetrics are percentages; docs/ranking.md says what each is exactly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[FILE]")] = Field(
        "",
        description="Documents with labels, in any format that bin/train reads; by default the run's own test split.",
    )
    run: str = Field("", description="Folder of a finished bin/train, or of a model that LSFA.save wrote.")
    predictions: str = Field("", description="File of predictions to score instead of a model.")
    baseline: Literal["none", "tree", "svm"] = Field(
        "none", description="Train a linear model on TF-IDF too: a label tree, or one-versus-rest SVM."
    )
    train: str = Field(
        "", description="Training documents, a file or folder, for --baseline and label counts; the run's by default."
    )
    k: tuple[PositiveInt, ...] = Field(ranking.PLACES, description="Places at which rankings are cut off.")
    threshold: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = Field(
        "auto", description="Probability from which a label is given. auto: the run's own, else 0.5."
    )
    head_threshold: Literal["auto"] | PositiveInt = Field(
        "auto", description="N_t, labels with fewer training documents are the tail. auto: the run's own, else 50."
    )
    bins: tuple[PositiveInt, ...] = Field(BINS, description="Training counts at which a bin of labels begins.")
    propensity_a: Literal["auto"] | NonNegativeFloat = Field(
        "auto", description="A of PSP. auto: the run's own, else 0.55."
    )
    propensity_b: Literal["auto"] | NonNegativeFloat = Field(
        "auto", description="B of PSP. auto: the run's own, else 1.5."
    )
    output: str = Field("", description="File for all figures, unrounded, as JSON.")
    per_label: str = Field("", description="File for counts, precision and recall of each label, as TSV.")
    batch_size: int = Field(0, ge=0, description="Documents computed at a time. 0: the run's report.batch_size.")
    format: str = Field("auto", description="Format of FILE and --train. auto: by their content.")
    text_field: str = Field(
        "", description="Field or column that holds the text; the run's data.text_field by default."
    )
    labels_field: str = Field("", description="Field or column that holds the labels, likewise.")
    id_field: str = Field("", description="Field or column that holds the document's id, likewise.")
    label_separator: str = Field("", description="What stands between the labels of a document in one string.")
    bad_rows: Literal["stop", "skip"] = Field("stop", description="What to do at a row that cannot be read.")


def parse(argv: list[str]) -> EvaluateArguments:
    """Resolves a command line; exits with code 2 on an unknown option, raises UserError on a bad value."""
    import inspect

    description = inspect.getdoc(EvaluateArguments)
    try:
        return tyro.cli(EvaluateArguments, args=argv, prog="bin/evaluate", description=description)
    except ValidationError as error:
        raise UserError("; ".join(f"--{e['loc'][0]}: {e['msg']}" for e in error.errors())) from None


@dataclass(frozen=True)
class _Problem:
    """What all systems are measured on."""

    documents: "list[Document]"
    truth: Ragged
    label_ids: dict[str, int]
    training: Training | None
    groups: Groups
    num_ranked: int
    threshold: float


def evaluate(arguments: EvaluateArguments) -> dict[str, Any]:
    """Measures what the arguments name, prints the tables, writes the files and returns what --output holds.

    Raises:
        UserError: a file cannot be read or written, or there is nothing to measure.
    """
    if not (arguments.run or arguments.predictions or arguments.baseline != "none"):
        raise UserError("nothing to measure: give --run DIR, --predictions FILE or --baseline tree")
    if not (arguments.run or arguments.file):
        raise UserError("FILE: say which documents to measure on; without --run there is no test split to take")
    if not arguments.k:
        raise UserError("--k: expected one place or more, such as --k 1 3 5")
    if list(arguments.bins) != sorted(set(arguments.bins)):
        raise UserError(f"--bins {' '.join(map(str, arguments.bins))}: expected counts that rise")
    for written in (arguments.output, arguments.per_label):
        # What may take an hour should not end here.
        if written and not Path(written).parent.is_dir():
            raise UserError(f"{Path(written).parent}: no such folder to write {Path(written).name} into")
    if arguments.baseline != "none":
        baselines.check(arguments.baseline)
        if not (arguments.run or arguments.train):
            raise UserError("--baseline: give --train FILE, the documents to train it on, or --run DIR for its corpus")
    from lsfa_jax.training import model_folder

    model = model_folder.read(Path(arguments.run)) if arguments.run else None
    documents = _truth(arguments, model)
    if not any(document.labels for document in documents):
        raise UserError("none of the documents has a label, so there is nothing to measure; bin/predict needs none")
    train = _training(arguments, model)
    findings = prediction_files.Findings()
    listed = None
    if arguments.predictions:
        path = Path(arguments.predictions)
        listed = prediction_files.read_predictions(path, findings)
        listed = prediction_files.matched(listed, [document.id for document in documents], path, findings)
    problem = _problem(arguments, model, documents, train, listed)

    systems: dict[str, Scored] = {}
    if listed is not None:
        systems["predictions"] = _score_predictions(listed, problem, findings)
    elif model is not None:
        from lsfa_jax.util import compilation_cache

        compilation_cache.keep_on_disk()
        systems["model"] = _score_model(model, problem, arguments.batch_size)
    if arguments.baseline != "none":
        systems[arguments.baseline] = _score_baseline(arguments.baseline, train or [], problem)
    if findings.counts:
        console.warn(f"{arguments.predictions}: {findings.summary()}")

    config = model.config if model else None
    propensity = _propensity(arguments, config)
    results = {
        name: group_metrics(scored, problem.truth, problem.groups, problem.training, arguments.k, propensity)
        for name, scored in systems.items()
    }
    report = {
        "documents": len(documents),
        "labels": len(problem.label_ids),
        "labels_without_training": None
        if problem.training is None
        else int((problem.training.label_counts == 0).sum()),
        "training_documents": problem.training.num_documents if problem.training else None,
        "threshold": problem.threshold,
        "propensity": propensity._asdict(),
        "systems": results,
    }
    # Written first: a narrow terminal or a closed pipe takes no figures along.
    if arguments.output:
        tables.write_json(Path(arguments.output), report)
    if arguments.per_label:
        first = next(iter(systems.values()))
        tables.write_per_label(Path(arguments.per_label), problem.label_ids, problem.training, first, problem.truth)
    tables.print_tables(report, arguments.k)
    return report


def _read(source: Any, arguments: EvaluateArguments, model: "TrainedModel | None") -> "list[Document]":
    from lsfa_jax.config import Data
    from lsfa_jax.data.reading.detect import ReadOptions
    from lsfa_jax.data.reading.documents import ReadReport, read_documents

    # What training was told of its files holds for others of the kind.
    data = model.config.data if model else Data()
    options = ReadOptions(
        format=arguments.format,
        text_field=arguments.text_field or data.text_field,
        labels_field=arguments.labels_field or data.labels_field,
        id_field=arguments.id_field,
        label_separator=arguments.label_separator or data.label_separator,
        bad_rows=arguments.bad_rows,
        prefix="--",
    )
    report = ReadReport()
    documents = []
    with console.progress(f"reading {source}", None, "documents") as advance:
        for document in read_documents(source, options=options, report=report):
            documents.append(document)
            advance()
    note(f"{source}: {report.summary()}")
    return documents


def _truth(arguments: EvaluateArguments, model: "TrainedModel | None") -> "list[Document]":
    if arguments.file:
        return _read(Path(arguments.file), arguments, model)
    from lsfa_jax.data.load import read_split

    assert model is not None
    try:
        return read_split(model.config, "test")
    except UserError as error:
        raise UserError(
            f"{error}\nThe run's own test documents cannot be read: give FILE, documents with labels"
        ) from None


def _training(arguments: EvaluateArguments, model: "TrainedModel | None") -> "list[Document] | None":
    """Reads the training documents where they are needed."""
    if arguments.train:
        from lsfa_jax.data.reading.splits import find_splits

        path = Path(arguments.train)
        return _read(find_splits(path)["train"] if path.is_dir() else path, arguments, model)
    if arguments.baseline == "none" or model is None:
        return None
    from lsfa_jax.data.load import read_split

    try:
        return read_split(model.config, "train")
    except UserError as error:
        raise UserError(f"{error}\n--baseline needs the run's training documents: give --train FILE") from None


def _problem(
    arguments: EvaluateArguments,
    model: "TrainedModel | None",
    documents: "list[Document]",
    train: "list[Document] | None",
    listed: "list[prediction_files.Listed] | None",
) -> _Problem:
    label_ids: dict[str, int] = {}
    _add(label_ids, [model.labels] if model else (document.labels for document in train or ()))
    in_training = len(label_ids)
    _add(label_ids, (document.labels for document in train or ()))
    _add(label_ids, (document.labels for document in documents))
    pairs = [label for document in documents for label in document.labels]
    unseen = [label for label in pairs if label_ids[label] >= in_training]
    if (model or train is not None) and unseen:
        note(
            f"Labels that training never saw, never predicted, in every denominator: {len(set(unseen)):,} "
            f"({len(unseen):,} of {len(pairs):,} labels of documents, e.g. {unseen[0]!r})"
        )
    tested = len(label_ids)
    _add(label_ids, (one.labels for one in listed or ()))
    if len(label_ids) > tested:
        example = list(label_ids)[tested]
        where = "neither the training nor the test documents have" if model or train is not None else "no document has"
        console.warn(f"{len(label_ids) - tested:,} predicted labels that {where}, counted as wrong (e.g. {example!r})")
    num_labels = len(label_ids)
    training = None
    if model:
        counts = np.pad(model.label_counts, (0, num_labels - len(model.label_counts)))
        training = Training(counts, model.num_documents)
    elif train is not None:
        training = Training(np.bincount(_label_sets(train, label_ids).values, minlength=num_labels), len(train))
    else:
        note("Without --run or --train no training counts are known: no PSP, no head and tail, no bins")
    head_threshold, threshold, whose = arguments.head_threshold, arguments.threshold, ""
    if head_threshold == "auto":
        head_threshold = model.config.pvae.head_threshold if model else _HEAD_THRESHOLD
    if threshold == "auto":
        threshold = model.threshold if model else _THRESHOLD
        whose = ", chosen on the run's validation documents" if model else ""
    note(
        f"{len(documents):,} documents, {num_labels:,} labels; a label is given from probability {threshold:.2g}{whose}"
    )
    return _Problem(
        documents=documents,
        truth=_label_sets(documents, label_ids),
        label_ids=label_ids,
        training=training,
        groups=make_groups(num_labels, training, head_threshold, arguments.bins),
        num_ranked=max(*arguments.k, ranking.MACRO_PLACE),
        threshold=threshold,
    )


def _add(label_ids: dict[str, int], label_sets: Iterable[Iterable[str]]) -> None:
    for labels in label_sets:
        for label in labels:
            label_ids.setdefault(label, len(label_ids))


def _label_sets(documents: "list[Document]", label_ids: dict[str, int]) -> Ragged:
    indices = np.array([label_ids[label] for document in documents for label in document.labels], np.int32)
    sizes = [len(document.labels) for document in documents]
    return Ragged.from_sizes(indices, np.array(sizes, np.int64))


def _score_model(model: "TrainedModel", problem: _Problem, batch_size: int) -> Scored:
    from lsfa_jax.data import vocabulary
    from lsfa_jax.data.batches import Batches
    from lsfa_jax.data.corpus import Split
    from lsfa_jax.evaluation import scoring
    from lsfa_jax.model.lsfa import make_model
    from lsfa_jax.util import sharding

    config, num_labels = model.config, len(model.labels)
    index = vocabulary.word_index(model.words)
    texts = []
    with console.progress("words to numbers", len(problem.documents), "documents") as advance:
        for document in problem.documents:
            texts.append(vocabulary.encode(document.text, index, config.data.max_words))
            advance()
    split = Split(Ragged.from_rows(texts), problem.truth)
    mesh = sharding.make_mesh()
    buckets = [size for size in config.data.length_buckets if size < config.data.max_words]
    size = batch_size or config.report.batch_size
    batches = Batches(split, num_labels, size, [*buckets, config.data.max_words], mesh.size)
    vocabulary_size, embedding_size = model.params["embedding"].shape
    lsfa = make_model(config, vocabulary_size, embedding_size, num_labels)
    params = sharding.replicate(mesh, model.params)
    return scoring.score_split(
        lsfa, params, batches, mesh, problem.groups.members, problem.num_ranked, problem.threshold
    )


def _score_predictions(
    listed: "list[prediction_files.Listed]", problem: _Problem, findings: prediction_files.Findings
) -> Scored:
    ranked, given = prediction_files.as_arrays(listed, problem.label_ids, problem.threshold)
    short = int(((ranked >= 0).sum(axis=1) < min(problem.num_ranked, len(problem.label_ids))).sum())
    if short:
        note(f"{short:,} documents have fewer than {problem.num_ranked} predictions; the places left empty are wrong")
    note("Head, tail and bins are ranked, and labels given, among the labels that the predictions list")
    top = best_of_groups(ranked, problem.groups.members, problem.num_ranked)
    if any(one.probabilities is None and one.labels for one in listed):
        note("There are no probabilities for all labels, so labels are not given at a threshold: no F1")
        return Scored(top, None)
    return Scored(top, thresholded.count(given, problem.truth, len(problem.label_ids)))


def _score_baseline(baseline: baselines.Baseline, train: "list[Document]", problem: _Problem) -> Scored:
    title = baselines.TITLES[baseline]
    labels = _label_sets(train, problem.label_ids)
    note(f"{title}: {len(train):,} training documents; labels are given {baselines.RULES[baseline]}")
    with console.progress(f"{title}: TF-IDF", len(train) + len(problem.documents), "documents") as advance:

        def texts(documents: "list[Document]") -> Iterable[str]:
            for document in documents:
                yield document.text
                advance()

        features = baselines.tf_idf(texts(train), texts(problem.documents))
    method = baselines.METHODS[baseline]
    return method(features[0], labels, features[1], problem.truth, problem.groups.members, problem.num_ranked)


def _propensity(arguments: EvaluateArguments, config: Any) -> Propensity:
    usual = Propensity(config.report.propensity_a, config.report.propensity_b) if config else ranking.USUAL
    a, b = arguments.propensity_a, arguments.propensity_b
    return Propensity(usual.a if a == "auto" else a, usual.b if b == "auto" else b)


def main(argv: list[str] | None = None) -> int:
    """Evaluates as the command line says.

    Returns:
        0 when done, 2 after an error that the user can mend, 130 after SIGINT.
    """
    try:
        evaluate(parse(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        console.error(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
