"""The phase plot: one loss against the other, in which a game that circles is seen to circle."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import atan2, hypot, pi, sqrt
from textwrap import wrap
from typing import Final, NamedTuple

from cafe_tui.charts.axes import ValueAxis, short
from cafe_tui.charts.raster import BRAILLE, FAINT, Row
from cafe_tui.charts.series import Series
from cafe_tui.ui.widgets.chart import Chart

NEWEST: Final = 0.25
"""Share of the points that is bright, and whose swing is described."""
LEAST_POINTS: Final = 8
LABEL_CELLS: Final = 6
FLAT: Final = 1e-9
OLD, NEW, POINT = FAINT, 1, 2
NEED_TWO: Final = "a phase plot needs two curves of one stage"

Pair = tuple[float, float]


class Swing(NamedTuple):
    """How the newest points of two series move about their mean.

    `turns` is how often they went round it, by the sum of all angles, which cancel for a motion to and fro. `share` is
    the larger of the two ranges of these points, each as a share (0-1) of the range of all points.
    """

    steps: int
    turns: float
    share: float


def pairs(first: Series, second: Series) -> list[tuple[int, float, float]]:
    """(step, value, value) at every step that both have; means of buckets where there are too many points."""
    others = dict(second.means())
    return [(step, value, others[step]) for step, value in first.means() if step in others]


def swing(points: Sequence[tuple[int, float, float]]) -> Swing | None:
    """How the newest quarter of the points moves; None for too few of them."""
    newest = points[-max(round(len(points) * NEWEST), LEAST_POINTS) :]
    if len(newest) < LEAST_POINTS:
        return None
    shares = []
    columns = []
    for axis in (1, 2):
        values, all_values = [p[axis] for p in newest], [p[axis] for p in points]
        span = max(all_values) - min(all_values)
        shares.append((max(values) - min(values)) / span if span else 0.0)
        mean = sum(values) / len(values)
        spread = sqrt(sum((v - mean) ** 2 for v in values) / len(values)) or 1.0
        columns.append([(v - mean) / spread for v in values])
    angle = 0.0
    path = list(zip(*columns, strict=True))
    for (x0, y0), (x1, y1) in pairwise(path):
        cross = x0 * y1 - y0 * x1
        if abs(cross) > FLAT * hypot(x0, y0) * hypot(x1, y1):  # straight through the mean is no turn to either side
            angle += atan2(cross, x0 * x1 + y0 * y1)
    return Swing(newest[-1][0] - newest[0][0], abs(angle) / (2 * pi), max(shares))


def in_words(motion: Swing | None) -> str:
    """The swing in words."""
    if motion is None:
        return "too few points to tell a swing"
    turns = f"{motion.turns:.1f} turns" if motion.turns >= 1 else "no whole turn"
    return f"last {motion.steps} steps: {turns} about their mean, swing {motion.share:.0%} of the range"


class PhaseView(Chart):
    """The first curve across, the second up; the newest quarter bright and its end marked."""

    def reset_axes(self) -> None:
        """Fit both axes anew."""
        super().reset_axes()
        self._across = ValueAxis()

    def _compose_lines(self) -> list[Row]:
        width, height = self.content_size
        if not width or not height:
            return []
        if len(self._curves) < 2:
            return self._message(NEED_TWO, width, height)
        across, up = self._curves[:2]
        points = pairs(across.series, up.series)
        if not points:
            return self._message(f"{across.name} and {up.name} have no step in common", width, height)
        texts = (in_words(swing(points)), f"across: {across.name}  up: {up.name}")
        head = [_row(line, width) for text in texts for line in wrap(text, width)][: max(height - 3, 0)]
        self._across.update(min(p[1] for p in points), max(p[1] for p in points))
        self._y.update(min(p[2] for p in points), max(p[2] for p in points))
        return [*head, *self._field(points, width, height - len(head))]

    def _message(self, text: str, width: int, height: int) -> list[Row]:
        return [_row(text if y == height // 2 else "", width) for y in range(height)]

    def _field(self, points: Sequence[tuple[int, float, float]], width: int, height: int) -> list[Row]:
        gutter = LABEL_CELLS + 1 if width > 3 * LABEL_CELLS else 0
        rows = max(height - 1, 1) if gutter else height
        cells = width - gutter
        dots = [[0] * (cells * 2) for _ in range(rows * 4)]
        newest = len(points) - max(round(len(points) * NEWEST), 1)
        before: tuple[int, int] | None = None
        for number, (_, x, y) in enumerate(points):
            here = (
                round(self._across.place(x) * (cells * 2 - 1)),
                round((1 - self._y.place(y)) * (rows * 4 - 1)),
            )
            for across, down in _line(before or here, here):
                dots[down][across] = max(dots[down][across], 2 if number >= newest else 1)
            before = here
        assert before is not None
        lines = []
        for row in range(rows):
            text, colours = _cells(dots[4 * row : 4 * row + 4], cells)
            if row == before[1] // 4:
                at = before[0] // 2
                text, colours = f"{text[:at]}●{text[at + 1 :]}", colours[:at] + bytes([POINT]) + colours[at + 1 :]
            lines.append((text, colours))
        return self._with_labels(lines, gutter, width) if gutter else [Row(*line) for line in lines]

    def _with_labels(self, lines: Sequence[tuple[str, bytes]], gutter: int, width: int) -> list[Row]:
        last = len(lines) - 1
        labels = {last - round(self._y.place(value) * last): text for value, text in self._y.ticks(max(2, last // 3))}
        rows = [
            Row(
                labels.get(y, "")[:LABEL_CELLS].rjust(LABEL_CELLS) + ("┤" if y in labels else "│") + text,
                bytes(gutter) + colours,
            )
            for y, (text, colours) in enumerate(lines)
        ]
        left, right = short(self._across.low), short(self._across.high)
        below = left + right.rjust(max(width - gutter - len(left), len(right) + 1))
        return [*rows, _row(" " * gutter + below, width)]


def _line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """The dots of a straight line, both ends included."""
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    return [
        (start[0] + round((end[0] - start[0]) * i / steps), start[1] + round((end[1] - start[1]) * i / steps))
        for i in range(steps + 1)
    ]


def _cells(dots: Sequence[Sequence[int]], cells: int) -> tuple[str, bytes]:
    """Four rows of dots as Braille; a cell is bright if any of its dots is."""
    text, colours = [], bytearray()
    for cell in range(cells):
        columns = [[dots[3 - up][2 * cell + side] for up in range(4)] for side in (0, 1)]
        digits = "".join(f"{sum(1 << up for up, dot in enumerate(column) if dot):x}" for column in columns)
        text.append(BRAILLE[digits])
        colours.append(NEW if any(2 in column for column in columns) else OLD)
    return "".join(text), bytes(colours)


def _row(text: str, width: int) -> Row:
    return Row(text[:width].ljust(width), bytes(width))
