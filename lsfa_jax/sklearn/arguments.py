"""Checks of numbers that users pass to methods: ValueError instead of what JAX or NumPy raise later."""

import math

import numpy as np

_LARGEST = 2**31 - 1


def check_integer(name: str, value: object, least: int = 1) -> None:
    """Raises ValueError unless a value is an integer of at least `least` that fits 32 bits."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not least <= value <= _LARGEST:
        raise ValueError(f"{name}={value!r}: expected an integer from {least} to {_LARGEST:,}")


def check_number(name: str, value: object, allow_zero: bool = False) -> None:
    """Raises ValueError unless a value is a finite number above 0, or 0 where that is allowed."""
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0 or (value == 0 and not allow_zero):  # type: ignore[arg-type, operator]
        raise ValueError(f"{name}={value!r}: expected a number {'of at least' if allow_zero else 'above'} 0")
