"""The keys that work now, in one line. Textual's own footer builds a widget for each key, again at every change of
focus: that took a third of the time from start to the first list of runs."""

from __future__ import annotations

from rich.cells import cell_len
from textual import events

from cafe_tui.ui.widgets.lines import Line, Lines, Piece


class KeyBar(Lines):
    """Bindings of the screen that are marked to be shown; a click on one is its key."""

    DEFAULT_CSS = "KeyBar { dock: bottom; padding: 0 1; }"

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.show_changes())
        self.show_changes()

    def compose_lines(self, cells: int) -> list[Line]:
        """One line; where not all keys fit, the last of them are left out, but never the one for help."""
        pieces: list[Piece] = []
        for key, description, _ in self._fitting(cells):
            pieces += [(key, "accent"), (f" {description}  ", "")]
        return [tuple(pieces)]

    def on_click(self, event: events.Click) -> None:
        x = event.x - self.gutter.left
        for key in self._fitting(self.content_size.width):
            if 0 <= x < _cells(key) - 2:
                self.app.simulate_key(key[2])
            x -= _cells(key)

    def _fitting(self, cells: int) -> list[tuple[str, str, str]]:
        keys = self._keys()
        while len(keys) > 2 and sum(map(_cells, keys)) - 2 > cells:
            del keys[-2]
        return keys

    def _keys(self) -> list[tuple[str, str, str]]:
        """Shown key, description and key to press; of several keys for one action the first."""
        keys: dict[str, tuple[str, str, str]] = {}
        for press, active in self.screen.active_bindings.items():
            binding = active.binding
            if binding.show and binding.description and active.enabled:
                keys.setdefault(binding.action, (self.app.get_key_display(binding), binding.description, press))
        return list(keys.values())


def _cells(key: tuple[str, str, str]) -> int:
    """What a key takes, with the two cells behind it."""
    return cell_len(key[0]) + cell_len(key[1]) + 3
