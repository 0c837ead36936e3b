"""A yes-or-no question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Static

from cafe_tui.ui.widgets.touched import Named, Touched, TouchingScreen


class Confirm(TouchingScreen[bool]):
    """Asks `question`, explains `consequence`, returns whether the answer was yes. Enter alone means no.

    `runs` are those that a yes touches, and are all listed; several lines of consequences are set off by line breaks.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
        Binding("left,right,h,l", "app.focus_next", "Choose", show=False),
    ]

    def __init__(self, question: str, consequence: str, yes: str, no: str, runs: Sequence[Named] = ()) -> None:
        super().__init__()
        self._texts = (question, consequence, yes, no)
        self._runs = runs

    def compose(self) -> ComposeResult:
        question, consequence, yes, no = (Content(text) for text in self._texts)
        with Vertical(id="dialog"):
            yield Static(question, id="question")
            if self._runs:
                yield Touched(self._runs)
            yield Static(consequence, id="consequence")
            with Horizontal():
                yield Button(no, id="no", compact=True)
                yield Button(yes, id="yes", compact=True, variant="error")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)
