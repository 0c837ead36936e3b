"""The curves of one stage in up to four charts; for the game: the two players, and psi, which they play for, first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.geometry import NULL_OFFSET, Region, Size, Spacing
from textual.layout import Layout, WidgetPlacement
from textual.widget import Widget

from cafe_tui import format as fmt
from cafe_tui.charts.raster import Curve
from cafe_tui.charts.series import Series
from cafe_tui.ui.widgets.chart import Chart

Names = Sequence[tuple[str, str]]
"""What one chart shows: scalars, each with the name its curve bears."""
MOST: Final = 4
NARROW: Final = 58
"""Cells below which charts are not put side by side."""
LOW: Final = 15
"""Lines below which they are not put one above the other."""
GUTTER: Final = 2
"""Cells between two charts side by side."""


@dataclass(frozen=True)
class Charts:
    """What is worth seeing of a kind of stage, the most telling first; `title` says it in words."""

    title: str
    charts: tuple[Names, ...]

    @property
    def first(self) -> Names:
        """The most telling chart."""
        return self.charts[0]


ACCURACY: Final[Names] = (("accuracy", "train"), ("val_accuracy", "val"), ("val_robust_accuracy", "val robust"))
PACE: Final[tuple[Names, ...]] = ((("lr", "learning rate"),), (("images_per_second", "images/s"),))
TRAINING: Final = Charts(
    "loss, accuracy %, learning rate, images/s", ((("loss", "train"), ("val_loss", "val")), ACCURACY, *PACE)
)
CHARTS: Final[Mapping[str, Charts]] = {
    "train": TRAINING,
    "game": Charts(
        "the players' losses, psi, cross-entropies, accuracy %",
        (
            (("hypothesis_loss", "hypothesis"), ("test_function_loss", "test function")),
            (("psi", "psi"), ("regulariser", "regulariser")),
            (("accuracy_ac", "AC"), ("accuracy_cf", "CF"), ("accuracy_cc", "CC"), ("accuracy_adv", "Adv")),
            (("ce_ac", "CE AC"), ("ce_cf", "CE CF"), ("ce_cc", "CE CC"), ("ce_adv", "CE Adv")),
            (("val_regret", "regret"),),
            (
                ("val_treatment_distance", "g away from Z"),
                ("val_counterfactual_kl", "CF away from Adv"),
                ("val_hypothesis_spread", "spread of h"),
            ),
        ),
    ),
    "inoculate": Charts(
        "losses, accuracy %, learning rate, images/s",
        ((("defence_loss", "defence"), ("inoculation_loss", "inoculation")), ACCURACY, *PACE),
    ),
}


class SideBySide(Layout):
    """As many of the children as there is room for, in rows of equal cells; the first painting has them so."""

    name = "side-by-side"

    def arrange(self, parent: Widget, children: list[Widget], size: Size, greedy: bool = True) -> list[WidgetPlacement]:
        """The places of the first children; the others have none."""
        across, down = room(size)
        shown = children[: across * down]
        columns, rows = edges(size.width + GUTTER, across), edges(size.height, -(-len(shown) // across))
        placements = []
        for i, child in enumerate(shown):
            x, y = columns[i % across], rows[i // across]
            region = Region(x, y, columns[i % across + 1] - GUTTER - x, rows[i // across + 1] - y)
            placements.append(WidgetPlacement(region, NULL_OFFSET, Spacing(), child))
        return placements


def room(size: Size) -> tuple[int, int]:
    """How many charts are put side by side and one above the other in so many cells."""
    return 1 + (size.width >= NARROW), 1 + (size.height >= LOW)


def edges(cells: int, parts: int) -> list[int]:
    """Where equal parts of so many cells begin, and the end."""
    return [cells * i // max(parts, 1) for i in range(parts + 1)]


class GameCurves(Container, can_focus=True):
    """As many charts as there is room for, four at most; `v` goes on to the others."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("v", "turn", "More curves")]
    DEFAULT_CSS = """
    GameCurves Chart { width: 1fr; height: 1fr; }
    """

    BORDER_TITLE = "curves"

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._shown: tuple[str, str, Mapping[str, Series]] = ("", "", {})
        self._first = 0  # the chart that is shown first
        self._room = MOST  # until it is known
        self._layout = SideBySide()
        self._names: list[Names] = []

    @property
    def layout(self) -> Layout:
        return self._layout

    def compose(self) -> ComposeResult:
        for _ in range(MOST):
            yield Chart()

    def show(self, stage: str, kind: str, series: Mapping[str, Series]) -> None:
        """Show what belongs to a stage of this kind, out of its series by scalar name."""
        if stage != self._shown[0]:
            self._first = 0
            self._names = []
            for chart in self.query(Chart):
                chart.reset_axes()
        self._shown = (stage, kind, series)
        self._draw()

    def action_turn(self) -> None:
        """Show the charts for which there was no room."""
        available = len(self._available())
        if self._room < available:
            self._first = (self._first + self._room) % available
            self._draw()

    def _available(self) -> list[Names]:
        """The charts of the stage of which there is any curve; the first one in any case."""
        _, kind, series = self._shown
        charts = CHARTS.get(kind, TRAINING).charts
        return [names for i, names in enumerate(charts) if not i or any(scalar in series for scalar, _ in names)]

    def _draw(self) -> None:
        stage, kind, series = self._shown
        available = self._available()
        chosen = [available[(self._first + i) % len(available)] for i in range(min(self._room, len(available)))]
        self._title(stage, kind, len(available) > len(chosen))
        widgets = list(self.query(Chart))
        for place, widget in enumerate(widgets):
            widget.display = place < len(chosen)
        for place, (widget, names) in enumerate(zip(widgets, chosen, strict=False)):
            if self._names[place : place + 1] != [names]:
                widget.reset_axes()
            present = [(scalar, name, 1 + i) for i, (scalar, name) in enumerate(names) if scalar in series]
            widget.update([Curve(name, series[scalar], colour) for scalar, name, colour in present])
        self._names = chosen

    def _title(self, stage: str, kind: str, more: bool) -> None:
        if stage:
            title = Content(fmt.printable(f"{stage}: {CHARTS.get(kind, TRAINING).title}{'; v for more' * more}"))
            if title != self.border_title:
                self.border_title = title

    def on_resize(self) -> None:
        across, down = room(self.content_size)
        if self._room != across * down:
            self._room = across * down
            self._first = 0
            self._draw()
