"""A yes-or-no question, and the one that is asked: whether to stop a run."""

from __future__ import annotations

from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from cafe_tui import format as fmt
from engine.contract.errors import CafeError
from engine.contract.rundir import RunDir


class Confirm(ModalScreen[bool]):
    """Asks `question`, explains `consequence`, returns whether the answer was yes. Enter alone means no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
        Binding("left,right,h,l", "app.focus_next", "Choose", show=False),
    ]

    def __init__(self, question: str, consequence: str, yes: str, no: str) -> None:
        super().__init__()
        self._texts = (question, consequence, yes, no)

    def compose(self) -> ComposeResult:
        question, consequence, yes, no = (Content(text) for text in self._texts)
        with Vertical(id="dialog"):
            yield Static(question, id="question")
            yield Static(consequence)
            with Horizontal():
                yield Button(no, id="no", compact=True)
                yield Button(yes, id="yes", compact=True, variant="error")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


def ask_to_stop(app: App[None], run: RunDir, *, going: bool) -> None:
    """Ask the person, then the engine, to stop `run`; says so when there is nothing to stop."""

    def stop(yes: bool | None) -> None:
        if yes:
            try:
                run.request_stop()
            except CafeError as error:
                app.notify(str(error), severity="error", markup=False)
            else:
                app.notify(f"asked {run.id} to stop", markup=False)

    if not going:
        app.notify(f"{run.id} is not running", markup=False)
        return
    question = f"Stop {fmt.printable(run.id)}?"
    consequence = "It finishes its current step and writes a checkpoint."
    app.push_screen(Confirm(question, consequence, "Stop it", "Keep running"), stop)
