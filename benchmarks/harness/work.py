"""What an implementation returns to be timed: standard library only, so that a peer's interpreter can import it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

Facts = Mapping[str, float | int | str]


class Part(NamedTuple):
    """A call that is timed, and its weight in the total: an epoch is added up from one step of each length."""

    weight: float
    """Calls in the unit that is reported; 1/N where a call processes N units, negative to subtract."""
    run: Callable[[], object]
    """Does the work once and returns when the results are ready."""


@dataclass(frozen=True)
class Work:
    """An implementation that is ready to be timed; the time of a round is the weighted sum over its parts."""

    parts: list[Part]
    facts: Facts = field(default_factory=dict)
    """More about it that is reported beside the times."""


def per_call(run: Callable[[], object], **facts: float | int | str) -> Work:
    """Returns work whose unit is one call."""
    return Work([Part(1, run)], facts)


def per_item(number: int, run: Callable[[], object], **facts: float | int | str) -> Work:
    """Returns work whose unit is one item, where a call processes `number` of them."""
    return Work([Part(1 / number, run)], facts)
