import platform
import signal

import jax
import pytest

from lsfa_jax.util import interrupts, processes
from lsfa_jax.util.console import UserError
from tests import job

# A command of two processes: what they agree on, then an error in one of them.
COMMAND = """
import sys
from pathlib import Path
from lsfa_jax.cli import common
from lsfa_jax.util import console, interrupts, processes
from lsfa_jax.util.console import UserError

def command(line):
    index, coordinator, path = int(line[0]), line[1], Path(line[2])
    with processes.joined(coordinator, 2, index):
        assert (processes.count(), processes.is_first()) == (2, index == 0)
        console.note("printed once")
        assert processes.from_first(lambda: {"index": index}) == {"index": 0}

        def read():
            if not path.exists():
                path.write_text(str(index))
            return path.read_text()

        assert processes.first(read) == "0"
        processes.same_everywhere({"this": "same"})
        try:
            processes.same_everywhere({"this": "same", "that": str(index)})
        except UserError as error:
            print(error, flush=True)
        processes.check_interrupts()
        if index == 1:
            raise UserError("the disk is full")
        processes.wait()

interrupts.run_and_exit(lambda: common.run(command, sys.argv[1:]))
"""


def test_processes_agree_and_end_together(tmp_path):
    coordinator = f"localhost:{job.free_port()}"
    first, second = job.run_all([["-c", COMMAND, index, coordinator, tmp_path / "file"] for index in (0, 1)])
    host = platform.node()
    assert (first.code, second.code) == (2, 2)
    assert first.err == f"error: process 1 on {host}: the disk is full\n"
    assert second.err == "error: the disk is full\n"
    differ = f"process 0 on {host} and process 1 on {host} differ in: that (0 and 1); all processes of a job need the"
    for process in (first, second):
        assert differ in process.out
    assert f"Processes: 0 on {host}, 1 on {host}\nprinted once\n" in first.out
    assert "printed once" not in second.out


@pytest.mark.parametrize(("index", "text"), [(1, ", or {address} cannot be reached from this one"), (0, "")])
def test_waiting_for_the_other_processes_ends(index, text):
    address = f"localhost:{job.free_port()}"
    script = f"from lsfa_jax.util import processes\nwith processes.joined({address!r}, 2, {index}, 1): pass"
    (ended,) = job.run_all([["-c", script]])
    assert ended.code == 2
    assert ended.err.startswith("error: not all processes of the job have started within 1 s")
    assert text.format(address=address) in ended.err


@pytest.mark.parametrize(
    "options", [("host:1",), ("host:1", 2), ("host:1", 2, 2), ("host", 2, 0), ("", 2, 0), ("", None, 1)]
)
def test_options_that_do_not_describe_a_process_are_an_error(options):
    with pytest.raises(UserError, match=r"--distributed: expected all of --distributed\.coordinator"), \
            processes.joined(*options):  # fmt: skip
        pass


def test_a_signal_that_arrives_during_an_agreement_stops_all_processes_at_the_next(monkeypatch):
    class Job:
        def exchange(self, value):
            interrupts.receive(signal.SIGTERM)
            return [value, "0"]

    monkeypatch.setattr(processes, "_job", Job())
    processes.check_interrupts()
    with pytest.raises(interrupts.Interrupted):
        processes.check_interrupts()


@pytest.mark.parametrize("options", [(), ("host:1", 1, 0), ("", 1)])
def test_one_process_agrees_with_itself(options):
    with processes.joined(*options):
        assert processes.count() == 1
        assert processes.is_first()
        value = object()
        assert processes.from_first(lambda: value) is value
        assert processes.first(lambda: value) is value
        processes.same_everywhere({"this": "a"})
        processes.check_interrupts()


@pytest.mark.parametrize(
    ("name", "value", "several"),
    [
        ("SLURM_STEP_NUM_TASKS", "2", True),
        ("SLURM_STEP_NUM_TASKS", "1", False),
        ("OMPI_COMM_WORLD_SIZE", "16", True),
        ("TPU_WORKER_HOSTNAMES", "a,b", True),
        ("TPU_WORKER_HOSTNAMES", "a", False),
    ],
)
def test_a_job_of_several_processes_is_seen_in_the_environment(name, value, several, monkeypatch):
    def initialize(**options):
        assert "coordinator_address" not in options
        raise RuntimeError("not in a test\nat all")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setenv(name, value)
    if not several:
        with processes.joined():
            assert processes.count() == 1
        return
    with pytest.raises(UserError, match=r"JAX cannot start the job \(not in a test\)"), processes.joined():
        pass
