"""The curves of one stage in two charts; for the game: the two players, and psi, which they play for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content

from cafe_tui import format as fmt
from cafe_tui.raster import Curve
from cafe_tui.series import Series
from cafe_tui.widgets.chart import Chart

Names = Sequence[tuple[str, str]]
"""What one chart shows: scalars, each with the name its curve bears."""


@dataclass(frozen=True)
class Charts:
    """What is worth seeing of a kind of stage."""

    title: str
    first: Names
    second: Names


ACCURACY: Final[Names] = (("accuracy", "train"), ("val_accuracy", "val"), ("val_robust_accuracy", "val robust"))
TRAINING: Final = Charts("loss, accuracy %", (("loss", "train"), ("val_loss", "val")), ACCURACY)
CHARTS: Final[Mapping[str, Charts]] = {
    "train": TRAINING,
    "game": Charts(
        "the players' losses, psi",
        (("hypothesis_loss", "hypothesis"), ("test_function_loss", "test function")),
        (("psi", "psi"),),
    ),
    "inoculate": Charts(
        "losses, accuracy %", (("defence_loss", "defence"), ("inoculation_loss", "inoculation")), ACCURACY
    ),
}


class GameCurves(Horizontal, can_focus=True):
    """Two charts side by side, or only the first where there is little room."""

    DEFAULT_CSS = """
    GameCurves Chart { width: 1fr; height: 1fr; }
    GameCurves #second { margin-left: 2; }
    """

    BORDER_TITLE = "curves"
    _stage = ""

    def compose(self) -> ComposeResult:
        yield Chart(id="first")
        yield Chart(id="second")

    def show(self, stage: str, kind: str, series: Mapping[str, Series]) -> None:
        """Show what belongs to a stage of this kind, out of its series by scalar name."""
        charts = CHARTS.get(kind, TRAINING)
        widgets = list(self.query(Chart))
        if stage != self._stage:
            self._stage = stage
            self.border_title = Content(fmt.printable(f"{stage}: {charts.title}"))
            for widget in widgets:
                widget.reset_axes()
        for widget, names in zip(widgets, (charts.first, charts.second), strict=True):
            present = [(scalar, name) for scalar, name in names if scalar in series]
            widget.update([Curve(name, series[scalar], 1 + i) for i, (scalar, name) in enumerate(present)])
