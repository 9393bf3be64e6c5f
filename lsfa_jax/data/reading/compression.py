"""Files and standard input as lines of bytes: decompressed on the way, with file and line in every error."""

import bz2
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from lsfa_jax.util.console import UserError

MAX_LINE = 64 * 2**20
HEAD_SIZE = 2**20
_BOM = b"\xef\xbb\xbf"

# Compressed data are fed in small steps, since a step may grow 30,000-fold (zstd): that bounds the memory.
_STEP = 2**10
_PLAIN_STEP = 2**18
# What unpacks to more than this, and to more than so many times its own size, is taken for a decompression bomb.
_BOMB_SIZE = 256 * 2**20
_BOMB_RATIO = 200
_DECODER_MEMORY = 256 * 2**20

_DECODERS: tuple[tuple[re.Pattern[bytes], Callable[[], Any]], ...] = (
    (re.compile(rb"\x1f\x8b\x08"), lambda: zlib.decompressobj(wbits=31)),
    (re.compile(rb"\xfd7zXZ\x00"), lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_DECODER_MEMORY)),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), bz2.BZ2Decompressor),
    (
        # The second is a frame to be skipped, as pzstd writes it first.
        re.compile(rb"\x28\xb5\x2f\xfd|\x50\x2a\x4d\x18"),
        lambda: zstandard.ZstdDecompressor(max_window_size=_DECODER_MEMORY).decompressobj(),
    ),
)
_LONGEST_MAGIC = 10
_DECODER_ERRORS = (zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError, OSError, MemoryError, ValueError)


def refuse_bomb(name: str, unpacked: int, packed: int) -> None:
    """Raises UserError where so many bytes come from so few that the file is taken for a decompression bomb."""
    if unpacked > max(_BOMB_SIZE, _BOMB_RATIO * packed):
        raise UserError(
            f"{name}: unpacks to more than {_BOMB_SIZE / 2**20:.0f} MiB and {_BOMB_RATIO} times its own size, as only "
            "a decompression bomb does. If you trust the file, unpack it first."
        )


class _DamagedError(Exception):
    """Nothing good follows in the file."""


class _Decoded(io.RawIOBase):
    """The decompressed bytes of a plain, gzip, xz, bzip2 or Zstandard stream; the content decides which.

    Errors are raised behind the last good byte: what comes before is handed on.
    """

    def __init__(self, raw: BinaryIO, name: str) -> None:
        self._raw, self._name = raw, name
        # A pipe hands on what is there; read() would wait until all is.
        self._read = cast(Callable[[int], bytes], getattr(raw, "read1", raw.read))
        self._consumed = self._produced = 0
        self._fault: _DamagedError | UserError | None = None
        # Who types gets an answer to the first line, not to the first MiB.
        self._first = not raw.isatty()
        self._ready = memoryview(b"")
        self._rest = b""
        self._new_decoder: Callable[[], Any] | None = None
        try:
            while len(self._rest) < _LONGEST_MAGIC and (chunk := self._take(_LONGEST_MAGIC)):
                self._rest += chunk
        except OSError as error:
            self._fault = _DamagedError(str(error))
        for magic, new_decoder in _DECODERS:
            if magic.match(self._rest):
                self._new_decoder = new_decoder
        self._decoder = self._new_decoder() if self._new_decoder else None

    @property
    def compressed(self) -> bool:
        return self._new_decoder is not None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        filled = 0
        # The first call fills the buffer, for the format to be detected from; later ones do not wait for more.
        while filled < len(target) and (self._first or not filled):
            if not self._ready and not self._fault:
                try:
                    self._ready = memoryview(self._decode())
                except UserError as error:
                    self._fault = error
                except _DECODER_ERRORS as error:
                    self._fault = _DamagedError(str(error) or type(error).__name__)
            if not self._ready:
                break
            part = self._ready[: len(target) - filled]
            target[filled : filled + len(part)] = part
            self._ready = self._ready[len(part) :]
            filled += len(part)
        self._first = False
        if not filled and self._fault:
            raise self._fault
        return filled

    def _take(self, size: int) -> bytes:
        data = self._read(size)
        self._consumed += len(data)
        return data

    def _decode(self) -> bytes:
        while True:
            data, self._rest = self._rest or self._take(_STEP if self.compressed else _PLAIN_STEP), b""
            if self._new_decoder is None:
                return data
            if not data:
                if self._decoder is not None:
                    raise EOFError("the compressed data end too early")
                return b""
            if self._decoder is None:
                # A file may be several compressed ones behind one another, with zeros between them.
                data = data.lstrip(b"\0")
                if not data:
                    continue
                self._decoder = self._new_decoder()
            decoded: bytes = self._decoder.decompress(data)
            if self._decoder.eof:
                self._rest, self._decoder = self._decoder.unused_data, None
            self._produced += len(decoded)
            refuse_bomb(self._name, self._produced, self._consumed)
            if decoded:
                return decoded


class Stream:
    """What a file or a pipe holds, decompressed.

    Attributes:
        name: for messages.
        compressed: whether it was compressed.
    """

    def __init__(self, raw: BinaryIO, name: str) -> None:
        self.name = name
        decoded = _Decoded(raw, name)
        self.compressed = decoded.compressed
        self._buffer = io.BufferedReader(decoded, HEAD_SIZE)

    def head(self) -> bytes:
        """Returns the first MiB, or all where there is less, before any line is drawn, and leaves it to be read."""
        try:
            return self._buffer.peek().removeprefix(_BOM)
        except _DamagedError:
            return b""

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yields each line with its number from 1, without line end or UTF-8 byte order mark.

        Raises:
            UserError: the compressed data are damaged, cut off or a decompression bomb, or a line is over 64 MiB.
        """
        number = 0
        while True:
            number += 1
            try:
                line = self._buffer.readline(MAX_LINE + 1)
            except _DamagedError as error:
                raise UserError(
                    f"{self.name}:{number}: cannot be read further ({error}). "
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
                line = line.removeprefix(_BOM)
                if not line:
                    return
            yield number, line.rstrip(b"\r\n")


@contextmanager
def open_stream(source: Path | BinaryIO) -> Iterator[Stream]:
    """Opens a plain, gzip, xz, bzip2 or Zstandard file, or such a stream of bytes; the content decides, not the name.

    Raises:
        UserError: the file cannot be opened.
    """
    if not isinstance(source, Path):
        name = getattr(source, "name", "")
        yield Stream(source, "standard input" if name in ("<stdin>", 0, "") else str(name))
        return
    try:
        raw = source.open("rb")
    except OSError as error:
        raise UserError(f"{source}: cannot be opened ({error.strerror}). Check the path.") from None
    with raw:
        yield Stream(raw, str(source))


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields each line of a plain or compressed file with its number from 1, without line end or byte order mark.

    Raises:
        UserError: the file cannot be opened, is damaged, cut off or a decompression bomb, or a line is over 64 MiB.
    """
    with open_stream(path) as stream:
        yield from stream.lines()
