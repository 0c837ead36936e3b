"""A grid of text that is larger than its pane: heads and row names stay in view while rows and columns move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widget import Widget

from cafe_tui import format as fmt
from cafe_tui.results.exporting import Entry, Grid, Row
from cafe_tui.ui.widgets.lines import Line, Lines, Piece, fit, wrap
from cafe_tui.ui.widgets.scrolling import ScrollPane

GAP: Final = 2
WIDEST: Final = 24
"""Cells of a column at most, where not all columns fit."""
BEST: Final = "*"


class _Layout:
    """Which columns are shown and how wide: those of the row names, then as many others as fit from `first` on."""

    def __init__(self, grid: Grid, cells: int, first: int) -> None:
        self.small, self.widths = _widths(grid, cells)
        self.columns = list(range(grid.labels))
        self.last_first = self._last_first(grid, cells)
        self.first = min(first, self.last_first)
        used = _total(self.widths[: grid.labels])
        for column in range(grid.labels + self.first, len(grid.head)):
            used += GAP + self.widths[column]
            if used > cells and len(self.columns) > grid.labels:
                break
            self.columns.append(column)

    def _last_first(self, grid: Grid, cells: int) -> int:
        """By how many columns the grid can move until its last one is in view."""
        left = cells - _total(self.widths[: grid.labels])
        for column in range(len(grid.head) - 1, grid.labels - 1, -1):
            left -= GAP + self.widths[column]
            if left < 0:
                return min(column - grid.labels + 1, max(len(grid.head) - grid.labels - 1, 0))
        return 0


def _widths(grid: Grid, cells: int) -> tuple[bool, list[int]]:
    """Whether the small texts are shown beside the others, and how wide every column is."""
    rows = [row for rows in grid.sections for row in rows]
    columns = [[row[i] for row in rows] for i in range(len(grid.head))]
    full = [_wide(head, entries, small=True) for head, entries in zip(grid.head, columns, strict=True)]
    if _total(full) <= cells:
        return True, full
    bare = [_wide(head, entries, small=False) for head, entries in zip(grid.head, columns, strict=True)]
    if _total(bare) <= cells:
        return False, bare
    # Not all columns fit, and some will be out of view: of the others, none may take the room of several.
    of_a_label = max(cells * 2 // 5 // max(grid.labels, 1), 4)
    return False, [min(width, of_a_label if i < grid.labels else WIDEST) for i, width in enumerate(bare)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * max(len(widths) - 1, 0)


def _wide(head: str, entries: Sequence[Entry], *, small: bool) -> int:
    return max([cell_len(fmt.printable(head)), *(cell_len(_text(entry, small)) for entry in entries)])


def _text(entry: Entry, small: bool) -> str:
    number = f"{entry.text:>5}" if entry.small else entry.text
    text = f"{number}{BEST if entry.best else ' ' if entry.small else ''}"
    return fmt.printable(f"{text} {entry.small}" if small and entry.small else text.rstrip())


class _Heads(Lines):
    """The heads of the columns in view."""

    grid = Grid()
    first = 0

    def compose_lines(self, cells: int) -> list[Line]:
        """One line; none for an empty grid."""
        if not self.grid.sections:
            return []
        layout = _Layout(self.grid, cells, self.first)
        texts = [fit(fmt.printable(self.grid.head[i]), layout.widths[i]) for i in layout.columns]
        return [(((" " * GAP).join(texts), "dim"),)]


class _Body(Lines):
    """The rows, then what must be known about them."""

    grid = Grid()
    first = 0

    def compose_lines(self, cells: int) -> list[Line]:
        """Sections with a blank line between them, remarks, notes."""
        lines: list[Line] = []
        if self.grid.sections:
            layout = _Layout(self.grid, cells, self.first)
            for rows in self.grid.sections:
                lines += [()] if lines else []
                lines += [self._row(row, layout) for row in rows]
            lines += [(), *self._columns_in_view(layout)]
        for texts, role, sign in ((self.grid.remarks, "warn", "! "), (self.grid.notes, "dim", "")):
            for text in texts:
                lines += [((part, role),) for part in wrap(fmt.printable(f"{sign}{text}"), cells)]
        return lines

    def _row(self, row: Row, layout: _Layout) -> Line:
        pieces: list[Piece] = []
        for i in layout.columns:
            role = "strong" if i < self.grid.labels or row[i].best else row[i].role
            pieces += [(" " * GAP, "")] if pieces else []
            pieces.append((fit(_text(row[i], layout.small), layout.widths[i]), role))
        return tuple(pieces)

    def _columns_in_view(self, layout: _Layout) -> list[Line]:
        shown, there = len(layout.columns) - self.grid.labels, len(self.grid.head) - self.grid.labels
        if shown == there:
            return []
        return [((f"columns {layout.first + 1}-{layout.first + shown} of {there}: ← →", "accent"),)]


class GridPane(Vertical):
    """Shows a grid; the arrows and their letters move the rows, `move` the columns. Any size works."""

    DEFAULT_CSS = """
    GridPane {
        height: 1fr;
        & ScrollPane { height: 1fr; scrollbar-size: 1 1; scrollbar-gutter: stable; }
        & _Heads { margin-right: 1; }
    }
    """
    EMPTY: ClassVar[Grid] = Grid(notes=("reading…",))

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._heads, self._body = _Heads(), _Body()
        self._body.grid = self.EMPTY

    def compose(self) -> ComposeResult:
        yield self._heads
        with ScrollPane():
            yield self._body

    def show(self, grid: Grid) -> None:
        """Show this grid, at the columns and rows where the one before was."""
        if grid != self._body.grid:
            for part in (self._heads, self._body):
                part.grid = grid
                part.show_changes()

    def move(self, columns: int) -> None:
        """Go on or back by so many columns, not past the ends."""
        cells = self._body.content_size.width
        layout = _Layout(self._body.grid, cells, self._body.first)
        first = max(min(layout.first + columns, layout.last_first), 0)
        for part in (self._heads, self._body):
            part.first = first
            part.show_changes()

    def take_focus(self) -> Widget:
        """Let the keys move the rows."""
        return self.query_one(ScrollPane).focus()

    def text(self) -> str:
        """What is shown, without styles, rows out of view included."""
        return f"{self._heads.text()}\n{self._body.text()}"
