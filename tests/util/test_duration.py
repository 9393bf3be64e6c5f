import math

import pytest

from lsfa_jax.util.console import UserError
from lsfa_jax.util.duration import in_words, parse


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("1.5h", 5400), (" 2m ", 120), ("", math.inf)]
)
def test_a_duration_has_a_number_and_a_unit(text, seconds):
    assert parse(text, "--time-limit") == seconds


@pytest.mark.parametrize("text", ["15", "0m", "m", "-1m", "1d", "1h30m", "1e3s", "fifteen", "1 h"])
def test_anything_else_is_an_error_that_shows_how_to_write_one(text):
    with pytest.raises(UserError, match=f"--time-limit {text}: expected a number with its unit, such as 90s, 15m"):
        parse(text, "--time-limit")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12_000, "3 h 20 min"), (1_190, "20 min"), (20.4, "20 s"), (37.5, "38 s"), (59.6, "1 min"), (60, "1 min")],
)
def test_seconds_in_words(seconds, text):
    assert in_words(seconds) == text
