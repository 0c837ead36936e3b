"""The UI started from a real shell: every way out leaves the shell's screen, cursor and settings as they were."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import psutil
import pyte
import pytest

from tests.recorded import record_run

BASH = shutil.which("bash")
PATIENCE = 120.0
PROMPT = "shell> "
ALTERNATE = 1049
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BASH is None, reason="no bash here")]


class TwoScreens(pyte.Screen):
    """pyte's screen with the alternate one of xterm, which keeps the cursor of the normal one meanwhile."""

    def __init__(self, columns: int, lines: int) -> None:
        self._kept: tuple[dict[int, dict[int, Any]], int, int] | None = None
        super().__init__(columns, lines)

    @property
    def alternate(self) -> bool:
        """Whether the alternate one is shown."""
        return self._kept is not None

    def set_mode(self, *modes: int, **options: Any) -> None:
        if ALTERNATE in modes and options.get("private"):
            cells = {y: dict(line) for y, line in self.buffer.items()}
            self._kept = (cells, self.cursor.y, self.cursor.x)
            self.erase_in_display(2)
        super().set_mode(*modes, **options)

    def reset_mode(self, *modes: int, **options: Any) -> None:
        if ALTERNATE in modes and options.get("private") and self._kept:
            cells, y, x = self._kept
            self._kept = None
            self.erase_in_display(2)
            for row, line in cells.items():
                self.buffer[row].update(line)
            self.cursor.y, self.cursor.x = y, x
        super().reset_mode(*modes, **options)


class Shell:
    """bash in a pseudo-terminal with something on its screen already."""

    def __init__(self, folder: Path, lines: int = 24) -> None:
        assert BASH is not None
        self.screen = TwoScreens(80, lines)
        self._stream = pyte.ByteStream(self.screen)
        fixed = ("COLUMNS", "LINES", "NO_COLOR", "PROMPT_COMMAND", "CAFE_SLOW")
        inherited = {name: value for name, value in os.environ.items() if name not in fixed}
        self.process = pexpect.spawn(
            BASH,
            ["--norc", "--noprofile", "-i"],
            dimensions=(lines, 80),
            cwd=folder,
            env={
                **inherited,
                "TERM": "xterm-256color",
                "PS1": PROMPT,
                "CAFE_RUNS": str(folder / "runs"),
                "PYTHON": sys.executable,
                "BASH_SILENCE_DEPRECATION_WARNING": "1",
                "PYTHONPATH": str(Path(__file__).parents[2]),
            },
        )
        self.until(lambda: self.lines()[0] == PROMPT.strip())
        self.process.send(
            "bind 'set enable-bracketed-paste off'; clear; printf 'line %d\\n' 1 2 3 4; stty -g | cksum\r"
        )
        self.until(lambda: len(self.lines()) == 6 and self.at_prompt())
        self.settings = self.lines()[4]

    def read(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                self._stream.feed(self.process.read_nonblocking(65536, timeout=left))
            except (pexpect.TIMEOUT, pexpect.EOF):
                break

    def lines(self) -> list[str]:
        """The screen down to its last line with something on it, without spaces at the ends."""
        shown = [line.rstrip() for line in self.screen.display]
        while shown and not shown[-1]:
            shown.pop()
        return shown or [""]

    def until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, "\n".join(self.screen.display)
            self.read(0.05)

    def at_prompt(self) -> bool:
        """Whether a prompt waits on the last line, with a visible cursor behind it."""
        cursor = self.screen.cursor
        here = not self.screen.alternate and not cursor.hidden and cursor.x == len(PROMPT)
        return here and self.lines()[-1] == PROMPT.strip() and cursor.y == len(self.lines()) - 1

    def open_ui(self, command: str = "$PYTHON -m cafe_tui") -> psutil.Process:
        """Start the UI and wait for its list; its process."""
        self.process.send(f"{command}; echo code $?\r")
        self.until(lambda: self.screen.alternate and "Quit" in self.lines()[-1] and "finished" in self.lines()[2])
        [child] = psutil.Process(self.process.pid).children()
        return child

    def left_with(self, code: int, *said: str) -> None:
        """The shell is as it was, below its old lines and the command those that say this; settings too."""
        self.until(self.at_prompt)
        above = ["line 1", "line 2", "line 3", "line 4", self.settings]
        assert self.lines()[:5] == above
        assert self.lines()[5].endswith("; echo code $?")
        assert self.lines()[6:-1] == [*said, f"code {code}"]
        self.process.send("stty -g | cksum\r")
        self.until(lambda: self.at_prompt() and self.lines()[-3].endswith("cksum"))
        assert self.lines()[-2] == self.settings


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell where one run lies in ./runs."""
    record_run(tmp_path / "runs")
    opened = Shell(tmp_path)
    yield opened
    opened.process.close(force=True)


@pytest.mark.parametrize("key", ["q", "\x03"], ids=["q", "ctrl-c"])
def test_leaving_with_a_key(shell: Shell, key: str) -> None:
    shell.open_ui()
    shell.process.send(key)
    shell.left_with(0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_leaving_by_a_signal(shell: Shell, number: signal.Signals) -> None:
    shell.open_ui().send_signal(number)
    shell.left_with(128 + number)


def test_leaving_by_a_crash(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(
        "import sys\n"
        "from cafe_tui.ui.app import CafeApp\n"
        "def fail(_): raise ValueError('on purpose')\n"
        "CafeApp.action_help = fail\n"
        "sys.argv = ['cafe']\n"
        "from cafe_tui.__main__ import main\n"
        "main()\n"
    )
    shell.open_ui("$PYTHON crashing.py")
    shell.process.send("?")
    shell.until(lambda: shell.at_prompt() and shell.lines()[-2] == "code 1")
    assert "on purpose" in "\n".join(shell.lines()), "the report is below what was there"
    shell.process.send("clear; stty -g | cksum\r")
    shell.until(lambda: shell.at_prompt() and len(shell.lines()) == 2)
    assert shell.lines()[0] == shell.settings


def test_suspending_with_a_key_and_coming_back(shell: Shell) -> None:
    shell.open_ui()
    for way in ("fg", "bg; fg"):
        shell.process.send("\x1a")
        shell.until(lambda: shell.at_prompt() and "Stopped" in "\n".join(shell.lines()))
        assert shell.lines()[:4] == ["line 1", "line 2", "line 3", "line 4"]
        assert "Stopped" in shell.lines()[-2] or "Stopped" in shell.lines()[-3]
        shell.process.send("clear; stty -g | cksum\r")
        shell.until(lambda: shell.at_prompt() and len(shell.lines()) == 2)
        assert shell.lines()[0] == shell.settings
        shell.process.send("clear; printf 'line %d\\n' 1 2 3 4\r")
        shell.until(lambda: shell.at_prompt() and len(shell.lines()) == 5)
        shell.process.send(f"{way}\r")
        shell.until(lambda: shell.screen.alternate and "Quit" in shell.lines()[-1] and "finished" in shell.lines()[2])
    shell.process.send("\r")  # keys work as before
    shell.until(lambda: "Back" in shell.lines()[-1])
    shell.process.send("\x03")
    shell.until(shell.at_prompt)
    assert shell.lines()[:4] == ["line 1", "line 2", "line 3", "line 4"]
    shell.process.send("clear; stty -g | cksum\r")
    shell.until(lambda: shell.at_prompt() and len(shell.lines()) == 2)
    assert shell.lines()[0] == shell.settings


def test_a_terminal_that_is_closed_takes_the_ui_with_it(shell: Shell) -> None:
    ui = shell.open_ui()
    shell.process.close(force=False)
    ui.wait(PATIENCE)
