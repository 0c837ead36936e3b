"""The tail of the engine's log: follows its end, filters by level, finds text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from cafe_tui import format as fmt
from cafe_tui.ui.widgets.lines import ROLE_CSS, ROLES, Line, Piece, paint, role_styles, wrap_exactly
from cafe_tui.ui.widgets.scrolling import SCROLL_KEYS

LEVELS: Final = ("all", "warnings", "errors")
KEPT: Final = 5_000
"""Lines kept at most, the newest ones."""
STAMP: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (\w+)")
TRACEBACK: Final = "Traceback (most recent call last)"
ROLE_OF_LEVEL: Final = {"warning": "warn", "error": "bad"}


def levels_of(lines: Iterable[str], level: str = "info") -> list[str]:
    """The level of each line, `level` being that of the line before.

    A line without a stamp was not written by the engine itself: it is a warning, or an error from a traceback on.
    """
    levels = []
    for line in lines:
        if stamped := STAMP.match(line):
            level = stamped[1] if stamped[1] in ROLE_OF_LEVEL else "info"
        elif line.startswith(TRACEBACK):
            level = "error"
        elif level == "info":
            level = "warning"
        levels.append(level)
    return levels


@dataclass
class SearchAsked(Message):
    """A text to find is wanted."""


class LogView(ScrollView, can_focus=True, inherit_bindings=False):
    """Wrapped lines as they come; follows the end unless scrolled away from it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *SCROLL_KEYS,
        Binding("slash", "search", "Find", key_display="/"),
        Binding("n", "next(-1)", "Earlier match", show=False),
        Binding("N", "next(1)", "Later match", show=False),
        Binding("v", "level", "Level"),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {*ROLES, "match"}
    DEFAULT_CSS = f"""
    LogView {{
        overflow-x: hidden;
        overflow-y: auto;
        scrollbar-size-vertical: 1;
        scrollbar-gutter: stable;
        {ROLE_CSS}
        & > .match {{ background: $warning; color: $background; text-style: bold; }}
    }}
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._all: list[str] = []
        self._levels: list[str] = []
        self._level = LEVELS[0]
        self._wanted = ""
        self._match: int | None = None  # index into `_rows`
        self._rows: list[tuple[str, str]] = []  # text and level of what is shown, wrapped for `_cells`
        self._cells = 0
        self._following = True

    @property
    def lines(self) -> Sequence[str]:
        """All lines that are kept, filtered or not."""
        return self._all

    def text(self) -> str:
        """What is in view."""
        top = self.scroll_offset.y
        return "\n".join(text for text, _ in self._rows[top : top + self.size.height])

    def append(self, lines: Sequence[str]) -> None:
        """Add lines at the end."""
        clean = [fmt.printable(line.expandtabs()) for line in lines]
        levels = levels_of(clean, self._levels[-1] if self._levels else "info")
        self._all += clean
        self._levels += levels
        if len(self._all) > KEPT:
            del self._all[:-KEPT], self._levels[:-KEPT]
            self._lay_out()
        else:
            self._show_more(self._wrapped(clean, levels))

    def find(self, text: str) -> None:
        """Mark every occurrence (of any case) and go to the newest; an empty text marks nothing."""
        self._wanted, self._match = text, None
        self._say()
        self.refresh()
        if text:
            self.action_next(-1)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _wrapped(self, lines: Iterable[str], levels: Iterable[str]) -> list[tuple[str, str]]:
        wanted = {"all": ("info", "warning", "error"), "warnings": ("warning", "error"), "errors": ("error",)}
        return [
            (part, level)
            for line, level in zip(lines, levels, strict=True)
            if level in wanted[self._level]
            for part in wrap_exactly(line, max(self._cells, 1))
        ]

    def _lay_out(self) -> None:
        """Wrap everything again; the end stays in view if it was, or else the same share of the log."""
        share = self.scroll_offset.y / max(len(self._rows), 1)
        self._rows, self._match = self._wrapped(self._all, self._levels), None
        self._show_from(round(share * len(self._rows)))

    def _show_more(self, rows: Sequence[tuple[str, str]]) -> None:
        self._rows += rows
        self._show_from(self.scroll_offset.y)

    def _show_from(self, row: int) -> None:
        following = self._following
        self.virtual_size = Size(self._cells, len(self._rows))
        self.scroll_to(y=len(self._rows) if following else row, animate=False, force=True, immediate=True)
        self._following = following
        self.call_after_refresh(self._place_scrollbar)
        self.refresh()

    def _place_scrollbar(self) -> None:
        """Textual moves it only while it is shown, which after the first lines it is not yet."""
        self.vertical_scrollbar.position = self.scroll_y

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._following = new_value + self.size.height >= len(self._rows)

    def on_resize(self, _: events.Resize) -> None:
        cells = self.scrollable_content_region.width  # `size` counts the column of the scrollbar
        if self._cells != cells:
            self._cells = cells
            self._lay_out()

    def render_line(self, y: int) -> Strip:
        index = y + self.scroll_offset.y
        line: Line = self._line(index) if index < len(self._rows) else ()
        styles = {**role_styles(self), "match": self.get_component_rich_style("match")}
        return paint(line, self.size.width, self.rich_style, styles)

    def _line(self, index: int) -> Line:
        text, level = self._rows[index]
        role = ROLE_OF_LEVEL.get(level, "")
        if not self._wanted:
            return ((text, role),)
        pieces: list[Piece] = []
        end = 0
        for match in re.finditer(re.escape(self._wanted), text, re.IGNORECASE):
            pieces += [(text[end : match.start()], role), (match[0], "match")]
            end = match.end()
        return (*pieces, (text[end:], role))

    def _say(self) -> None:
        modes = [f"{self._level} only"] if self._level != "all" else []
        if self._wanted:
            count = sum(self._wanted.lower() in line.lower() for line in self._all)
            modes.append(f"“{fmt.printable(self._wanted)}” in {count} line{'s' * (count != 1)}")
        self.border_title = Content(" · ".join(["log", *modes]))

    # --- keys --------------------------------------------------------------------------------------------------------

    def action_search(self) -> None:
        """Ask for a text to find."""
        self.post_message(SearchAsked())

    def action_next(self, direction: int) -> None:
        """Go to the next line with the text: an earlier one (-1) or a later one (1)."""
        if not self._wanted:
            return
        start = len(self._rows) if self._match is None else self._match
        places = range(start - 1, -1, -1) if direction < 0 else range(start + 1, len(self._rows))
        for index in places:
            if self._wanted.lower() in self._rows[index][0].lower():
                self._match = index
                middle = max(index - self.size.height // 2, 0)
                self.scroll_to(y=middle, animate=False, force=True, immediate=True)
                return

    def action_level(self) -> None:
        """Show everything, warnings and errors, or errors only."""
        self._level = LEVELS[(LEVELS.index(self._level) + 1) % len(LEVELS)]
        self._say()
        self._lay_out()
