"""The tail of the engine's log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import Log

from cafe_tui import format as fmt


class LogView(Log):
    """Lines as they come; follows the end unless scrolled away from it. Text can be selected and copied."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_up", "Up", show=False),
        Binding("down,j", "scroll_down", "Down", show=False),
        Binding("home,g", "scroll_home", "First line", show=False),
        Binding("end,G", "scroll_end", "Last line, and follow", show=False),
    ]
    KEPT = 5_000

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(max_lines=self.KEPT, id=id)

    def append(self, lines: Sequence[str]) -> None:
        """Add lines at the end."""
        self.write_lines([fmt.printable(line) for line in lines])
