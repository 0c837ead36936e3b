"""The tail of the engine's log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import BindingType
from textual.widgets import Log

from cafe_tui import format as fmt
from cafe_tui.widgets.scrolling import SCROLL_KEYS


class LogView(Log, inherit_bindings=False):
    """Lines as they come; follows the end unless scrolled away from it. Text can be selected and copied."""

    BINDINGS: ClassVar[list[BindingType]] = SCROLL_KEYS
    KEPT = 5_000

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(max_lines=self.KEPT, id=id)

    def append(self, lines: Sequence[str]) -> None:
        """Add lines at the end."""
        self.write_lines([fmt.printable(line) for line in lines])
