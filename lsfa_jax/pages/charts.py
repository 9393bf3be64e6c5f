"""Line charts as inline SVG, in the colours of the page: charts.html draws what `line_chart` places."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 340, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 10, 10, 24
# Of a line; more would only make the page large.
_MOST_POINTS = 120
_FEW_TICKS = 5


class Line(NamedTuple):
    """A line of a chart, in the SVG's coordinates."""

    name: str
    path: str
    """x,y of each point, as the attribute `points` of a polyline."""
    points: list[tuple[str, str, str]]
    """x and y of each point, and its text."""


class Chart(NamedTuple):
    """A chart as the template charts.html takes it."""

    title: str
    xlabel: str
    xticks: list[tuple[str, str]]
    """Place and text."""
    yticks: list[tuple[str, str]]
    lines: list[Line]


Points = Sequence[tuple[float, float]]
"""x and y."""


def line_chart(title: str, xlabel: str, series: Mapping[str, Points], xnames: Sequence[str] = ()) -> Chart | None:
    """Places lines on axes that span all of their points.

    Args:
        title: above the chart.
        xlabel: what x is.
        series: the points of each line, by increasing x; numbers that are not finite are left out.
        xnames: names of x = 0, 1, ..., where x is no number.

    Returns:
        None without points.
    """
    finite = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in series.items()}
    # With the last point, whichever are left out.
    finite = {name: points[:: -len(points) // _MOST_POINTS][::-1] for name, points in finite.items() if points}
    if not finite:
        return None
    xs, ys = ([point[axis] for points in finite.values() for point in points] for axis in (0, 1))
    yticks = ticks(min(ys), max(ys))
    named = range(0, len(xnames), -(-len(xnames) // _FEW_TICKS) or 1)
    xticks = [float(place) for place in named] or ticks(min(xs), max(xs), whole=True)
    across = _Axis(min(*xs, xticks[0]), max(*xs, xticks[-1]), _LEFT, WIDTH - _RIGHT)
    up = _Axis(yticks[0], yticks[-1], HEIGHT - _BOTTOM, _TOP)
    lines = []
    for name, points in finite.items():
        placed = [(across(x), up(y), f"{name}, {xlabel} {_text(x, xnames)}: {y:.4g}") for x, y in points]
        lines.append(Line(name, " ".join(f"{x},{y}" for x, y, _ in placed), placed))
    return Chart(
        title,
        xlabel,
        [(across(x), _text(x, xnames)) for x in xticks],
        [(up(y), f"{y:,.10g}") for y in yticks],
        lines,
    )


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Returns three to six multiples of 1, 2 or 5 times a power of ten, from `low` or below to `high` or above.

    `whole` keeps fractions out.
    """
    span = (high - low) or max(abs(high), 1.0)
    power = 10.0 ** math.floor(math.log10(span / _FEW_TICKS))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * _FEW_TICKS >= span * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


class _Axis(NamedTuple):
    """Places numbers from `low` to `high` between two coordinates."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> str:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return f"{self.start + share * (self.end - self.start):.1f}"


def _text(x: float, xnames: Sequence[str]) -> str:
    return xnames[int(x)] if xnames else f"{x:,.4g}"
