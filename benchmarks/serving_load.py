"""Load on `bin/serve`: latency, texts a second and memory, with batches and with one text at a time.

    python -m benchmarks.serving_load --run RUN [--texts FILE] [--clients 1 10 100] [--seconds 10]

Each client sends a text, waits for its labels, and sends the next one, over its connection on the loopback.
Clients and service share the machine's cores.
"""

import argparse
import asyncio
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lsfa_jax.data.reading.documents import ReadReport, read_documents
from lsfa_jax.data.reading.options import ReadOptions
from lsfa_jax.util import console

MODES = {"batches": (), "one at a time": ("--batch-size", "1", "--gather-ms", "0")}
_SECONDS_OF_WARM_UP = 2.0


class Load(NamedTuple):
    """What one number of clients measured."""

    seconds: float
    latencies: np.ndarray
    """float64[requests], seconds."""
    statuses: Counter[int]


@contextmanager
def service(run: str, *options: str) -> Iterator[int]:
    """Starts bin/serve in a process; yields its port when it answers, and ends it."""
    line = [sys.executable, "-m", "lsfa_jax", "serve", "--run", run, "--port", "0", *options]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            printed = iter(process.stdout.readline, "")
            yield next(int(match[1]) for text in printed if (match := re.match(r"Serving at .*:(\d+)/ ", text)))
        finally:
            process.terminate()


async def request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, path: str, body: bytes = b""
) -> tuple[int, bytes]:
    """Sends a request over an open connection; returns the status and the body of the answer."""
    writer.write(f"{method} {path} HTTP/1.1\r\nhost: load\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return int(head[9:12]), await reader.readexactly(int(length[1]) if length else 0)


async def load(port: int, bodies: list[bytes], clients: int, seconds: float) -> Load:
    """Lets clients ask for labels as fast as they get them."""
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    supply = itertools.cycle(bodies)
    until = time.perf_counter() + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (start := time.perf_counter()) < until:
            status, _ = await request(reader, writer, "POST", "/v1/predict", next(supply))
            latencies.append(time.perf_counter() - start)
            statuses[status] += 1
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return Load(time.perf_counter() - start, np.array(latencies), statuses)


async def memory(port: int) -> float:
    """Returns the resident memory of the service in bytes."""
    _, text = await request(*await asyncio.open_connection("127.0.0.1", port), "GET", "/metrics")
    return float(re.search(rb"^process_resident_memory_bytes (\S+)", text, re.MULTILINE)[1])  # type: ignore[index]


def read_texts(path: str) -> list[str]:
    """Returns the texts of a file, or some of the words of the built-in corpus."""
    if not path:
        random = np.random.default_rng(0)
        return [" ".join(f"w{word}" for word in random.integers(0, 1000, 40)) for _ in range(1000)]
    options = ReadOptions(labelled=False)
    with console.quiet():
        rows = read_documents(Path(path), options=options, report=ReadReport())
        return [row.text for row in itertools.islice(rows, 5000)]


def main() -> None:
    """Prints a row for each mode and number of clients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="folder of a trained model")
    parser.add_argument("--texts", default="", help="file of texts; by default words of the built-in corpus")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    arguments = parser.parse_args()
    bodies = [json.dumps({"text": text}).encode() for text in read_texts(arguments.texts)]
    rates: dict[tuple[str, int], float] = {}
    rows = []
    for mode, options in MODES.items():
        with service(arguments.run, *options) as port:
            asyncio.run(load(port, bodies, max(arguments.clients), _SECONDS_OF_WARM_UP))
            for clients in arguments.clients:
                measured = asyncio.run(load(port, bodies, clients, arguments.seconds))
                rates[mode, clients] = rate = len(measured.latencies) / measured.seconds
                places = [f"{1000 * value:.1f}" for value in np.percentile(measured.latencies, [50, 95, 99])]
                failed = sum(count for status, count in measured.statuses.items() if status != 200)
                size = f"{asyncio.run(memory(port)) / 2**20:,.0f}"
                rows.append((f"{mode}, {clients} clients", *places, f"{rate:,.1f}", str(failed), size))
    console.table("bin/serve", ("", "p50 ms", "p95 ms", "p99 ms", "texts/s", "not 200", "MiB"), rows)
    for clients in arguments.clients:
        gain = rates["batches", clients] / rates["one at a time", clients]
        console.note(f"{clients} clients: batches answer {gain:.2f} times as many texts as one at a time")


if __name__ == "__main__":
    main()
