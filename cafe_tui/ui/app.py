"""The terminal UI: a list of runs, and one run at a time. It only reads; quitting leaves every engine alone."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.constants import DEFAULT_THEME
from textual.driver import Driver
from textual.filter import LineFilter
from textual.screen import Screen
from textual.theme import Theme

from cafe_tui.reading.log import LogFollower
from cafe_tui.reading.run import RunFollower
from cafe_tui.reading.runs import RunsFollower
from cafe_tui.terminal.cleaning import Clean
from cafe_tui.terminal.frame_rate import SLOW, USUAL, FrameRate
from cafe_tui.terminal.protocols import PicturesUnavailable, Placements, Way, choose, installed, terminal_cell
from cafe_tui.ui.messages import RunOpened
from cafe_tui.ui.preferences import Preferences, default_file, load, save
from cafe_tui.ui.screens.runs import RunsScreen
from engine.contract.errors import UsageError
from engine.contract.run.rundir import RunDir


@dataclass(frozen=True)
class Followers:
    """How the app reads the disk; a test hands in others."""

    runs: Callable[[Path], RunsFollower]
    run: Callable[[RunDir], RunFollower]
    log: Callable[[RunDir], LogFollower]

    @classmethod
    def by(cls, clock: Callable[[], float]) -> Followers:
        """The real ones, judging ages and heartbeats by `clock` (unix seconds)."""
        return cls(partial(RunsFollower, clock=clock), partial(RunFollower, clock=clock, parallel=True), LogFollower)


HIGH_CONTRAST: Final = Theme(
    name="high-contrast",
    primary="#5fd7ff",
    secondary="#ffffff",
    warning="#ffff00",
    error="#ff6060",
    success="#00ff5f",
    accent="#ffff00",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#000000",
    boost="#303030",
    text_alpha=1.0,
    variables={"block-cursor-foreground": "#000000", "block-cursor-background": "#ffff00", "text-muted": "#ffffff"},
)
MOVES: Final = (
    "move",
    "page",
    "scroll",
    "cursor",
    "pan",
    "app.focus",
    "screen.copy",
    "copy_or_quit",
    "quit",
    "app.quit",
)
"""Beginnings of actions that nobody looks for in a list of commands, or that are in it anyway."""
HANGUP_SECONDS: Final = 5.0
"""After the terminal was closed, the UI has this long to end in order."""
CLEAN: Final = Clean()
SIXTEEN_COLOURS: Final = "ansi-dark"
GARBAGE: Final = (10_000, 20, 10)
"""After how many new objects, and younger collections, garbage is looked for: with the usual 700 and 10, a collection
of all objects met every tenth key while 10,000 runs were listed, and cost it 20 to 70 ms."""
SWITCH: Final = 0.001
"""Seconds after which a reader lets the thread on that answers keys, which is several times for each key."""
THEMES: Final = {
    "dark": "textual-dark",
    "light": "textual-light",
    "high contrast": HIGH_CONTRAST.name,
    "sixteen colours, dark": SIXTEEN_COLOURS,
    "sixteen colours, light": "ansi-light",
}


class CafeApp(App[None]):
    """Shows the runs under `runs`; `clock` gives the unix seconds up to which ages are counted.

    What the user chose is read from and kept in the file `preferences`, if one is given. `slow` draws once a second in
    sixteen colours. `pictures` is the way in which a Unix terminal shows them; all others get half cells.
    """

    TITLE = "cafe"
    CSS_PATH = "cafe.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("ctrl+c", "copy_or_quit", "Copy the selection, or quit", show=False),
        Binding("ctrl+z", "suspend_process", "Suspend; fg in the shell comes back", show=False),
    ]

    def __init__(
        self,
        runs: Path,
        *,
        followers: Followers | None = None,
        clock: Callable[[], float] = time.time,
        preferences: Path | None = None,
        slow: bool = False,
        pictures: Way = "cells",
    ) -> None:
        self.frame_rate = FrameRate(SLOW if slow else USUAL)
        self.placements = None if pictures == "cells" else Placements(pictures)
        super().__init__()
        self.animation_level = "none"
        self._runs = runs
        self._followers = followers or Followers.by(clock)
        self._clock = clock
        self._preferences_file = preferences
        self.preferences = load(preferences) if preferences else Preferences()
        self.register_theme(HIGH_CONTRAST)
        self._choose_theme(slow)

    def _choose_theme(self, slow: bool) -> None:
        if slow and not self.preferences.theme.startswith("ansi"):
            self.theme = SIXTEEN_COLOURS
        elif self.preferences.theme in self.available_themes:
            self.theme = self.preferences.theme

    def get_driver_class(self) -> type[Driver]:
        """The usual one for the platform; where that is a Unix terminal, one that sends less."""
        usual = super().get_driver_class()
        if usual.__name__ != "LinuxDriver":
            self.placements = None
            return usual
        from cafe_tui.terminal.driver import SparingDriver

        return SparingDriver

    def on_load(self) -> None:
        """Before the terminal is taken over: whatever ends the UI gives it back."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with suppress(RuntimeError):  # only the main thread may handle signals
                asyncio.get_running_loop().add_signal_handler(number, self._leave, number)

    def _leave(self, number: signal.Signals) -> None:
        self.exit(None, 128 + number)
        if number == signal.SIGHUP:  # mostly the terminal is gone, and nothing that is written to it returns
            give_up = threading.Timer(HANGUP_SECONDS, os._exit, (128 + number,))
            give_up.daemon = True
            give_up.start()

    def on_mount(self) -> None:
        self.call_after_refresh(_collect_garbage)
        self.app_resume_signal.subscribe(self, lambda _: self.refresh(layout=True))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A page in a browser has no shell to go back to."""
        return action != "suspend_process" or (self._driver is not None and self._driver.can_suspend)

    def on_resize(self) -> None:
        """A terminal that changes its size may move what it shows, in ways of its own."""
        if forget := getattr(self._driver, "forget", None):
            forget()

    def get_line_filters(self) -> Sequence[LineFilter]:
        """What every line of every widget passes before it is drawn."""
        return [*super().get_line_filters(), CLEAN]

    def tell_terminal(self, text: str) -> None:
        """Send a sequence that changes no cell."""
        if self._driver is not None:
            self._driver.write(text)

    def get_default_screen(self) -> Screen[None]:
        """The list of runs."""
        return RunsScreen(self._runs, self._followers.runs(self._runs), self._clock, self.preferences)

    def on_unmount(self) -> None:
        if self._preferences_file:
            chosen = self.theme != DEFAULT_THEME and not (
                self.theme == SIXTEEN_COLOURS and self.frame_rate.base == SLOW
            )
            self.preferences.theme = self.theme if chosen else self.preferences.theme
            save(self._preferences_file, self.preferences)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Everything that a key does here, then what concerns the whole UI."""
        for active in {each.binding.action: each for each in screen.active_bindings.values()}.values():
            binding = active.binding
            moves = binding.action.startswith(MOVES)
            if active.enabled and binding.description and not (binding.system or moves):
                act = partial(self.run_action, binding.action, active.node)
                yield SystemCommand(binding.description, f"key {self.get_key_display(binding)}", act)
        for words, theme in THEMES.items():
            yield SystemCommand(f"Theme: {words}", f"Use {theme}", partial(setattr, self, "theme", theme))
        yield SystemCommand("Theme", "Choose from all there are", self.action_change_theme)
        slow = self.frame_rate.base == SLOW
        line = "Draw at the usual pace again" if slow else "Draw once a second"
        yield SystemCommand("Usual line" if slow else "Slow line", line, self.action_slow)
        yield SystemCommand("Screenshot", "Save an SVG picture of this screen", self.deliver_screenshot)
        yield SystemCommand("Quit", "Leave the UI; every engine goes on", self.action_quit)

    def action_slow(self) -> None:
        """Draw once a second, or at the usual pace again."""
        self.frame_rate.set_base(USUAL if self.frame_rate.base == SLOW else SLOW)

    def action_copy_or_quit(self) -> None:
        """What ctrl+c means: copy the text selected with the mouse; without any, leave."""
        if text := self.screen.get_selected_text():
            self.copy_to_clipboard(text)
        else:
            self.exit()

    def on_run_opened(self, message: RunOpened) -> None:
        from cafe_tui.ui.screens.run import RunScreen  # the charts are not needed for the first paint

        run = RunDir(self._runs / message.run_id)
        self.push_screen(RunScreen(run, self._followers.run(run), self._followers.log(run), self.preferences))

    def action_help(self) -> None:
        """Show the keys of the present screen and the glossary."""
        from cafe_tui.ui.screens.help import HelpScreen, key_rows

        bindings = self.screen.active_bindings.values()
        self.push_screen(HelpScreen(key_rows((self.get_key_display(b.binding), b) for b in bindings)))


def _collect_garbage() -> None:
    """Where the start went without: look for garbage from now on, but never among what it made, all of which stays."""
    if not gc.isenabled():
        gc.freeze()
        gc.set_threshold(*GARBAGE)
        gc.enable()


def open_ui(runs: Path, *, slow: bool = False) -> int:
    """Run the terminal UI on a folder of runs until it is left; its exit code. Raises UsageError."""
    try:
        pictures = choose(os.environ, terminal_cell(), installed=installed(), slow=slow).way
    except PicturesUnavailable as error:
        raise UsageError(error.message, error.hint) from None
    app = CafeApp(runs, preferences=default_file(), slow=slow, pictures=pictures)
    if app.console.color_system == "standard" and not app.preferences.theme:  # what TERM and COLORTERM say
        app.theme = SIXTEEN_COLOURS
    sys.setswitchinterval(SWITCH)
    app.run()
    return app.return_code or 0
