"""EURLEX57K's folders (Chalkidis et al., 2019): a JSON document for each law."""

import json
from collections.abc import Iterator
from pathlib import Path

from lsfa_jax.data.reading.compression import document_lines
from lsfa_jax.data.reading.fields import check_unicode, row_of_fields
from lsfa_jax.data.reading.label_lists import names_of
from lsfa_jax.data.reading.rows import BadRow, BadRowError, Layout, Row, check_text

# The parts of a law, in its order.
_PARTS = ("title", "header", "recitals", "main_body", "attachments")
_SUFFIXES = ".json", ".json.gz", ".json.xz", ".json.bz2", ".json.zst"


def json_documents(folder: Path) -> list[Path]:
    """Lists the JSON documents in a folder by name, compressed ones too."""
    return sorted(path for path in folder.iterdir() if path.name.endswith(_SUFFIXES) and path.is_file())


def law_rows(folder: Path, labelled: bool, encoding: str) -> Iterator[tuple[str, Row | BadRow]]:
    """Yields a row with its 'file:line' for each JSON document of a folder.

    Args:
        folder: the folder.
        labelled: whether the concepts are read, as labels.
        encoding: of the files.
    """
    for path in json_documents(folder):
        row: Row | BadRow
        try:
            row = _row(path, labelled, encoding)
        except BadRowError as bad:
            row = bad.at(1)
        yield f"{path}:{row.number}", row


def _row(path: Path, labelled: bool, encoding: str) -> Row:
    law = _read(path, encoding)
    present = [name for name in _PARTS if law.get(name) is not None]
    if not present:
        raise BadRowError("no text", f"one of {', '.join(_PARTS)}", list(law))
    parts: list[str] = []
    for name in present:
        value = law[name]
        parts.extend(check_text(part, f"'{name}'") for part in (value if isinstance(value, list) else [value]))
    labels: list[str] = []
    if labelled:
        concepts = law.get("concepts")
        if not isinstance(concepts, list):
            raise BadRowError("no list 'concepts'", "the document's concepts in a list", list(law))
        labels, _ = names_of(concepts, "'concepts'")
    text = "\n".join(part for part in parts if part.strip())
    fields = {"text": text, "labels": labels, "id": law.get("celex_id")}
    return check_unicode(row_of_fields(1, fields, Layout("eurlex57k", ("text",), ("labels",), "id")))


def _read(path: Path, encoding: str) -> dict[str, object]:
    content = "\n".join(document_lines(path, encoding))
    try:
        law = json.loads(content)
    except (ValueError, RecursionError):
        raise BadRowError("not JSON", "one JSON document in the file", content) from None
    if not isinstance(law, dict):
        raise BadRowError("not an object", "a JSON object with title, main_body, concepts", law)
    return law
