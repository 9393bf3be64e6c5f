"""bin/train as two processes of two devices each, of which process 1 can send itself a signal.

Process 1 is python -m tests.job CALL SIGNAL OPTIONS: the signal comes at a call of `check_interrupts`, before
a step or a batch.
"""

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lsfa_jax.cli import train
from lsfa_jax.util import interrupts, processes

ROOT = Path(__file__).parents[1]


class Ended(NamedTuple):
    """How a process has ended."""

    code: int
    out: str
    err: str


def run(line: Sequence[object], compiled: Path, call: int = 0, signum: int = 0) -> list[Ended]:
    """Runs a job to its end, with programs kept in a folder; with a call and a signal, process 1 gets that."""
    options = ["--distributed.coordinator", f"localhost:{free_port()}", "--distributed.processes", 2]
    # Short, so that a process that was killed is missed soon.
    options += ["--distributed.heartbeat", 20]
    modules = (["lsfa_jax.cli.train"], ["tests.job", call, signum])
    return run_all(
        [["-m", *module, *line, *options, "--distributed.process", index] for index, module in enumerate(modules)],
        {
            "JAX_NUM_CPU_DEVICES": "2",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            # With a limit JAX locks the folder; else a process may read half of what the other one stores.
            "JAX_COMPILATION_CACHE_MAX_SIZE": str(2**30),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        },
    )


def run_all(lines: Sequence[Sequence[object]], environment: Mapping[str, str] | None = None) -> list[Ended]:
    """Runs Python processes at the same time."""
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, line)],
            env=os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {}),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in lines
    ]
    outputs = [process.communicate(timeout=600) for process in started]
    return [Ended(process.returncode, *output) for process, output in zip(started, outputs, strict=True)]


def free_port() -> int:
    """Returns a port that no process listens on."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


def main(call: int, signum: int, line: list[str]) -> None:
    calls, check = itertools.count(1), processes.check_interrupts

    def check_and_signal() -> None:
        if next(calls) == call:
            os.kill(os.getpid(), signum)
        check()

    processes.check_interrupts = check_and_signal
    interrupts.run_and_exit(lambda: train.main(line))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
