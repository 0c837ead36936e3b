"""Curves as text: a Braille raster with axes, in plain strings and colour numbers.

Every dot column of a curve is one vertical span from its lowest to its highest value, joined to the column before, so a
noisy curve looks like its envelope and costs the same whatever its length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import nan
from typing import Final, Literal, NamedTuple

from cafe_tui.charts.axes import StepAxis, TimeAxis, ValueAxis, short
from cafe_tui.charts.series import Series

Charset = Literal["braille", "ascii"]

FAINT: Final = 0
"""Colour number of axes, labels, seams and messages; curves have 1 and up."""
LABEL_CELLS: Final = 4
"""Width of the value labels at least, so that a new label seldom moves the picture."""
ROWS_PER_LABEL: Final = 3
CELLS_PER_LABEL: Final = 12
EMPTY: Final = "no values yet"
NOT_POSITIVE: Final = "no positive values"
NOT_HERE: Final = "no values at these steps"
PAUSE: Final = 10
"""Usual distances between points over which no line is drawn on a time axis: the run stood still."""

LEFT_DOTS: Final = (0x40, 0x04, 0x02, 0x01)  # of a Braille cell, from the bottom
RIGHT_DOTS: Final = (0x80, 0x20, 0x10, 0x08)


class Curve(NamedTuple):
    """A series with its name and its colour number, 1 to 255, which stays with the name."""

    name: str
    series: Series
    colour: int = 1


class Row(NamedTuple):
    """Characters, one cell each, and the colour number of each."""

    text: str
    colours: bytes


class Entry(NamedTuple):
    """One curve in the legend: `mark` is its character where curves differ in that, `value` its newest value."""

    mark: str
    name: str
    value: str
    colour: int


@dataclass(frozen=True)
class Plot:
    """A picture of curves. `rows` is the field inside the axes; labels are empty where there is no room for them."""

    rows: tuple[Row, ...]
    y_labels: tuple[str, ...]
    x_labels: str
    legend: tuple[Entry, ...]

    def lines(self) -> list[Row]:
        """The whole picture but the legend, labels included: exactly the rows and cells that were asked for."""
        lines = [
            Row(left + row.text, bytes(len(left)) + row.colours)
            for left, row in zip(self.y_labels, self.rows, strict=True)
        ]
        if self.x_labels:
            lines.append(Row(self.x_labels, bytes(len(self.x_labels))))
        return lines

    def legend_pieces(self, title: str = "") -> list[tuple[str, int]]:
        """The legend as texts with their colours: `title  name value  name value`."""
        pieces = [(title, FAINT)] if title else []
        for entry in self.legend:
            if pieces:
                pieces.append(("  ", FAINT))
            pieces.append((f"{entry.mark}{entry.name} {entry.value}", entry.colour))
        return pieces


class _Glyphs(NamedTuple):
    """What a picture is made of."""

    across: int  # dots of a cell
    up: int
    marks: str  # a mark for each curve where dots cannot be coloured; empty: dots are or-ed
    gap: str
    seam: str
    zero: str
    axis: str
    tick: str


GLYPHS: Final[dict[Charset, _Glyphs]] = {
    "braille": _Glyphs(2, 4, "", "×", "┊", "┈", "│", "┤"),
    "ascii": _Glyphs(1, 1, "*o+#%@", "!", ":", "-", "|", "+"),
}


def _braille() -> dict[str, str]:
    """Cell characters by the hexadecimal digits of their left and right dots."""
    cells = {}
    for left in range(16):
        for right in range(16):
            dots = sum(LEFT_DOTS[i] for i in range(4) if left >> i & 1)
            dots += sum(RIGHT_DOTS[i] for i in range(4) if right >> i & 1)
            cells[f"{left:x}{right:x}"] = chr(0x2800 + dots) if dots else " "
    return cells


BRAILLE: Final = _braille()


def step_range(curves: Sequence[Curve]) -> tuple[int, int] | None:
    """The lowest and the highest step of all curves; None when they are empty."""
    ranges = [pair for curve in curves if (pair := curve.series.x_range)]
    return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None


def value_range(curves: Sequence[Curve], x: StepAxis, *, positive: bool = False) -> tuple[float, float] | None:
    """The lowest and the highest value of all curves on the step axis, of the positive ones only if wanted."""
    ranges = [pair for curve in curves if (pair := curve.series.y_range(x.low, x.high, positive=positive))]
    return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None


def follow(curves: Sequence[Curve], x: StepAxis, y: ValueAxis) -> None:
    """Let the axes show these curves, as far as that needs a change."""
    if steps := step_range(curves):
        x.update(*steps)
    fit_values(curves, x, y)


def fit_values(curves: Sequence[Curve], x: StepAxis, y: ValueAxis) -> None:
    """Let the value axis show what these curves have on the step axis, as far as that needs a change."""
    if values := value_range(curves, x, positive=y.log):
        y.update(*values)


def fitted_axes(curves: Sequence[Curve], *, log: bool = False) -> tuple[StepAxis, ValueAxis]:
    """Axes for a picture that will not grow: exactly the steps there are, and round values around the rest."""
    steps = step_range(curves)
    x = StepAxis(low=steps[0], high=steps[1] + 1) if steps else StepAxis()
    y = ValueAxis(log)
    if values := value_range(curves, x, positive=log):
        y.update(*values)
    return x, y


def picture(
    curves: Sequence[Curve], width: int, height: int, *, log: bool = False, charset: Charset = "braille"
) -> Plot:
    """The curves in `width` x `height` cells, of which the legend takes the first line: the plot has one line less."""
    x, y = fitted_axes(curves, log=log)
    return draw(curves, x, y, width, height - 1, charset=charset)


def draw(
    curves: Sequence[Curve], x: StepAxis, y: ValueAxis, width: int, height: int, *, charset: Charset = "braille"
) -> Plot:
    """The curves on these axes in `width` x `height` cells (0 and up), labels included and the legend not.

    Later curves give the colour of a cell that several share. What lies outside of the axes is put at their edge.
    """
    return Canvas(charset).draw(curves, x, y, width, height)


class Canvas:
    """Draws growing curves again and again. While the axes stay, only the columns that new points can change are drawn.

    Its pictures are those of `draw`, to the dot.
    """

    def __init__(self, charset: Charset = "braille") -> None:
        self._glyphs = GLYPHS[charset]
        self._ground: tuple[object, ...] = ()  # what has to be the same for a picture to be continued
        self._field: _Field | None = None
        self._y_labels: tuple[str, ...] = ()
        self._x_labels = ""

    def draw(self, curves: Sequence[Curve], x: StepAxis, y: ValueAxis, width: int, height: int) -> Plot:
        """What `draw` gives."""
        known = any(curve.series for curve in curves)  # without a value the axes have nothing to say
        ground = (known, x.low, x.high, type(x), y.low, y.high, y.log, width, height)
        if self._field is None or ground != self._ground:
            self._ground = ground
            self._field = self._begin(known, x, y, width, height)
        rows = self._field.show(curves)
        legend = tuple(_entry(curve, self._glyphs) for curve in curves)
        return Plot(rows, self._y_labels, self._x_labels, legend)

    def _begin(self, known: bool, x: StepAxis, y: ValueAxis, width: int, height: int) -> _Field:
        rows = height - 1 if known and width > 0 and height >= 3 else max(height, 0)
        ticks = y.ticks(max(2, rows // ROWS_PER_LABEL))
        gutter = max([LABEL_CELLS, *(len(text) for _, text in ticks)]) + 1
        if not known or width < gutter + 4 or rows < 2:
            gutter = 0
        field = _Field(x, y, max(width - gutter, 0), rows, self._glyphs)
        self._y_labels = tuple(_y_labels(ticks, field, gutter))
        self._x_labels = _x_labels(x, gutter, field.width) if rows < height else ""
        return field


def _entry(curve: Curve, glyphs: _Glyphs) -> Entry:
    name = "".join(c if c.isprintable() else "?" for c in curve.name)
    mark = f"{_mark(curve.colour, glyphs)} " if glyphs.marks else ""
    value = short(nan if curve.series.last is None else curve.series.last) if curve.series else "-"
    return Entry(mark, name, value, curve.colour)


def _mark(colour: int, glyphs: _Glyphs) -> str:
    return glyphs.marks[(colour - 1) % len(glyphs.marks)]


def _scale(y: ValueAxis, top: int) -> Callable[[float], int]:
    """The dot row of a value, from 0 at the bottom to `top`."""
    low, span = y.low, y.high - y.low

    def linear(value: float) -> int:  # what ValueAxis.place does, without a call for each value
        share = (value - low) / span
        return 0 if share <= 0 else top if share >= 1 else int(share * top + 0.5)

    return (lambda value: round(y.place(value) * top)) if y.log else linear


Point = tuple[int, int]
"""A column and a dot row."""


class _Trace:
    """What is known of a curve that was drawn."""

    def __init__(self, curve: Curve, reach: int) -> None:
        self.trunk, self.colour, self.reach = curve.series.trunk, curve.colour, reach
        self.before: list[Point | None] = [None]
        """For each column up to the one behind the newest bucket: the point from which a line goes on to it."""
        self.settled = 0
        """The column from which on more points may change something."""

    def continued_by(self, other: _Trace) -> bool:
        """Whether the other one, not drawn yet, would be the same up to the columns that are settled."""
        return (self.trunk, self.colour, self.reach) == (other.trunk, other.colour, other.reach)


class _Field:
    """The dots inside the axes, `width` x `height` cells. A dot column is an integer, its lowest bit at the bottom.

    It keeps what it has shown, and draws again the columns that may have to change.
    """

    def __init__(self, x: StepAxis, y: ValueAxis, width: int, height: int, glyphs: _Glyphs) -> None:
        self.width = width
        self.height = height
        self._time = isinstance(x, TimeAxis)
        self._low, self._high = x.low, x.high
        self._log = y.log
        self.glyphs = glyphs
        self._dots = [0] * (width * glyphs.across)
        self._colours = [bytearray(height) for _ in range(width)]  # of each cell column, from the top
        self._signs: list[dict[int, str]] = [{} for _ in range(width)]  # characters that replace or underlie dots
        self.dot: Final = _scale(y, height * glyphs.up - 1)
        self._zero = self.row(self.dot(0.0)) if y.low < 0 < y.high else None
        self._traces: list[_Trace] = []
        self._empty = True
        self._end = 0  # the dot column behind the newest bucket of all
        self._rows = (Row("", b""),) * height

    def row(self, dot: int) -> int:
        """The cell row of a dot row, 0 at the top."""
        return self.height - 1 - dot // self.glyphs.up

    def show(self, curves: Sequence[Curve]) -> tuple[Row, ...]:
        """The cells with these curves, from the top."""
        if not self.width or not self.height:
            return self._rows
        traces = [_Trace(curve, self._reach(curve.series)) for curve in curves]
        alike = len(traces) == len(self._traces) and all(map(_Trace.continued_by, self._traces, traces))
        end = min(max(map(self._settled, (curve.series for curve in curves)), default=0) + 1, len(self._dots))
        end, self._end = max(end, self._end), end
        if alike and not self._empty:
            first = min(map(self._first_changed, self._traces, curves))
            self._draw(first // self.glyphs.across, -(-end // self.glyphs.across), curves)
        else:
            self._traces = traces
            self._draw(0, self.width, curves)
        return self._rows

    def _reach(self, series: Series) -> int:
        """Columns that a line may cross."""
        if not self._time:
            return len(self._dots)
        return 1 + PAUSE * series.distance * len(self._dots) // (self._high - self._low)

    def _settled(self, series: Series) -> int:
        """The column of the newest bucket."""
        steps = 0 if series.settled is None else max(series.settled - self._low, 0)
        return min(steps * len(self._dots) // (self._high - self._low), len(self._dots))

    def _first_changed(self, trace: _Trace, curve: Curve) -> int:
        """The first column that may differ from what was drawn of this curve."""
        column = min(trace.settled, self._settled(curve.series))
        before = trace.before[column]
        return before[0] + 1 if before else column  # the line from there may go elsewhere now

    def _draw(self, cell: int, end: int, curves: Sequence[Curve]) -> None:
        """Draw the cell columns from this one to `end`; behind it nothing has changed."""
        start = cell * self.glyphs.across
        self._dots[start : end * self.glyphs.across] = [0] * ((end - cell) * self.glyphs.across)
        for column in range(cell, end):
            self._colours[column], self._signs[column] = bytearray(self.height), {}
        for trace, curve in zip(self._traces, curves, strict=True):
            self._add(curve, trace, start)
        bottom = self.height - 1
        self._draw_seams(range(cell, end), curves)
        self._empty = not any(self._dots) and not any(bottom in signs for signs in self._signs)
        if self._empty and end - cell < self.width:
            self._draw(0, self.width, curves)
            return
        if self._empty:
            known = any(curve.series.count for curve in curves)
            self._message(EMPTY if not known else NOT_POSITIVE if self._log else NOT_HERE)
        elif self._zero is not None:
            for column in range(cell, end):
                self._underlay(self._zero, column, self.glyphs.zero)
        self._rows = tuple(self._composed(cell, end))

    def _add(self, curve: Curve, trace: _Trace, start: int) -> None:
        """Draw a curve over what is there, from dot column `start` on."""
        trace.settled = self._settled(curve.series)
        del trace.before[start + 1 :]
        before = trace.before[start]
        columns = curve.series.columns(self._low, self._high, len(self._dots), start, self._end)
        for at, column in enumerate(columns, start):
            if column is not None:
                if column.high > 0 or (column.high <= 0 and not self._log):  # false for NaN
                    low, high = self.dot(column.low), self.dot(column.high)
                    if before and before[0] == at - 1:
                        # The span reaches to one dot from where the column before ended: nothing in between is open.
                        low, high = min(low, before[1] + 1), max(high, before[1] - 1)
                    elif before and at - before[0] <= trace.reach:
                        self._join(before, (at, self.dot(column.first)), start, curve.colour)
                    self._span(at, low, high, curve.colour)
                    before = (at, self.dot(column.last))
                else:
                    before = None
                if column.gap:
                    before = None
                    self._sign(self.height - 1, at // self.glyphs.across, self.glyphs.gap, curve.colour)
            trace.before.append(before)

    def _span(self, column: int, low: int, high: int, colour: int) -> None:
        self._dots[column] |= (2 << high) - (1 << low)  # the bits from `low` to `high`, both included
        top, end = self.row(high), self.row(low) + 1
        self._colours[column // self.glyphs.across][top:end] = bytes([colour]) * (end - top)

    def _join(self, begin: Point, end: Point, start: int, colour: int) -> None:
        """A straight line from a point, which is drawn already, to another, as far as it lies at `start` or behind."""
        steps, rise = end[0] - begin[0], end[1] - begin[1]
        sign = (rise > 0) - (rise < 0)
        # In each column a span from behind the dot of the column before to the line's own dot, so that a steep line has
        # no holes and no dot twice.
        for i in range(max(start - begin[0], 1), steps + 1):
            dot, next_dot = begin[1] + round(rise * (i - 1) / steps), begin[1] + round(rise * i / steps)
            ends = (dot + sign, next_dot) if next_dot != dot else (dot, dot)
            self._span(begin[0] + i, min(ends), max(ends), colour)

    def _sign(self, row: int, cell: int, sign: str, colour: int) -> None:
        self._signs[cell][row] = sign
        self._colours[cell][row] = colour

    def _draw_seams(self, cells: range, curves: Sequence[Curve]) -> None:
        for curve in curves:
            for seam in curve.series.seams:
                column = (seam - self._low) * self.width // (self._high - self._low)
                if column in cells:
                    for row in range(self.height):
                        self._underlay(row, column, self.glyphs.seam)

    def _underlay(self, row: int, cell: int, sign: str) -> None:
        if not self._colours[cell][row]:
            self._signs[cell].setdefault(row, sign)

    def _message(self, text: str) -> None:
        start = max(self.width - len(text), 0) // 2
        for cell, sign in enumerate(text[: self.width], start):
            self._sign(self.height // 2, cell, sign, FAINT)

    def _composed(self, cell: int, end: int) -> Iterator[Row]:
        """The rows, in which only the cell columns from this one to `end` are new."""
        columns = self._braille_columns(cell, end) if self.glyphs.up == 4 else self._mark_columns(cell, end)
        texts = []
        for characters, signs in zip(columns, self._signs[cell:end], strict=True):
            for row, sign in signs.items():
                characters[row] = sign
            texts.append(characters)
        if not texts:
            yield from self._rows
            return
        colours = zip(*self._colours[cell:end], strict=True)
        for before, new, numbers in zip(self._rows, zip(*texts, strict=True), colours, strict=True):
            text, painted = "".join(new), bytes(numbers)
            if before.text[cell:end] == text and before.colours[cell:end] == painted:
                yield before
            else:
                head, tail = slice(cell), slice(end, None)
                yield Row(
                    before.text[head] + text + before.text[tail], before.colours[head] + painted + before.colours[tail]
                )

    def _braille_columns(self, cell: int, end: int) -> Iterator[list[str]]:
        """The characters of these cell columns, from the top."""
        # A hexadecimal digit holds the four dots of half a cell.
        digits = [f"{dots:0{self.height}x}" for dots in self._dots[2 * cell : 2 * end]]
        for left, right in zip(digits[::2], digits[1::2], strict=True):
            yield [BRAILLE[pair] for pair in map(str.__add__, left, right)]

    def _mark_columns(self, cell: int, end: int) -> Iterator[list[str]]:
        for dots, colours in zip(self._dots[cell:end], self._colours[cell:end], strict=True):
            bits = f"{dots:0{self.height}b}"
            yield [_mark(n, self.glyphs) if bit == "1" else " " for bit, n in zip(bits, colours, strict=True)]


def _y_labels(ticks: Sequence[tuple[float, str]], field: _Field, gutter: int) -> list[str]:
    if not gutter:
        return [""] * field.height
    texts = {field.row(field.dot(value)): text for value, text in ticks}
    return [
        texts.get(row, "").rjust(gutter - 1) + (field.glyphs.tick if row in texts else field.glyphs.axis)
        for row in range(field.height)
    ]


def _x_labels(x: StepAxis, gutter: int, cells: int) -> str:
    """The steps under their places, as many as fit with two cells between them."""
    ticks = x.ticks(max(1, cells // CELLS_PER_LABEL))
    jump = ticks[1] - ticks[0] if len(ticks) > 1 else 1
    line = ""
    for tick in ticks:
        text = x.label(tick, jump)
        middle = gutter + (tick - x.low) * cells // (x.high - x.low)
        start = max(min(middle - len(text) // 2, gutter + cells - len(text)), 0)
        if start >= len(line) + 2 or not line:
            line = line.ljust(start) + text
    return line.ljust(gutter + cells)[: gutter + cells]
