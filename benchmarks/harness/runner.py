"""Takes turns: each implementation is a worker, and one runs at a time."""

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

_ROOT = Path(__file__).resolve().parents[2]

# No call is waited for longer (seconds), and no further round begun after so many.
_LONGEST_CALL = 240
_LONGEST_ROUNDS = 45

# A round in which somebody else used more of a processor is disturbed, and done again while there is time. PyTorch's
# threads wait for each other without sleeping: one that has no processor to itself makes all ten times slower.
_DISTURBED = 0.2

# A peer whose first call is so many times slower than another peer's is not called again.
_TOO_SLOW = 4


class WorkerError(Exception):
    """A worker that ended, or did not answer; the message is the last thing it said."""


@dataclass
class Measured:
    """What a worker answered."""

    name: str
    seconds: list[float] = field(default_factory=list)
    """Of the whole work, one a round."""
    spent: list[float] = field(default_factory=list)
    """Really spent, one a round."""
    processor: list[float] = field(default_factory=list)
    """Of all processors, one a round."""
    others: list[float] = field(default_factory=list)
    """Processors that somebody else used meanwhile, one a round."""
    first: float = 0.0
    """Spent in the first call, which compiles."""
    peak_mib: float = 0.0
    device_mib: float = 0.0
    before_mib: float = 0.0
    """Peak before the first call: libraries, weights, documents."""
    facts: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    error: str = ""
    """Why there are no figures."""

    disturbed: bool = False
    """Whether all rounds were."""

    def keep(self, rounds: list[int]) -> None:
        """Keeps the given rounds, or all where none is given."""
        self.disturbed = bool(self.seconds) and not rounds
        for name in ("seconds", "spent", "processor", "others"):
            old = getattr(self, name)
            setattr(self, name, [old[number] for number in rounds if number < len(old)] if rounds else old)

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def compile_seconds(self) -> float:
        """How much longer the first call took than the others, where the work does not say it itself."""
        return self.facts.get("compile_s") or max(0.0, self.first - statistics.median(self.spent))


class Worker:
    """A process that runs one implementation."""

    def __init__(self, name: str, implementation: Implementation, seed: int, peers_python: str) -> None:
        self.measured = Measured(name)
        python = peers_python if implementation.own_python else sys.executable
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        arguments = json.dumps(dict(implementation.arguments) | {"seed": seed})
        path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        try:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.harness.worker", implementation.target, arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=os.environ | {"PYTHONPATH": path},
            )
        except OSError as error:
            raise WorkerError(str(error)) from error
        try:
            made = self._answer()
            self.measured.facts, self.measured.versions = made["facts"], made["versions"]
            self.measured.before_mib = made["peak_mib"]
            self.measured.first = self._run()["spent"]
        except WorkerError:
            self.close()
            raise

    def _answer(self) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout
        if not select.select([stdout], [], [], _LONGEST_CALL)[0]:
            raise WorkerError(f"no answer within {_LONGEST_CALL} s")
        if line := stdout.readline():
            return json.loads(line)
        code = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        raise WorkerError(lines[-1][:200] if code > 0 and lines else f"ended with {code}")

    def _run(self) -> dict[str, float]:
        assert self._process.stdin
        try:
            self._process.stdin.write(b"run\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer that does not come says why
        found = self._answer()
        self.measured.peak_mib, self.measured.device_mib = found["peak_mib"], found.get("device_mib", 0.0)
        return found

    def round(self) -> None:
        """Runs once more."""
        found = self._run()
        self.measured.seconds.append(found["seconds"])
        self.measured.spent.append(found["spent"])
        self.measured.processor.append(found["processor"])
        self.measured.others.append(found["others"])

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._said.close()


def _remedy(error: str, implementation: Implementation) -> str:
    if "No module named" not in error:
        return ""
    if implementation.own_python:
        return "; --peers-python names an interpreter that has it, see --help"
    return f"; install the peers: {sys.executable} -m pip install -e '.[peers]'"


def measure(
    comparison: Comparison, rounds: int, seed: int, peers_python: str, said: Callable[[str], None]
) -> dict[str, Measured]:
    """Measures ours and its peers in turn; one that fails has an error instead of figures.

    Args:
        comparison: what is compared.
        rounds: calls of each after the first that nobody disturbs; fewer where they take long, one at least. Where all
            are disturbed, they stand, and `disturbed` says so.
        seed: of weights and documents.
        peers_python: interpreter of peers that have one of their own.
        said: is told what goes on.
    """
    found: dict[str, Measured] = {}
    workers: dict[str, Worker] = {}
    try:
        for name, implementation in {"ours": comparison.ours, **comparison.peers}.items():
            said(f"{name}: first call")
            try:
                workers[name] = Worker(name, implementation, seed, peers_python)
                found[name] = workers[name].measured
            except WorkerError as error:
                found[name] = Measured(name, error=f"{error}{_remedy(str(error), implementation)}")
        quickest = min((w.measured.first for name, w in workers.items() if name != "ours"), default=0.0)
        for name in list(workers):
            first = workers[name].measured.first
            if name != "ours" and first > _TOO_SLOW * quickest:
                factor = first / quickest
                found[name].error = f"{first:.1f} s in its first call, {factor:.0f} x another peer's: left out"
                workers.pop(name).close()
        spent, calm, number = 0.0, [], 0
        while len(calm) < rounds and number < 3 * rounds and spent <= _LONGEST_ROUNDS:
            number += 1
            said(f"round {number}, {len(calm)} of {rounds} are done")
            # Who begins changes, so that what one leaves behind does not always meet the same other.
            for name in sorted(workers, reverse=number % 2 == 0):
                try:
                    workers[name].round()
                    spent += found[name].spent[-1]
                except WorkerError as error:
                    found[name].error = str(error)
                    workers.pop(name).close()
            if all(found[name].others[-1] <= _DISTURBED for name in workers):
                calm.append(number - 1)
        for measured in found.values():
            measured.keep(calm)
    finally:
        for worker in workers.values():
            worker.close()
    return found
