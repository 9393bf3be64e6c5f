"""Measures the implementations of a comparison in rounds: each is a worker process, and one runs at a time."""

import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cases import Comparison, Implementation
from benchmarks.harness.work import Facts

_ROOT = Path(__file__).resolve().parents[2]

# Seconds after which a call is given up, and after which no further round starts.
_MAX_CALL_SECONDS = 240
_MAX_ROUND_SECONDS = 45

# A round is disturbed where other processes kept more of a processor than this busy, and repeated while there is time.
# PyTorch's threads spin while they wait for each other: one that shares its processor slows all of them down tenfold.
_DISTURBED = 0.2

# A peer whose first call is so many times slower than another peer's is left out.
_TOO_SLOW = 4


class WorkerError(Exception):
    """A worker ended or did not answer; the message is its last line of standard error."""


@dataclass
class Measured:
    """Measurements of one implementation; the lists have an entry a round. The fields are those of the JSON file."""

    name: str
    seconds: list[float] = field(default_factory=list)
    """The reported unit: the weighted sum over the parts of the work."""
    spent: list[float] = field(default_factory=list)
    """Wall time."""
    processor: list[float] = field(default_factory=list)
    """Processor time."""
    others: list[float] = field(default_factory=list)
    """Mean number of processors that other processes kept busy."""
    first: float = 0.0
    """Wall time of the first call, which compiles."""
    peak_mib: float = 0.0
    device_mib: float = 0.0
    before_mib: float = 0.0
    """Peak before the first call: libraries, weights, documents."""
    facts: Facts = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    error: str = ""
    """Why there are no measurements."""
    disturbed: bool = False
    """Whether every round was disturbed."""

    def keep(self, rounds: list[int]) -> None:
        """Keeps these rounds; without any, keeps all and marks them as disturbed."""
        self.disturbed = bool(self.seconds) and not rounds
        for name in ("seconds", "spent", "processor", "others"):
            values = getattr(self, name)
            setattr(self, name, [values[number] for number in rounds if number < len(values)] if rounds else values)

    @property
    def median(self) -> float:
        """Seconds of the reported unit."""
        return statistics.median(self.seconds)

    @property
    def compile_seconds(self) -> float:
        """The fact `compile_s`, or how much longer the first call took than the median of the others."""
        return float(self.facts.get("compile_s") or max(0.0, self.first - statistics.median(self.spent)))


class Worker:
    """A process that runs one implementation."""

    def __init__(self, name: str, implementation: Implementation, seed: int, peers_python: str) -> None:
        """Starts the process, builds the work and makes the first call.

        Raises:
            WorkerError: one of these failed.
        """
        self.measured = Measured(name)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        arguments = json.dumps({**implementation.arguments, "shape": implementation.shape, "seed": seed})
        python = peers_python if implementation.peers_python else sys.executable
        path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        try:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.harness.worker", implementation.function, arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
            )
        except OSError as error:
            raise WorkerError(str(error)) from error
        try:
            built = self._answer()
            self.measured.facts, self.measured.versions = built["facts"], built["versions"]
            self.measured.before_mib = built["peak_mib"]
            self.measured.first = self._run()["spent"]
        except WorkerError:
            self.close()
            raise

    def _answer(self) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout
        if not select.select([stdout], [], [], _MAX_CALL_SECONDS)[0]:
            raise WorkerError(f"no answer within {_MAX_CALL_SECONDS} s")
        if line := stdout.readline():
            return json.loads(line)
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        raise WorkerError(lines[-1][:200] if code > 0 and lines else f"ended with {code}")

    def _run(self) -> dict[str, float]:
        assert self._process.stdin
        try:
            self._process.stdin.write(b"run\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the missing answer raises the error, with its reason
        timed = self._answer()
        self.measured.peak_mib, self.measured.device_mib = timed["peak_mib"], timed.get("device_mib", 0.0)
        return timed

    def round(self) -> None:
        """Runs the work once more and records the round."""
        timed = self._run()
        self.measured.seconds.append(timed["seconds"])
        self.measured.spent.append(timed["spent"])
        self.measured.processor.append(timed["processor"])
        self.measured.others.append(timed["others"])

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._stderr.close()


def measure(
    comparison: Comparison, rounds: int, seed: int, peers_python: str, note: Callable[[str], None]
) -> dict[str, Measured]:
    """Measures ours and its peers, alternating; one that fails has an error instead of measurements.

    Args:
        comparison: the implementations.
        rounds: undisturbed calls of each after the first; fewer where they take long, one at least. Where every round
            is disturbed, all count and are marked as `disturbed`.
        seed: of weights and documents.
        peers_python: interpreter for the peers that need a separate environment.
        note: called with a line about each step.
    """
    measured: dict[str, Measured] = {}
    workers: dict[str, Worker] = {}
    try:
        for name, implementation in {"ours": comparison.ours, **comparison.peers}.items():
            note(f"{name}: first call")
            try:
                workers[name] = Worker(name, implementation, seed, peers_python)
                measured[name] = workers[name].measured
            except WorkerError as error:
                measured[name] = Measured(name, error=f"{error}{_remedy(str(error), implementation)}")
        _drop_slow_peers(workers)
        undisturbed = _run_rounds(workers, rounds, note)
        for each in measured.values():
            each.keep(undisturbed)
    finally:
        for worker in workers.values():
            worker.close()
    return measured


def _drop_slow_peers(workers: dict[str, Worker]) -> None:
    peers = {name: worker.measured for name, worker in workers.items() if name != "ours"}
    fastest = min((peer.first for peer in peers.values()), default=0.0)
    for name, peer in peers.items():
        if peer.first > _TOO_SLOW * fastest:
            factor = peer.first / fastest
            peer.error = f"{peer.first:.1f} s in its first call, {factor:.0f} x another peer's: left out"
            workers.pop(name).close()


def _run_rounds(workers: dict[str, Worker], rounds: int, note: Callable[[str], None]) -> list[int]:
    """Runs rounds until enough are undisturbed or time is up; returns the numbers of the undisturbed ones, from 0."""
    spent, undisturbed = 0.0, list[int]()
    for number in range(3 * rounds):
        if len(undisturbed) == rounds or spent > _MAX_ROUND_SECONDS:
            break
        note(f"round {number + 1}, {len(undisturbed)} of {rounds} are done")
        # The order alternates, so that no implementation always follows the same one.
        for name in sorted(workers, reverse=number % 2 == 1):
            measured = workers[name].measured
            try:
                workers[name].round()
                spent += measured.spent[-1]
            except WorkerError as error:
                measured.error = str(error)
                workers.pop(name).close()
        if all(worker.measured.others[-1] <= _DISTURBED for worker in workers.values()):
            undisturbed.append(number)
    return undisturbed


def _remedy(error: str, implementation: Implementation) -> str:
    if "No module named" not in error:
        return ""
    if implementation.peers_python:
        return "; --peers-python names an interpreter that has it, see --help"
    return f"; install the peers: {sys.executable} -m pip install -e '.[peers]'"
