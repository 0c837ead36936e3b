"""Styled plain text on the line API: what every pane but the charts is made of.

A widget says what its lines are; this module paints them and, when they change, repaints only the columns that differ.
Text is never read as markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile, zip_longest
from typing import ClassVar, Final

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

Piece = tuple[str, str]
"""A text without line breaks or control characters, and its role: "" or one of `ROLES`."""
Line = tuple[Piece, ...]

ROLES: Final = ("dim", "strong", "good", "bad", "warn", "accent")

ROLE_CSS: Final = """
    & > .dim { color: $text-muted; }
    & > .strong { text-style: bold; }
    & > .good { color: $text-success; }
    & > .bad { color: $text-error; text-style: bold; }
    & > .warn { color: $text-warning; }
    & > .accent { color: $text-accent; text-style: bold; }
"""
"""Put inside a widget's DEFAULT_CSS to give the roles their looks in every theme."""


CURSOR_CSS: Final = """
    & > .cursor { color: $block-cursor-foreground; background: $block-cursor-background; text-style: bold; }
    & > .cursor-blurred { background: $block-cursor-blurred-background; text-style: bold; }
"""
"""The same for the row under the cursor of a list, with and without the focus."""


def plain(line: Line) -> str:
    """The text of a line without its roles."""
    return "".join(text for text, _ in line)


def width(line: Line) -> int:
    """Terminal cells that a line takes."""
    return sum(cell_len(text) for text, _ in line)


def fit(text: str, cells: int) -> str:
    """`text` in exactly `cells` terminal cells: padded on the right, or cut with an ellipsis."""
    if cell_len(text) <= cells:
        return set_cell_size(text, cells)
    return f"{set_cell_size(text, cells - 1)}…" if cells > 0 else ""


def fit_name(text: str, cells: int) -> str:
    """`text` in exactly `cells` terminal cells, cut near the start: names that belong together differ at the end."""
    if cell_len(text) <= cells or cells < 8:
        return fit(text, cells)
    head, tail = set_cell_size(text, cells // 6), text
    while cell_len(tail) > cells - cells // 6 - 1:
        tail = tail[1:]
    return fit(f"{head}…{tail}", cells)


def wrap(text: str, cells: int) -> list[str]:
    """`text` broken at spaces into lines of at most `cells` cells (longer words are broken too); at least one line."""
    lines = [""]
    for word in text.split():
        for part in chop_cells(word, max(cells, 2)):
            joined = f"{lines[-1]} {part}" if lines[-1] else part
            if cell_len(joined) <= cells or not lines[-1]:
                lines[-1] = joined
            else:
                lines.append(part)
    return lines


def wrap_exactly(text: str, cells: int) -> list[str]:
    """`text` cut into lines of at most `cells` cells (1 and up), every space kept; at least one line."""
    return [text] if cell_len(text) <= cells else chop_cells(text, max(cells, 2))


def paint(line: Line, cells: int, base: Style, styles: Mapping[str, Style]) -> Strip:
    """The line as `cells` cells, padded or cropped."""
    segments = [Segment(text, styles[role] if role else base) for text, role in line if text]
    return Strip(segments).adjust_cell_length(cells, base)


def changes(old: Sequence[Line], new: Sequence[Line], cells: int) -> list[Region]:
    """For each line that differs between two pictures `cells` wide, the run of columns that does."""
    regions = []
    for y, (before, after) in enumerate(zip_longest(old, new, fillvalue=())):
        if before != after:
            start = _common(before, after)
            end = width(after) - _common(before[::-1], after[::-1]) if width(before) == width(after) else cells
            regions.append(Region(start, y, max(min(end, cells) - start, 0), 1))
    return [region for region in regions if region]


def _common(before: Line, after: Line) -> int:
    """Cells of the pieces with which both lines begin."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False))
    return sum(cell_len(text) for (text, _), _ in same)


class Lines(Widget):
    """A widget that is a list of lines. Subclasses say which, in `compose_lines`, and call `show_changes`."""

    COMPONENT_CLASSES: ClassVar[set[str]] = set(ROLES)
    DEFAULT_CSS = f"Lines {{ height: auto; {ROLE_CSS} }}"

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._lines: list[Line] = []
        self._cells = 0  # the width that the lines were composed for

    def compose_lines(self, cells: int) -> list[Line]:
        """The lines in a space `cells` wide."""
        raise NotImplementedError

    def show_changes(self) -> None:
        """Compose again and repaint what differs; nothing at all when nothing does."""
        before, self._lines = self._lines, self.compose_lines(self._cells)
        if len(before) != len(self._lines):
            self.refresh(layout=True)
        elif regions := changes(before, self._lines, self._cells):
            self.refresh(*regions)

    def text(self) -> str:
        """What is shown, without styles."""
        return "\n".join(plain(line) for line in self._lines)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self.compose_lines(width))

    def render_line(self, y: int) -> Strip:
        if self._cells != self.content_size.width:
            # Here and not on the resize event, which comes after the first painting in the new size.
            self._cells = self.content_size.width
            self._lines = self.compose_lines(self._cells)
        line = self._lines[y] if y < len(self._lines) else ()
        return paint(line, self._cells, self.rich_style, self._styles())

    def _styles(self) -> dict[str, Style]:
        """The looks of everything that may stand as a role in the lines."""
        return role_styles(self)


def role_styles(widget: Widget) -> dict[str, Style]:
    """The looks of the roles in the current theme."""
    return {role: widget.get_component_rich_style(role) for role in ROLES}
