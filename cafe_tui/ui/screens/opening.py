"""How a screen is opened from another one: a binding names its file, and the file says how to open it on a selection.

So a new screen is one file with a function `opened(selection)`, and one row, `Binding(KEY, "show('FILE')", LABEL)`, in
the bindings of the screen from which it is reached. The bar of keys, the help and the palette show what is bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from textual.screen import Screen

from cafe_tui.ui.preferences import Preferences
from engine.contract.run.rundir import RunDir


@dataclass(frozen=True)
class Selection:
    """What a screen is opened on: the folder of runs, the run shown or under the cursor, those marked, a stage.

    An empty `stage` is the one that the run is at.
    """

    runs: Path
    run: RunDir | None = None
    marked: Sequence[RunDir] = ()
    stage: str = ""
    preferences: Preferences = field(default_factory=Preferences)


class NotSelected(Exception):
    """The screen cannot be opened on this selection; says what to select."""


class OpeningScreen(Screen[None]):
    """A screen from which others are opened."""

    def selection(self) -> Selection:
        """What others are opened on."""
        raise NotImplementedError

    def action_show(self, name: str) -> None:
        """Open the screen of the file with this name, which is imported now: the first paint does without it."""
        module = import_module(f"cafe_tui.ui.screens.{name}")
        try:
            self.app.push_screen(module.opened(self.selection()))
        except NotSelected as reason:
            self.notify(str(reason), markup=False)
