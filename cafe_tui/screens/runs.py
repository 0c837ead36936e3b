"""Home: every run of the folder, live."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Footer, Input, Static

from cafe_tui import format as fmt
from cafe_tui.messages import RunsChanged
from cafe_tui.screens.polling import PollingScreen
from cafe_tui.widgets.run_table import RunTable
from engine.contract.errors import CafeError
from engine.contract.rundir import FINAL, RunDir

if TYPE_CHECKING:
    from cafe_tui.watch import RunRow, RunsFollower

AGES_EVERY = 10.0
"""Seconds between looks at whether an age has become another text."""


def matches(row: RunRow, words: Sequence[str]) -> bool:
    """Whether every word (lower case) occurs in the run's id, name, state, stage or tags."""
    text = " ".join((row.id, row.name, row.state, row.stage, *row.tags)).lower()
    return all(word in text for word in words)


class RunsScreen(PollingScreen):
    """The table of runs; `follower` reads the folder, `clock` gives unix seconds."""

    PERIOD = 2.0
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("s", "stop", "Stop"),
        Binding("escape", "clear_filter", "Clear filter"),
        Binding("q", "app.quit", "Quit"),
    ]

    def __init__(self, runs: Path, follower: RunsFollower, clock: Callable[[], float]) -> None:
        super().__init__()
        self._runs = runs
        self._follower = follower
        self._clock = clock
        self._rows: Sequence[RunRow] = ()
        self._problem = ""
        self._loaded = False
        self._read_rows: Sequence[RunRow] = ()  # the reader thread's
        self._told: RunsChanged | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="title")
        yield Input(id="filter", placeholder="words of name, state, stage or tag; enter keeps, escape clears")
        yield RunTable(id="runs")
        yield Static(id="empty")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = False
        self.query_one(RunTable).focus()
        self.set_interval(AGES_EVERY, self._draw)

    def read(self) -> None:
        """Look at the folder (reader thread)."""
        problem = ""
        try:
            rows = self._follower.poll()
            self._read_rows = self._read_rows if rows is None else rows
        except CafeError as error:
            problem = str(error)
        news = RunsChanged(() if problem else self._read_rows, problem)
        if news != self._told:
            self._told = news
            self.post_message(news)

    def on_runs_changed(self, message: RunsChanged) -> None:
        self._rows, self._problem, self._loaded = message.rows, message.problem, True
        self._draw()

    @on(Input.Changed)
    def _draw(self) -> None:
        if not self._loaded:
            return
        wanted = self.query_one(Input).value
        rows = [row for row in self._rows if matches(row, wanted.lower().split())]
        self.query_one(RunTable).show(rows, self._clock())
        self._say("#title", self._title(len(rows), wanted))
        self._say("#empty", self._why_empty(wanted))
        self.set_class(not rows, "-empty")

    def _say(self, selector: str, text: str) -> None:
        static, content = self.query_one(selector, Static), Content(text)
        if static.content != content:
            static.update(content)

    def _title(self, shown: int, wanted: str) -> str:
        total = len(self._rows)
        going = sum(row.state not in FINAL for row in self._rows)
        count = f"{shown} of {total} runs" if wanted.strip() else f"{total} run{'s' * (total != 1)}"
        return fmt.printable(f"cafe  {self._runs}  {count}" + (f", {going} going on" if going else ""))

    def _why_empty(self, wanted: str) -> str:
        if self._problem:
            return fmt.printable(self._problem)
        if self._rows:
            return fmt.printable(f"No run matches “{wanted.strip()}”. Escape clears the filter.")
        return fmt.printable(f"No runs in {self._runs} yet. Start one with\n\n    cafe run quickstart")

    # --- keys --------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Without a filter there is none to clear."""
        return action != "clear_filter" or self.has_class("-filtering")

    def action_filter(self) -> None:
        """Open the filter line."""
        self.add_class("-filtering")
        self.query_one(Input).focus()

    @on(Input.Submitted)
    def _keep_filter(self) -> None:
        self.query_one(RunTable).focus()
        self.set_class(bool(self.query_one(Input).value), "-filtering")

    def action_clear_filter(self) -> None:
        """Show all runs again."""
        self.query_one(Input).value = ""
        self.remove_class("-filtering")
        self.query_one(RunTable).focus()

    def action_stop(self) -> None:
        """Ask whether to stop the run under the cursor."""
        from cafe_tui.screens.confirm import ask_to_stop

        if row := self.query_one(RunTable).selected:
            ask_to_stop(self.app, RunDir(self._runs / row.id), going=row.state not in FINAL)
