"""The format of a text file and its layout, from its first MiB. What is not clear is an error."""

import json
import re
import reprlib
from collections import Counter
from collections.abc import Iterator, Sequence

from lsfa_jax.data.reading.compression import HEAD_SIZE
from lsfa_jax.data.reading.label_cells import LIST, SINGLE, WHOLE
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.data.reading.rows import Layout
from lsfa_jax.data.reading.table_layout import has_clear_header, is_named_a_table, table_layout
from lsfa_jax.data.reading.typed_layout import typed_layout
from lsfa_jax.util.console import UserError

NUM_ROWS = 1_000
"""Rows that the layout is detected from."""

# From how many lines on that are not UTF-8, if they are most, the file is refused at once.
_BROKEN_LINES = 10

_SEPARATOR_NAMES = {
    LIST: "as a list",
    SINGLE: "one a row",
    WHOLE: "one a row",
    " ": "separated by spaces",
    "\t": "separated by tabs",
    "\n": "separated by line ends",
}
_ARCHIVES = {b"PK\x03\x04": "zip (or an Excel file)", b"7z\xbc\xaf'\x1c": "7z", b"Rar!\x1a\x07": "rar"}
_OTHER_FILES = {
    b"%PDF": "a PDF",
    b"{\\rtf": "RTF",
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"SQLite format 3": "an SQLite database",
    b"\x93NUMPY": "a NumPy array",
    b"ARROW1": "an Arrow file",
    b"FEA1": "a Feather file",
    b"ORC": "an ORC file",
    b"\x80\x04": "a Python pickle, which is never loaded",
    b"\x80\x05": "a Python pickle, which is never loaded",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
    b"<?xml": "XML",
    b"<!DOCTYPE": "HTML or XML",
    b"<html": "HTML",
}
_BINARY_FILES = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"RIFF": "a sound, a video or a picture",
    b"\x7fELF": "a program",
    b"\x89HDF": "HDF5",
}
# Control characters but tab, line ends and escape. A text may have a few; of bytes at random, a tenth are some.
_CONTROLS = bytes({*range(32)} - set(b"\t\n\x0b\x0c\r\x1b"))
_MOST_CONTROLS = 16
_FEATURES = re.compile(rb"(\d+(,\d+)*)?(\s+\d+:[-+.\deE]+)+\s*")
_OBJECT = re.compile(rb'\s*\{\s*(["}]|$)')
_FASTTEXT = re.compile(rb"\s*(__\w+?__)\S")
_LABEL_WORD = re.compile(rb'(^|[\s,"])__label__\S')
_LABEL_CELL = re.compile(rb'(^|[\t,;|])"?__label__[^\s,]+"?([\t,;|]|$)')
_ENCODINGS = ("cp1252", "cp1251", "gb18030", "shift_jis", "euc_kr")


def describe(layout: Layout) -> str:
    """Describes how a file is read: 'csv, text from 'abstract', labels from 'tags' separated by ;'."""
    how = _SEPARATOR_NAMES.get(layout.separator, f"separated by {layout.separator!r}")
    if layout.format in ("lyrl2004", "txt"):
        return {"lyrl2004": "lyrl2004", "txt": "txt, one document a line"}[layout.format]
    if layout.format == "fasttext":
        use = "the labels" if layout.labels else "labels, which are not read"
        return f"fasttext, words that begin with {layout.prefix} are {use}"
    if layout.format == "pair":
        return "pair" + (f", labels {how}" if layout.labels else "")
    parts = [layout.format + ("" if layout.header else " without a header")]
    parts.append(f"text from {_quoted(layout.texts)}")
    if layout.label_kind == "indicators":
        parts.append(f"labels are the {len(layout.labels)} columns of 0 and 1 {_quoted(layout.labels)}")
    elif layout.label_kind == "multi_hot":
        parts.append(f"labels from {_quoted(layout.labels)}, lists of 0 and 1 with a place for each of {layout.width}")
    elif layout.labels:
        parts.append(f"labels from {_quoted(layout.labels)}" + (f" {how}" if layout.separator else ""))
    if layout.unquote:
        parts.append("without the quotes around labels")
    if layout.id:
        parts.append(f"ids from {layout.id!r}")
    if layout.unread:
        parts.append(f"not read: {_quoted(layout.unread)}")
    return ", ".join(parts)


def _quoted(names: Sequence[str]) -> str:
    shown = [repr(name) for name in (names if len(names) <= 8 else [*names[:6], names[-1]])]
    return ", ".join(shown) if len(names) <= 8 else f"{', '.join(shown[:-1])} ... {shown[-1]}"


def detect(head: bytes, name: str, options: ReadOptions) -> Layout:
    """Detects how a file is to be read.

    Args:
        head: the file's first MiB, or all of it, without byte order mark.
        name: of the file, for messages.
        options: what the user specified.

    Raises:
        UserError: two formats are possible, no column is known for the text or the labels, or the file is not text.
    """
    _check_is_text(head, name, options)
    lines = _complete_lines(head)
    _check_encoding(lines, name, options)
    chosen = _format(lines, name, options) if options.format == "auto" else options.format
    if chosen == "jsonl":
        rows = list(_json_objects(lines))
        return typed_layout("jsonl", rows, name, options)
    if chosen in ("csv", "tsv", "table"):
        return table_layout(lines, name, options, chosen)
    if chosen == "libmultilabel":
        return _libmultilabel_layout(lines, options)
    if chosen == "fasttext":
        match = next(filter(None, map(_FASTTEXT.match, lines)), None)
        prefix = "__label__"
        if match and not any(b"__label__" in line for line in lines):
            prefix = match[1].decode("utf-8", "replace")
        _check_ends_of_labels(lines, prefix.encode(), name)
        return Layout("fasttext", ("text",), ("labels",) if options.labelled else (), prefix=prefix)
    if chosen == "pair":
        return Layout(
            "pair", ("text",), ("labels",) if options.labelled else (), separator=options.label_separator or " "
        )
    return Layout(chosen)


def _check_is_text(head: bytes, name: str, options: ReadOptions) -> None:
    for magic, archive in _ARCHIVES.items():
        if head.startswith(magic):
            raise UserError(f"{name}: is a {archive} archive. Unpack it, or save the sheet as CSV, and give that file.")
    for magic, kind in _OTHER_FILES.items():
        if head.startswith(magic):
            raise UserError(f"{name}: is {kind}. Write its texts and labels as JSON Lines, CSV or Parquet.")
    for magic, kind in _BINARY_FILES.items():
        if head.startswith(magic):
            raise UserError(f"{name}: is {kind}, not text. Give a file of texts: CSV, TSV, JSON Lines, Parquet.")
    if head[257:262] == b"ustar":
        raise UserError(f"{name}: is a tar archive. Unpack it and give the folder or file in it.")
    sample = head[:4096]
    if (len(sample) > 3 and 5 * sample.count(0) >= 2 * len(sample)) or _is_binary(sample):
        raise UserError(
            f"{name}: is a binary file, not text, or UTF-16 without a byte order mark. If it is UTF-16, set "
            f"{options.option('encoding')} utf-16-le (or utf-16-be)."
        )
    if b"\x1b$" in head or b"\x1b(J" in head:
        raise UserError(f"{name}: is in ISO-2022-JP. Set {options.option('encoding')} iso2022_jp.")
    if b"\r" in sample and b"\n" not in head and sample.count(b"\r") > 1:
        raise UserError(
            f"{name}: lines end with a carriage return alone, as on old Macs. Convert it: tr '\\r' '\\n' < FILE > NEW"
        )


def _is_binary(sample: bytes) -> bool:
    """Whether bytes are neither UTF-8 nor a text in another encoding."""
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    is_utf8 = len(sample.decode("utf-8", "ignore").encode()) > len(sample) - 4  # the last character may be cut off
    return controls >= _MOST_CONTROLS and 20 * controls > len(sample) and not is_utf8


def _check_encoding(lines: Sequence[bytes], name: str, options: ReadOptions) -> None:
    """Raises UserError where most lines that are not ASCII are not UTF-8 either; names what the encoding may be."""
    lines = [line for line in lines if not line.isascii()]
    broken = [line for line in lines if line != line.decode("utf-8", "ignore").encode()]
    if len(broken) < _BROKEN_LINES or 2 * len(broken) <= len(lines):
        return
    raise UserError(
        f"{name}: {len(broken):,} of the first {len(lines):,} lines that are not plain ASCII are not UTF-8 either: the "
        f"file is in another encoding. {readings(broken[0])}. Set {options.option('encoding')} to the right one."
    )


def readings(line: bytes) -> str:
    """Shows what a line that is not UTF-8 reads like in encodings that are common, so that the user can choose."""
    start = next((place for place, byte in enumerate(line) if byte > 127), 0)
    # From the beginning of a word, so that no character of two bytes is cut in the middle.
    part = line[max(0, line.rfind(b" ", 0, start) + 1 if start < 40 or b" " in line[:start] else start - 12) :][:40]
    shown = []
    for encoding in _ENCODINGS:
        text = part.decode(encoding, "replace")
        # The last character may be cut in the middle.
        text = text.rstrip("\ufffd")
        if "\ufffd" not in text and not re.search(r"[\x80-\x9f]", text):
            shown.append(f"{encoding} reads {text!r}")
    return "; ".join(shown) or f"It has {part!r}"


def _complete_lines(head: bytes) -> list[bytes]:
    lines = head.split(b"\n")
    # The last line may be cut off; it is used where it is the only one.
    if len(head) >= HEAD_SIZE - 3 and len(lines) > 1:
        lines.pop()
    return [line.rstrip(b"\r") for line in lines if line.strip()][:NUM_ROWS]


def _format(lines: list[bytes], name: str, options: ReadOptions) -> str:
    if not lines:
        return "txt" if not options.labelled else "jsonl"
    first = lines[0].lstrip()
    objects = sum(_OBJECT.match(line) is not None for line in lines)
    if _is_json_document(first, objects, len(lines)):
        return "json"
    # A table may begin with a column of {...}: then its lines go on behind the brace.
    closed = sum(line.rstrip().endswith(b"}") for line in lines)
    if sum(line.lstrip().startswith(b"{'") and line.rstrip().endswith(b"}") for line in lines) > 0.5 * len(lines):
        raise UserError(
            f"{name}: its lines are Python dictionaries, with single quotes, not JSON. Write them with json.dumps."
        )
    if (2 * objects > len(lines) or _OBJECT.match(first)) and (
        2 * closed >= objects or not all(b"\t" in x for x in lines)
    ):
        return "jsonl"
    if first.startswith(b".I "):
        return "lyrl2004"
    _refuse_features(lines, name)
    return "fasttext" if _is_fasttext(lines, name, options) else "table"


def _check_ends_of_labels(lines: Sequence[bytes], prefix: bytes, name: str) -> None:
    """Raises UserError where no space stands between a label's comma and the text: __label__x,the first word."""
    words = [word for line in lines for word in line.split() if word.startswith(prefix)]
    joined = Counter(word for word in words if b"," in word.removesuffix(b",").replace(b"," + prefix, b""))
    if joined.total() > 0.5 * len(words):
        shown = next(iter(joined)).decode("utf-8", "replace")
        raise UserError(
            f"{name}: a label is not separated from the text by a space, as in {shown!r}. Write a space there; "
            "or name the file .csv if the comma separates columns."
        )


def _is_fasttext(lines: list[bytes], name: str, options: ReadOptions) -> bool:
    """Whether words of the lines are labels: those with the prefix __label__, or another one in nearly all lines."""
    marked = sum(_LABEL_WORD.search(line) is not None for line in lines)
    if marked and has_clear_header(lines, options):
        return False
    if marked:
        # In a column of a table it is a part of the labels' names.
        columns = sum(_LABEL_CELL.search(line) is not None for line in lines)
        is_table = is_named_a_table(name) and columns >= 0.9 * marked
        return not is_table and (2 * marked >= len(lines) or not options.labelled)
    prefixes = Counter(match[1] for line in lines if (match := _FASTTEXT.match(line)))
    prefix, number = max(prefixes.items(), key=lambda item: item[1], default=(b"", 0))
    words = {line.split()[0] for line in lines if line.lstrip().startswith(prefix)} if number else set()
    return number >= max(2, 0.9 * len(lines)) and len(words) > 1 and not any(b"(" in word for word in words)


def _is_json_document(first: bytes, objects: int, number: int) -> bool:
    """Whether a file is one JSON document: an array, or an object that is not one of a line each."""
    if first.startswith(b"["):
        following = first[1:].lstrip()[:1]
        return following in (b"{", b"", b"[", b'"') and (following != b"" or first.rstrip() == b"[")
    if not first.startswith(b"{"):
        return False
    if first.rstrip() == b"{" or first.rstrip().endswith(b"["):
        return True
    try:
        only = json.loads(first) if number == 1 else None
    except (ValueError, RecursionError):
        return number > 1 and objects < 0.5 * number
    return isinstance(only, dict) and bool(only) and all(isinstance(value, dict | list) for value in only.values())


def _refuse_features(lines: Sequence[bytes], name: str) -> None:
    """Raises UserError for numbers of words and their counts, which are not texts."""
    header = re.fullmatch(rb"\s*\d+\s+\d+\s+\d+\s*", lines[0]) is not None
    rows = lines[1:] if header and len(lines) > 1 else lines
    matching = sum(_FEATURES.fullmatch(line) is not None for line in rows)
    if matching >= 0.9 * len(rows):
        shown = reprlib.repr(rows[0].decode("utf-8", "replace"))
        raise UserError(
            f"{name}: holds bag-of-words features (numbers of words and their weights, as in {shown}), not texts. LSFA "
            "reads texts: get the raw text files of the same corpus, such as trn.json.gz or train_texts.txt."
        )


def _libmultilabel_layout(lines: list[bytes], options: ReadOptions) -> Layout:
    """Labels and text between tabs, after an id where all rows have a third column of different names."""
    rows = [line.split(b"\t") for line in lines]
    ids = [row[0] for row in rows]
    with_id = bool(rows) and all(len(row) >= 3 for row in rows) and not any(b" " in cell for cell in ids)
    with_id = with_id and 2 * len(set(ids)) >= len(ids)
    columns = ("id", "labels", "text") if with_id else ("labels", "text")
    return Layout(
        "libmultilabel",
        ("text",),
        ("labels",) if options.labelled else (),
        "id" if with_id else "",
        separator=options.label_separator or " ",
        delimiter="\t",
        columns=columns,
        header=False,
        quoted=False,
        unread=() if options.labelled else ("labels",),
    )


def _json_objects(lines: Sequence[bytes]) -> Iterator[dict[str, object]]:
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            yield row
