"""One implementation in a separate process: built, run on command, timed, its memory read.

    python -m benchmarks.harness.worker ours.training:step '{"shape": "tiny", "seed": 0}'

calls `benchmarks.ours.training.step(SHAPES["tiny"], seed=0)`, which returns the `Work`. The process writes a line of
JSON once the work is built, and runs the work and writes another line for each line of its standard input.
"""

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from benchmarks.cases import SHAPES
from benchmarks.harness.work import Work
from lsfa_jax.util.malloc import keep_freed_memory

# Their versions are reported where the implementation has imported them.
_LIBRARIES = ("numpy", "jax", "jaxlib", "torch", "lightning", "libmultilabel", "omikuji")

# The kernel counts processor time in hundredths of a second: in a shorter round (seconds) the load of other processes
# cannot be measured.
_MIN_SECONDS_FOR_LOAD = 0.2


def peak_mib() -> float:
    """Peak resident memory of this process (getrusage of a child process includes its parent's peak)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024


def _memory() -> dict[str, float]:
    memory = {"peak_mib": peak_mib()}
    jax = sys.modules.get("jax")
    statistics = jax.local_devices()[0].memory_stats() if jax else None
    if statistics and "peak_bytes_in_use" in statistics:
        memory["device_mib"] = statistics["peak_bytes_in_use"] / 2**20
    return memory


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _LIBRARIES if name in sys.modules}


def _busy_seconds() -> float:
    """Processor seconds of all processes, with those stolen by a virtual machine's host; 0 where unknown."""
    statistics = Path("/proc/stat")
    if not statistics.exists():
        return 0.0
    user, nice, system, _, _, interrupts, soft, steal = map(int, statistics.read_text().split()[1:9])
    return (user + nice + system + interrupts + soft + steal) / os.sysconf("SC_CLK_TCK")


def run(work: Work) -> dict[str, float]:
    """Runs each part once.

    Returns:
        `seconds`, the weighted sum over the parts; `spent`, the wall time; `processor`, processor seconds; `others`,
        the mean number of processors that other processes kept busy meanwhile.
    """
    seconds = spent = 0.0
    busy, processor = _busy_seconds(), time.process_time()
    for part in work.parts:
        start = time.perf_counter()
        part.run()
        elapsed = time.perf_counter() - start
        seconds, spent = seconds + part.weight * elapsed, spent + elapsed
    processor = time.process_time() - processor
    others = max(0.0, _busy_seconds() - busy - processor) / spent if spent > _MIN_SECONDS_FOR_LOAD else 0.0
    return {"seconds": seconds, "spent": spent, "processor": processor, "others": others}


def build(function: str, arguments: dict[str, object]) -> Work:
    """Calls `benchmarks.MODULE.FUNCTION` with the shape, the seed and its other arguments."""
    module, name = function.split(":")
    # Our commands keep freed memory, and so do the peers, except those measured as they are by default.
    if arguments.pop("keep_freed_memory", True):
        keep_freed_memory()
    shape = SHAPES[str(arguments.pop("shape"))]
    implementation = getattr(importlib.import_module(f"benchmarks.{module}"), name)
    if torch := sys.modules.get("torch"):
        # Values that decay over padding become denormal, which slows PyTorch down tenfold and means nothing; XLA
        # flushes them to zero. A thread inherits the setting from the one that starts it, so it is set before PyTorch
        # starts the first.
        torch.set_flush_denormal(True)
    return implementation(shape, **arguments)


def main() -> None:
    """Builds the work, then runs it once for each line of standard input."""
    # Standard output carries the answers only: what libraries print goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(values: Mapping[str, object]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    function, arguments = sys.argv[1:]
    work = build(function, json.loads(arguments))
    answer({"facts": work.facts, "versions": _versions(), **_memory()})
    for _ in sys.stdin:
        answer({**run(work), **_memory()})


if __name__ == "__main__":
    main()
