"""Thousands of wrong requests to `bin/serve`, none of which may end in a status 500 or a hang. Outside the test suite:

python -m tests.fuzz_service --run RUN [--requests 10000] [--seed 0]
"""

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable

from benchmarks.serving_load import service

PATHS = ("/v1/predict", "/v1/explain", "/v1/labels", "/health", "/metrics", "/openapi.json", "/docs", "/", "/x", "/%00")
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "\x00")
HOW = {"whole": 80, "announced": 3, "endless": 2, "half": 4, "slow": 2, "gone": 4, "garbage": 5}
"""How a request is sent, and how often."""
SECONDS = 60.0
"""After which a request counts as hanging; the service gives a body 3 seconds."""

Bytes = Callable[[random.Random], bytes]


def value(choice: random.Random, depth: int = 3) -> object:
    """Returns a random JSON value, with odd strings and numbers."""
    kinds = ["", "text", "\x00", "🦊" * 3, "<script>", "=1+1", None, True, 0, -1, 1e308, 10**30, 0.5, "auto", "none"]
    if depth and choice.random() < 0.3:
        return [value(choice, depth - 1) for _ in range(choice.randrange(4))]
    if depth and choice.random() < 0.2:
        return {str(value(choice, 0)): value(choice, depth - 1) for _ in range(choice.randrange(4))}
    return choice.choice(kinds)


def fields(choice: random.Random) -> bytes:
    """Returns an object with known fields and random values."""
    names = ("text", "texts", "model", "top", "threshold", "x")
    return json.dumps({choice.choice(names): value(choice) for _ in range(choice.randrange(4))}).encode()


def good(choice: random.Random) -> bytes:
    """Returns a request that is answered."""
    texts = ["".join(map(chr, choice.choices(range(32, 0xD7FF), k=choice.randrange(60)))) for _ in range(3)]
    return json.dumps({"texts": texts, "top": choice.randrange(1, 9)}).encode()


def damaged(choice: random.Random) -> bytes:
    """Returns JSON of which some bytes are replaced."""
    data = bytearray(choice.choice((good, fields))(choice))
    for _ in range(choice.randrange(1, 5)):
        data[choice.randrange(len(data))] = choice.randrange(256)
    return bytes(data)


def deep(choice: random.Random) -> bytes:
    """Returns deep JSON."""
    opened = choice.choice((b"[", b'{"text":', b'{"texts":['))
    return opened * choice.randrange(1, 100_000)


def noise(choice: random.Random) -> bytes:
    """Returns any bytes."""
    return choice.randbytes(choice.randrange(300))


def form(choice: random.Random) -> bytes:
    """Returns a form, whole or damaged."""
    parts = b""
    for _ in range(choice.randrange(20)):
        name = choice.choice(("text", "lines", "top", "above", "model", "file", "\xff"))
        is_file = name == "file" or choice.random() < 0.1
        of_file = f'; filename="{choice.choice(("x.csv", "../x", "x.gz", ""))}"' if is_file else ""
        content = choice.choice((b"1", b"yes", b"text,labels\na,b\n", b"\x1f\x8b\x08", noise(choice), fields(choice)))
        parts += f'--x\r\ncontent-disposition: form-data; name="{name}"{of_file}\r\n\r\n'.encode() + content + b"\r\n"
    return parts + choice.choice((b"--x--\r\n", b"", b"--y"))


BODIES: tuple[Bytes, ...] = (good, fields, damaged, deep, noise, form)


async def ask(port: int, choice: random.Random) -> str:
    """Sends a request, perhaps not to its end; returns the status, or how the connection ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    make = choice.choice(BODIES)
    is_form = make is form and choice.random() < 0.9
    body, path = make(choice), "/" if is_form else choice.choice(PATHS[:2] if choice.random() < 0.6 else PATHS)
    method = "POST" if is_form or choice.random() < 0.8 else choice.choice(METHODS)
    kind = choice.choice(("multipart/form-data; boundary=x", "application/json", "\xff", "multipart/form-data"))
    how = choice.choices(tuple(HOW), tuple(HOW.values()))[0]
    length = {"announced": 2**30, "half": len(body) + 100, "slow": len(body) + 100}.get(how, len(body))
    size = "transfer-encoding: chunked" if how == "endless" else f"content-length: {length}"
    content_type = "multipart/form-data; boundary=x" if is_form else kind
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: fuzz\r\nconnection: close\r\ncontent-type: {content_type}\r\n{size}\r\n\r\n"
    )
    try:
        if how == "garbage":
            writer.write(noise(choice) + b"\r\n\r\n")
            writer.write_eof()
        elif how == "endless":
            writer.write(head.encode("latin-1"))
            part = b"10000\r\n" + b" " * 65536 + b"\r\n"
            while not reader.at_eof() and not reader._buffer:  # type: ignore[attr-defined]
                writer.write(part)
                await writer.drain()
        else:
            writer.write(head.encode("latin-1") + body)
            if how == "half":
                writer.write_eof()
            if how == "gone":
                writer.close()
                return "gone"
        answer = await reader.read()
    except OSError:  # reset, or closed before the end was written
        return "reset"
    finally:
        writer.close()
    return answer[9:12].decode() if answer.startswith(b"HTTP/1.1 ") else f"{len(answer)} bytes"


async def fuzz(port: int, number: int, seed: int) -> Counter[str]:
    """Sends requests, 32 at a time; returns how often each status came."""
    statuses: Counter[str] = Counter()
    numbers = iter(range(number))

    async def client() -> None:
        for one in numbers:
            try:
                statuses[await asyncio.wait_for(ask(port, random.Random(seed * 10**9 + one)), SECONDS)] += 1
            except TimeoutError:
                statuses["hangs"] += 1
                print(f"request {one} of seed {seed} hangs")

    await asyncio.gather(*(client() for _ in range(32)))
    return statuses


def main() -> None:
    """Prints the statuses, and fails where one is 500 or a request hangs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.monotonic()
    with service(arguments.run, "--timeout", "3", "--max-bytes", "1000000") as port:
        statuses = asyncio.run(fuzz(port, arguments.requests, arguments.seed))
        health = asyncio.run(fuzz_health(port))
    print(f"{sum(statuses.values()):,} requests in {time.monotonic() - started:.0f} s: {dict(statuses.most_common())}")
    if health != "200" or {"500", "hangs"} & set(statuses):
        raise SystemExit("the service failed")


async def fuzz_health(port: int) -> str:
    """Returns the status of /health."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nhost: fuzz\r\nconnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), SECONDS)
    return answer[9:12].decode()


if __name__ == "__main__":
    main()
