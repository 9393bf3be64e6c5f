"""The collectives of a compiled program: what travels between the devices of a mesh."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_HEADER = re.compile(r"(ENTRY )?%(\S+) \(.*\{$")
_COLLECTIVE = re.compile(r" = (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)\(")
_ARRAY = re.compile(r"(pred|[a-z]+(\d+))\[([\d,]*)\]")
_CALLED = re.compile(r"(?:to_apply|body|branch_computations)=(\{[^}]*\}|[^ ,]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Collective(NamedTuple):
    """One collective of a program."""

    kind: str
    """Its name in XLA, such as "all-reduce"."""
    shapes: list[list[int]]
    """Shapes of the arrays that it returns on each device."""
    size: int
    """Their bytes, all together."""
    times: int
    """How often a run of the program executes it; all branches of a conditional count."""


def collectives(program: str) -> list[Collective]:
    """Lists the collectives of a program, given as XLA's text of it, compiled for CPUs."""
    computations: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in program.splitlines():
        if header := _HEADER.match(line):
            lines = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        else:
            lines.append(line)

    def executed(name: str, times: int) -> Iterator[Collective]:
        for line in computations[name]:
            if match := _COLLECTIVE.search(line):
                arrays = list(_arrays(match[1]))
                size = sum(num_bytes * math.prod(shape) for num_bytes, shape in arrays)
                yield Collective(match[2], [shape for _, shape in arrays], size, times)
            elif called := _CALLED.search(line):
                trips = _TRIPS.search(line)
                assert trips or " while(" not in line, line
                for each in re.findall(r"[^{%}, ]+", called[1]):
                    yield from executed(each, times * int(trips[1] if trips else 1))

    return list(executed(entry, 1))


def _arrays(types: str) -> Iterator[tuple[int, list[int]]]:
    """Yields the bytes of a number and the shape of each array of a type or a tuple of types; a boolean has a byte."""
    for _, bits, sizes in _ARRAY.findall(types):
        yield int(bits or 8) // 8, [int(size) for size in sizes.split(",") if size]
