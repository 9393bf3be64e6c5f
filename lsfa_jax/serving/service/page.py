"""The page for users with a browser: a form for texts, and their labels with the words that speak for each.

It has no script. The results are the documents of the explanation page, and the table of all labels is a link within
the page.
"""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from lsfa_jax.data.reading.documents import ReadReport, read_documents
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.evaluation import prediction_files
from lsfa_jax.evaluation.prediction_files import Predicted
from lsfa_jax.pages.template import template
from lsfa_jax.serving.explanation import Explained, Scale, shown
from lsfa_jax.serving.predictor import Explanation
from lsfa_jax.serving.selection import TOP, Selection, as_floats
from lsfa_jax.serving.service import openapi
from lsfa_jax.serving.service.limits import Limits
from lsfa_jax.serving.service.models import TOPS, Served
from lsfa_jax.util import console
from lsfa_jax.util.console import UserError

MOST_TEXTS = 100
"""Of a page."""

_FOLDER = Path(__file__).parents[1]
_MOST_TOP = TOPS[1]
_MOST_FIELDS = 16


@dataclass(frozen=True)
class Choices:
    """What the form holds."""

    text: str = ""
    lines: str = ""
    """Not empty: each line is a text."""
    model: str = ""
    top: int = TOP
    above: str = ""
    """Not empty: only labels that reach the model's threshold."""
    file_name: str = ""
    file: bytes = b""


async def read(request: Request, data: bytes, limits: Limits) -> Choices:
    """Reads a form that a browser sent as multipart/form-data.

    Raises:
        HTTPException: 422 for something else.
    """

    async def stream() -> Any:
        yield data
        yield b""

    try:
        parser = MultiPartParser(
            request.headers, stream(), max_files=1, max_fields=_MOST_FIELDS, max_part_size=limits.bytes
        )
        parser.spool_max_size = limits.bytes  # in memory, not in a file
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "expected multipart/form-data"
        raise HTTPException(422, f"the form cannot be read: {reason}") from None
    known = {field.name for field in fields(Choices)} - {"top", "file", "file_name"}
    given: dict[str, Any] = {name: value for name, value in form.items() if name in known and isinstance(value, str)}
    choices = Choices(**given)
    upload, top = form.get("file"), form.get("top", str(TOP))
    if isinstance(upload, UploadFile):
        choices = replace(choices, file_name=upload.filename or "", file=await upload.read())
    if not isinstance(top, str) or not re.fullmatch("[0-9]{1,9}", top) or not 1 <= int(top) <= _MOST_TOP:
        raise HTTPException(422, f"labels a text: expected a number from 1 to {_MOST_TOP}")
    return replace(choices, top=int(top))


def documents(choices: Choices) -> tuple[list[str], list[str]]:
    """Returns names and texts of the documents of a form: those of its file, else of its text.

    Raises:
        HTTPException: 422 where it holds none, too many, or a file that cannot be read.
    """
    if choices.file:
        pairs = _of_file(choices)
    elif choices.lines:
        lines = [line for line in choices.text.splitlines() if line.strip()]
        pairs = [(str(number), line) for number, line in enumerate(lines, 1)]
    else:
        pairs = [("1", choices.text)] if choices.text.strip() else []
    if not pairs:
        raise HTTPException(422, "no text: paste one, or choose a file")
    if len(pairs) > MOST_TEXTS:
        raise HTTPException(422, f"more than {MOST_TEXTS} texts; the command predict takes any number")
    # Halves of surrogate pairs, which JSON in a file can spell, are no characters.
    names, texts = ([part.encode("utf-8", "replace").decode() for part in parts] for parts in zip(*pairs, strict=True))
    return names, texts


def _of_file(choices: Choices) -> list[tuple[str, str]]:
    options, report = ReadOptions(labelled=False, bad_rows="skip"), ReadReport()
    try:
        with console.quiet():
            rows = islice(read_documents(io.BytesIO(choices.file), options=options, report=report), MOST_TEXTS + 1)
            return [(row.id or str(number), row.text) for number, row in enumerate(rows, 1)]
    except UserError as error:
        message = str(error).replace("standard input", choices.file_name or "the file")
        raise HTTPException(422, message) from None


def form(models: Sequence[str], choices: Choices, *, problem: str = "", **results: Any) -> str:
    """Returns the page: the form with its choices, a problem, and what `results` fills in."""
    nothing: dict[str, Any] = {"documents": (), "scale": None, "with_votes": False, "table": ""}
    return template(_FOLDER / "service.html").render(
        **nothing | results,
        models=models,
        choices=choices,
        problem=problem,
        most_texts=MOST_TEXTS,
        most_top=_MOST_TOP,
    )


def results(
    models: Sequence[str],
    choices: Choices,
    served: Served,
    names: Sequence[str],
    explanations: Sequence[Explanation],
    selection: Selection,
) -> str:
    """Returns the page with the labels of each text."""
    model, scale = served.model, Scale.of(served.model)
    explained = []
    for name, result in zip(names, explanations, strict=True):
        count = selection.count(result.probabilities)
        label_ids = result.label_ids[:count]
        explained.append(
            Explained(
                name,
                result.text,
                [model.labels[label] for label in label_ids],
                as_floats(result.probabilities[:count]),
                result.spans,
                result.attention[:count],
                (result.votes or ())[:count],
                model.label_counts[label_ids].tolist(),
            )
        )
    return form(
        models,
        choices,
        documents=[shown(document, scale) for document in explained],
        scale=scale,
        with_votes=any(document.votes for document in explained),
        table=_table(explained),
    )


def _table(explained: Sequence[Explained]) -> str:
    """Returns a link to the table of all labels as CSV, which contains the file."""
    stream = io.StringIO()
    write = prediction_files.writer("csv", stream)
    for document in explained:
        write(Predicted(document.name, list(document.labels), list(document.probabilities)))
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(stream.getvalue().encode()).decode()


def docs() -> str:
    """Returns the page that describes the API."""
    return template(_FOLDER / "api.html").render(endpoints=openapi.ENDPOINTS)
