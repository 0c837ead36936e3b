"""One big chart as an instrument: a cursor to read values at, and a step axis to zoom and pan."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.style import Style
from textual import events
from textual.message import Message

from cafe_tui import format as fmt
from cafe_tui.charts.axes import SMALLEST_SPAN, StepAxis, TimeAxis, short
from cafe_tui.charts.raster import FAINT, GLYPHS, Curve, Entry, Plot, Row, fit_values, step_range
from cafe_tui.charts.series import Column, Series
from cafe_tui.ui.widgets.chart import Chart, curve_style

CURSOR: Final = 0x80
"""Added to the colour numbers of the cells under the cursor."""
RAW: Final = 0x40
"""Added to those of the values themselves, which are drawn faint behind their mean."""
CURSOR_LINE: Final = {"braille": "│", "ascii": "|"}
SMOOTHINGS: Final = (None, 64, 16)
"""The shown steps hold so many half-lives at least; their length is a power of two, so that it changes seldom."""
SEPARATOR: Final = " · "


def half_life(steps: int, smoothing: int | None) -> int | None:
    """The half-life in steps (1 and up) for curves that cover so many steps; None for no smoothing."""
    return None if smoothing is None else 1 << max((steps // smoothing).bit_length() - 1, 0)


def reading(column: Column | None, gap: str = "×") -> str:
    """The values of a column: one, the lowest and the highest, a dash for none; `gap` marks non-finite ones."""
    if column is None:
        return "-"
    if column.low != column.low:
        return gap
    values = short(column.low)
    if column.high != column.low:
        values = f"{values}..{short(column.high)}"
    return f"{values} {gap}" if column.gap else values


class CurveView(Chart):
    """A chart that shows all steps, the newest of them, or a part that was chosen and then stays.

    The lines above it say what is shown, and of every curve the values at the cursor, or the newest one without it.
    Keys and clicks are answered at once; new values wait as in any chart.
    """

    @dataclass
    class NameClicked(Message):
        """The name of a curve above the picture was clicked."""

        name: str

    _part: tuple[int, int] | None = None
    _by_time = False
    _legend_height = 2

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._cursor: int | None = None  # a step
        self._smoothing = 0
        self._smoothed: dict[str, tuple[Series, int, Series]] = {}
        self._origins: Sequence[float] = ()
        self._timed: dict[tuple[str, bool], tuple[Series, float, Series]] = {}
        self._detail: tuple[int, int, dict[str, Series]] | None = None
        self._faint: tuple[Curve, ...] = ()  # the values behind their means, as drawn
        self._whole: tuple[Curve, ...] = ()  # the curves over all steps
        self._shown: tuple[Curve, ...] = ()  # the same as drawn, in a part with every point
        self._entries: list[tuple[int, int, int, str]] = []  # line, first cell and end of each name above the picture
        self._left = self._cells = 0  # first cell and width of the field inside the axes

    def reset_axes(self) -> None:
        """Fit the values anew; a part of the steps that was chosen stays."""
        super().reset_axes()
        if self._by_time:
            self._x = TimeAxis(self._window)
        self._legend_height = 2
        if self._part:
            self._x.low, self._x.high = self._part

    def update(self, curves: Sequence[Curve], origins: Sequence[float] = ()) -> None:
        """Show these curves; `origins` are the unix times from which the time axis counts, one for each curve.

        Without them it counts from the first point of all.
        """
        self._origins = origins
        super().update(curves)

    # --- the cursor --------------------------------------------------------------------------------------------------

    def move(self, direction: int) -> None:
        """Move the cursor to the next column with values: to the right if `direction` is positive, else to the left.

        Without a cursor in view, it comes to the newest one, or to the edge behind which it is.
        """
        if not (filled := self._filled()):
            return
        if self._cursor is None or self._cursor >= self._x.high:
            target = len(filled) - 1
        elif self._cursor < self._x.low:
            target = 0
        else:
            here = self._cell(self._cursor)
            target = bisect_right(filled, here) if direction > 0 else bisect_left(filled, here) - 1
        self._put_cursor(filled[max(min(target, len(filled) - 1), 0)])

    def _filled(self) -> list[int]:
        """The cell columns in which any curve has values or gaps."""
        if not self._cells:
            return []
        columns = [curve.series.columns(self._x.low, self._x.high, self._cells) for curve in self._shown]
        return [cell for cell, parts in enumerate(zip(*columns, strict=True)) if any(parts)]

    def _put_cursor(self, cell: int) -> None:
        self._cursor = min(self._first_step(cell), self._x.high - 1)
        self._answer()

    def _cell(self, step: int) -> int:
        return (step - self._x.low) * self._cells // (self._x.high - self._x.low)

    def _first_step(self, cell: int) -> int:
        """The lowest step whose cell is this one or, where a step is wider than a cell, one to the right."""
        return self._x.low - (self._x.low - self._x.high) * cell // self._cells

    def _cursor_cell(self) -> int | None:
        in_view = self._cells and self._cursor is not None and self._x.low <= self._cursor < self._x.high
        return self._cell(self._cursor) if in_view and self._cursor is not None else None

    # --- the axes ----------------------------------------------------------------------------------------------------

    def zoom(self, factor: float, around: int | None = None) -> None:
        """Show `factor` (> 0) times as many steps, `around` a step, which keeps its place, or the cursor.

        With neither, the newest steps or, in a part that was chosen, those around its middle.
        """
        low, span = self._x.low, self._x.high - self._x.low
        wanted = max(round(span * factor), SMALLEST_SPAN)
        steps = step_range(self._whole)
        if steps is None or wanted == span:
            return
        if factor > 1 and wanted > steps[1] - steps[0]:
            self.show_all()
            return
        if around is None:
            around = self._cursor if self._cursor_cell() is not None else None
        if around is None and self._part is None:
            self._keep_to_newest(wanted)
        else:
            around = low + span // 2 if around is None else around
            self._choose(around - (around - low) * wanted // span, wanted, steps)
        self.reset_axes()
        self._answer()

    def pan(self, direction: int) -> None:
        """Show the steps a quarter of the axis later (1) or earlier (-1), at most to the ends of the curves."""
        low, span = self._x.low, self._x.high - self._x.low
        steps = step_range(self._whole)
        if steps is not None and span <= steps[1] - steps[0]:
            self._choose(low + direction * max(span // 4, 1), span, steps)
            self._x.low, self._x.high = self._part or (low, low + span)
            self._answer()

    def show_all(self) -> None:
        """Show all steps, those to come included."""
        self._part = self._window = None
        self.reset_axes()
        self._answer()

    def toggle_following(self) -> None:
        """Keep the steps that are shown now; or, if they are kept, go with the newest again."""
        low, high = self._x.low, self._x.high
        steps = step_range(self._whole)
        if self._part is None:
            self._part = (low, high)
        elif steps is None or (low <= steps[0] and steps[1] < high):
            self.show_all()
            return
        else:
            self._keep_to_newest(high - low)
        self.reset_axes()
        self._answer()

    def _choose(self, low: int, span: int, steps: tuple[int, int]) -> None:
        low = max(min(low, steps[1] + 1 - span), steps[0])
        self._part = (low, low + span)

    def _keep_to_newest(self, span: int) -> None:
        self._part, self._window = None, max(span * 4 // 5, 1)  # the axis adds a quarter of its window

    @property
    def by_time(self) -> bool:
        """Whether the horizontal axis is time."""
        return self._by_time

    @property
    def modes(self) -> tuple[bool, int, bool]:
        """Whether the value axis is logarithmic, which smoothing is on, whether the horizontal axis is time."""
        return self._logarithmic, self._smoothing, self._by_time

    def set_modes(self, log: bool, smoothing: int, by_time: bool) -> None:
        """Take on modes as `modes` gives them."""
        self._logarithmic, self._by_time = log, by_time
        self._smoothing = smoothing if 0 <= smoothing < len(SMOOTHINGS) else 0
        self.reset_axes()
        self._answer()

    def toggle_time(self) -> None:
        """Make the horizontal axis wall-clock time, or steps again; all of it is shown."""
        self._by_time = not self._by_time
        self._part, self._window, self._cursor = None, None, None
        self.reset_axes()
        self._answer()

    # --- every point -------------------------------------------------------------------------------------------------

    def wanted_detail(self) -> tuple[int, int] | None:
        """The steps in view, if a column of the picture is narrower than a bucket and detail would be drawn."""
        low, high = self._x.low, self._x.high
        if self._by_time or self._half_life() or not self._cells:
            return None
        coarse = any(curve.series.width > 1 and curve.series.width * self._cells > high - low for curve in self._curves)
        return (low, high) if coarse else None

    def set_detail(self, low: int, high: int, series: dict[str, Series]) -> None:
        """Draw these series, by curve name, wherever the view lies inside the steps [low, high)."""
        self._detail = (low, high, series)
        self._answer()

    def _detailed(self, curves: Sequence[Curve]) -> tuple[Curve, ...]:
        """The curves with every point, as far as these are known for what is in view."""
        if self._detail is None or self.wanted_detail() is None:
            return tuple(curves)
        low, high, known = self._detail
        if not (low <= self._x.low and self._x.high <= high):
            return tuple(curves)
        if any(_newest(curve, self._x) != _newest(curve, self._x, known) for curve in curves):
            return tuple(curves)  # the run has grown since; it will be read again
        return tuple(curve._replace(series=known.get(curve.name, curve.series)) for curve in curves)

    # --- the values --------------------------------------------------------------------------------------------------

    def toggle_log(self) -> None:
        """Make the value axis logarithmic, or linear again."""
        self._logarithmic = not self._logarithmic
        self.reset_axes()
        self._answer()

    def next_smoothing(self) -> None:
        """Go from the values as they are to their running mean, to a longer one, and back."""
        self._smoothing = (self._smoothing + 1) % len(SMOOTHINGS)
        self.reset_axes()
        self._answer()

    def _half_life(self) -> int | None:
        steps = step_range(self._curves)
        return half_life(steps[1] - steps[0], SMOOTHINGS[self._smoothing]) if steps else None

    def _smooth(self, curves: Sequence[Curve]) -> tuple[Curve, ...]:
        length = self._half_life()
        known, self._smoothed = self._smoothed, {}
        if length is None:
            return tuple(curves)
        for name, series, _ in curves:
            before = known.get(name)
            if before is None or before[0] is not series or before[1] != length:
                before = (series, length, series.smoothed(length))
            self._smoothed[name] = before
        return tuple(curve._replace(series=self._smoothed[curve.name][2]) for curve in curves)

    # --- drawing -----------------------------------------------------------------------------------------------------

    def _answer(self) -> None:
        """Draw now, because a key or a click waits for it."""
        if self._wait is not None:
            self._wait.stop()
        if self.is_running:
            self._draw()

    def _compose_lines(self) -> list[Row]:
        width, height = self.content_size
        if not width or not height:
            return []
        means = self._smooth(self._curves)
        self._faint = tuple(self._over_time(self._raw(), faint=True)) if self._half_life() else ()
        self._whole = tuple(self._over_time(means))
        if self._part is None and (steps := step_range(self._whole)):
            self._x.update(*steps)
        self._shown = self._detailed(self._whole)
        fit_values([*self._faint, *self._shown], self._x, self._y)
        while not (lines := self._lines_under(self._legend_height, width, height)):
            pass  # the legend has become higher, up to a third of the height
        return lines

    def _raw(self) -> list[Curve]:
        return [curve._replace(colour=(curve.colour & ~RAW) | RAW) for curve in self._curves]

    def _over_time(self, curves: Sequence[Curve], *, faint: bool = False) -> Sequence[Curve]:
        """The curves over milliseconds, if that is the axis."""
        if not self._by_time:
            return curves
        firsts = [curve.series.first_time for curve in self._curves]
        begin = min((first for first in firsts if first == first), default=0.0)
        known, timed = self._timed, []
        for i, curve in enumerate(curves):
            origin = self._origins[i] if i < len(self._origins) else begin
            before = known.get((curve.name, faint))
            if before is None or before[0] is not curve.series or before[1] != origin:
                before = (curve.series, origin, curve.series.by_time(origin))
            known[curve.name, faint] = before
            timed.append(curve._replace(series=before[2]))
        return timed

    def _lines_under(self, legend_height: int, width: int, height: int) -> list[Row]:
        """The picture under a legend of so many lines; none, after making more room, if it does not fit there."""
        drawn = [*self._faint, *self._shown]
        plot = self._canvas.draw(drawn, self._x, self._y, width, height - legend_height)
        self._left = len(plot.y_labels[0]) if plot.y_labels else 0
        self._cells = len(plot.rows[0].text) if plot.rows else 0
        legend = self._legend_lines(plot, width)
        if len(legend) > legend_height and legend_height < height // 3:
            self._legend_height = min(len(legend), height // 3)
            return []
        legend += [Row(" " * width, bytes(width))] * (legend_height - len(legend))
        picture = plot.lines()
        if (cell := self._cursor_cell()) is not None:
            field = [self._with_cursor(row, self._left + cell) for row in picture[: len(plot.rows)]]
            picture[: len(plot.rows)] = field
        return (legend[:legend_height] + picture)[:height]

    def _with_cursor(self, row: Row, at: int) -> Row:
        glyphs = GLYPHS[self._charset]
        character, colour = row.text[at], row.colours[at]
        if character in (" ", glyphs.seam, glyphs.zero) and colour == FAINT:
            character = CURSOR_LINE[self._charset]
        colours = row.colours[:at] + bytes([colour | CURSOR]) + row.colours[at + 1 :]
        return Row(row.text[:at] + character + row.text[at + 1 :], colours)

    def _legend_lines(self, plot: Plot, width: int) -> list[Row]:
        """What is shown, then every curve with its value, as many to a line as fit."""
        cell = self._cursor_cell()
        head = SEPARATOR.join(self._modes(cell))
        lines, text, colours = [_padded(head, bytes(len(head)), width)], "", b""
        self._entries = []
        for curve, entry in zip(self._shown, plot.legend[len(self._faint) :], strict=True):
            piece = self._piece(curve, entry, cell)
            if text and len(text) + 2 + len(piece) > width:
                lines.append(_padded(text, colours, width))
                text, colours = "", b""
            gap = "  " if text else ""
            text += gap + piece
            self._entries.append((len(lines), len(text) - len(piece), len(text), curve.name))
            colours += bytes(len(gap)) + bytes([entry.colour]) * len(piece)
        return [*lines, _padded(text, colours, width)] if text else lines

    def _piece(self, curve: Curve, entry: Entry, cell: int | None) -> str:
        value = entry.value
        if cell is not None:
            column = curve.series.columns(self._first_step(cell), self._first_step(cell + 1), 1)[0]
            value = reading(column, GLYPHS[self._charset].gap)
        return f"{entry.mark}{entry.name} {value}"

    def _modes(self, cell: int | None) -> list[str]:
        modes = ["newest values"]
        if cell is not None:
            first, last = self._first_step(cell), self._first_step(cell + 1) - 1
            if self._by_time:
                modes = [f"at {fmt.duration(first / 1000)}"]
            else:
                modes = [f"step {first}" if first == last else f"steps {first}-{last}"]
        if length := self._half_life():
            modes.append(f"mean, half-life {length}")
        if self._logarithmic:
            modes.append("log")
        if self._by_time:
            modes.append("time")
        if self._detailed(self._curves) != tuple(self._curves):
            modes.append("every point")
        if self._part is not None:
            modes.append("frozen")
        elif self._window is not None:
            modes.append("following")
        return modes

    def _style(self, colour: int) -> Style:
        """Under the cursor the dots are reversed: its line alone would vanish in a dense curve."""
        style = curve_style(self, colour & ~(CURSOR | RAW))
        style = style + Style(dim=True) if colour & RAW else style
        return style + Style(reverse=True) if colour & CURSOR else style

    # --- the mouse ---------------------------------------------------------------------------------------------------

    def on_click(self, event: events.Click) -> None:
        at = event.get_content_offset(self)
        if at is not None and at.y < self._legend_height:
            name = next((name for y, start, end, name in self._entries if y == at.y and start <= at.x < end), None)
            if name is not None:
                self.post_message(self.NameClicked(name))
        elif (cell := self._pointed(event)) is not None:
            self._put_cursor(cell)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._zoom_at(event, 0.5)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._zoom_at(event, 2)

    def _zoom_at(self, event: events.MouseEvent, factor: float) -> None:
        event.stop()
        if (cell := self._pointed(event)) is not None:
            self.zoom(factor, self._first_step(cell))

    def _pointed(self, event: events.MouseEvent) -> int | None:
        """The cell column of the field at which the mouse is."""
        cell = event.x - self.gutter.left - self._left
        return cell if 0 <= cell < self._cells else None


def _newest(curve: Curve, x: StepAxis, known: Mapping[str, Series] | None = None) -> int | None:
    """The highest step of a curve if it ends in view, else what is the same for all that do not."""
    steps = (known or {}).get(curve.name, curve.series).x_range
    return min(steps[1], x.high) if steps and steps[1] >= x.low else None


def _padded(text: str, colours: bytes, width: int) -> Row:
    """A line of `width` cells, cut with an ellipsis if it is longer."""
    if len(text) > width:
        text, colours = f"{text[: width - 1]}…", colours[:width]
    return Row(text.ljust(width), colours.ljust(width, b"\0"))
