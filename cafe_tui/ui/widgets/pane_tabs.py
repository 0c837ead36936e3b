"""The tabs of a screen whose panes share its space."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events

from cafe_tui.ui.widgets.lines import Line, Lines, Piece


class PaneTabs(Lines):
    """Names of the panes and the number keys that go there, `[1 curves] 2 tables`; a click does too."""

    def __init__(self, panes: Sequence[str], *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._panes = panes
        self._shown = panes[0]

    def show(self, pane: str) -> None:
        """Mark `pane` as the one on screen."""
        self._shown = pane
        self.show_changes()

    def compose_lines(self, cells: int) -> list[Line]:
        """One line."""
        pieces: list[Piece] = []
        for number, name in enumerate(self._panes, 1):
            shown = name == self._shown
            pieces.append((f"[{number} {name}]" if shown else f" {number} {name} ", "accent" if shown else "dim"))
        return [tuple(pieces)]

    def on_click(self, event: events.Click) -> None:
        x = event.x - self.gutter.left
        for number, name in enumerate(self._panes, 1):
            cells = len(f"[{number} {name}]")
            if 0 <= x < cells:
                self.app.simulate_key(str(number))
            x -= cells
