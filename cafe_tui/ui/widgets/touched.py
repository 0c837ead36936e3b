"""The runs that a dialog is about, by name and state: nothing is done to a run that was not listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widget import Widget

from cafe_tui import format as fmt
from cafe_tui.ui.widgets.lines import ROLE_CSS, ROLES, Line, fit_name, paint, plain, role_styles
from cafe_tui.ui.widgets.pieces import state_piece

Named = tuple[str, str]
"""The id of a run and its state."""
STATE_CELLS: Final = 12
Answer = TypeVar("Answer")


class TouchedLines(Widget):
    """One line a run. Only those in view are ever made, as a dialog may be about thousands."""

    COMPONENT_CLASSES: ClassVar[set[str]] = set(ROLES)
    DEFAULT_CSS = f"TouchedLines {{ height: auto; {ROLE_CSS} }}"

    def __init__(self, runs: Sequence[Named]) -> None:
        super().__init__()
        self._runs = runs

    def text(self) -> str:
        """What is shown, without styles."""
        return "\n".join(plain(self._line(y, 200)).rstrip() for y in range(len(self._runs)))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._runs)

    def render_line(self, y: int) -> Strip:
        cells = self.content_size.width
        line = self._line(y, cells) if y < len(self._runs) else ()
        return paint(line, cells, self.rich_style, role_styles(self))

    def _line(self, y: int, cells: int) -> Line:
        name, state = self._runs[y]
        text, role = state_piece(fmt.printable(state))
        return (text.ljust(STATE_CELLS), role), (fit_name(fmt.printable(name), max(cells - STATE_CELLS, 1)), "")


class Touched(VerticalScroll, can_focus=False):
    """The runs that a dialog is about, as (id, state); scrolls where they are many."""

    DEFAULT_CSS = """
    Touched { height: auto; max-height: 10; margin: 1 0; scrollbar-size-vertical: 1; }
    """

    def __init__(self, runs: Sequence[Named]) -> None:
        super().__init__()
        self._runs = runs

    def compose(self) -> ComposeResult:
        yield TouchedLines(self._runs)


class TouchingScreen(ModalScreen[Answer]):
    """A dialog about runs, whose list the up and down keys scroll."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "scroll_runs(-1)", "Scroll the list", show=False),
        Binding("down", "scroll_runs(1)", "Scroll the list", show=False),
        Binding("pageup", "scroll_runs(-9)", "Scroll the list", show=False),
        Binding("pagedown", "scroll_runs(9)", "Scroll the list", show=False),
    ]

    def action_scroll_runs(self, lines: int) -> None:
        """Move the list of runs by so many lines, if it is longer than its place."""
        for pane in self.query(Touched):
            pane.scroll_relative(y=lines, animate=False)
