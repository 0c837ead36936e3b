"""The series of a run to choose from, with the colours of those that are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.geometry import Region
from textual.message import Message

from cafe_tui import format as fmt
from cafe_tui.ui.widgets.chart import CURVE_CLASSES, CURVE_CSS, curve_style
from cafe_tui.ui.widgets.lines import CURSOR_CSS, ROLES, Line, Lines, fit

Key = tuple[str, str]
"""Stage and name of a series."""
SWATCH: Final = "●"
NONE_YET: Final = "no curves yet"


@dataclass
class SeriesToggled(Message):
    """A series of the list was to be shown, or to be shown no longer."""

    key: Key


class SeriesList(Lines, can_focus=True):
    """All series under the names of their stages, those that are shown with the colour of their curve."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space,enter", "choose", "Show", key_display="space"),
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "move(-10)", "Ten up", show=False),
        Binding("pagedown", "move(10)", "Ten down", show=False),
        Binding("home,g", "move(-1_000_000)", "First", show=False),
        Binding("end,G", "move(1_000_000)", "Last", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {*ROLES, *CURVE_CLASSES, "cursor"}
    DEFAULT_CSS = f"""
    SeriesList {{
        {CURVE_CSS}
        {CURSOR_CSS}
    }}
    """

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[Key | str] = []  # a string is the name of the stage of what follows
        self._colours: Mapping[Key, int] = {}
        self._cursor: Key | None = None

    def show(self, keys: Iterable[Key], colours: Mapping[Key, int]) -> None:
        """List these series, of a stage one after the other; `colours` are the colour numbers of those shown."""
        self._rows = []
        stage = None
        for key in keys:
            if key[0] != stage:
                stage = key[0]
                self._rows.append(stage)
            self._rows.append(key)
        self._colours = colours
        if self._cursor is None and (keys_listed := self._keys()):
            self._cursor = next((key for key in keys_listed if key in colours), keys_listed[0])
            self.call_after_refresh(self._keep_cursor_in_view)
        self.show_changes()

    def compose_lines(self, cells: int) -> list[Line]:
        """A line for each stage and series."""
        return [self._line(row, cells) for row in self._rows] or [((NONE_YET, "dim"),)]

    def _line(self, row: Key | str, cells: int) -> Line:
        if isinstance(row, str):
            return ((fit(fmt.printable(row), cells), "strong"),)
        colour = self._colours.get(row)
        swatch = (f"{SWATCH} ", f"curve {colour}") if colour else ("  ", "")
        role = "cursor" if row == self._cursor else ""
        return (swatch, (fit(fmt.printable(row[1]), cells - 2), role))

    def _styles(self) -> dict[str, Style]:
        curves = {f"curve {colour}": curve_style(self, colour) for colour in self._colours.values()}
        return {**super()._styles(), **curves, "cursor": self.get_component_rich_style("cursor")}

    def _keys(self) -> list[Key]:
        return [row for row in self._rows if not isinstance(row, str)]

    def action_move(self, rows: int) -> None:
        """Move the cursor by so many series, at most to either end."""
        keys = self._keys()
        if self._cursor in keys:
            self._cursor = keys[max(min(keys.index(self._cursor) + rows, len(keys) - 1), 0)]
            self.show_changes()
            self._keep_cursor_in_view()

    def action_choose(self) -> None:
        """Show the series under the cursor, or show it no longer."""
        if self._cursor is not None:
            self.post_message(SeriesToggled(self._cursor))

    def on_click(self, event: events.Click) -> None:
        row = self._rows[event.y] if event.y < len(self._rows) else ""
        if not isinstance(row, str):
            self._cursor = row
            self.show_changes()
            self.action_choose()

    def _keep_cursor_in_view(self) -> None:
        if self._cursor in self._rows and isinstance(self.parent, VerticalScroll):
            y = self._rows.index(self._cursor)
            y, height = (0, 2) if y == 1 else (y, 1)  # the first series brings its heading
            self.parent.scroll_to_region(Region(0, y, 1, height), animate=False, immediate=True)
