"""What is to be written and where to: asked for, and then written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from cafe_tui import format as fmt
from cafe_tui.results.exporting import Document
from cafe_tui.ui.widgets.confirm import Confirm
from cafe_tui.ui.widgets.lines import Line, Lines, fit
from engine.contract.errors import CafeError
from engine.contract.run.rundir import write_atomically

HINT: Final = "↑↓ format, enter writes, escape leaves"


class _Choices(Lines):
    """The documents, one of them marked."""

    def __init__(self, documents: Sequence[Document]) -> None:
        super().__init__()
        self._documents = documents
        self.chosen = 0

    def compose_lines(self, cells: int) -> list[Line]:
        """A line for each."""
        return [
            (
                (
                    fit(f"{'›' if i == self.chosen else ' '} {document.label}", cells),
                    "accent" if i == self.chosen else "",
                ),
            )
            for i, document in enumerate(self._documents)
        ]


class ExportDialog(ModalScreen[Path | None]):
    """Asks which of the documents to write, and to which file; returns the file once it is written, None for escape.

    A file that exists is replaced only after asking.
    """

    DEFAULT_CSS = """
    ExportDialog { align: center middle; background: $background 60%; }
    ExportDialog _Choices { margin: 1 0; }
    ExportDialog #hint { color: $text-muted; }
    ExportDialog #hint.-problem { color: $text-error; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Cancel"),
        Binding("up,shift+tab", "choose(-1)", "Format", show=False),
        Binding("down,tab", "choose(1)", "Format", show=False),
    ]

    def __init__(self, documents: Sequence[Document]) -> None:
        super().__init__()
        self._documents = documents
        self._choices = _Choices(documents)
        self._writing = False

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static(Content("Export to a file"), id="question")
            yield self._choices
            line = Input(self._documents[0].name, compact=True, select_on_focus=False)
            line.cursor_blink = False
            yield line
            yield Static(Content(HINT), id="hint")

    def action_choose(self, step: int) -> None:
        """Mark another document. A name that was typed stays, with the ending of the new format if it had the old."""
        before, chosen = self._documents[self._choices.chosen], (self._choices.chosen + step) % len(self._documents)
        after = self._documents[chosen]
        self._choices.chosen = chosen
        self._choices.show_changes()
        line = self.query_one(Input)
        if line.value == before.name:
            line.value = after.name
        elif line.value.endswith(suffix := Path(before.name).suffix):
            line.value = line.value.removesuffix(suffix) + Path(after.name).suffix
        line.cursor_position = len(line.value)

    def on_input_changed(self) -> None:
        self._say(HINT)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if self._writing:
            return
        try:
            path = Path(event.value.strip()).expanduser()
        except RuntimeError as error:  # nobody of that name has a home
            self._say(str(error), problem=True)
            return
        if not path.name or path.is_dir():
            self._say("a file name is needed", problem=True)
        elif path.exists():
            question = Confirm(f"Replace {fmt.printable(path.name)}?", "What is in it now is lost.", "Replace", "Keep")
            self.app.push_screen(question, lambda yes: self._start(path) if yes else None)
        else:
            self._start(path)

    def _start(self, path: Path) -> None:
        self._writing = True
        self._say("writing…")
        self._write(self._documents[self._choices.chosen], path)

    @work(thread=True, group="export")
    def _write(self, document: Document, path: Path) -> None:
        try:
            write_atomically(path, document.text().encode(errors="replace"))
        except (CafeError, ValueError) as error:  # ValueError: no name of a file, or nothing that can be drawn
            problem = error.message if isinstance(error, CafeError) else str(error)
            self.app.call_from_thread(self._failed, problem)
        else:
            self.app.call_from_thread(self._written, path)

    def _failed(self, problem: str) -> None:
        self._writing = False
        self._say(problem, problem=True)

    def _written(self, path: Path) -> None:
        self.app.notify(fmt.printable(f"wrote {path.absolute()}"), markup=False)
        self.dismiss(path)

    def _say(self, text: str, *, problem: bool = False) -> None:
        hint = self.query_one("#hint", Static)
        hint.set_class(problem, "-problem")
        hint.update(Content(fmt.printable(text)))
