"""Annif's and Maui's full-text corpora: a folder of NAME.txt with its subjects in NAME.tsv (URI, label) or NAME.key."""

from collections.abc import Iterator
from pathlib import Path

from lsfa_jax.data.reading.compression import MAX_LINE, open_stream
from lsfa_jax.data.reading.rows import BadRow, BadRowError, Row, decode
from lsfa_jax.util.console import UserError, warn

_LABEL_SUFFIXES = (".tsv", ".key")


def text_documents(folder: Path) -> list[Path]:
    """Lists the text files of a folder that has subjects for one of them at least, by name."""
    texts = sorted(path for path in folder.glob("*.txt") if path.is_file())
    return texts if any(_subjects(path) for path in texts) else []


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
    for path in sorted(path for path in folder.glob("*.txt") if path.is_file()):
        subjects = _subjects(path) if labelled else None
        if labelled and subjects is None:
            without.append(path.name)
            continue
        where = path
        try:
            text = "\n".join(_lines(path, encoding))
            where = subjects or path
            lines = [line for line in _lines(subjects, encoding) if line.strip()] if subjects else []
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


def _lines(path: Path, encoding: str) -> list[str]:
    lines, size = [], 0
    with open_stream(path, encoding) as stream:
        for _, line in stream.lines():
            size += len(line) + 1
            if size > MAX_LINE:
                raise UserError(f"{path}: the document is longer than {MAX_LINE / 2**20:.0f} MiB. Split it.")
            lines.append(decode(line))
    return lines
