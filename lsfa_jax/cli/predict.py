"""The command behind bin/predict: texts in, label names and probabilities out."""

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, TextIO

# XLA's own log lines concern nobody who predicts.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# An error about an option is for people, who need no link to a validation library.
os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")

import numpy as np
import tyro
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from lsfa_jax.util import console
from lsfa_jax.util.console import UserError

if TYPE_CHECKING:
    from lsfa_jax.data.reading.documents import ReadReport
    from lsfa_jax.serving.prediction_formats import Predicted
    from lsfa_jax.serving.predictor import Explanation, Predictor
    from lsfa_jax.training.model_folder import TrainedModel
    from lsfa_jax.util.atomic import TextFiles

Probability = Annotated[float, Field(ge=0, le=1)]

_TOP = 5
# With a threshold: more labels than this a document hardly has, and all would be L probabilities each.
_TOP_OF_THRESHOLD = 100
# Moving a bar costs more than a prediction on a fast device.
_DOCUMENTS_AN_ADVANCE = 64


class PredictArguments(BaseModel):
    """Predicts the labels of texts with a trained model.

    Examples:
      bin/predict --run runs/mine texts.csv                  a table on a terminal, JSON Lines in a pipe
      bin/predict --run runs/mine texts.jsonl.gz --output labels.csv --threshold auto
      echo "Wheat exports rise" | bin/predict --run runs/mine
      bin/predict --run runs/mine texts.txt --explain why.html

    JSON Lines: {"id": ..., "labels": [...], "probabilities": [...]} for each document, in order. CSV and TSV: a row for
    each label, document,rank,label,probability; a document without labels has one row in which these are empty. A
    document without an id of its own has the number of its row. Probabilities are of each label by itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[FILE|-]")] = Field(
        "-",
        description="Texts in any format that bin/train reads, labelled or not, or one a line. -: standard input.",
    )
    run: str = Field(description="Folder of a finished bin/train, or of a model that LSFA.save wrote.")
    output: str = Field("-", description="File for the predictions; it appears when all are made. -: standard output.")
    output_format: Literal["auto", "table", "jsonl", "csv", "tsv"] = Field(
        "auto", description="auto: by the name of --output; else a table on a terminal, jsonl in a file or a pipe."
    )
    top: Literal["auto"] | PositiveInt = Field(
        "auto",
        description=f"Labels a document at most. auto: {_TOP}, with --threshold {_TOP_OF_THRESHOLD}.",
    )
    threshold: Literal["none", "auto"] | Probability = Field(
        "none", description="Leave out labels with a lower probability. auto: the model's own, of best micro F1."
    )
    explain: str = Field(
        "", description="Also write a page (HTML) that shows which words each predicted label attended to."
    )
    explain_documents: int = Field(
        100, gt=0, description="Documents a page of --explain; further ones go to NAME-2.html and so on."
    )
    batch_size: int = Field(0, ge=0, description="Documents computed at a time. 0: the run's report.batch_size.")
    format: str = Field("auto", description="Format of the texts. auto: by their content.")
    text_field: str = Field(
        "",
        description="Field or column that holds the text, where its name does not say so. By default the run's "
        "data.text_field.",
    )
    labels_field: str = Field("", description="Field or column that holds labels; they are not used.")
    id_field: str = Field("", description="Field or column that holds the document's id, likewise.")
    label_separator: str = Field("", description="What stands between the labels of a document in one string.")
    bad_rows: Literal["stop", "skip"] = Field("stop", description="What to do at a row that cannot be read.")


def parse(argv: list[str]) -> PredictArguments:
    """Resolves a command line; exits with code 2 on an unknown option, raises UserError on a bad value."""
    import inspect

    description = inspect.getdoc(PredictArguments)
    try:
        return tyro.cli(PredictArguments, args=argv, prog="bin/predict", description=description)
    except ValidationError as error:
        raise UserError("; ".join(f"--{e['loc'][0]}: {e['msg']}" for e in error.errors())) from None


def predict(arguments: PredictArguments) -> None:
    """Writes the predictions of all documents, one after another as they are read.

    Raises:
        UserError: no model, input that cannot be read, or a place that cannot be written.
    """
    # Imported late, so that --help and a wrong option answer at once.
    from lsfa_jax.data.reading.documents import ReadReport
    from lsfa_jax.serving import prediction_formats
    from lsfa_jax.serving.predictor import Predictor
    from lsfa_jax.training import model_folder
    from lsfa_jax.util import compilation_cache
    from lsfa_jax.util.atomic import TextFiles

    source = _source(arguments)
    typed = not isinstance(source, Path) and source.isatty()
    model = model_folder.read(Path(arguments.run))
    compilation_cache.keep_on_disk()
    report = ReadReport()
    number = unlabelled = cut = 0
    with TextFiles() as files, ExitStack() as stack:
        stream = stack.enter_context(_output(arguments, files))
        on_screen = stream.isatty()
        batch_size = arguments.batch_size or model.config.report.batch_size
        # Who types wants an answer to each text, and who watches a screen wants the first ones soon.
        soon = on_screen or arguments.explain  # attention over all words of a text is large
        predictor = Predictor(model, batch_size, chunk=1 if typed else batch_size if soon else None)
        write = prediction_formats.writer(_output_format(arguments, on_screen), stream)
        show = stack.enter_context(_pages(arguments, model, files)) if arguments.explain else None
        # On a screen the predictions themselves are the progress.
        bar = nullcontext() if on_screen or typed else console.progress("predicting", None, "documents")
        advance = stack.enter_context(bar)
        if typed:
            # Compiled now, so that the first answer does not keep anybody waiting.
            list(predictor.predict([""], _top(arguments)))
            console.note("Type a text and press Enter; Ctrl-D ends.")
        start = time.monotonic()
        for number, (predicted, result) in enumerate(_predictions(arguments, predictor, source, report), start=1):
            write(predicted)
            if show:
                show(predicted, result)
            unlabelled += not predicted.labels
            cut += len(predicted.labels) == _top(arguments) < len(model.labels)
            if advance and number % _DOCUMENTS_AN_ADVANCE == 0:
                advance(_DOCUMENTS_AN_ADVANCE)
    console.note(report.summary())
    without = f", {unlabelled:,} of them without a label" if unlabelled else ""
    console.note(f"{number:,} documents predicted{without}; {number / (time.monotonic() - start):,.0f}/s")
    if cut and arguments.threshold != "none":
        console.warn(f"{cut:,} documents may have further labels that reach the threshold; raise --top")


def _predictions(
    arguments: PredictArguments, predictor: "Predictor", source: "Path | BinaryIO", report: "ReadReport"
) -> Iterator[tuple["Predicted", Any]]:
    """Yields each document's prediction, and what the predictor made of its text."""
    from lsfa_jax.data.reading.detect import ReadOptions
    from lsfa_jax.data.reading.documents import Document, read_documents
    from lsfa_jax.serving.prediction_formats import Predicted

    options = ReadOptions(
        format=arguments.format,
        text_field=arguments.text_field,
        labels_field=arguments.labels_field,
        id_field=arguments.id_field,
        label_separator=arguments.label_separator,
        bad_rows=arguments.bad_rows,
        labelled=False,
        prefix="--",
        usual_text_field=predictor.model.config.data.text_field,
    )
    # Texts that were read and whose predictions are not there yet, with the numbers of their rows.
    waiting: deque[tuple[Document, int]] = deque()

    def texts() -> Iterator[str]:
        for document in read_documents(source, options=options, report=report):
            waiting.append((document, report.read))
            yield document.text

    threshold = arguments.threshold
    lowest = 0.0 if threshold == "none" else predictor.model.threshold if threshold == "auto" else threshold
    run: Any = predictor.explain if arguments.explain else predictor.predict
    for result in run(texts(), _top(arguments)):
        document, number = waiting.popleft()
        kept = int(np.count_nonzero(result.probabilities >= lowest))
        labels = [predictor.model.labels[label] for label in result.label_ids[:kept]]
        # The shortest decimal that is this float32.
        probabilities = [float(str(probability)) for probability in result.probabilities[:kept]]
        yield Predicted(document.id or number, document.text, labels, probabilities), result


def _top(arguments: PredictArguments) -> int:
    if arguments.top != "auto":
        return arguments.top
    return _TOP if arguments.threshold == "none" else _TOP_OF_THRESHOLD


def _source(arguments: PredictArguments) -> Path | BinaryIO:
    """Returns the file, or standard input with a reader of its own: Python closes its own at exit, which must wait for
    a thread that reads from it."""
    if arguments.file == "-":
        return open(0, "rb", closefd=False)
    path = Path(arguments.file)
    for option, written in (("output", arguments.output), ("explain", arguments.explain)):
        if written not in ("", "-") and path.is_file() and Path(written).exists() and path.samefile(written):
            raise UserError(f"--{option} {written}: that file holds the texts; choose another")
    return path


def _output(arguments: PredictArguments, files: "TextFiles") -> TextIO:
    if arguments.output != "-":
        return files.open(Path(arguments.output))
    # A line is there as soon as it is made; line ends and characters are those of the format on any system.
    return open(1, "w", buffering=1, encoding="utf-8", newline="", closefd=False)


def _output_format(arguments: PredictArguments, on_screen: bool) -> str:
    if arguments.output_format != "auto":
        return arguments.output_format
    suffix = Path(arguments.output).suffix.removeprefix(".").lower()
    if suffix not in ("", "csv", "tsv", "jsonl", "json", "ndjson", "txt"):
        raise UserError(f"--output {arguments.output}: expected .csv, .tsv or .jsonl; or say --output-format")
    return suffix if suffix in ("csv", "tsv") else "table" if on_screen else "jsonl"


@contextmanager
def _pages(
    arguments: PredictArguments, model: "TrainedModel", files: "TextFiles"
) -> Iterator[Callable[["Predicted", "Explanation"], None]]:
    from lsfa_jax.serving.explanation import About, Explained, Pages

    about = About(
        title="What each label looked at",
        model=f"{Path(arguments.run).resolve().name} ({model.config.dataset}, {len(model.labels):,} labels)",
        source="standard input" if arguments.file == "-" else Path(arguments.file).name,
        max_words=model.config.data.max_words,
    )
    pages = Pages(Path(arguments.explain), arguments.explain_documents, about, files)

    def show(predicted: "Predicted", result: "Explanation") -> None:
        attention = result.attention[: len(predicted.labels)]
        pages.add(Explained(str(predicted.id), *predicted[1:], result.spans, attention))

    yield show
    pages.end()
    count = "one page" if pages.written == 1 else f"{pages.written:,} pages"
    console.note(f"{arguments.explain}: {count} with the words that each label attended to")


def main(argv: list[str] | None = None) -> int:
    """Predicts as the command line says.

    Returns:
        0 when done, 2 after an error that the user can mend, 130 after SIGINT, 141 where nobody reads on (SIGPIPE).
    """
    # Stdout belongs to the predictions.
    with console.on_stderr():
        try:
            predict(parse(sys.argv[1:] if argv is None else argv))
        except UserError as error:
            console.error(str(error))
            return 2
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            return 141
        except OSError as error:
            console.error(f"the predictions cannot be written ({error.strerror})")
            return 2
    return 0


if __name__ == "__main__":
    # Partial files go, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    raise SystemExit(main())
