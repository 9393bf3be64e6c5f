"""Formats whose labels lie in a file of their own: texts and labels line by line, and the token files of LYRL2004."""

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from lsfa_jax.data.reading.compression import MAX_LINE, Stream, open_stream
from lsfa_jax.data.reading.rows import BadRow, BadRowError, BlankLine, Layout, Row, decode, split_labels
from lsfa_jax.util.console import UserError, warn

Placed = Iterator[tuple[str, Row | BadRow | BlankLine]]

# Documents of the official split of RCV1 (Lewis et al., 2004).
_LYRL2004_DOCUMENTS = {"lyrl2004_tokens_train": 23_149, "lyrl2004_tokens_test": 781_265}


def pair(texts: Stream, labels: Stream, layout: Layout) -> Placed:
    """Line i of one file is document i, line i of the other its labels; a blank line is an empty one.

    Raises:
        UserError: the files have different numbers of lines.
    """
    count = ends = 0
    for text, cell in zip_longest(texts.lines(), labels.lines()):
        count += 1
        if text is None or cell is None:
            ends += 1
            continue
        number = text[0]
        name = texts.name
        try:
            document = decode(text[1])
            name = labels.name
            found, notes = split_labels(decode(cell[1]), layout.separator)
        except BadRowError as bad:
            yield f"{name}:{number}", bad.at(number)
            continue
        yield f"{texts.name}:{number}", Row(number, document, found, notes=notes)
    if ends:
        longer, shorter = (labels.name, texts.name) if text is None else (texts.name, labels.name)
        raise UserError(
            f"{shorter} has {count - ends:,} lines and {longer} {count:,}; expected as many, since line i of one "
            "belongs to line i of the other. One is cut off, or a text holds a line end: make them anew."
        )


def lyrl2004(texts: Iterable[Path], topics: Path | None) -> Placed:
    """Token files of RCV1: '.I id', '.W', lines of tokens; labels from 'topic id 1' in the file of topics.

    Raises:
        UserError: a file cannot be read, or a line of the topics is no judgement.
    """
    labels = _judgements(topics) if topics else {}
    counts: dict[str, int] = {}
    for path in texts:
        with open_stream(path) as stream:
            split = path.name.partition(".")[0].partition("_pt")[0]
            for number, row in _token_documents(stream):
                counts[split] = counts.get(split, 0) + 1
                if isinstance(row, Row) and topics:
                    row.labels.extend(labels.get(row.id.encode(), ()))
                yield f"{stream.name}:{number}", row
    for split, count in counts.items():
        if split in _LYRL2004_DOCUMENTS and count != _LYRL2004_DOCUMENTS[split]:
            warn(f"{split}: {count:,} documents, the official split has {_LYRL2004_DOCUMENTS[split]:,}")


def _judgements(path: Path) -> dict[bytes, tuple[str, ...]]:
    labels: dict[bytes, tuple[str, ...]] = {}
    # Few sets of topics serve most documents: one tuple for all that share it keeps 800,000 documents small.
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}
    with open_stream(path) as stream:
        for number, line in stream.lines():
            columns = line.split()
            if not columns:
                continue
            if len(columns) != 3 or columns[2] not in (b"0", b"1"):
                shown = line[:60].decode("utf-8", "replace")
                raise UserError(
                    f"{path}:{number}: expected a topic, a document id and 1, got {shown!r}. Fetch the file again."
                )
            if columns[2] == b"1":
                try:
                    grown = (*labels.get(columns[1], ()), decode(columns[0]))
                except BadRowError as bad:
                    raise UserError(f"{path}:{number}: {bad.at(number)}. Fetch the file again.") from None
                labels[columns[1]] = shared.setdefault(grown, grown)
    return labels


def _token_documents(stream: Stream) -> Iterator[tuple[int, Row | BadRow]]:
    start, own, parts, size = 0, "", list[str](), 0
    error: BadRowError | None = None
    has_words = False

    def finished() -> Row | BadRow:
        if error:
            return error.at(start)
        if not has_words:
            return BadRowError("no .W line", "a line .W and tokens behind .I", own).at(start)
        return Row(start, " ".join(parts), [], own)

    for number, line in stream.lines():
        if line.startswith(b".I"):
            if start:
                yield start, finished()
            start, own, parts, size, error, has_words = number, "", [], 0, None, False
            try:
                own = decode(line[2:]).strip()
                if not own or line[2:3] != b" ":
                    raise BadRowError("no document id", "a line such as .I 2286", line)
            except BadRowError as bad:
                error = bad
        elif not line.strip():
            continue
        elif not start:
            # Each is reported: what stands before the first document may be the rest of one.
            yield (
                number,
                BadRowError("a line outside a document", "a line such as .I 2286 first", line[:200]).at(number),
            )
        elif line.rstrip() == b".W" and not has_words:
            has_words = True
        else:
            size += len(line)
            if size > MAX_LINE:
                raise UserError(f"{stream.name}:{number}: the document is longer than {MAX_LINE / 2**20:.0f} MiB.")
            try:
                parts.append(decode(line))
                if not has_words:
                    raise BadRowError("no .W line", "a line .W and tokens behind .I", line[:200])
            except BadRowError as bad:
                error = error or bad
    if start:
        yield start, finished()
