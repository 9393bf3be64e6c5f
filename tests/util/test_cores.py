import os
import subprocess
import sys

import pytest

from lsfa_jax.util import cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no processes to cores")
def test_a_process_that_is_bound_to_a_core_has_one():
    program = (
        "import os; from lsfa_jax.util import cores; "
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(cores.available())"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "1\n"
    assert 1 <= cores.available() <= os.cpu_count()
