"""Annif's and Maui's full-text corpora: a folder of NAME.txt with its subjects in NAME.tsv (URI, label) or NAME.key."""

from collections.abc import Iterator
from pathlib import Path

from lsfa_jax.data.reading.compression import document_lines
from lsfa_jax.data.reading.rows import BadRow, BadRowError, Row
from lsfa_jax.util.console import warn

_LABEL_SUFFIXES = (".tsv", ".key")


def text_documents(folder: Path, labelled: bool = True) -> list[Path]:
    """Lists the text files of a folder by name; `labelled`: where there are subjects for one of them at least."""
    texts = sorted(path for path in folder.glob("*.txt") if path.is_file())
    return texts if not labelled or any(_subjects(path) for path in texts) else []


def _subjects(text: Path) -> Path | None:
    return next((text.with_suffix(s) for s in _LABEL_SUFFIXES if text.with_suffix(s).is_file()), None)


def full_text_rows(folder: Path, labelled: bool, encoding: str) -> Iterator[tuple[str, Row | BadRow]]:
    """Yields a row with its 'file:line' for each text file of a folder; its name without .txt is the id.

    Args:
        folder: the folder.
        labelled: whether subjects are read: by their name, or by their URI where the file has no names.
        encoding: of the files.
    """
    without: list[str] = []
    for path in text_documents(folder, labelled):
        subjects = _subjects(path) if labelled else None
        if labelled and subjects is None:
            without.append(path.name)
            continue
        where = path
        try:
            text = "\n".join(document_lines(path, encoding))
            where = subjects or path
            lines = [line for line in document_lines(subjects, encoding) if line.strip()] if subjects else []
            labels = [_label(line, subjects.suffix) for line in lines] if subjects else []
            yield f"{path}:1", Row(1, text, labels, path.stem)
        except BadRowError as bad:
            yield f"{where}:1", bad.at(1)
    if without:
        warn(f"{folder}: {len(without):,} texts without subjects beside them, left out (e.g. {without[0]})")


def _label(line: str, suffix: str) -> str:
    cells = [cell.strip() for cell in line.split("\t")]
    named = [cell for cell in cells if cell and not (cell.startswith("<") and cell.endswith(">"))]
    return named[0] if named and suffix == ".tsv" else line.strip()
