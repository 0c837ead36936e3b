"""The keys that work now, in one line. Textual's own footer builds a widget for each key, again at every change of
focus: that took a third of the time from start to the first list of runs."""

from __future__ import annotations

from rich.cells import cell_len
from textual import events

from cafe_tui.widgets.lines import Line, Lines, Piece


class KeyBar(Lines):
    """Bindings of the screen that are marked to be shown; a click on one is its key."""

    DEFAULT_CSS = "KeyBar { dock: bottom; padding: 0 1; }"

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.show_changes())
        self.show_changes()

    def compose_lines(self, cells: int) -> list[Line]:
        """One line, cut at the end of the terminal."""
        pieces: list[Piece] = []
        for key, description, _ in self._keys():
            pieces += [(key, "accent"), (f" {description}  ", "")]
        return [tuple(pieces)]

    def on_click(self, event: events.Click) -> None:
        x = event.x - self.gutter.left
        for key, description, press in self._keys():
            cells = cell_len(key) + cell_len(description) + 3
            if 0 <= x < cells - 2:
                self.app.simulate_key(press)
            x -= cells

    def _keys(self) -> list[tuple[str, str, str]]:
        """Shown key, description and key to press; of several keys for one action the first."""
        found: dict[str, tuple[str, str, str]] = {}
        for press, active in self.screen.active_bindings.items():
            binding = active.binding
            if binding.show and binding.description and active.enabled:
                found.setdefault(binding.action, (self.app.get_key_display(binding), binding.description, press))
        return list(found.values())
