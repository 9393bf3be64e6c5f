import bz2
import gzip
import io
import lzma
import os
import subprocess
import tracemalloc

import pytest
import zstandard

from lsfa_jax.data.reading import compression
from lsfa_jax.data.reading.compression import Stream, open_stream, read_lines
from lsfa_jax.util.console import UserError

PACKERS = {"plain": bytes, "gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress, "zst": zstandard.compress}
packers = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
compressors = pytest.mark.parametrize("pack", list(PACKERS.values())[1:], ids=list(PACKERS)[1:])


def lines_of(content):
    return [line for _, line in Stream(io.BytesIO(content), "x").lines()]


@packers
def test_the_content_decides_the_compression_and_members_are_joined(pack, tmp_path):
    path = tmp_path / "named.jsonl"
    path.write_bytes(pack(b"one\r\ntwo") + pack(b"\n\nthree"))
    assert list(read_lines(path)) == [(1, b"one"), (2, b"two"), (3, b""), (4, b"three")]


@packers
def test_a_pipe_is_read_like_a_file(pack, tmp_path):
    (tmp_path / "x").write_bytes(pack(os.urandom(300_000).hex().encode() + b"\nend\n"))
    with (
        subprocess.Popen(["cat", tmp_path / "x"], stdout=subprocess.PIPE) as cat,
        open_stream(cat.stdout) as stream,
    ):
        assert [len(line) for _, line in stream.lines()] == [600_000, 3]


def test_the_head_is_read_again_by_lines():
    content = b"\xef\xbb\xbfabc\n" * 400_000
    stream = Stream(io.BytesIO(gzip.compress(content, mtime=0)), "x")
    assert stream.head() == content[3 : compression.HEAD_SIZE]
    assert b"\n".join(line for _, line in stream.lines()) + b"\n" == content[3:]


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0), zstandard.compress(b"")])
def test_empty_content_has_no_lines(content):
    assert lines_of(content) == []


@compressors
def test_every_truncation_is_an_error_that_names_the_line(pack):
    content = b"".join(b"%d %s\n" % (number, os.urandom(20).hex().encode()) for number in range(200))
    packed = pack(content)
    for end in range(11, len(packed), 97):
        got = []
        with pytest.raises(UserError, match="damaged or cut off") as error:
            got.extend(line for _, line in Stream(io.BytesIO(packed[:end]), "x").lines())
        whole = content.split(b"\n")
        assert str(error.value).startswith(f"x:{len(got) + 1}: ")
        assert all(line in whole for line in got)


@compressors
def test_trailing_data_are_an_error_and_zeros_between_members_are_skipped(pack):
    packed = pack(b"one\n")
    with pytest.raises(UserError, match="x:2: cannot be read further"):
        lines_of(packed + b"rubbish behind")
    assert lines_of(packed + b"\0" * 8 + packed) == [b"one", b"one"]


@compressors
def test_a_decompression_bomb_is_refused_before_it_fills_the_memory(pack, monkeypatch):
    monkeypatch.setattr(compression, "_BOMB_SIZE", 8 * 2**20)
    line = b" " * 100_000 + b"\n"
    packed = pack(line * 300)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="x: unpacks to more than 8 MiB and 200 times its compressed size"):
            for _ in Stream(io.BytesIO(packed), "x").lines():
                pass
        # bzip2 decompresses a step of 1 KiB to up to 23 blocks of 900 kB, held twice while they are joined.
        assert tracemalloc.get_traced_memory()[1] < 80 * 2**20
    finally:
        tracemalloc.stop()


@compressors
def test_small_or_barely_compressed_content_is_no_bomb(pack, monkeypatch):
    assert len(lines_of(pack(b"\n" * 1_000_000))) == 1_000_000
    monkeypatch.setattr(compression, "_BOMB_SIZE", 2**16)
    assert len(lines_of(pack(os.urandom(200_000).hex().encode() + b"\nx"))) == 2


@compressors
def test_a_damaged_second_member_is_an_error(pack):
    first = pack(b"one\n")
    packed = bytearray(first + pack(b"two\n"))
    packed[len(first)] ^= 1
    lines = Stream(io.BytesIO(packed), "x").lines()
    assert next(lines) == (1, b"one")
    with pytest.raises(UserError, match="x:2: cannot be read further"):
        next(lines)


@compressors
def test_good_lines_come_before_the_error_after_the_head_is_detected_too(pack):
    lines = [b"%d %s" % (number, os.urandom(20).hex().encode()) for number in range(20_000)]
    packed = pack(b"\n".join(lines))
    stream = Stream(io.BytesIO(packed[: len(packed) // 2]), "x")
    # bzip2 decompresses a block of up to 900 kB at once.
    start = b"" if pack is bz2.compress else b"\n".join(lines[:300])
    assert stream.head().startswith(start)
    read = []
    with pytest.raises(UserError, match="damaged or cut off"):
        read.extend(line for _, line in stream.lines())
    assert read == lines[: len(read)]
    assert len(read) >= (0 if pack is bz2.compress else 300)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs POSIX pipes")
@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_each_line_is_read_as_soon_as_it_is_written(terminal):
    reader, writer = os.openpty() if terminal else os.pipe()
    reader, writer = (writer, reader) if terminal else (reader, writer)
    with os.fdopen(writer, "wb", buffering=0) as typed, os.fdopen(reader, "rb") as raw:
        typed.write(b"a\n")
        stream = Stream(raw, "x")
        if terminal:
            assert stream.head() == b"a\n"
        lines = stream.lines()
        assert next(lines) == (1, b"a")
        for number in range(2, 5):
            typed.write(b"line %d\n" % number)
            assert next(lines) == (number, b"line %d" % number)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["xz", "zst"])
def test_a_file_that_needs_more_memory_than_the_limit_is_refused(kind, monkeypatch):
    content = os.urandom(2**21).hex().encode()
    if kind == "xz":
        packed = lzma.compress(content, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**29}])
    else:
        parameters = zstandard.ZstdCompressionParameters(window_log=29, write_content_size=False)
        compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        packed = compressor.compress(content) + compressor.flush()
    with pytest.raises(UserError, match="x:1: cannot be read further"):
        lines_of(packed)


def test_frames_of_zstandard_that_hold_nothing_are_skipped():
    skipped = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"abcd"
    assert lines_of(skipped + zstandard.compress(b"one\n") + skipped + zstandard.compress(b"two\n")) == [b"one", b"two"]


def test_long_line_is_fine_and_too_long_a_line_is_refused(monkeypatch):
    assert len(lines_of(b"x" * 10_000_000 + b"\n")[0]) == 10_000_000
    monkeypatch.setattr(compression, "MAX_LINE", 1000)
    assert lines_of(b"x" * 999 + b"\n") == [b"x" * 999]
    with pytest.raises(UserError, match="x:2: the line is longer than"):
        lines_of(b"\n" + b"x" * 1001)


def test_missing_file():
    with pytest.raises(UserError, match=r"nowhere: cannot be opened \(No such file"):
        list(read_lines(compression.Path("nowhere")))
