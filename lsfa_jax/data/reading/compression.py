"""Files and standard input as lines of bytes, decompressed as they are read, with file and line in every error."""

import bz2
import codecs
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import zstandard

from lsfa_jax.data.reading.rows import decode
from lsfa_jax.util.console import UserError

MAX_LINE = 64 * 2**20
"""Bytes of a line or of a document; longer ones are an error."""
HEAD_SIZE = 2**20
"""Bytes from which the format of a file is detected."""

_BOM = b"\xef\xbb\xbf"
# That of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# Compressed data are fed in small steps, since a step may grow 30,000-fold (zstd): that bounds the memory.
_COMPRESSED_STEP = 2**10
_PLAIN_STEP = 2**18
# Data that decompress to more than this size, and to more than this many times their compressed size, are refused.
_BOMB_SIZE = 256 * 2**20
_BOMB_RATIO = 200
_DECODER_MEMORY = 256 * 2**20


class _Decoder(Protocol):
    """Decompresses one member (gzip, bzip2), stream (xz) or frame (Zstandard), as zlib, bz2 and lzma define it."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


# The libraries' decoders and not their file classes: bz2.BZ2File and lzma.LZMAFile drop everything behind the first
# member without an error where the second one is damaged, LZMAFile has no memory limit, and zstandard's stream_reader
# takes a file that was cut off for complete (CPython 3.11, zstandard 0.25).
_DECODERS: tuple[tuple[re.Pattern[bytes], Callable[[], _Decoder]], ...] = (
    (re.compile(rb"\x1f\x8b\x08"), lambda: zlib.decompressobj(wbits=31)),
    (re.compile(rb"\xfd7zXZ\x00"), lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_DECODER_MEMORY)),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), bz2.BZ2Decompressor),
    (
        # The second is a skippable frame, which pzstd writes first.
        re.compile(rb"\x28\xb5\x2f\xfd|\x50\x2a\x4d\x18"),
        lambda: zstandard.ZstdDecompressor(max_window_size=_DECODER_MEMORY).decompressobj(),
    ),
)
_LONGEST_MAGIC = 10
_READ_ERRORS = (zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError, OSError, MemoryError, ValueError)


def refuse_bomb(name: str, unpacked: int, packed: int) -> None:
    """Raises UserError where `unpacked` bytes from `packed` ones mean a decompression bomb."""
    if unpacked > max(_BOMB_SIZE, _BOMB_RATIO * packed):
        raise UserError(
            f"{name}: unpacks to more than {_BOMB_SIZE / 2**20:.0f} MiB and {_BOMB_RATIO} times its compressed size, "
            "as only a decompression bomb does. If you trust the file, unpack it first."
        )


def _decompressed(packed: Iterator[bytes], new_decoder: Callable[[], _Decoder], name: str) -> Iterator[bytes]:
    """Yields the content of one or more compressed members, with or without zeros between them.

    Raises:
        EOFError: the data end within a member.
        UserError: the data are a decompression bomb.
    """
    consumed = produced = 0
    decoder = new_decoder()
    for data in packed:
        consumed += len(data)
        while data:
            if decoder.eof:
                data = data.lstrip(b"\0")
                if not data:
                    break
                decoder = new_decoder()
            decoded = decoder.decompress(data)
            data = decoder.unused_data if decoder.eof else b""
            produced += len(decoded)
            refuse_bomb(name, produced, consumed)
            if decoded:
                yield decoded
    if not decoder.eof:
        raise EOFError("the compressed data end too early")


class _ChunkReader(io.RawIOBase):
    """Reads an iterator of non-empty bytes as a raw stream, so that io.BufferedReader splits it into lines."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._chunk:
            self._chunk = memoryview(next(self._chunks, b""))
        size = min(len(buffer), len(self._chunk))
        buffer[:size] = self._chunk[:size]
        self._chunk = self._chunk[size:]
        return size


class Stream:
    """The content of a file or a pipe, decompressed; the first bytes decide how, not the name.

    Attributes:
        name: for messages.
        compressed: whether it was compressed.
    """

    def __init__(self, raw: BinaryIO, name: str, encoding: str = "auto") -> None:
        self.name = name
        self._encoding = encoding
        # read1 returns what a pipe has so far; read would wait for the full size.
        self._read = cast(Callable[[int], bytes], getattr(raw, "read1", raw.read))
        self._interactive = raw.isatty()
        start = b""
        try:
            # No magic number has a line end: a short line in a pipe is not kept waiting for the next one.
            while len(start) < _LONGEST_MAGIC and b"\n" not in start and (data := self._read(_LONGEST_MAGIC)):
                start += data
        except OSError as error:
            self._chunks = _raising(error)
            self.compressed = False
            return
        decoder = next((decoder for magic, decoder in _DECODERS if magic.match(start)), None)
        self.compressed = decoder is not None
        packed = chain([start] if start else [], self._blocks())
        unpacked = _decompressed(packed, decoder, name) if decoder else packed
        self._chunks = _as_utf8(unpacked, encoding)

    def _blocks(self) -> Iterator[bytes]:
        size = _COMPRESSED_STEP if self.compressed else _PLAIN_STEP
        while data := self._read(size):
            yield data

    def head(self) -> bytes:
        """Returns the first MiB, or everything where there is less; `lines` starts with it all the same.

        To be called before `lines`. On a terminal it is the first line, so that the user gets an answer to it.
        """
        chunks: list[bytes] = []
        size = 0
        following = self._chunks
        try:
            for chunk in self._chunks:
                chunks.append(chunk)
                size += len(chunk)
                if size >= HEAD_SIZE or self._interactive:
                    break
        except UnicodeError as error:
            raise UserError(
                f"{self.name}: is not in the encoding {self._encoding} ({error}). Leave the option out, for UTF-8, or "
                "name another."
            ) from None
        except (*_READ_ERRORS, UserError) as error:
            # `lines` raises it, after the lines before the damage.
            following = _raising(error)
        self._chunks = chain(chunks, following)
        return _without_bom(b"".join(chunks)[:HEAD_SIZE])

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yields each line with its number from 1, without line end or UTF-8 byte order mark.

        Raises:
            UserError: the compressed data are damaged, cut off or a decompression bomb, or a line is over 64 MiB.
        """
        buffer = io.BufferedReader(_ChunkReader(self._chunks), HEAD_SIZE)
        number = 0
        while True:
            number += 1
            try:
                line = buffer.readline(MAX_LINE + 1)
            except _READ_ERRORS as error:
                raise UserError(
                    f"{self.name}:{number}: cannot be read further ({str(error) or type(error).__name__}). "
                    "The file is damaged or cut off: fetch or compress it again."
                ) from None
            if not line:
                return
            if len(line) > MAX_LINE:
                raise UserError(
                    f"{self.name}:{number}: the line is longer than {MAX_LINE / 2**20:.0f} MiB. Expected one document "
                    "a line: check that the file is of that format (not one JSON array), or split the document."
                )
            if number == 1:
                line = _without_bom(line)
                if not line:
                    return
            yield number, line.rstrip(b"\r\n")


def _without_bom(data: bytes) -> bytes:
    """Removes UTF-8 byte order marks from the start, of which files that were converted twice have two."""
    while data.startswith(_BOM):
        data = data[len(_BOM) :]
    return data


def _as_utf8(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Yields the content in UTF-8; 'auto' takes it for UTF-16 or UTF-32 where it begins with their byte order mark.

    A byte that the encoding does not have remains as it is: the row with it is then reported as not UTF-8.

    Raises:
        UnicodeError: the content is not in an encoding of several bytes a character.
    """
    first = next(chunks, b"")
    # A short line that a user types does not wait for the next one.
    while 0 < len(first) < 4 and b"\n" not in first and (more := next(chunks, b"")):
        first += more
    if encoding == "auto":
        encoding = next((name for mark, name in _MARKS if first.startswith(mark)), "utf-8")
    if codecs.lookup(encoding).name == "utf-8":
        yield from chain([first] if first else [], chunks)
        return
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
    for chunk in chain([first], chunks):
        if text := decoder.decode(chunk):
            yield text.encode("utf-8", "surrogateescape")
    if rest := decoder.decode(b"", final=True):
        yield rest.encode("utf-8", "surrogateescape")


def _raising(error: Exception) -> Iterator[bytes]:
    raise error
    yield b""


@contextmanager
def open_stream(source: Path | BinaryIO, encoding: str = "auto") -> Iterator[Stream]:
    """Opens a plain, gzip, xz, bzip2 or Zstandard file, or such a stream of bytes, whose lines are then UTF-8.

    Args:
        source: the file or stream.
        encoding: of its text; 'auto' is UTF-8, or UTF-16 with a byte order mark.

    Raises:
        UserError: the file cannot be opened.
    """
    if not isinstance(source, Path):
        name = getattr(source, "name", "")
        yield Stream(source, "standard input" if name in ("<stdin>", 0, "") else str(name), encoding)
        return
    try:
        raw = source.open("rb")
    except OSError as error:
        raise UserError(f"{source}: cannot be opened ({error.strerror}). Check the path.") from None
    with raw:
        yield Stream(raw, str(source), encoding)


def document_lines(path: Path, encoding: str) -> list[str]:
    """Reads the lines of a file that is one document.

    Raises:
        BadRowError: a line is not in the encoding.
        UserError: the file cannot be read, or is over 64 MiB.
    """
    lines, size = [], 0
    with open_stream(path, encoding) as stream:
        for _, line in stream.lines():
            size += len(line) + 1
            if size > MAX_LINE:
                raise UserError(f"{path}: the document is longer than {MAX_LINE / 2**20:.0f} MiB. Split it.")
            lines.append(decode(line))
    return lines


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields each line of a plain or compressed file with its number from 1, without line end or byte order mark.

    Raises:
        UserError: the file cannot be opened, is damaged, cut off or a decompression bomb, or a line is over 64 MiB.
    """
    with open_stream(path) as stream:
        yield from stream.lines()
