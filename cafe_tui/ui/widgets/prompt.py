"""One line of text, asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static

from cafe_tui.ui.widgets.touched import Named, Touched, TouchingScreen


class Prompt(TouchingScreen[str | None]):
    """Asks `question` with `value` to begin from; returns the text, or None for escape.

    `runs` are those that the text is for, and are all listed.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Cancel")]

    def __init__(self, question: str, hint: str, value: str = "", runs: Sequence[Named] = ()) -> None:
        super().__init__()
        self._runs = runs
        self._question, self._hint, self._value = question, hint, value

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static(Content(self._question), id="question")
            if self._runs:
                yield Touched(self._runs)
            line = Input(self._value, compact=True)
            line.cursor_blink = False
            yield line
            yield Static(Content(self._hint), id="hint")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)
