"""The resolved profile of a run, with what differs from its parent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cafe_tui import format as fmt
from cafe_tui.ui.widgets.lines import Line, Lines, fit, wrap

if TYPE_CHECKING:
    from cafe_tui.profiles.parent import Resolved

KEY_CELLS = 34


class ProfileView(Lines):
    """One line a key under the names of their groups; keys that differ from the parent stand out and say its value."""

    _resolved: Resolved | None = None

    def show(self, resolved: Resolved) -> None:
        """Show these keys."""
        self._resolved = resolved
        self.show_changes()

    def compose_lines(self, cells: int) -> list[Line]:
        """The remark, then the keys that differ, then all of them."""
        if self._resolved is None:
            return [(("reading …", "dim"),)]
        lines: list[Line] = [((part, "accent"),) for part in wrap(fmt.printable(self._resolved.remark), cells)]
        group = None
        for key in self._resolved.keys:
            if key.group != group:
                group = key.group
                lines += [(), ((fmt.printable(group), "strong"),)]
            name = fit(fmt.printable(key.key), min(KEY_CELLS, cells // 2))
            text = fmt.printable(key.text)
            if key.parent is None:
                lines.append(((f"  {name}", "dim"), (text, "")))
            else:
                lines.append(((f"● {name}", "warn"), (text, "warn"), (f"  was {fmt.printable(key.parent)}", "dim")))
        return lines
