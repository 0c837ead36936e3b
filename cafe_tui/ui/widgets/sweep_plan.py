"""What a sweep would start: how many runs, what they cost, and each of them."""

from __future__ import annotations

from collections.abc import Sequence

from cafe_tui import format as fmt
from cafe_tui.ui.widgets.lines import Line, Lines, fit, wrap

MOST_LABEL_CELLS = 40


class SweepPlan(Lines):
    """What is known of the whole, then a line for each run: its label, its state if there is one, its cost."""

    _remarks: Sequence[str] = ()
    _rows: Sequence[tuple[str, str, str]] = ()

    def show(self, remarks: Sequence[str], rows: Sequence[tuple[str, str, str]]) -> None:
        """Show these."""
        self._remarks, self._rows = remarks, rows
        self.show_changes()

    def compose_lines(self, cells: int) -> list[Line]:
        """Wrapped sentences above columns."""
        lines: list[Line] = [((part, ""),) for text in self._remarks for part in wrap(fmt.printable(text), cells)]
        labels = min(max((len(label) for label, _, _ in self._rows), default=0), MOST_LABEL_CELLS)
        states = max((len(state) for _, state, _ in self._rows), default=0)
        for label, state, cost in self._rows:
            pieces = [(fit(fmt.printable(label), labels), "accent"), (state.ljust(states), ""), (cost, "dim")]
            lines.append(tuple((f"{text}  ", role) for text, role in pieces if text))
        return lines
