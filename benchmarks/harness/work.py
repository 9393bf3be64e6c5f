"""What is measured, as a worker runs it: standard library only, so that a peer's own interpreter can import it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Part(NamedTuple):
    """A piece of the work, and how often the whole has it: an epoch is added up from steps of each length."""

    times: float
    """Calls of `run` in the whole; below one where `run` does more than the whole (a document of many)."""
    run: Callable[[], object]
    """Does the piece once and returns when it is done."""


@dataclass(frozen=True)
class Work:
    """An implementation that is ready to be timed."""

    parts: list[Part]
    facts: dict[str, Any] = field(default_factory=dict)
    """What else is to be known of it; numbers and strings."""


def once(run: Callable[[], object], **facts: Any) -> Work:
    """Returns work that is one call."""
    return Work([Part(1, run)], facts)


def each(number: int, run: Callable[[], object], **facts: Any) -> Work:
    """Returns the work for one item, where a call does `number` of them."""
    return Work([Part(1 / number, run)], facts)
