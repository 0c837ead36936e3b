"""One series of several runs in one chart, and the line that names it."""

from __future__ import annotations

from collections.abc import Sequence

from cafe_tui import format as fmt
from cafe_tui.charts.raster import Curve
from cafe_tui.ui.widgets.curve_view import CurveView
from cafe_tui.ui.widgets.lines import Line, Lines, fit, width


class OverlaidCurves(CurveView):
    """A curve view that is turned from series to series; the steps that were chosen stay."""

    @property
    def logarithmic(self) -> bool:
        """Whether the value axis is."""
        return self._logarithmic

    def turn_to(self, curves: Sequence[Curve]) -> None:
        """Show other curves under the same names, on axes of their own, at once."""
        self.update(curves)
        self.reset_axes()
        self._answer()


class SeriesBar(Lines):
    """`← game/psi →  3 of 24`, and the runs that do not have it."""

    _name, _place, _count = "", 0, 0
    _missing: tuple[str, ...] = ()

    def show(self, name: str, place: int, count: int, missing: Sequence[str]) -> None:
        """Name the series at `place` (from 1) of `count`; `missing` are the names of runs without it."""
        self._name, self._place, self._count, self._missing = name, place, count, tuple(missing)
        self.show_changes()

    def compose_lines(self, cells: int) -> list[Line]:
        """One line."""
        if not self._count:
            return [(("no curves yet", "dim"),)]
        name, place = fmt.printable(self._name), f"  {self._place} of {self._count}"
        line: Line = (("← ", "accent"), (name, "strong"), (" →", "accent"), (place, "dim"))
        if not self._missing:
            return [line]
        left = cells - width(line) - 2
        return [(*line, ("  ", ""), (fit(fmt.printable(f"not in {', '.join(self._missing)}"), max(left, 0)), "warn"))]
