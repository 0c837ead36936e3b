"""Live curves in a few bytes: a chart that repaints only the cells that changed, and seldom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import inf
from time import monotonic
from typing import ClassVar, Final, Self

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget

from cafe_tui.charts.axes import StepAxis, ValueAxis
from cafe_tui.charts.raster import FAINT, Canvas, Charset, Curve, Plot, Row, follow

PERIOD: Final = 0.25
"""Seconds between two drawings, on average over several."""
EARLY: Final = PERIOD / 2
"""A drawing that is due in less is made at once: with the others of its screen it costs less than alone."""
NEAR: Final = 4
"""Unchanged cells that cost less to send again than to jump over."""
COLOURS: Final = 6
"""Curve colours; further colour numbers start again."""
CURVE_CLASSES: Final = {"chart--faint", *(f"chart--curve-{i}" for i in range(1, COLOURS + 1))}
CURVE_CSS: Final = """
    & > .chart--faint { color: $foreground-muted; }
    &:ansi > .chart--faint, &:nocolor > .chart--faint { text-style: dim; }
    & > .chart--curve-1 { color: $text-primary; }
    & > .chart--curve-2 { color: $text-warning; }
    & > .chart--curve-3 { color: $text-success; }
    & > .chart--curve-4 { color: $text-error; }
    & > .chart--curve-5 { color: $text-secondary; }
    & > .chart--curve-6 { color: $foreground; }
"""
"""Put inside a widget's DEFAULT_CSS to give it the colours of curves in every theme."""


def changed_cells(before: Sequence[Row], after: Sequence[Row]) -> list[Region]:
    """The runs of cells in which two pictures of the same size differ; whole lines where a character is wide."""
    regions = []
    for y, (old, new) in enumerate(zip(before, after, strict=True)):
        if old == new:
            continue
        if len(old.text) != len(new.text) or cell_len(old.text + new.text) != len(old.text + new.text):
            regions.append(Region(0, y, max(cell_len(old.text), cell_len(new.text)), 1))
        else:
            regions += [Region(start, y, end - start, 1) for start, end in _runs(old, new)]
    return regions


def _runs(old: Row, new: Row) -> Iterator[tuple[int, int]]:
    cells = zip(old.text, new.text, old.colours, new.colours, strict=True)
    changed = [x for x, (a, b, c, d) in enumerate(cells) if a != b or c != d]
    start = end = changed[0]
    for x in changed:
        if x > end + NEAR:
            yield start, end + 1
            start = x
        end = x
    yield start, end + 1


class Chart(Widget):
    """Curves under a line with their names and newest values.

    `log` makes the value axis logarithmic; `window` (steps) keeps to the newest steps. A chart of any size works.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = CURVE_CLASSES
    DEFAULT_CSS = f"Chart {{ height: 1fr; {CURVE_CSS} }}"

    def __init__(
        self,
        title: str = "",
        *,
        log: bool = False,
        window: int | None = None,
        charset: Charset = "braille",
        id: str | None = None,  # noqa: A002 - Textual's name
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._title = title
        self._charset: Charset = charset
        self._canvas = Canvas(charset)
        self._window = window
        self._logarithmic = log
        self._curves: tuple[Curve, ...] = ()
        self._lines: list[Row] = []
        self._composed_for: Size | None = None  # outer size, which costs less to ask for than that of the content
        self._wait: Timer | None = None
        self._due = -inf  # when the next drawing may come
        self._looks: dict[int, Style] = {}  # of the colour numbers, until the theme or what is behind changes
        self.reset_axes()

    def reset_axes(self) -> None:
        """Forget what was shown: the next drawing fits the axes anew."""
        self._x = StepAxis(self._window)
        self._y = ValueAxis(self._logarithmic)

    def update(self, curves: Sequence[Curve]) -> None:
        """Show these curves, now or within a quarter of a second. Other names than before bring fresh axes."""
        if [curve.name for curve in curves] != [curve.name for curve in self._curves]:
            self.reset_axes()
        self._curves = tuple(curves)
        self._draw_soon()

    def text(self) -> str:
        """What is shown, without colours."""
        return "\n".join(row.text for row in self._lines)

    # --- drawing -----------------------------------------------------------------------------------------------------

    def _draw_soon(self) -> None:
        if self._wait is not None or not self.is_running:
            return
        left = self._due - monotonic()
        if left <= EARLY:
            self._draw()
        else:
            self._wait = self.set_timer(left, self._draw)

    def _draw(self) -> None:
        self._wait = None
        now = monotonic()
        # Counted from when it was due, a drawing that is late or early once does not shift all that follow.
        self._due = (self._due if abs(now - self._due) < PERIOD else now) + PERIOD
        before, self._lines = self._lines, self._composed()
        if len(before) != len(self._lines):
            self.refresh()
        elif regions := changed_cells(before, self._lines):
            self.refresh(*regions)

    def _composed(self) -> list[Row]:
        lines = self._compose_lines()
        self._composed_for = self.outer_size if lines else None  # out of sight, it keeps the size that it had
        return lines

    def _compose_lines(self) -> list[Row]:
        width, height = self.content_size
        if not width or not height:
            return []
        follow(self._curves, self._x, self._y)
        plot = self._canvas.draw(self._curves, self._x, self._y, width, height - 1)
        return [self._legend(plot, width), *plot.lines()]

    def _legend(self, plot: Plot, width: int) -> Row:
        pieces = plot.legend_pieces(self._title)
        text = "".join(text for text, _ in pieces)
        colours = b"".join(bytes([colour]) * len(text) for text, colour in pieces)
        if len(text) > width:
            text, colours = f"{text[: width - 1]}…" if width > 1 else text[:width], colours[:width]
        return Row(text.ljust(width), colours.ljust(width, b"\0"))

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        if not regions:
            self._looks.clear()  # the background may have changed, or that of a parent
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def notify_style_update(self) -> None:
        self._looks.clear()
        self._composed_for = None  # a border takes room from the content
        super().notify_style_update()

    def render_line(self, y: int) -> Strip:
        if self._composed_for != self.outer_size:
            # Here and not on the resize event, which comes after the first painting in the new size.
            self._lines = self._composed()
        if y >= len(self._lines):
            return Strip.blank(self.content_size.width, self.rich_style)
        row = self._lines[y]
        strip = Strip(self._segments(row), cell_len(row.text))
        if strip.cell_length == len(row.text):
            return strip
        return strip.adjust_cell_length(len(row.text), self.rich_style)  # with wide characters, it is too long

    def _segments(self, row: Row) -> Iterator[Segment]:
        start = 0
        for colour, run in groupby(row.colours):
            end = start + len(list(run))
            if colour not in self._looks:
                self._looks[colour] = self._style(colour)
            yield Segment(row.text[start:end], self._looks[colour])
            start = end

    def _style(self, colour: int) -> Style:
        return curve_style(self, colour)


def curve_style(widget: Widget, colour: int) -> Style:
    """The looks of a colour number in the current theme, for a widget with `CURVE_CLASSES` and `CURVE_CSS`."""
    name = "faint" if colour == FAINT else f"curve-{(colour - 1) % COLOURS + 1}"
    return widget.get_component_rich_style(f"chart--{name}")
