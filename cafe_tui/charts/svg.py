"""Curves as an SVG document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from cafe_tui.charts.axes import label
from cafe_tui.charts.raster import Curve, fitted_axes

PAINTS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours of the curves, told apart by colour-blind readers too (Okabe and Ito)."""
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 56, 32
"""Pixels around the field of an SVG picture."""


def to_svg(title: str, curves: Sequence[Curve], width: int = 960, height: int = 480, *, log: bool = False) -> str:
    """The curves as an SVG document of `width` x `height` pixels (200 x 150 and up), else ValueError is raised."""
    if width < 200 or height < 150:
        raise ValueError(f"an SVG picture needs at least 200 x 150 pixels, not {width} x {height}")
    return "\n".join(_Svg(curves, width, height, log).document(title)) + "\n"


class _Svg:
    """Places of steps and values in pixels, and the elements made with them."""

    def __init__(self, curves: Sequence[Curve], width: int, height: int, log: bool) -> None:
        self.curves = curves
        self.width, self.height = width, height
        self.x, self.y = fitted_axes(curves, log=log)
        self.right, self.bottom = width - RIGHT, height - BOTTOM
        self.columns = self.right - LEFT

    def at_step(self, step: int) -> float:
        return LEFT + (step - self.x.low) * self.columns / (self.x.high - self.x.low)

    def at_value(self, value: float) -> float:
        return self.bottom - self.y.place(value) * (self.bottom - TOP)

    def document(self, title: str) -> Iterator[str]:
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height}" '
            f'viewBox="0 0 {self.width} {self.height}" font-family="sans-serif" font-size="12">'
        )
        yield '<rect width="100%" height="100%" fill="white"/>'
        yield f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{_safe(title)}</text>'
        yield from self.legend()
        yield from self.axes()
        for curve in self.curves:
            yield from self.curve(curve)
        yield "</svg>"

    def legend(self) -> Iterator[str]:
        yield f'<text x="{LEFT}" y="42">'
        for curve in self.curves:
            yield f'<tspan fill="{_paint(curve)}">● {_safe(curve.name)}</tspan><tspan>   </tspan>'
        yield "</text>"

    def axes(self) -> Iterator[str]:
        for value, text in self.y.ticks(max(2, (self.bottom - TOP) // 48)):
            y = self.at_value(value)
            yield f'<path d="M{LEFT} {y:.1f}H{self.right}" stroke="#ddd"/>'
            yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        steps = self.x.ticks(max(1, self.columns // 96))
        jump = steps[1] - steps[0] if len(steps) > 1 else 1
        for step in steps:
            x = self.at_step(step)
            yield f'<path d="M{x:.1f} {self.bottom}v5" stroke="#666"/>'
            yield f'<text x="{x:.1f}" y="{self.bottom + 19}" text-anchor="middle">{label(step, jump)}</text>'
        yield f'<path d="M{LEFT} {TOP}V{self.bottom}H{self.right}" fill="none" stroke="#666"/>'
        for step in sorted({seam for curve in self.curves for seam in curve.series.seams}):
            if self.x.low <= step < self.x.high:
                x = self.at_step(step)
                yield f'<path class="seam" d="M{x:.1f} {TOP}V{self.bottom}" stroke="#999" stroke-dasharray="3 4"/>'

    def curve(self, curve: Curve) -> Iterator[str]:
        """One line for each stretch without a gap, through the lowest and highest value of every pixel column."""
        points: list[str] = []
        lines, gaps = [points], []
        for at, column in enumerate(curve.series.columns(self.x.low, self.x.high, self.columns), LEFT):
            if column is None:
                continue
            if column.high > 0 or (column.high <= 0 and not self.y.log):  # false for NaN
                values = (column.first, column.low, column.high, column.last)
                places = [f"{at},{self.at_value(value):.1f}" for value in values]
                points += dict.fromkeys(places)
            if column.gap:
                gaps.append(at)
                points = []
                lines.append(points)
        for line in lines:
            if line:
                line = line if len(line) > 1 else line * 2  # a round end makes a dot of it
                yield (
                    f'<polyline points="{" ".join(line)}" fill="none" stroke="{_paint(curve)}" '
                    'stroke-width="1.5" stroke-linejoin="round" stroke-linecap="round"/>'
                )
        for at in gaps:
            yield f'<text x="{at}" y="{self.bottom - 3}" text-anchor="middle" fill="{_paint(curve)}">×</text>'


def _paint(curve: Curve) -> str:
    return PAINTS[(curve.colour - 1) % len(PAINTS)]


def _safe(text: str) -> str:
    """Text for XML: escaped, and without the control characters that no escape makes valid."""
    return escape("".join(c if c.isprintable() else "?" for c in text))
