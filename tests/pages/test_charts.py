import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsfa_jax.pages.charts import HEIGHT, WIDTH, line_chart, ticks

NUMBERS = st.floats(-1e9, 1e9).map(lambda x: round(x, 6))


@given(NUMBERS, NUMBERS, st.booleans())
def test_ticks_span_the_numbers_in_few_equal_steps(a, b, whole):
    low, high = sorted((a, b))
    marks = ticks(low, high, whole)
    tolerance = 1e-6 * max(1.0, abs(low), abs(high))
    assert marks[0] <= low + tolerance
    assert marks[-1] >= high - tolerance
    assert 2 <= len(marks) <= 7
    steps = [after - before for before, after in pairwise(marks)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    if whole:
        assert all(mark == round(mark) for mark in marks)


def test_points_are_placed_on_the_axes_and_have_their_values():
    chart = line_chart("Loss", "epoch", {"a": [(1, 0.0), (2, 50.0), (3, 100.0)], "b": [(1, math.nan), (3, 25.0)]})
    a, b = chart.lines
    xs, ys = zip(*((float(x), float(y)) for x, y, _ in a.points), strict=True)
    assert 0 < xs[0] < xs[1] < xs[2] < WIDTH
    assert HEIGHT > ys[0] > ys[1] > ys[2] > 0
    assert xs[1] == pytest.approx((xs[0] + xs[2]) / 2)
    assert ys[1] == pytest.approx((ys[0] + ys[2]) / 2)
    assert a.path == " ".join(f"{x},{y}" for x, y, _ in a.points)
    # A number that is not finite is left out; both lines have the same axes.
    assert [(float(x), text) for x, _, text in b.points] == [(xs[2], "b, epoch 3: 25")]
    assert float(b.points[0][1]) == pytest.approx((ys[0] + ys[1]) / 2)
    places = {text: float(place) for place, text in chart.yticks}
    assert (places["0"], places["100"]) == (ys[0], ys[2])


def test_named_places_and_long_lines():
    chart = line_chart("Bins", "labels", {"a": [(0, 1.0), (1, 2.0)]}, ["1-400", "401-800"])
    assert [text for _, text in chart.xticks] == ["1-400", "401-800"]
    assert [place for place, _ in chart.xticks] == [x for x, _, _ in chart.lines[0].points]
    many = line_chart("Bins", "labels", {"a": [(x, x) for x in range(11)]}, [f"bin {x}" for x in range(11)])
    assert [text for _, text in many.xticks] == ["bin 0", "bin 3", "bin 6", "bin 9"]
    assert many.lines[0].points[-1][2] == "a, labels bin 10: 10"
    (line,) = line_chart("Long", "epoch", {"a": [(x, x) for x in range(10_000)]}).lines
    assert 60 <= len(line.points) <= 120
    assert line.points[-1][2] == "a, epoch 9,999: 9999"
    assert line_chart("Empty", "epoch", {"a": [], "b": [(1, math.inf)]}) is None
