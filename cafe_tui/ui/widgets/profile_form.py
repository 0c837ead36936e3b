"""The keys of a profile under the headings of their sections, with a cursor; one line to edit the key under it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Input

from cafe_tui import format as fmt
from cafe_tui.profiles.forms import Field
from cafe_tui.ui.widgets.lines import CURSOR_CSS, ROLE_CSS, ROLES, Line, changes, fit, paint, plain, role_styles

LABEL_CELLS = 17


class ProfileForm(ScrollView, can_focus=True, inherit_bindings=False):
    """Rows of `Field`; those changed carry a star, those with a problem a cross."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "edit", "Edit"),
        Binding("space,l,right", "turn(1)", "Next choice", show=False),
        Binding("h,left", "turn(-1)", "Previous choice", show=False),
        Binding("down,j,tab", "move(1)", "Next key", show=False),
        Binding("up,k,shift+tab", "move(-1)", "Previous key", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        Binding("home,g", "move(-1_000_000)", "First", show=False),
        Binding("end,G", "move(1_000_000)", "Last", show=False),
        Binding("backspace,delete", "undo", "As it was"),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {*ROLES, "cursor", "cursor-blurred"}
    DEFAULT_CSS = f"""
    ProfileForm {{
        overflow-x: hidden;
        scrollbar-size-vertical: 1;
        {ROLE_CSS}
        {CURSOR_CSS}
    }}
    """

    @dataclass
    class Moved(Message):
        """The cursor is on another key."""

        field: Field

    @dataclass
    class EditAsked(Message):
        """The key under the cursor is to be edited as text."""

        field: Field

    @dataclass
    class Changed(Message):
        """A key was given another value; None is that of the profile."""

        field: Field
        text: str | None

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._rows: list[Field | str] = []  # a text is a heading, "" a blank line
        self._places: list[int] = []  # of the fields among the rows
        self._cursor = 0
        self._changed: Collection[str] = ()
        self._wrong: Collection[str] = ()

    @property
    def selected(self) -> Field | None:
        """The key under the cursor."""
        row = self._rows[self._places[self._cursor]] if self._places else None
        return row if isinstance(row, Field) else None

    def text(self) -> str:
        """What is shown, without styles."""
        return "\n".join(plain(line) for line in self._picture())

    def show(self, fields: Sequence[Field], changed: Collection[str] = (), wrong: Collection[str] = ()) -> None:
        """Show these keys; repaints only what looks different."""
        before = self._picture()
        self._changed, self._wrong = changed, wrong
        self._rows, group = [], ""
        for field in fields:
            if field.group != group:
                self._rows += [*([""] if group else []), field.group]
                group = field.group
            self._rows.append(field)
        self._places = [place for place, row in enumerate(self._rows) if isinstance(row, Field)]
        self._cursor = max(min(self._cursor, len(self._places) - 1), 0)
        self.virtual_size = Size(self.size.width, len(self._rows))
        if regions := changes(before, self._picture(), self.size.width):
            self.refresh(*regions)

    def action_move(self, keys: int) -> None:
        """Move the cursor by so many keys, at most to either end."""
        target = max(min(self._cursor + keys, len(self._places) - 1), 0)
        if target != self._cursor and self._places:
            self._cursor = target
            self._keep_cursor_in_view()
            self.refresh()
            self._tell_cursor()

    def action_page(self, pages: int) -> None:
        """Move the cursor by so many screenfuls."""
        self.action_move(pages * max(self.size.height - 2, 1))

    def action_edit(self) -> None:
        """Edit the key under the cursor."""
        if field := self.selected:
            self.post_message(self.EditAsked(field))

    def action_turn(self, steps: int) -> None:
        """Give a key that is limited to some words the next or previous of them."""
        field = self.selected
        if field and field.choices:
            place = field.choices.index(field.text) if field.text in field.choices else -1
            self.post_message(self.Changed(field, field.choices[(place + steps) % len(field.choices)]))

    def action_undo(self) -> None:
        """Give the key under the cursor the value it has in the profile."""
        if field := self.selected:
            self.post_message(self.Changed(field, None))

    def on_click(self, event: events.Click) -> None:
        place = event.y + self.scroll_offset.y
        if place not in self._places:
            return
        if self._places[self._cursor] == place:
            self.action_edit()
        self.action_move(self._places.index(place) - self._cursor)

    def on_resize(self, _: events.Resize) -> None:
        self.virtual_size = Size(self.size.width, len(self._rows))
        self._keep_cursor_in_view()

    def render_line(self, y: int) -> Strip:
        line = self._line(y + self.scroll_offset.y)
        cursor = self.get_component_rich_style("cursor" if self.has_focus else "cursor-blurred")
        return paint(line, self.size.width, self.rich_style, {**role_styles(self), "cursor": cursor})

    def _line(self, place: int) -> Line:
        row = self._rows[place] if place < len(self._rows) else ""
        if isinstance(row, str):
            return ((row, "accent"),)
        sign = "✗" if row.key in self._wrong else "*" if row.key in self._changed else " "
        role = {"✗": "bad", "*": "warn", " ": ""}[sign]
        value = fit(fmt.printable(row.text) or "-", max(self.size.width - LABEL_CELLS - 3, 1))
        pieces = ((f"{sign} ", role), (fit(row.label, LABEL_CELLS) + " ", "" if role else "dim"), (value, role))
        if place == self._places[self._cursor]:
            return tuple((text, "cursor") for text, _ in pieces)
        return pieces

    def _picture(self) -> list[Line]:
        top = self.scroll_offset.y
        return [self._line(place) for place in range(top, min(top + self.size.height, len(self._rows)))]

    def _tell_cursor(self) -> None:
        if field := self.selected:
            self.post_message(self.Moved(field))

    def _keep_cursor_in_view(self) -> None:
        if not self._places:
            return
        place, top, height = self._places[self._cursor], self.scroll_offset.y, max(self.size.height, 1)
        if place <= top:  # with the heading of its section
            self.scroll_to(y=max(place - 1, 0), animate=False, immediate=True)
        elif place >= top + height:
            self.scroll_to(y=place - height + 1, animate=False, immediate=True)


class Editor(Input):
    """The value of one key as text. Enter, tab and arrows keep it and go on; escape takes it back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,tab,down", "leave(1)", "Keep", key_display="enter"),
        Binding("shift+tab,up", "leave(-1)", "Keep, previous key", show=False),
        Binding("escape", "give_up", "Undo"),
    ]

    @dataclass
    class Left(Message):
        """Editing is over: go on by so many keys; not `keep` takes the text back."""

        steps: int
        keep: bool = True

    def action_leave(self, steps: int) -> None:
        """Keep the text and go to another key."""
        self.post_message(self.Left(steps))

    def action_give_up(self) -> None:
        """Take the text back."""
        self.post_message(self.Left(0, keep=False))
