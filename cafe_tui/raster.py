"""Curves as text: a Braille raster with axes, in plain strings and colour numbers.

Every dot column of a curve is one vertical span from its lowest to its highest value, joined to the column before, so a
noisy curve looks like its envelope and costs the same whatever its length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import nan
from typing import Final, Literal, NamedTuple

from cafe_tui.axes import StepAxis, TimeAxis, ValueAxis, short
from cafe_tui.series import Series

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
    found = [curve.series.y_range(x.low, x.high, positive=positive) for curve in curves]
    ranges = [pair for pair in found if pair]
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


def draw(
    curves: Sequence[Curve], x: StepAxis, y: ValueAxis, width: int, height: int, *, charset: Charset = "braille"
) -> Plot:
    """The curves on these axes in `width` x `height` cells (0 and up), labels included and the legend not.

    Later curves give the colour of a cell that several share. What lies outside of the axes is put at their edge.
    """
    glyphs = GLYPHS[charset]
    known = any(len(curve.series) for curve in curves)  # without a value the axes have nothing to say
    rows = height - 1 if known and width > 0 and height >= 3 else max(height, 0)
    ticks = y.ticks(max(2, rows // ROWS_PER_LABEL))
    gutter = max([LABEL_CELLS, *(len(text) for _, text in ticks)]) + 1
    if not known or width < gutter + 4 or rows < 2:
        gutter = 0
    field = _Field(x, y, max(width - gutter, 0), rows, glyphs)
    for curve in curves:
        field.add(curve)
    field.decorate(curves)
    return Plot(
        rows=tuple(field.rows()),
        y_labels=tuple(_y_labels(ticks, field, gutter)),
        x_labels=_x_labels(x, gutter, field.width) if rows < height else "",
        legend=tuple(_entry(curve, glyphs) for curve in curves),
    )


def _entry(curve: Curve, glyphs: _Glyphs) -> Entry:
    name = "".join(c if c.isprintable() else "?" for c in curve.name)
    mark = f"{_mark(curve.colour, glyphs)} " if glyphs.marks else ""
    value = short(nan if curve.series.last is None else curve.series.last) if len(curve.series) else "-"
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


class _Field:
    """The dots inside the axes, `width` x `height` cells. A dot column is an integer, its lowest bit at the bottom."""

    def __init__(self, x: StepAxis, y: ValueAxis, width: int, height: int, glyphs: _Glyphs) -> None:
        self.width = width
        self.height = height
        self._x = x
        self._log = y.log
        self.glyphs = glyphs
        self._dots = [0] * (width * glyphs.across)
        self._colours = [bytearray(width) for _ in range(height)]
        self._signs: list[dict[int, str]] = [{} for _ in range(height)]  # characters that replace or underlie dots
        self.dot: Final = _scale(y, height * glyphs.up - 1)

        self._zero = self.row(self.dot(0.0)) if y.low < 0 < y.high else None

    def row(self, dot: int) -> int:
        """The cell row of a dot row, 0 at the top."""
        return self.height - 1 - dot // self.glyphs.up

    def add(self, curve: Curve) -> None:
        """Draw a curve over what is there."""
        if not self._dots or not self.height:
            return
        before: tuple[int, int] | None = None  # column and dot row of the last point that can be joined
        reach = self._reach(curve.series)
        for at, column in enumerate(curve.series.columns(self._x.low, self._x.high, len(self._dots))):
            if column is None:
                continue
            if column.high > 0 or (column.high <= 0 and not self._log):  # false for NaN
                low, high = self.dot(column.low), self.dot(column.high)
                if before and before[0] == at - 1:
                    low, high = min(low, before[1] + 1), max(high, before[1] - 1)
                elif before and at - before[0] <= reach:
                    self._join(*before, at, self.dot(column.first), curve.colour)
                self._span(at, low, high, curve.colour)
                before = (at, self.dot(column.last))
            else:
                before = None
            if column.gap:
                before = None
                self._sign(self.height - 1, at // self.glyphs.across, self.glyphs.gap, curve.colour)

    def _reach(self, series: Series) -> int:
        """Columns that a line may cross."""
        if not isinstance(self._x, TimeAxis):
            return len(self._dots)
        return 1 + PAUSE * series.distance * len(self._dots) // (self._x.high - self._x.low)

    def _span(self, column: int, low: int, high: int, colour: int) -> None:
        self._dots[column] |= (2 << high) - (1 << low)
        cell = column // self.glyphs.across
        for row in range(self.row(high), self.row(low) + 1):
            self._colours[row][cell] = colour

    def _join(self, column: int, dot: int, to_column: int, to_dot: int, colour: int) -> None:
        """A straight line from a dot, which is drawn already, to another."""
        steps, rise = to_column - column, to_dot - dot
        sign = (rise > 0) - (rise < 0)
        start = dot
        for i in range(1, steps + 1):
            end = dot + round(rise * i / steps)
            ends = (start + sign, end) if end != start else (end, end)
            self._span(column + i, min(ends), max(ends), colour)
            start = end

    def _sign(self, row: int, cell: int, sign: str, colour: int) -> None:
        self._signs[row][cell] = sign
        self._colours[row][cell] = colour

    def decorate(self, curves: Sequence[Curve]) -> None:
        """Put seams, the line of zero and a message where there are no dots."""
        if not self.width or not self.height:
            return
        for curve in curves:
            for seam in curve.series.seams:
                if self._x.low <= seam < self._x.high:
                    cell = (seam - self._x.low) * self.width // (self._x.high - self._x.low)
                    for row in range(self.height):
                        self._underlay(row, cell, self.glyphs.seam)
        if not any(self._dots) and not any(self._signs[-1].values()):
            known = any(curve.series.count for curve in curves)
            self._message(EMPTY if not known else NOT_POSITIVE if self._log else NOT_HERE)
        elif self._zero is not None:
            for cell in range(self.width):
                self._underlay(self._zero, cell, self.glyphs.zero)

    def _underlay(self, row: int, cell: int, sign: str) -> None:
        if not self._colours[row][cell]:
            self._signs[row].setdefault(cell, sign)

    def _message(self, text: str) -> None:
        start = max(self.width - len(text), 0) // 2
        for cell, sign in enumerate(text[: self.width], start):
            self._sign(self.height // 2, cell, sign, FAINT)

    def rows(self) -> Iterator[Row]:
        """The cells, from the top."""
        if not self.width or not self.height:
            yield from [Row("", b"")] * self.height
            return
        cells = self._braille_columns() if self.glyphs.up == 4 else self._mark_columns()
        for row, characters in enumerate(zip(*cells, strict=True)):
            text = list(characters)
            for cell, sign in self._signs[row].items():
                text[cell] = sign
            yield Row("".join(text), bytes(self._colours[row]))

    def _braille_columns(self) -> Iterator[list[str]]:
        """The characters of each cell column, from the top."""
        digits = [f"{dots:0{self.height}x}" for dots in self._dots]  # a digit holds the four dots of half a cell
        for left, right in zip(digits[::2], digits[1::2], strict=True):
            yield [BRAILLE[pair] for pair in map(str.__add__, left, right)]

    def _mark_columns(self) -> Iterator[list[str]]:
        for cell, dots in enumerate(self._dots):
            bits = f"{dots:0{self.height}b}"
            colours = (row[cell] for row in self._colours)
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


def charset_for(encoding: str | None) -> Charset:
    """The best characters that a terminal or file with this encoding can take."""
    try:
        "⣿×┊┈│┤".encode(encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return "ascii"
    return "braille"
