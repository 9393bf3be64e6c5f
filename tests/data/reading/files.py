"""Files for the tests of readers: written from strings, read to the end."""

from pathlib import Path
from typing import Any

from lsfa_jax.data.reading.documents import Document, ReadReport, read_documents
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.data.reading.splits import Source


def read(source: Source, **options: Any) -> tuple[list[Document], ReadReport]:
    """Returns all documents of a source, and the report."""
    report = ReadReport()
    return list(read_documents(source, options=ReadOptions(**options), report=report)), report


def write(folder: Path, **files: str | bytes) -> Path:
    """Writes files, with "__" in a name for ".", and returns their folder."""
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder
