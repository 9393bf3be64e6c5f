"""The processes of a job, which train one model together: how they start, agree and end.

Without a job there is one process: each function returns its argument, and nothing is sent. Processes agree through the
key-value store of JAX's coordination service, from the main thread and in the same order everywhere. A collective on
the devices would wait for the steps that are queued there.
"""

import json
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import jax

# JAX has no public name for its key-value store.
from jax._src import distributed
from jax.errors import JaxRuntimeError

from lsfa_jax.util import console, interrupts
from lsfa_jax.util.console import UserError
from lsfa_jax.util.interrupts import Interrupted

T = TypeVar("T")

# A bound for one process to wait for another that works, such as on preparing a large corpus.
_SECONDS_TO_AGREE = 24 * 3600

# When a process ends with an error, the others end within the first time, and it waits the second one for them.
_SECONDS_BETWEEN_LOOKS, _SECONDS_TO_FOLLOW = 0.5, 10.0

# Environment variables with the number of processes of a job step, as JAX reads it.
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


@dataclass
class _Job:
    client: Any
    count: int
    index: int
    turn: int = 0
    """Agreements so far."""
    is_over: threading.Event = field(default_factory=threading.Event)
    """Whether this process ends: what happens to the others no longer matters."""

    def exchange(self, value: str) -> list[str]:
        """Returns the values of all processes in their order; waits until each has called it as often."""
        self.turn += 1
        key = f"lsfa/agreed/{self.turn}"
        self.client.key_value_set(f"{key}/{self.index:08d}", value)
        self.client.wait_at_barrier(key, 1000 * _SECONDS_TO_AGREE)
        values = [text for _, text in sorted(self.client.key_value_dir_get(f"{key}/"))]
        # At this barrier all processes had read the values of the one before.
        self.client.key_value_delete(f"lsfa/agreed/{self.turn - 1}/{self.index:08d}")
        return values

    def ended(self) -> list[tuple[int, str]]:
        """Returns exit code and message of each process that has ended, or is about to."""
        return [tuple(json.loads(text)) for _, text in sorted(self.client.key_value_dir_get("lsfa/ended/"))]

    def end(self, code: int, message: str) -> None:
        """Announces that this process ends, so that the others do, and waits a while for them."""
        self.is_over.set()
        with suppress(JaxRuntimeError):
            self.client.key_value_set(f"lsfa/ended/{self.index:08d}", json.dumps([code, message]))
            patience = time.monotonic() + _SECONDS_TO_FOLLOW
            while len(self.ended()) < self.count and time.monotonic() < patience:
                time.sleep(_SECONDS_BETWEEN_LOOKS / 10)
            if self.index == 0:
                # JAX aborts a process whose coordinator, process 0, has ended before it.
                time.sleep(2 * _SECONDS_BETWEEN_LOOKS)

    def watch(self) -> None:
        """Ends this process when another has ended with an error: it may wait for that one in a collective."""
        while not self.is_over.wait(_SECONDS_BETWEEN_LOOKS):
            try:
                ended = self.ended()
            except JaxRuntimeError:  # process 0 has ended, and JAX ends this one
                return
            if ended and not self.is_over.is_set():
                console.error(ended[0][1])
                self.end(*ended[0])
                interrupts.leave(ended[0][0])


_job: _Job | None = None


def count() -> int:
    """Returns the number of processes of the job."""
    return 1 if _job is None else _job.count


def is_first() -> bool:
    """Whether this is process 0, which alone prints and writes."""
    return _job is None or _job.index == 0


def from_first(function: Callable[[], T]) -> T:
    """Returns in every process what a function returns in process 0, which alone calls it.

    Args:
        function: its result is one that JSON can hold, if there are several processes.

    Raises:
        Interrupted: in every process, where process 0 was interrupted.
    """
    if _job is None:
        return function()
    signum, value = 0, None
    if is_first():
        try:
            value = function()
        except Interrupted as request:
            signum = request.signum
    signum, value = json.loads(_job.exchange(json.dumps([signum, value]))[0])
    if signum:
        raise Interrupted(signum)
    return value  # type: ignore[return-value]


def first(function: Callable[[], T]) -> T:
    """Calls a function in process 0, then in the others: they find in a cache what it stores there."""
    if is_first():
        value = function()
        wait()
        return value
    wait()
    return function()


def wait() -> None:
    """Waits until all processes call it: what process 0 has written before can be read after it."""
    if _job is not None:
        _job.exchange("")


def check_interrupts() -> None:
    """Raises Interrupted in every process if a signal has arrived in one of them since the last call."""
    if _job is not None:
        signum = max(map(int, _job.exchange(str(interrupts.received()))))
        if not signum:
            # A signal that has arrived here meanwhile is for the next call: the others go on.
            return
        interrupts.receive(signum)
    interrupts.check()


def same_everywhere(values: Mapping[str, str]) -> None:
    """Raises UserError in every process unless all of them have the same values.

    Args:
        values: by what they are, for the message.
    """
    if _job is None:
        return
    about = [json.loads(text) for text in _job.exchange(json.dumps([platform.node(), dict(values)]))]
    (host, expected), *others = about
    for index, (other, actual) in enumerate(others, 1):
        differing = [name for name in expected | actual if expected.get(name) != actual.get(name)]
        if differing:
            texts = [values.get(differing[0], "none") for values in (expected, actual)]
            shown = f" ({texts[0]} and {texts[1]})" if max(map(len, texts)) <= 40 else ""
            raise UserError(
                f"process 0 on {host} and process {index} on {other} differ in: {', '.join(differing)}{shown}; all "
                "processes of a job need the same"
            )


@contextmanager
def joined(
    coordinator: str = "",
    number: int | None = None,
    index: int | None = None,
    timeout: int = 300,
    heartbeat: int = 30,
) -> Iterator[None]:
    """Joins the processes of a job within the block; all of them end together.

    Without arguments: those of SLURM, Open MPI or a TPU pod, or else this process alone. Must be entered before JAX
    computes.

    Args:
        coordinator: HOST:PORT of process 0, where it waits for the others; `auto`: JAX finds out all of it.
        number: of processes; 1: this process alone, whatever the environment shows.
        index: of this process, from 0.
        timeout: seconds within which all processes have to start.
        heartbeat: seconds without a sign of life after which a process counts as dead: JAX aborts the others then.

    Raises:
        UserError: the arguments do not fit, or another process of the job is lost.
    """
    global _job
    _job = _start(coordinator, number, index, timeout, heartbeat)
    if _job is None:
        yield
        return
    if not is_first():
        console.mute()
    threading.Thread(target=_job.watch, name="processes", daemon=True).start()
    try:
        _introduce(_job)
        yield
        _part(_job)
    except Interrupted:
        _part(_job)
        raise
    except BaseException as error:
        _fail(_job, error, heartbeat)
    finally:
        _job = None


def _start(coordinator: str, number: int | None, index: int | None, timeout: int, heartbeat: int) -> _Job | None:
    options: dict[str, Any] = {}
    if number == 1:
        return None
    if (coordinator, number, index) == ("", None, None):
        if not _is_in_job():
            return None
    elif coordinator != "auto":
        if not re.fullmatch(r".+:\d+", coordinator) or number is None or index is None or not 0 <= index < number:
            raise UserError(
                "--distributed: expected all of --distributed.coordinator HOST:PORT --distributed.processes N "
                "--distributed.process I, with I from 0 to N - 1, or --distributed.coordinator auto"
            )
        options = {"coordinator_address": coordinator, "num_processes": number, "process_id": index}
        options["cluster_detection_method"] = "deactivate"
    # JAX would replace Python's handler of SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)

    def give_up() -> None:
        console.error(
            f"not all processes of the job have started within {timeout} s"
            + (f", or {coordinator} cannot be reached from this one" if options else "")
            + "; look at their output, or raise --distributed.timeout"
        )
        interrupts.leave(2)

    # JAX would abort the process.
    timer = threading.Timer(timeout, give_up)
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            **options,
            initialization_timeout=timeout + 60,
            heartbeat_timeout_seconds=heartbeat,
            shutdown_timeout_seconds=heartbeat,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--distributed: JAX cannot start the job ({console.first_line(error)}); all of --distributed.coordinator, "
            "--distributed.processes and --distributed.process describe it, or --distributed.processes 1 no job"
        ) from error
    finally:
        timer.cancel()
    state = distributed.global_state
    return _Job(state.client, state.num_processes, state.process_id) if state.num_processes > 1 else None


def _is_in_job() -> bool:
    """Whether the environment shows several processes."""
    several = any(os.environ.get(name, "1") not in ("", "1") for name in _COUNTS)
    return several or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")


def _introduce(job: _Job) -> None:
    """Prints which process is where: later messages number them."""
    hosts = job.exchange(platform.node())
    console.note("Processes: " + ", ".join(f"{index} on {host}" for index, host in enumerate(hosts)))


def _part(job: _Job) -> None:
    """Leaves the job when all processes do."""
    job.exchange("")
    job.is_over.set()
    jax.distributed.shutdown()


def _fail(job: _Job, error: BaseException, heartbeat: int) -> None:
    """Ends the other processes and raises the error again; UserError where it is about another process."""
    # JAX's shutdown waits for processes that may have ended.
    interrupts.skip_teardown()
    if isinstance(error, JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
        console.error("the job has stopped: a process may have ended")
        # Meanwhile `watch` learns of an error of another process, or JAX that one no longer answers.
        time.sleep(heartbeat + _SECONDS_TO_FOLLOW)
        error = UserError(f"the processes of the job cannot reach each other ({console.first_line(error)})")
    code, what = 1, f"{type(error).__name__}: {error}"
    if isinstance(error, UserError):
        code, what = 2, str(error)
    elif isinstance(error, KeyboardInterrupt | SystemExit):
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 130
        what = f"stopped with exit code {code}"
    job.end(code, f"process {job.index} on {platform.node()}: {what}")
    raise error
