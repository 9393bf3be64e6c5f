"""Durations as users write and read them: 90s, 15m, 1h."""

import math
import re

from lsfa_jax.util.console import UserError

_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse(text: str, option: str) -> float:
    """Returns the seconds of a duration such as 90s, 15m or 1.5h; infinity for "".

    Raises:
        UserError: it is no such duration; the message names the option.
    """
    if not text:
        return math.inf
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not match or not float(match[1]):
        raise UserError(f"{option} {text}: expected a number with its unit, such as 90s, 15m or 1h")
    return float(match[1]) * _SECONDS[match[2]]


def in_words(seconds: float) -> str:
    """Returns "3 h 20 min", "20 min" or "20 s"."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
