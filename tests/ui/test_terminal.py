"""The terminal UI as a process in a real pseudo-terminal, seen through a terminal emulator."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pyte
import pytest
from typer.main import get_command

from cafe_tui.cli import app
from tests.patience import PATIENCE
from tests.recorded import record_run

pytestmark = pytest.mark.slow
ALTERNATE_SCREEN, CURSOR = b"?1049", b"?25"


class Terminal:
    """A program in a pseudo-terminal, and what its screen shows."""

    def __init__(self, runs: Path, columns: int = 80, lines: int = 24, **environment: str) -> None:
        self.raw = b""
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        fixed = ("COLUMNS", "LINES", "NO_COLOR", "COLORTERM", "TEXTUAL_THEME")  # what would overrule the terminal
        inherited = {name: value for name, value in os.environ.items() if name not in fixed}
        self.process = pexpect.spawn(
            sys.executable,
            ["-m", "cafe_tui"],
            dimensions=(lines, columns),
            env={**inherited, "TERM": "xterm-256color", "CAFE_RUNS": str(runs), **environment},
        )

    def read(self, seconds: float) -> bytes:
        """What the program writes within so many seconds."""
        new, end = b"", time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                new += self.process.read_nonblocking(65536, timeout=left)
            except pexpect.TIMEOUT:
                break
            except pexpect.EOF:
                break
        self.raw += new
        self._stream.feed(new)
        return new

    def until_silent(self, seconds: float) -> None:
        """Read until the program writes nothing for so long, as it does at last where an idle screen costs no bytes."""
        end = time.monotonic() + PATIENCE
        while self.read(seconds):
            assert time.monotonic() < end, "goes on and on"

    def until(self, true: Callable[[str], bool]) -> str:
        """Read until the text of the screen fulfils a condition."""
        end = time.monotonic() + PATIENCE
        while not true(shown := "\n".join(self.screen.display)):
            assert time.monotonic() < end, shown
            self.read(0.1)
        return shown

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        self.process.setwinsize(lines, columns)

    def end(self) -> int | None:
        """Wait for the program to end; its exit status."""
        end = time.monotonic() + PATIENCE
        while self.process.isalive():
            assert time.monotonic() < end, "still running"
            self.read(0.1)
        self.read(0.5)
        self.process.close()
        return self.process.exitstatus

    def is_restored(self) -> bool:
        """Whether the normal screen and the cursor are back."""
        return self._last(ALTERNATE_SCREEN) == b"l" and self._last(CURSOR) == b"h"

    def _last(self, mode: bytes) -> bytes:
        at = self.raw.rindex(b"\x1b[" + mode) + len(mode) + 2
        return self.raw[at : at + 1]


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    """Terminals to be closed at the end of the test."""
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.process.close(force=True)


def test_a_person_opens_a_run_resizes_and_quits(tmp_path: Path, terminals: list[Terminal]) -> None:
    run = record_run(tmp_path)
    terminals.append(terminal := Terminal(tmp_path))
    terminal.until(lambda shown: "finished" in shown and "Quit" in shown)
    terminal.process.send("\r")
    terminal.until(lambda shown: run.id in shown and "clean" in shown and "Back" in shown)
    terminal.process.send("1")
    terminal.until(lambda shown: "hypothesis" in shown)
    terminal.resize(160, 50)
    terminal.until(lambda shown: all(text in shown for text in ("hypothesis", "clean", "─log─", "psi")))
    terminal.process.send("q")
    terminal.until(lambda shown: "vs base" in shown)
    terminal.process.send("q")
    assert terminal.end() == 0
    assert terminal.is_restored()


def test_an_idle_screen_costs_no_bytes(tmp_path: Path, terminals: list[Terminal]) -> None:
    record_run(tmp_path)
    terminals.append(terminal := Terminal(tmp_path, 120, 40))
    terminal.until(lambda shown: "finished" in shown and "Quit" in shown)
    terminal.until_silent(3.0)
    terminal.process.send("\r")
    terminal.until(lambda shown: "hypothesis" in shown and "Back" in shown)
    terminal.until_silent(2.0)


@pytest.mark.parametrize("opened", [False, True])
def test_sigterm_restores_the_terminal(tmp_path: Path, terminals: list[Terminal], opened: bool) -> None:
    record_run(tmp_path)
    terminals.append(terminal := Terminal(tmp_path))
    terminal.until(lambda shown: "finished" in shown and "Quit" in shown)
    if opened:
        terminal.process.send("\r")
        terminal.until(lambda shown: "Back" in shown)
    terminal.process.kill(signal.SIGTERM)
    terminal.end()
    assert terminal.is_restored()


def test_no_color_means_none(tmp_path: Path, terminals: list[Terminal]) -> None:
    record_run(tmp_path)
    terminals.append(terminal := Terminal(tmp_path, NO_COLOR="1"))
    terminal.until(lambda shown: "finished" in shown and "Quit" in shown)
    cells = [cell for line in terminal.screen.buffer.values() for cell in line.values()]
    assert all(_is_grey(cell.fg) and _is_grey(cell.bg) for cell in cells)


def _is_grey(colour: str) -> bool:
    if len(colour) != 6:
        return colour in ("default", "black", "white")
    return colour[:2] == colour[2:4] == colour[4:]


def test_a_dumb_terminal_gets_the_plain_verbs_and_no_escapes(tmp_path: Path, terminals: list[Terminal]) -> None:
    record_run(tmp_path)
    terminals.append(terminal := Terminal(tmp_path, TERM="dumb"))
    assert terminal.end() == 2
    assert b"\x1b" not in terminal.raw
    said = terminal.raw.decode()
    assert said.startswith("cafe: the terminal UI cannot be shown here (TERM=dumb)")
    verbs = {words.split()[0] for words in said.split("cafe ")[1:]}
    assert {"ls", "run", "watch", "show", "stop", "resume", "--help"} <= verbs
    assert verbs - {"--help"} <= set(get_command(app).commands), "all of them exist"  # type: ignore[attr-defined]
