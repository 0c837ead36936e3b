"""Accuracy against the radius of the ball, where a table has several."""

from __future__ import annotations

from cafe_tui.charts.axes import RADIUS_UNITS, RadiusAxis, ValueAxis
from cafe_tui.charts.raster import Charset, Curve, Plot, draw, follow
from cafe_tui.charts.series import Series
from engine.contract.run.records import Cell
from engine.contract.run.results import Table

HEIGHT = 12
"""Lines of a picture."""


def radius_curves(table: Table) -> list[Curve]:
    """For each network and attack with at least two radii, its accuracy in percent over radius in RADIUS_UNITS.

    Where the clean accuracy is known the curve begins with it.
    """
    rows: dict[tuple[str, str], dict[int, float]] = {}
    for cell in table.cells.values():
        if cell.eps and "@" in cell.attack:
            rows.setdefault((cell.model, cell.attack.split("@")[0]), {})[_place(cell)] = cell.accuracy
    curves: list[Curve] = []
    for (model, attack), points in rows.items():
        if len(points) < 2:
            continue
        clean = table.cell(model, "clean")
        known = ({0: clean.accuracy} if clean else {}) | points
        name = f"{model}, {attack}" if len(table.models) > 1 else attack
        curves.append(Curve(name, Series(sorted(known.items())), len(curves) + 1))
    return curves


def radius_plot(table: Table, width: int, charset: Charset) -> tuple[Plot, str] | None:
    """The picture and what it shows; None for a table with one radius."""
    curves = radius_curves(table)
    if not curves:
        return None
    x, y = RadiusAxis(), ValueAxis()
    follow(curves, x, y)
    norm = next(cell.norm for cell in table.cells.values() if cell.eps)
    return draw(curves, x, y, width, HEIGHT, charset=charset), f"accuracy % against eps ({norm})"


def _place(cell: Cell) -> int:
    return round(cell.eps * RADIUS_UNITS)
