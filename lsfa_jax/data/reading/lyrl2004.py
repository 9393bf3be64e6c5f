"""The token files of LYRL2004 (Lewis et al., 2004), the official form of RCV1, and their file of topics."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from lsfa_jax.data.reading.compression import MAX_LINE, Stream, open_stream
from lsfa_jax.data.reading.rows import BadRow, BadRowError, Placed, Row, decode
from lsfa_jax.util.console import UserError, warn

TOPICS = "rcv1-v2.topics.qrels"
"""The name of the file with the labels of all documents."""

NUM_DOCUMENTS = {"lyrl2004_tokens_train": 23_149, "lyrl2004_tokens_test": 781_265}
"""Documents of the official split."""


def token_file_rows(texts: Iterable[Path], topics: Path | None, encoding: str) -> Placed:
    """Yields the documents of token files: '.I id', '.W', lines of tokens.

    Args:
        texts: the token files, read one after another.
        topics: the file with a line 'topic id 1' for each label of a document; None for documents without labels.
        encoding: of the files.

    Raises:
        UserError: a file cannot be read, or a line of the topics is not of that form.
    """
    labels = _read_topics(topics, encoding) if topics else {}
    counts: dict[str, int] = {}
    for path in texts:
        with open_stream(path, encoding) as stream:
            split = path.name.partition(".")[0].partition("_pt")[0]
            for number, row in _documents(stream):
                counts[split] = counts.get(split, 0) + 1
                if isinstance(row, Row) and topics:
                    row.labels.extend(labels.get(row.id.encode(), ()))
                yield f"{stream.name}:{number}", row
    for split, count in counts.items():
        if split in NUM_DOCUMENTS and count != NUM_DOCUMENTS[split]:
            warn(f"{split}: {count:,} documents, the official split has {NUM_DOCUMENTS[split]:,}")


def _read_topics(path: Path, encoding: str) -> dict[bytes, tuple[str, ...]]:
    """Returns the topics of each document id."""
    labels: dict[bytes, tuple[str, ...]] = {}
    # Most documents share a few sets of topics: one tuple for each set keeps 800,000 documents small in memory.
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}
    with open_stream(path, encoding) as stream:
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
                    extended = (*labels.get(columns[1], ()), decode(columns[0]))
                except BadRowError as bad:
                    raise UserError(f"{path}:{number}: {bad.at(number)}. Fetch the file again.") from None
                labels[columns[1]] = shared.setdefault(extended, extended)
    return labels


class _TokenDocument:
    """A document while its lines are read."""

    def __init__(self, number: int, line: bytes) -> None:
        self.number = number
        self.has_words = False
        self.size = 0
        self.parts: list[str] = []
        self.id = ""
        self.error: BadRowError | None = None
        try:
            self.id = decode(line[2:]).strip()
            if not self.id or line[2:3] != b" ":
                raise BadRowError("no document id", "a line such as .I 2286", line)
        except BadRowError as bad:
            self.error = bad

    def add(self, line: bytes) -> None:
        """Adds a line of tokens."""
        self.size += len(line)
        try:
            self.parts.append(decode(line))
            if not self.has_words:
                raise BadRowError("no .W line", "a line .W and tokens behind .I", line[:200])
        except BadRowError as bad:
            self.error = self.error or bad

    def row(self) -> Row | BadRow:
        if self.error:
            return self.error.at(self.number)
        if not self.has_words:
            return BadRowError("no .W line", "a line .W and tokens behind .I", self.id).at(self.number)
        return Row(self.number, " ".join(self.parts), [], self.id)


def _documents(stream: Stream) -> Iterator[tuple[int, Row | BadRow]]:
    """Yields each document with the number of its first line."""
    document: _TokenDocument | None = None
    for number, line in stream.lines():
        if line.startswith(b".I"):
            if document:
                yield document.number, document.row()
            document = _TokenDocument(number, line)
        elif not line.strip():
            continue
        elif document is None:
            # Each such line is reported, since it may be the rest of a document.
            bad = BadRowError("a line outside a document", "a line such as .I 2286 first", line[:200])
            yield number, bad.at(number)
        elif line.rstrip() == b".W" and not document.has_words:
            document.has_words = True
        else:
            document.add(line)
            if document.size > MAX_LINE:
                raise UserError(f"{stream.name}:{number}: the document is longer than {MAX_LINE / 2**20:.0f} MiB.")
    if document:
        yield document.number, document.row()
