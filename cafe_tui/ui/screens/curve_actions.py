"""What the keys of a screen with one big chart do, written once for the curves of one run and of several."""

from __future__ import annotations

from typing import Final

from textual.binding import Binding, BindingType
from textual.screen import Screen

from cafe_tui.ui.widgets.curve_view import CurveView

CHART_ACTIONS: Final = frozenset({"zoom", "pan", "all", "follow", "log", "smooth"})
"""What only a chart over steps can do; the cursor goes by other names."""
VALUE_BINDINGS: Final[list[BindingType]] = [Binding("y", "log", "Log"), Binding("s", "smooth", "Mean")]


def step_bindings(shown: str, follow: str) -> list[BindingType]:
    """The keys of the step axis: `shown` stands for all of them in the bar of keys, `follow` describes `f`."""
    return [
        Binding("plus,equals_sign", "zoom(0.5)", "Zoom", key_display=shown),
        Binding("minus", "zoom(2.0)", "Zoom out", show=False),
        Binding("less_than_sign,comma", "pan(-1)", "Pan to earlier steps", show=False),
        Binding("greater_than_sign,full_stop", "pan(1)", "Pan to later steps", show=False),
        Binding("0", "all", "All steps", show=False),
        Binding("f", "follow", follow, show=False),
    ]


class CurveActions(Screen[None]):
    """The actions of these keys, for a screen that has one `CurveView`."""

    @property
    def chart(self) -> CurveView:
        """The one that the keys work on."""
        return self.query_one(CurveView)

    def modes_changed(self) -> None:
        """Called when a key has changed how values or steps are drawn. Does nothing by itself."""

    def action_cursor(self, direction: int) -> None:
        """Move the cursor to the next column with values."""
        self.chart.move(direction)

    def action_zoom(self, factor: float) -> None:
        """Show so many times as many steps."""
        self.chart.zoom(factor)

    def action_pan(self, direction: int) -> None:
        """Show earlier or later steps."""
        self.chart.pan(direction)

    def action_all(self) -> None:
        """Show all steps."""
        self.chart.show_all()

    def action_follow(self) -> None:
        """Freeze the step axis, or let it follow the newest steps again."""
        self.chart.toggle_following()

    def action_log(self) -> None:
        """Make the value axis logarithmic, or linear again."""
        self.chart.toggle_log()
        self.modes_changed()

    def action_smooth(self) -> None:
        """Go on to the next smoothing."""
        self.chart.next_smoothing()
        self.modes_changed()
