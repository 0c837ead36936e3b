"""Accuracy against the radius of the ball, where a table has several."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from cafe_tui.charts.axes import RADIUS_UNITS, RadiusAxis, ValueAxis
from cafe_tui.charts.raster import Charset, Curve, Plot, draw, follow
from cafe_tui.charts.series import Series

HEIGHT = 12
"""Lines of a picture."""
LARGEST = 1e9
"""A radius beyond which a cell is not drawn: no ball that an attack was made in."""


class Measured(Protocol):
    """The accuracy of a network under an attack, in percent: `pgd` at one radius `eps`, or `pgd@eps` at several.

    `eps` is 0 where there is no ball, as under the attack `clean`; `norm` names the ball.
    """

    @property
    def model(self) -> str: ...
    @property
    def attack(self) -> str: ...
    @property
    def accuracy(self) -> float: ...
    @property
    def eps(self) -> float: ...
    @property
    def norm(self) -> str: ...


def radius_curves(cells: Collection[Measured], models: Sequence[str]) -> list[Curve]:
    """For each network and attack with at least two radii, its accuracy in percent over radius in RADIUS_UNITS.

    Where the clean accuracy is known the curve begins with it. A curve names its network if there are several `models`.
    """
    rows: dict[tuple[str, str], dict[int, float]] = {}
    for cell in cells:
        if 0 < cell.eps < LARGEST and "@" in cell.attack:
            rows.setdefault((cell.model, cell.attack.split("@")[0]), {})[_place(cell)] = cell.accuracy
    clean = {cell.model: cell.accuracy for cell in cells if cell.attack == "clean"}
    curves: list[Curve] = []
    for (model, attack), points in rows.items():
        if len(points) < 2:
            continue
        known = ({0: clean[model]} if model in clean else {}) | points
        name = f"{model}, {attack}" if len(models) > 1 else attack
        curves.append(Curve(name, Series(sorted(known.items())), len(curves) + 1))
    return curves


def radius_plot(
    cells: Collection[Measured], models: Sequence[str], width: int, charset: Charset
) -> tuple[Plot, str] | None:
    """The picture and what it shows; None for a table with one radius."""
    curves = radius_curves(cells, models)
    if not curves:
        return None
    x, y = RadiusAxis(), ValueAxis()
    follow(curves, x, y)
    norm = next(cell.norm for cell in cells if 0 < cell.eps < LARGEST)
    return draw(curves, x, y, width, HEIGHT, charset=charset), f"accuracy % against eps ({norm})"


def _place(cell: Measured) -> int:
    """The place of a radius on the axis, in whole RADIUS_UNITS."""
    return round(cell.eps * RADIUS_UNITS)
