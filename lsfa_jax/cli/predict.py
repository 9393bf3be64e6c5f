"""The command behind bin/predict: texts in, label names and probabilities out."""

import csv
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, TextIO

import tyro
from pydantic import Field, PositiveInt

from lsfa_jax.cli import common
from lsfa_jax.cli.common import Reading, ReadingOptions
from lsfa_jax.config import Section, nearest
from lsfa_jax.serving.selection import TOP, TOP_OF_THRESHOLD, Selection, Threshold, as_floats
from lsfa_jax.util import console
from lsfa_jax.util.console import UserError

if TYPE_CHECKING:
    from lsfa_jax.data.reading.documents import Document, ReadReport
    from lsfa_jax.data.reading.options import ReadOptions
    from lsfa_jax.evaluation.prediction_files import Predicted, Write
    from lsfa_jax.serving.predictor import Explanation, Prediction, Predictor
    from lsfa_jax.training.model_folder import TrainedModel
    from lsfa_jax.util.atomic import TextFiles

# A table of more columns is hard to open.
_MANY_COLUMNS = 2000
_BYTES_A_CELL = 12
# Updating the progress bar costs more than a prediction on a fast device.
_DOCUMENTS_AN_ADVANCE = 64
# Of a file, to see whether it has labels.
_ROWS_TRIED = 100


class PredictArguments(Section):
    """Predicts the labels of texts with a trained model.

    Examples:
      bin/predict --run runs/first texts.csv                 a table on a terminal, JSON Lines in a pipe
      bin/predict --run runs/first texts.jsonl.gz --output labels.csv --threshold auto
      echo "Wheat exports rise" | bin/predict --run runs/first
      bin/predict --run runs/first texts.csv --output table.csv --layout wide      the probabilities of all labels
      bin/predict --run runs/first texts.txt --explain why.html

    JSON Lines: {"id": ..., "labels": [...], "probabilities": [...]} for each document, in order. CSV and TSV: a row for
    each label, document,rank,label,probability; a document without labels has one row in which these are empty. With
    --layout wide: a row for each document, with a column for each label. A document without an id has the number of its
    row. Each label's probability is independent of the others.
    """

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[FILE|-]")] = Field(
        "-",
        description="Texts in any format that bin/train reads, labelled or not, or one a line. -: standard input.",
    )
    run: str = Field(description="Folder of a finished bin/train, or of a model that LSFA.save wrote.")
    output: str = Field(
        "-", description="File for the predictions; it appears when it is complete. -: standard output."
    )
    output_format: Literal["auto", "table", "jsonl", "csv", "tsv"] = Field(
        "auto", description="auto: by the name of --output; else a table on a terminal, jsonl in a file or a pipe."
    )
    layout: Literal["long", "wide"] = Field(
        "long",
        description="Of CSV and TSV. long: a row for each label of a document; wide: a row for each document, with the "
        "probability of each label in its column, or an empty cell where --top or --threshold leave it out.",
    )
    formulas: Literal["neutralise", "keep"] = Field(
        "neutralise",
        description="Of CSV and TSV: before labels and ids that a spreadsheet would run, such as =1+1, stands an "
        "apostrophe, which bin/evaluate removes; or they are kept.",
    )
    labels: str = Field(
        "", description="Labels with a column in the wide layout, separated by commas as in CSV. By default all."
    )
    top: Literal["auto"] | PositiveInt = Field(
        "auto",
        description=f"Labels a document at most. auto: {TOP}, with --threshold {TOP_OF_THRESHOLD}, with --layout "
        "wide all.",
    )
    threshold: Threshold = Field(
        "none", description="Leave out labels with a lower probability. auto: the model's, of best micro F1."
    )
    explain: str = Field(
        "",
        description="Also write a page (HTML) that shows which words each predicted label attended to. Of a fused "
        "model, the page, tables and JSON Lines also have the words by which the linear model voted for it. Where the "
        "file has labels, the page marks those that are true, and those that are missed.",
    )
    explain_documents: int = Field(
        100, gt=0, description="Documents a page of --explain; further ones go to NAME-2.html and so on."
    )
    batch_size: int = Field(0, ge=0, description="Documents computed at a time. 0: the run's report.batch_size.")
    all_labels: bool = Field(
        False,
        description="Score all labels, also with a model of many labels that scores those its linear model proposes.",
    )
    reading: Reading = ReadingOptions()


IN_HELP = ("file", "run", "output", "layout", "top", "threshold", "explain", "text_field", "id_field")


def parse(argv: list[str], prog: str = "bin/predict") -> PredictArguments:
    """Reads a command line; raises UserError at an unknown option or a wrong value."""
    return common.parse(PredictArguments, argv, prog, in_help=IN_HELP)


def predict(arguments: PredictArguments) -> None:
    """Writes the predictions of all documents, one after another as they are read.

    Raises:
        UserError: no model, input that cannot be read, or a file that cannot be written.
    """
    # Imported late, so that --help and a wrong option answer at once.
    from lsfa_jax.data.reading.documents import ReadReport
    from lsfa_jax.training import model_folder
    from lsfa_jax.util import compilation_cache
    from lsfa_jax.util.atomic import TextFiles

    _check(arguments)
    source = _source(arguments)
    typed = not isinstance(source, Path) and source.isatty()
    model = model_folder.read(Path(arguments.run))
    common.warn_if_unfinished(Path(arguments.run))
    compilation_cache.keep_on_disk()
    report, top = ReadReport(), _selection(arguments, model).top
    options = _read_options(arguments, model, source)
    common.check_outputs(_outputs(arguments), "", [options.label_names])
    with TextFiles() as files, ExitStack() as stack:
        stream = stack.enter_context(_output(arguments, files))
        on_screen = stream.isatty()
        predictor = _predictor(arguments, model, typed, on_screen)
        write = _writer(arguments, stream, on_screen, model.labels)
        show = stack.enter_context(_pages(arguments, model, files, options.labelled)) if arguments.explain else None
        # On a screen the predictions themselves are the progress.
        bar = nullcontext() if on_screen or typed else console.progress("predicting", None, "documents")
        advance = stack.enter_context(bar)
        if typed:
            # Compiles before the first text, so that its answer comes at once.
            list(predictor.predict([""], top))
            predictor.read = type(predictor.read)()
            console.note("Type a text and press Enter; Ctrl-D ends.")
        totals = _Totals(time.monotonic())
        for predicted, result, document in _predictions(arguments, predictor, source, options, report):
            write(predicted)
            if show:
                show(predicted, result, document)
            totals.add(predicted, cut=len(predicted.labels) == top < len(model.labels))
            if advance and totals.documents % _DOCUMENTS_AN_ADVANCE == 0:
                advance(_DOCUMENTS_AN_ADVANCE)
    console.note(report.summary())
    totals.print(with_threshold=arguments.threshold != "none")
    _print_unread(predictor)


def _check(arguments: PredictArguments) -> None:
    """Raises UserError where options contradict each other or an output cannot be written, before the work."""
    if arguments.labels and arguments.layout != "wide":
        raise UserError("--labels: for --layout wide, where a label has a column")
    if arguments.explain and arguments.layout == "wide" and arguments.top == "auto":
        raise UserError("--explain: with --layout wide, limit the labels of the page by --top K")
    files = "" if arguments.file == "-" else arguments.file, arguments.reading.label_names
    common.check_outputs(_outputs(arguments), arguments.run, files)


def _outputs(arguments: PredictArguments) -> dict[str, str]:
    return {"--output": "" if arguments.output == "-" else arguments.output or ".", "--explain": arguments.explain}


@dataclass
class _Totals:
    """Counts of the predicted documents."""

    start: float
    documents: int = 0
    unlabelled: int = 0
    cut: int = 0
    """Documents with as many labels as --top allows, which may have more."""

    def add(self, predicted: "Predicted", cut: bool) -> None:
        self.documents += 1
        self.unlabelled += not predicted.labels
        self.cut += cut

    def print(self, with_threshold: bool) -> None:
        without = f", {self.unlabelled:,} of them without a label" if self.unlabelled else ""
        rate = self.documents / (time.monotonic() - self.start)
        console.note(f"{console.plural(self.documents, 'document')} predicted{without}; {console.per_second(rate)}")
        if self.cut and with_threshold:
            console.warn(
                f"{console.plural(self.cut, 'document')} may have further labels that reach the threshold; raise --top"
            )


def _print_unread(predictor: "Predictor") -> None:
    """Prints how much of the texts the model did not read."""
    if unread := predictor.read.unread_words(predictor.model.config.data.max_words):
        console.note(unread)
    if predictor.read.unknown:
        console.note(
            f"Texts without a word that the model knows: {predictor.read.unknown:,} of {predictor.read.texts:,}; their "
            "labels are those of any text"
        )


def _predictor(arguments: PredictArguments, model: "TrainedModel", typed: bool, on_screen: bool) -> "Predictor":
    from lsfa_jax.serving.predictor import Predictor

    batch_size = arguments.batch_size or model.config.report.batch_size
    # A user who types expects an answer to each text, and one who watches a screen the first answers soon. Attention
    # over all words of a text is large, and so are the probabilities of all labels.
    small_chunks = on_screen or arguments.explain or arguments.layout == "wide"
    chunk = 1 if typed else batch_size if small_chunks else None
    return Predictor(model, batch_size, chunk, arguments.all_labels)


def _predictions(
    arguments: PredictArguments,
    predictor: "Predictor",
    source: "Path | BinaryIO",
    options: "ReadOptions",
    report: "ReadReport",
) -> "Iterator[tuple[Predicted, Prediction | Explanation, Document]]":
    """Yields each document's prediction, the predictor's result for its text, and the document."""
    from lsfa_jax.data.reading.documents import Document, read_documents
    from lsfa_jax.evaluation.prediction_files import Predicted
    from lsfa_jax.serving.predictor import Explanation

    # Documents that were read and are not predicted yet, with the numbers of their rows.
    waiting: deque[tuple[Document, int]] = deque()

    def texts() -> Iterator[str]:
        for document in read_documents(source, options=options, report=report):
            waiting.append((document, report.read))
            yield document.text

    selection = _selection(arguments, predictor.model)
    results: Iterator[Prediction | Explanation]
    results = (predictor.explain if arguments.explain else predictor.predict)(texts(), selection.top)
    for result in results:
        document, number = waiting.popleft()
        kept = selection.count(result.probabilities)
        labels = [predictor.model.labels[label] for label in result.label_ids[:kept]]
        probabilities = as_floats(result.probabilities[:kept])
        votes = result.votes if isinstance(result, Explanation) else None
        shown = None if votes is None else votes[:kept]
        yield Predicted(document.id or number, labels, probabilities, document.text, shown), result, document


def _read_options(arguments: PredictArguments, model: "TrainedModel", source: "Path | BinaryIO") -> "ReadOptions":
    """Returns how the texts are read; for the page with labels, where an option or the model knows some of the file."""
    from lsfa_jax.data.reading.documents import ReadReport, read_documents

    reading = arguments.reading
    options = reading.read_options(labelled=False, usual_text_field=model.config.data.text_field)
    if not arguments.explain or not isinstance(source, Path) or not source.is_file():
        return options
    labelled, known = reading.like_run(model.config.data), set(model.labels)
    if reading.labels_field or reading.label_columns or reading.label_separator or reading.label_names:
        return labelled
    try:
        with console.quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            first, as_texts = (
                list(islice(read_documents(source, options=each, report=ReadReport()), _ROWS_TRIED))
                for each in (labelled, options)
            )
    except UserError:  # of the texts, the reader will report it
        return options
    has_labels = any(known.intersection(document.labels) for document in first)
    return labelled if has_labels and [d.text for d in first] == [d.text for d in as_texts] else options


def _selection(arguments: PredictArguments, model: "TrainedModel") -> Selection:
    top = len(model.labels) if arguments.top == "auto" and arguments.layout == "wide" else arguments.top
    return Selection.of(top, arguments.threshold, model.threshold)


def _source(arguments: PredictArguments) -> Path | BinaryIO:
    """Returns the file, or standard input with a separate reader: Python closes `sys.stdin` at exit, which would wait
    for a thread that reads from it."""
    if arguments.file == "-":
        try:
            return open(0, "rb", closefd=False)
        except OSError as error:
            raise UserError(f"standard input cannot be read ({error.strerror}): give a FILE") from None
    return Path(arguments.file)


def _output(arguments: PredictArguments, files: "TextFiles") -> TextIO:
    if arguments.output != "-":
        return files.open(Path(arguments.output))
    # Buffered by line, so that each prediction appears at once; line ends and encoding are the format's on any system.
    return open(1, "w", buffering=1, encoding="utf-8", newline="", closefd=False)


def _writer(arguments: PredictArguments, stream: TextIO, on_screen: bool, labels: list[str]) -> "Write":
    from lsfa_jax.evaluation import prediction_files
    from lsfa_jax.serving.terminal_table import table_writer

    name, neutralise = _output_format(arguments, on_screen), arguments.formulas == "neutralise"
    if arguments.layout == "wide":
        if name not in ("csv", "tsv"):
            raise UserError("--layout wide: for CSV and TSV; give --output NAME.csv or --output-format csv")
        return prediction_files.wide_writer(name, stream, _columns(arguments, labels), neutralise)
    return table_writer(stream) if name == "table" else prediction_files.writer(name, stream, neutralise)


def _columns(arguments: PredictArguments, labels: list[str]) -> Sequence[str]:
    """Returns the labels with a column in the wide layout."""
    # As in a row of CSV, a label with a comma stands in quotes.
    row = next(csv.reader([arguments.labels], skipinitialspace=True), [])
    given = [arguments.labels] if arguments.labels in labels else row
    given = [label.strip() for label in given if label.strip()]
    for label in given:
        if label not in labels:
            raise UserError(f"--labels {label}: the model has no such label{nearest(label, labels)}")
    columns = list(dict.fromkeys(given)) or labels
    if len(columns) > _MANY_COLUMNS:
        size = len(columns) * _BYTES_A_CELL / 1e3
        console.warn(
            f"--layout wide: {len(columns):,} columns, about {size:,.0f} kB for each document; --labels A,B limits "
            "them, and --layout long has only the best labels"
        )
    return columns


def _output_format(arguments: PredictArguments, on_screen: bool) -> Literal["table", "jsonl", "csv", "tsv"]:
    if arguments.output_format != "auto":
        return arguments.output_format
    suffix = Path(arguments.output).suffix.removeprefix(".").lower()
    if suffix in ("csv", "tsv"):
        return "csv" if suffix == "csv" else "tsv"
    if suffix not in ("", "jsonl", "json", "ndjson", "txt"):
        raise UserError(f"--output {arguments.output}: expected .csv, .tsv or .jsonl; or give --output-format")
    if arguments.layout == "wide" and suffix == "":
        return "csv"
    return "table" if on_screen else "jsonl"


@contextmanager
def _pages(
    arguments: PredictArguments, model: "TrainedModel", files: "TextFiles", with_truth: bool
) -> Iterator[Callable[["Predicted", Any, "Document"], None]]:
    from lsfa_jax.serving.explanation import About, Explained, Pages, Scale

    labels = console.plural(len(model.labels), "label")
    about = About(
        title="Words that each label attended to",
        model=f"{Path(arguments.run).resolve().name} ({model.config.corpus_name}, {labels})",
        source="standard input" if arguments.file == "-" else Path(arguments.file).name,
        scale=Scale.of(model),
    )
    pages = Pages(Path(arguments.explain), arguments.explain_documents, about, files)

    def show(predicted: "Predicted", result: "Explanation", document: "Document") -> None:
        labels, probabilities = predicted.labels, predicted.probabilities or []
        attention = result.attention[: len(labels)]
        counts = model.label_counts[result.label_ids[: len(labels)]].tolist()
        votes, truth = predicted.votes or (), document.labels if with_truth else None
        pages.add(
            Explained(
                str(predicted.id), result.text, labels, probabilities, result.spans, attention, votes, counts, truth
            )
        )

    yield show
    pages.end()
    console.note(
        f"{arguments.explain}: {console.plural(pages.written, 'page')} with the words that each label attended to"
    )


def main(argv: list[str] | None = None, prog: str = "bin/predict") -> int:
    """Runs bin/predict and returns its exit code, as `common.run` describes; messages name the command `prog`."""
    # Standard output is for the predictions alone.
    with console.on_stderr():
        return common.run(lambda line: _command(line, prog), argv)


def _command(argv: list[str], prog: str) -> None:
    try:
        predict(parse(argv, prog))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"the predictions cannot be written ({error.strerror or error})") from error


if __name__ == "__main__":
    raise SystemExit(main())
