"""Reads documents with their label names from JSON Lines files, with file and line in every error."""

import gzip
import json
import lzma
import reprlib
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, cast

from lsfa_jax.console import UserError

_MAX_LINE = 64 * 2**20
_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.xz")
_SPLIT_STEMS = {"train": ("train",), "test": ("test",), "validation": ("validation", "valid", "dev")}


@dataclass(frozen=True)
class Document:
    """One text with the names of its labels."""

    text: str
    labels: tuple[str, ...]


@dataclass
class ReadReport:
    """What became of the rows of one or more files.

    `read == kept + skipped.total()` once the files are read to their end; blank lines are no rows.

    Attributes:
        read: rows seen.
        kept: rows handed on as documents.
        skipped: rows left out, by reason.
        notes: things worth knowing about what was kept ('empty text', 'no labels', 'duplicate labels') and blank lines.
        first: for each reason and note, the 'file:line' where it was seen first.
    """

    read: int = 0
    kept: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """Returns one line for people."""
        parts = [f"{self.read:,} rows read, {self.kept:,} kept"]
        for title, counts in (("skipped", self.skipped), ("noted", self.notes)):
            if counts:
                listed = (f"{n:,} {what} (first {self.first[what]})" for what, n in counts.most_common())
                parts.append(f"{title}: {', '.join(listed)}")
        return "; ".join(parts)

    def _count(self, counts: Counter[str], what: str, where: str) -> None:
        counts[what] += 1
        self.first.setdefault(what, where)


class _BadRowError(Exception):
    def __init__(self, reason: str, expected: str, found: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self.explanation = f"{reason}: expected {expected}, found {reprlib.repr(found)}"


@contextmanager
def open_text(path: Path) -> Iterator[IO[bytes]]:
    """Opens a plain, gzip or xz file as a stream of bytes; the content decides which, not the name.

    Raises:
        UserError: the file cannot be opened.
    """
    try:
        raw = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({error.strerror}). Check the path.") from None
    with raw:
        magic = raw.peek(6)
        if magic.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=raw) as stream:
                yield cast(IO[bytes], stream)
        elif magic.startswith(b"\xfd7zXZ\x00"):
            with lzma.LZMAFile(raw) as stream:
                yield cast(IO[bytes], stream)
        else:
            yield raw


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields each line of a plain, gzip or xz file with its number from 1, without line end or UTF-8 byte order mark.

    Raises:
        UserError: the file cannot be opened, its compressed data are damaged or cut off, or a line is over 64 MiB.
    """
    with open_text(path) as stream:
        number = 0
        while True:
            number += 1
            try:
                line = stream.readline(_MAX_LINE + 1)
            except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
                raise UserError(
                    f"{path}:{number}: cannot be read further ({error}). "
                    "The file is damaged or cut off: fetch or compress it again."
                ) from None
            if not line:
                return
            if len(line) > _MAX_LINE:
                raise UserError(
                    f"{path}:{number}: the line is longer than {_MAX_LINE / 2**20:.0f} MiB. Expected one document a "
                    "line: check that the file is JSON Lines (not one JSON array), or split the document."
                )
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            yield number, line.rstrip(b"\r\n")


def read_jsonl(
    path: Path,
    *,
    text_field: str = "text",
    labels_field: str = "labels",
    bad_rows: Literal["stop", "skip"] = "stop",
    report: ReadReport,
) -> Iterator[Document]:
    """Yields the documents of a JSON Lines file (UTF-8, plain, gzip or xz), one JSON object a line.

    The text is a string or a list of tokens, which are joined with spaces. Labels are a list of non-empty strings;
    repeated ones are merged in order. Other fields are ignored. Documents with empty text or without labels are
    yielded too, and counted as notes.

    Args:
        path: the file.
        text_field: the name of the field that holds the text.
        labels_field: the name of the field that holds the labels.
        bad_rows: whether a row that cannot be used stops the reading or is left out and counted.
        report: filled in while the documents are drawn.

    Raises:
        UserError: a bad row when `bad_rows` is 'stop', a file without a single usable row, or a file that `read_lines`
            refuses.
    """
    kept_before, skipped_before = report.kept, report.skipped.total()
    for number, line in read_lines(path):
        where = f"{path}:{number}"
        if not line.strip():
            report._count(report.notes, "blank line", where)
            continue
        report.read += 1
        try:
            text, labels = _parse_row(line, text_field, labels_field)
        except _BadRowError as bad:
            if bad_rows == "stop":
                raise UserError(
                    f"{where}: {bad.explanation}. Mend the row, or leave such rows out with `--data.bad-rows skip`."
                ) from None
            report._count(report.skipped, bad.reason, where)
            continue
        document = Document(text, tuple(dict.fromkeys(labels)))
        report.kept += 1
        if len(document.labels) < len(labels):
            report._count(report.notes, "duplicate labels", where)
        if not document.labels:
            report._count(report.notes, "no labels", where)
        if not text.strip():
            report._count(report.notes, "empty text", where)
        yield document
    if report.kept == kept_before:
        skipped = report.skipped.total() - skipped_before
        found = f"all {skipped:,} rows were skipped ({report.summary()})" if skipped else "the file is empty"
        raise UserError(
            f"{path}: holds no documents: {found}. Expected one JSON object a line: "
            f'{{"{labels_field}": ["..."], "{text_field}": "..."}}.'
        )


def _parse_row(line: bytes, text_field: str, labels_field: str) -> tuple[str, list[str]]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        found = line[max(0, error.start - 10) : error.end + 10]
        raise _BadRowError("invalid UTF-8", "text encoded as UTF-8", found) from None
    except (ValueError, RecursionError):
        raise _BadRowError("not JSON", "one JSON object on the line", line.decode("utf-8")) from None
    if not isinstance(row, dict):
        raise _BadRowError("not an object", f'{{"{labels_field}": [...], "{text_field}": "..."}}', row)
    for name in (text_field, labels_field):
        if name not in row:
            raise _BadRowError(f"no field '{name}'", f"the fields '{text_field}' and '{labels_field}'", list(row))

    text, labels = row[text_field], row[labels_field]
    if isinstance(text, list) and all(isinstance(token, str) for token in text):
        text = " ".join(text)
    if not isinstance(text, str):
        raise _BadRowError(f"'{text_field}' is not text", "a string or a list of strings", text)
    if not isinstance(labels, list):
        raise _BadRowError(f"'{labels_field}' is not a list", "a list of strings", labels)
    for label in labels:
        if not isinstance(label, str):
            advice = f'a list of strings (write label numbers in quotes, such as "{reprlib.repr(label)}")'
            raise _BadRowError(f"a label in '{labels_field}' is not a string", advice, label)
        if not label.strip():
            raise _BadRowError(f"a label in '{labels_field}' is empty", "non-empty strings", label)
    try:
        "\n".join([text, *labels]).encode("utf-8")
    except UnicodeEncodeError as error:
        # Half a surrogate pair, as \ud83d from an emoji cut in two: no file could hold it as UTF-8.
        raise _BadRowError("invalid Unicode", "whole characters", error.object[error.start : error.end]) from None
    return text, labels


def find_splits(data_dir: Path) -> dict[str, Path]:
    """Finds the files of the splits in a folder.

    Returns:
        The paths under 'train', 'test' and, where there is one (named validation, valid or dev), 'validation'.

    Raises:
        UserError: no such folder, no file for training or test, or two files for one split.
    """
    try:
        present = sorted(entry.name for entry in data_dir.iterdir())
    except OSError as error:
        raise UserError(f"{data_dir}: not a folder that can be read ({error.strerror}). Check the path.") from None
    splits = {}
    for split, stems in _SPLIT_STEMS.items():
        names = [stem + suffix for stem in stems for suffix in _SUFFIXES]
        found = [name for name in names if (data_dir / name).is_file()]
        if len(found) > 1:
            raise UserError(f"{data_dir}: {' and '.join(found)} both could be the {split} split. Keep one of them.")
        if found:
            splits[split] = data_dir / found[0]
        elif split != "validation":
            listed = ", ".join(present[:20]) + (f" and {len(present) - 20} more" if len(present) > 20 else "")
            raise UserError(
                f"{data_dir}: no file for the {split} split; expected {split}.jsonl, {split}.jsonl.gz or "
                f"{split}.jsonl.xz, found {listed or 'nothing'}."
            )
    return splits
