"""The terminal UI: a list of runs, and one run at a time. It only reads; quitting leaves every engine alone."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import Screen

from cafe_tui.messages import RunOpened
from cafe_tui.screens.runs import RunsScreen
from cafe_tui.watch import LogFollower, RunFollower, RunsFollower
from engine.contract.rundir import RunDir


@dataclass(frozen=True)
class Followers:
    """How the app reads the disk; a test hands in others."""

    runs: Callable[[Path], RunsFollower]
    run: Callable[[RunDir], RunFollower]
    log: Callable[[RunDir], LogFollower]

    @classmethod
    def by(cls, clock: Callable[[], float]) -> Followers:
        """The real ones, judging ages and heartbeats by `clock` (unix seconds)."""
        return cls(partial(RunsFollower, clock=clock), partial(RunFollower, clock=clock), LogFollower)


class CafeApp(App[None]):
    """Shows the runs under `runs`; `clock` gives the unix seconds up to which ages are counted."""

    TITLE = "cafe"
    CSS_PATH = "cafe.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("ctrl+c", "quit", "Quit", show=False),
    ]

    def __init__(
        self, runs: Path, *, followers: Followers | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__()
        self.animation_level = "none"
        self._runs = runs
        self._followers = followers or Followers.by(clock)
        self._clock = clock

    def on_mount(self) -> None:
        with suppress(RuntimeError):  # only the main thread may handle signals
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.exit, None, 128 + signal.SIGTERM)

    def get_default_screen(self) -> Screen[None]:
        """The list of runs."""
        return RunsScreen(self._runs, self._followers.runs(self._runs), self._clock)

    def on_run_opened(self, message: RunOpened) -> None:
        from cafe_tui.screens.run import RunScreen  # the charts are not needed for the first paint

        run = RunDir(self._runs / message.run_id)
        self.push_screen(RunScreen(run, self._followers.run(run), self._followers.log(run)))

    def action_help(self) -> None:
        """Show the keys of the present screen and the glossary."""
        from cafe_tui.screens.help import HelpScreen, key_rows

        bindings = self.screen.active_bindings.values()
        self.push_screen(HelpScreen(key_rows((self.get_key_display(b.binding), b) for b in bindings)))


def open_ui(runs: Path) -> int:
    """Run the terminal UI on a folder of runs until it is left; its exit code."""
    app = CafeApp(runs)
    app.run()
    return app.return_code or 0
