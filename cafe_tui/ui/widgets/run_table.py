"""The table of runs: any number of rows, of which only the visible ones are ever formatted or painted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, ClassVar, Final

from rich.cells import cell_len
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from cafe_tui import format as fmt
from cafe_tui.reading.ordering import Group
from cafe_tui.ui.messages import RunOpened
from cafe_tui.ui.widgets.lines import (
    CURSOR_CSS,
    ROLE_CSS,
    ROLES,
    Line,
    Piece,
    changes,
    fit,
    fit_name,
    paint,
    plain,
    role_styles,
    width,
)
from cafe_tui.ui.widgets.pieces import difference_piece, state_piece
from engine.contract.run.rundir import FINAL

if TYPE_CHECKING:
    from cafe_tui.reading.runs import RunRow


@dataclass(frozen=True)
class Column:
    """A column `cells` wide; on a narrow terminal those with the highest `rank` are left out first.

    A click on its title sorts by `order`, one of `ordering.ORDERS`, if it has one.
    """

    title: str
    cells: int
    rank: int
    show: Callable[[RunRow, float], Piece]
    order: str = ""
    right: bool = False


def _number(row: RunRow, key: str) -> float | None:
    value = row.headline.get(key)
    return value if isinstance(value, float | int) else None


def _state(row: RunRow, _: float) -> Piece:
    return state_piece(row.state)


MARK: Final = "●"
"""Stands in the gap behind the state of a marked run."""


def _stage(row: RunRow, _: float) -> Piece:
    return fmt.printable(row.stage), ""


def _progress(row: RunRow, _: float) -> Piece:
    return f"{fmt.bar(row.progress, 6)} {row.progress:4.0%}", "dim" if row.state in FINAL else ""


def _age(row: RunRow, now: float) -> Piece:
    return fmt.age(now - row.created), "dim"


def _clean(row: RunRow, _: float) -> Piece:
    value = _number(row, "clean")
    return ("" if value is None else f"{value:.1f}"), ""


def _robust(row: RunRow, _: float) -> Piece:
    value = _number(row, "robust")
    return ("" if value is None else f"{value:5.1f} {fmt.printable(str(row.headline.get('attack', '')))}"), ""


def _difference(row: RunRow, _: float) -> Piece:
    return difference_piece(_number(row, "difference"), row.interval)


def _to_go(row: RunRow, _: float) -> Piece:
    return ("" if row.eta is None else fmt.age(row.eta)), ""


def _trend(row: RunRow, _: float) -> Piece:
    return fmt.sparkline(row.trend, TREND_CELLS), "" if row.state not in FINAL else "dim"


TREND_CELLS: Final = 8
RUN: Final = Column("run", 16, 0, lambda row, _: (fmt.printable(row.id), "strong"), "name")
COLUMNS: Final = (
    Column("state", 10, 0, _state, "state"),
    RUN,
    Column("stage", 10, 3, _stage, "stage"),
    Column("progress", 11, 2, _progress, "progress"),
    Column("to go", 5, 5, _to_go, "eta", right=True),
    Column("trend", TREND_CELLS, 6, _trend),
    Column("age", 4, 4, _age, "age", right=True),
    Column("clean", 5, 8, _clean, "clean", right=True),
    Column("robust", 14, 1, _robust, "robust"),
    Column("vs base", 7, 7, _difference, "difference", right=True),
)
UP, DOWN = "▴", "▾"


@dataclass
class SortAsked(Message):
    """The title of a column that can be sorted by was clicked."""

    order: str


@dataclass
class GroupToggled(Message):
    """The heading of a group was chosen."""

    profile: str


class RunTable(ScrollView, can_focus=True, inherit_bindings=False):
    """Rows of runs under a fixed header, with a cursor that stays on its run while rows come, go and change."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open"),
        Binding("l,right", "open", "Open", show=False),
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False),
        Binding("home,g", "move(-1_000_000_000)", "First", show=False),
        Binding("end,G", "move(1_000_000_000)", "Last", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {*ROLES, "header", "cursor", "cursor-blurred"}
    DEFAULT_CSS = f"""
    RunTable {{
        overflow-x: hidden;
        overflow-y: auto;
        scrollbar-gutter: stable;
        scrollbar-size-vertical: 1;
        {ROLE_CSS}
        & > .header {{ color: $text-muted; text-style: bold; }}
        {CURSOR_CSS}
    }}
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._rows: tuple[RunRow | Group, ...] = ()
        self._sorting = ("", False)
        self._marked: frozenset[str] = frozenset()
        self._now = 0.0
        self._cursor = 0
        self._columns: list[tuple[Column, int]] = []
        self._gap = ""
        self._arranged_for = -1  # a width

    @property
    def selected(self) -> RunRow | None:
        """The run under the cursor, or None in an empty table and on the heading of a group."""
        row = self._rows[self._cursor] if self._rows else None
        return None if isinstance(row, Group) else row

    @property
    def on_screen(self) -> frozenset[str]:
        """Ids of the runs that are in view."""
        top = self.scroll_offset.y
        return frozenset(row.id for row in self._rows[top : top + self._visible_rows] if not isinstance(row, Group))

    def text(self) -> str:
        """What is shown, without styles."""
        return "\n".join(plain(line) for line in self._picture())

    def show(
        self,
        rows: Sequence[RunRow | Group],
        now: float,
        marked: frozenset[str] = frozenset(),
        sorting: tuple[str, bool] = ("", False),
    ) -> None:
        """Show these rows, ages counted up to `now` (unix seconds), with a sign on those whose ids are `marked`.

        `sorting` is the order whose column gets an arrow, and whether it is backwards. Repaints only what looks
        different.
        """
        before, old_cursor = self._picture(), self._cursor
        chosen = self._rows[self._cursor] if self._rows else None
        self._rows, self._now, self._marked, self._sorting = tuple(rows), now, marked, sorting
        here = chosen.id if chosen else None
        places = (index for index, row in enumerate(self._rows) if row.id == here)
        self._cursor = next(places, old_cursor) if chosen else 0
        self._cursor = max(min(self._cursor, len(self._rows) - 1), 0)
        self.virtual_size = Size(self.size.width, len(self._rows) + 1)
        self._arranged_for = -1
        # A list that was scrolled keeps its cursor on the same line of the screen; one at its top shows what is new.
        if self._cursor != old_cursor and self.scroll_offset.y:
            self._scroll(self.scroll_offset.y + self._cursor - old_cursor)
        self._keep_cursor_in_view()
        self._repaint(before)

    def action_move(self, rows: int) -> None:
        """Move the cursor by so many rows, at most to either end."""
        target = max(min(self._cursor + rows, len(self._rows) - 1), 0)
        if target != self._cursor:
            self._refresh_row(self._cursor)
            self._cursor = target
            self._refresh_row(self._cursor)
            self._keep_cursor_in_view()

    def action_page(self, pages: int) -> None:
        """Move the cursor by so many screenfuls."""
        self.action_move(pages * max(self._visible_rows - 1, 1))

    def action_open(self) -> None:
        """Open the run under the cursor; fold or unfold the group."""
        row = self._rows[self._cursor] if self._rows else None
        if isinstance(row, Group):
            self.post_message(GroupToggled(row.profile))
        elif row:
            self.post_message(RunOpened(row.id))

    def on_click(self, event: events.Click) -> None:
        index = event.y - 1 + self.scroll_offset.y
        if event.y < 1:
            self._sort_by_title(event.x)
        if event.y < 1 or index >= len(self._rows):
            return
        if index == self._cursor:
            self.action_open()
        else:
            self.action_move(index - self._cursor)

    def on_resize(self, _: events.Resize) -> None:
        self.virtual_size = Size(self.size.width, len(self._rows) + 1)
        self._keep_cursor_in_view()

    def render_line(self, y: int) -> Strip:
        self._arrange()
        index = y - 1 + self.scroll_offset.y
        line = self._header() if y == 0 else self._line(index) if index < len(self._rows) else ()
        cursor = self.get_component_rich_style("cursor" if self.has_focus else "cursor-blurred")
        styles = {**role_styles(self), "cursor": cursor, "header": self.get_component_rich_style("header")}
        return paint(line, self.size.width, self.rich_style, styles)

    def _sort_by_title(self, x: int) -> None:
        for column, cells in self._columns:
            if 0 <= x < cells and column.order:
                self.post_message(SortAsked(column.order))
            x -= cells + len(self._gap)

    # --- inside ------------------------------------------------------------------------------------------------------

    @property
    def _cells(self) -> int:
        """The width without the scroll bar, which would cover the last digit of a line."""
        return self.size.width - (self.scrollbar_size_vertical if self.show_vertical_scrollbar else 0)

    @property
    def _visible_rows(self) -> int:
        return max(self.size.height - 1, 1)

    def _arrange(self) -> None:
        """Choose the columns that fit, each with its cells; the run column takes what is left, if ids need it."""
        if self._arranged_for == self._cells:  # asked here and not on the resize event, which follows the painting
            return
        self._arranged_for = self._cells
        cells, kept = self._cells, list(COLUMNS)
        self._gap = " " if cells < 100 else "  "
        while (needed := sum(column.cells + len(self._gap) for column in kept)) > cells + len(self._gap):
            if len(kept) == 1:
                break
            kept.remove(max(kept, key=lambda column: column.rank))
        widest = max(map(len, map(attrgetter("id"), self._rows)), default=0)
        run = max(min(RUN.cells + cells + len(self._gap) - needed, widest), RUN.cells)
        self._columns = [(column, run if column is RUN else column.cells) for column in kept]

    def _header(self) -> Line:
        titles = [self._title(column) for column, _ in self._columns]
        padded = [
            title.rjust(n) if column.right else title.ljust(n)
            for title, (column, n) in zip(titles, self._columns, strict=True)
        ]
        return ((self._gap.join(padded), "header"),)

    def _title(self, column: Column) -> str:
        order, backwards = self._sorting
        arrow = (UP if backwards else DOWN) if column.order == order and order else ""
        return f"{column.title[: column.cells - len(arrow)]}{arrow}"

    def _line(self, index: int) -> Line:
        row, pieces = self._rows[index], list[Piece]()
        if isinstance(row, Group):
            return self._heading(row, index == self._cursor)
        for column, cells in self._columns:
            text, role = column.show(row, self._now)
            if column is RUN and cells < cell_len(text):
                text = f"{fmt.printable(row.name)} {row.id[-4:]}"
            text = " " * (cells - cell_len(text)) + text if column.right else text
            pieces += [((fit_name if column is RUN else fit)(text, cells), role), (self._gap, "")]
            if column.title == "state" and row.id in self._marked:
                pieces[-1] = (MARK.ljust(len(self._gap)), "accent")
        pieces.pop()
        if index == self._cursor:
            rest = " " * (self._cells - width(tuple(pieces)))
            return tuple((text, "cursor") for text, _ in [*pieces, (rest, "")])
        return tuple(pieces)

    def _heading(self, group: Group, chosen: bool) -> Line:
        count = f"{group.runs} run{'s' * (group.runs != 1)}"
        facts = [count, *([f"{group.going} going on"] * bool(group.going))]
        facts += [] if group.best is None else [f"best robust {fmt.percent(group.best)}"]
        text = f"{'▸' if group.folded else '▾'} {fmt.printable(group.profile)}  {', '.join(facts)}"
        return ((fit(text, self._cells), "cursor" if chosen else "accent"),)

    def _picture(self) -> list[Line]:
        self._arrange()
        top = self.scroll_offset.y
        return [self._header(), *map(self._line, range(top, min(top + self._visible_rows, len(self._rows))))]

    def _repaint(self, before: Sequence[Line]) -> None:
        if regions := changes(before, self._picture(), self.size.width):
            self.refresh(*regions)

    def _refresh_row(self, index: int) -> None:
        self.refresh_line(index + 1)

    def _scroll(self, row: int) -> None:
        self.scroll_to(y=row, animate=False, immediate=True)

    def _keep_cursor_in_view(self) -> None:
        top = self.scroll_offset.y
        if self._cursor < top:
            self._scroll(self._cursor)
        elif self._cursor >= top + self._visible_rows:
            self._scroll(self._cursor - self._visible_rows + 1)
