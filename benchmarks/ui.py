"""What live curves cost: drawing two of them at 120 x 30, adding a point, and the cells that a new point changes.

A drawing goes from the series to the finished lines, axes and labels included, as the chart widget has it before
Textual paints. The limits stand where another program would: no ready-made plot widget is installed with the project.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from common import Row, in_turn, main

from cafe_tui.axes import StepAxis, ValueAxis
from cafe_tui.raster import Curve, draw, follow
from cafe_tui.raster import Row as Line
from cafe_tui.series import Series
from cafe_tui.widgets.chart import changed_cells

WIDTH, HEIGHT = 120, 30
LIMITS = {10_000: 5.0, 100_000: 5.0, 1_000_000: 5.0, 10_000_000: 60.0}
"""Milliseconds for a drawing, by points of each curve."""
APPEND_LIMIT = 1.0
"""Microseconds for a point."""
CELLS_LIMIT = 60.0
"""Cells of an update of a live chart: 6 kB a second at four updates, if a cell takes 25 bytes."""
UPDATES, POINTS = 40, 25


def losses(count: int) -> list[float]:
    """A noisy decay."""
    draw_of = random.Random(0)
    noise = [draw_of.gauss(0.0, 0.05) for _ in range(997)]
    return [0.3 + 2.0 * math.exp(-6.0 * i / count) + noise[i % 997] for i in range(count)]


def curve_of(values: list[float], colour: int, sign: float) -> Curve:
    """A curve to which the values were added one by one."""
    series = Series()
    append = series.append
    for step, value in enumerate(values):
        append(step, sign * value, 0.0)
    return Curve(f"loss {colour}", series, colour)


def two_curves(count: int) -> list[Curve]:
    """A loss and its negative, of `count` points each."""
    values = losses(count)
    return [curve_of(values, 1, 1.0), curve_of(values, 2, -1.0)]


def picture(curves: Sequence[Curve], x: StepAxis, y: ValueAxis) -> list[Line]:
    """One drawing."""
    follow(curves, x, y)
    return draw(curves, x, y, WIDTH, HEIGHT).lines()


def drawing(count: int) -> list[Row]:
    """Time to draw curves of this length, and what each of their points costs from the first on."""
    curves, values = two_curves(count), losses(count)
    x, y = StepAxis(), ValueAxis()
    (spent,) = in_turn(lambda: picture(curves, x, y))
    (added,) = in_turn(lambda: curve_of(values, 1, 1.0))
    return [
        Row(f"draw 2 x {count:,} points, against the limit", spent * 1e3, LIMITS[count], "ms", target=1.0),
        Row(f"add one of {count:,} points, against the limit", added / count * 1e6, APPEND_LIMIT, "us", target=1.0),
    ]


def live() -> Row:
    """Cells below the legend that a live chart repaints for each update, of 25 new points on each curve."""
    values = losses(2000)
    start = 1000
    signs = (1.0, -1.0)
    curves = [curve_of(values[:start], colour, sign) for colour, sign in enumerate(signs, 1)]
    x, y = StepAxis(), ValueAxis()
    before = picture(curves, x, y)
    cells = 0
    for step in range(start, start + UPDATES * POINTS):
        for curve, sign in zip(curves, signs, strict=True):
            curve.series.append(step, sign * values[step])
        if (step + 1 - start) % POINTS == 0:
            after = picture(curves, x, y)
            cells += sum(region.area for region in changed_cells(before, after))
            before = after
    return Row(
        "cells repainted for each live update, against the limit", cells / UPDATES, CELLS_LIMIT, "cells", target=1.0
    )


def measure(quick: bool) -> list[Row]:
    """All rows; the quick work leaves out the longest curves."""
    counts = [count for count in LIMITS if count <= 1_000_000 or not quick]
    return [row for count in counts for row in drawing(count)] + [live()]


if __name__ == "__main__":
    main("ui", measure)
