import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lsfa_jax.cli import common
from lsfa_jax.util import interrupts
from lsfa_jax.util.interrupts import Interrupted

ROOT = Path(__file__).parents[2]

# The main thread computes for minutes, without returning to Python's interpreter, in which it would handle signals.
BUSY = """
import hashlib, sys
from lsfa_jax.cli import common
from lsfa_jax.util import interrupts
def work():
    print("working", flush=True)
    {blocked}
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
with interrupts.second_ends(lambda: print("stopping", flush=True), lambda: print("ended")):
    with {block}:
        work()
"""
# Fills the pipe to the parent, which does not read.
FILL = "import os; os.set_blocking(1, False); os.write(1, b'x' * 10**7); os.set_blocking(1, True)"


def start(block, blocked="pass"):
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(block=block, blocked=blocked)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "working\n"
    time.sleep(0.2)
    return process


def end(process):
    """Returns the exit code and the seconds until the process ended."""
    start = time.monotonic()
    code = process.wait(60)
    return code, time.monotonic() - start


@pytest.mark.parametrize("signals", [("SIGINT", "SIGINT"), ("SIGTERM", "SIGTERM"), ("SIGINT", "SIGTERM")])
def test_the_second_signal_ends_the_process_although_the_main_thread_is_busy(signals):
    first, second = (getattr(signal, name) for name in signals)
    process = start("interrupts.deferred()")
    process.send_signal(first)
    assert process.stdout.readline() == "stopping\n"
    process.send_signal(second)
    code, seconds = end(process)
    assert code == 128 + second
    assert seconds < 2
    assert process.communicate() == ("ended\n", "")


def test_the_second_signal_ends_the_process_although_the_first_was_not_deferred():
    process = start("open('/dev/null')")
    process.send_signal(signal.SIGINT)
    time.sleep(1.0)  # a busy machine would take two signals that come at once for one
    process.send_signal(signal.SIGINT)
    code, seconds = end(process)
    assert code == 130
    assert seconds < 2
    assert process.communicate() == ("ended\n", "")


def test_the_second_signal_ends_the_process_although_nothing_reads_its_output():
    process = start("interrupts.deferred()", FILL)
    process.send_signal(signal.SIGINT)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    code, seconds = end(process)
    assert code == 130
    assert seconds < 5
    process.communicate()


def test_a_signal_is_deferred_to_the_next_check_or_to_the_end_of_the_block():
    with interrupts.deferred():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM"):
            interrupts.check()
    with pytest.raises(Interrupted), interrupts.deferred():
        signal.raise_signal(signal.SIGINT)
    interrupts.check()  # each signal is raised once


def test_handlers_are_restored():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    with interrupts.second_ends(print, print), interrupts.deferred():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(wakeup) == wakeup
    assert not [thread for thread in threading.enumerate() if thread.name == "signals"]


def test_a_command_that_was_called_in_a_process_leaves_no_trace_in_it():
    with pytest.raises(SystemExit):
        interrupts.run_and_exit(lambda: 0)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted), interrupts.deferred():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == handler


def test_in_another_thread_signals_are_left_as_they_are():
    errors = []

    def work():
        try:
            with interrupts.second_ends(print, print), interrupts.deferred():
                interrupts.check()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []


def test_a_signal_whose_exception_was_lost_ends_what_is_deferred_next():
    def lose_exceptions(command):
        # As a callback of a library does.
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
        with interrupts.deferred():
            command()
        return 0

    def step():
        interrupts.check()
        raise AssertionError("the signal was lost")

    assert common.run(lambda line: lose_exceptions(step), []) == 128 + signal.SIGTERM
    # The next command in the process does not see it.
    with interrupts.deferred():
        interrupts.check()


def test_a_signal_that_came_before_an_error_is_forgotten():
    def fail():
        with interrupts.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            raise ValueError("an error")

    with pytest.raises(ValueError, match="an error"):
        fail()
    with interrupts.deferred():
        interrupts.check()
