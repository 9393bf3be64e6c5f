"""One implementation in a process of its own: made, run when told to, timed, its memory read.

    python -m benchmarks.harness.worker MODULE:FUNCTION '{"shape": "tiny", "seed": 0}'

`benchmarks.MODULE.FUNCTION(**arguments)` returns the `Work`. Once it is made, and then after each line of its standard
input, the process answers with a line of JSON.
"""

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness.work import Work
from lsfa_jax.util.malloc import keep_freed_memory

# Whose version is told where the implementation has imported it.
_LIBRARIES = ("numpy", "jax", "jaxlib", "torch", "lightning", "libmultilabel", "omikuji")

# Of a shorter call nobody can tell whether it was disturbed.
_TOO_SHORT = 0.2


def peak_mib() -> float:
    """Peak resident memory of this process alone (what the kernel says of a parent's children counts the parent's)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024


def _memory() -> dict[str, float]:
    found = {"peak_mib": peak_mib()}
    jax = sys.modules.get("jax")
    statistics = jax.local_devices()[0].memory_stats() if jax else None
    if statistics and "peak_bytes_in_use" in statistics:
        found["device_mib"] = statistics["peak_bytes_in_use"] / 2**20
    return found


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in _LIBRARIES if name in sys.modules}


def _busy_seconds() -> float:
    """Seconds that all processors worked for anybody, or were taken by a virtual machine's host; 0 where unknown."""
    statistics = Path("/proc/stat")
    if not statistics.exists():
        return 0.0
    user, nice, system, _, _, interrupts, soft, steal = map(int, statistics.read_text().split()[1:9])
    return (user + nice + system + interrupts + soft + steal) / os.sysconf("SC_CLK_TCK")


def run(work: Work) -> dict[str, float]:
    """Runs each part once.

    Returns:
        `seconds` of the whole, added up; `spent`, really; `processor` seconds; `others`, how many processors worked for
        somebody else meanwhile.
    """
    whole = spent = 0.0
    busy, processor = _busy_seconds(), time.process_time()
    for part in work.parts:
        start = time.perf_counter()
        part.run()
        seconds = time.perf_counter() - start
        whole, spent = whole + part.times * seconds, spent + seconds
    processor = time.process_time() - processor
    # The kernel counts in hundredths of a second.
    others = max(0.0, _busy_seconds() - busy - processor) / spent if spent > _TOO_SHORT else 0.0
    return {"seconds": whole, "spent": spent, "processor": processor, "others": others}


def main() -> None:
    """Makes the work, then runs it once for each line that comes."""
    # What libraries print must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**found: Any) -> None:
        answers.write(json.dumps(found) + "\n")
        answers.flush()

    target, arguments = sys.argv[1:]
    module, name = target.split(":")
    arguments = json.loads(arguments)
    # Our commands do this. Peers get the same, but for those that are to be as their users have them.
    if arguments.pop("keep_freed_memory", True):
        keep_freed_memory()
    make = getattr(importlib.import_module(f"benchmarks.{module}"), name)
    if torch := sys.modules.get("torch"):
        # Numbers that fade over padding become denormal, which takes PyTorch ten times as long and means nothing; XLA
        # takes them for zero. Threads inherit this from the one that starts them, so it comes before the first of them.
        torch.set_flush_denormal(True)
    work: Work = make(**arguments)
    answer(facts=work.facts, versions=_versions(), **_memory())
    for _ in sys.stdin:
        answer(**run(work), **_memory())


if __name__ == "__main__":
    main()
