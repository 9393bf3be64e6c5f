import os

import pytest

from lsfa_jax.util import xla_flags
from lsfa_jax.util.xla_flags import AFFECTED, FLAG

OTHER_VALUE = "--xla_cpu_experimental_ynn_fusion_type=+reduce"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", FLAG),
        (" --xla_dump_to=x ", f"--xla_dump_to=x {FLAG}"),
        (FLAG, FLAG),
        (OTHER_VALUE, OTHER_VALUE),
        ("file_of_flags", "file_of_flags"),
    ],
)
def test_the_flag_is_added_where_the_user_set_no_value(monkeypatch, before, after):
    monkeypatch.setenv("XLA_FLAGS", before)
    monkeypatch.setattr(xla_flags, "jaxlib_version", AFFECTED[0])
    xla_flags.avoid_wrong_sums()
    assert os.environ["XLA_FLAGS"] == after


def test_other_versions_of_jaxlib_get_no_flag(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(xla_flags, "jaxlib_version", "0.10.1")
    xla_flags.avoid_wrong_sums()
    assert "XLA_FLAGS" not in os.environ
