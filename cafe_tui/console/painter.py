"""Put lines on a terminal or a pipe: once, or again and again in place.

Here ends the way of all text that is painted: what is in it but characters to see is replaced, by `clean`.

Of a frame only the lines are written that changed since the last one. Rich's own live display repaints everything each
time, which a slow line cannot take.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from io import StringIO
from types import FrameType
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from engine.contract.printing import printable, unguarded

_BEGIN_SYNC, _END_SYNC = "\x1b[?2026h", "\x1b[?2026l"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_STYLE, _RESET = re.compile(r"\x1b\[[\d;]*m"), "\x1b[0m"
_CLEAR_LINE, _CLEAR_BELOW, _CLEAR_SCREEN = "\x1b[K", "\x1b[J", "\x1b[H\x1b[2J"


def live_terminal(stream: TextIO) -> bool:
    """Whether a stream can show a view that changes in place."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


class Painter:
    """Shows frames in place, at the end of the normal screen, writing only lines that changed.

    A context manager: on leaving, by whatever way, the cursor is shown again below the last frame.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = unguarded(stream)
        self._lines: list[str] = []
        self._size: tuple[int, int] | None = None
        self._interrupted = False
        self._stopped_before: Any = None

    def __enter__(self) -> Painter:
        if threading.current_thread() is threading.main_thread():
            self._stopped_before = signal.signal(signal.SIGTSTP, self._suspend)
        self._stream.write(_HIDE_CURSOR)
        self._stream.flush()
        return self

    def __exit__(self, *_: object) -> None:
        if self._stopped_before is not None:
            signal.signal(signal.SIGTSTP, self._stopped_before)
        with suppress(OSError):  # the terminal may be gone
            self._stream.write(_END_SYNC + _SHOW_CURSOR)  # a signal may have ended us in the middle of a frame
            self._stream.flush()

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        """ctrl-Z: give the shell its cursor, and paint anew, below what it showed, once we go on."""
        self._send(_END_SYNC + _SHOW_CURSOR)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # stops us here
        signal.signal(number, self._suspend)
        self._interrupted = True
        self._send(_HIDE_CURSOR)

    def _send(self, text: str) -> None:
        """Past the buffer of the stream, which a signal may have come in the middle of."""
        with suppress(OSError, ValueError):
            os.write(self._stream.fileno(), text.encode())

    def size(self) -> tuple[int, int]:
        """Columns and lines of the terminal."""
        try:
            columns, lines = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            columns, lines = 80, 24
        return columns or 80, lines or 24

    def resized(self) -> bool:
        """Whether the terminal has another size than when the last frame was painted, or was the shell's since then."""
        return self._interrupted or (self._size is not None and self._size != self.size())

    def paint(self, frame: Sequence[Text]) -> None:
        """Show a frame; after a resize everything is drawn again."""
        size = self.size()
        lines = render(frame, size[0], self._stream)[: max(size[1] - 1, 1)]
        if self._interrupted:
            self._interrupted, self._lines = False, []
        if self._size is not None and size != self._size:
            self._write(_CLEAR_SCREEN + "".join(f"{line}\n" for line in lines))
        else:
            self._write(self._change(lines))
        self._size, self._lines = size, lines

    def _change(self, lines: list[str]) -> str:
        """What turns the frame on the screen into `lines`, with the cursor below it before and after."""
        old, parts, at = self._lines, [], len(self._lines)
        for i, line in enumerate(lines):
            if i >= len(old):
                parts.append(f"{_move(i - at)}\r{line}\n")
                at = i + 1
            elif old[i] != line:
                parts.append(_move(i - at) + _rest(old[i], line) + _CLEAR_LINE)
                at = i
        if len(lines) < len(old):
            parts.append(f"{_move(len(lines) - at)}\r{_CLEAR_BELOW}")
            at = len(lines)
        return "".join(parts) + (_move(len(lines) - at) + "\r" if parts and at != len(lines) else "")

    def _write(self, text: str) -> None:
        if text:
            self._stream.write(f"{_BEGIN_SYNC}{text}{_END_SYNC}")
            self._stream.flush()


def _rest(old: str, new: str) -> str:
    """What turns the line `old` into `new`: from the first cell that differs, in the style that holds there."""
    differing = (i for i, (before, after) in enumerate(zip(old, new, strict=False)) if before != after)
    same = next(differing, min(len(old), len(new)))
    escape = new.rfind("\x1b", 0, same)
    if escape >= 0 and "m" not in new[escape:same]:
        same = escape
    head = new[:same]
    style = "".join(_STYLE.findall(head.rpartition(_RESET)[2]))
    return f"\x1b[{cell_len(_STYLE.sub('', head)) + 1}G{style}{new[same:]}"


def _move(lines: int) -> str:
    """Cursor up or down; only over lines that are already there."""
    return f"\x1b[{-lines}A" if lines < 0 else f"\x1b[{lines}B" if lines > 0 else ""


def clean(line: Text) -> Text:
    """The line without control characters, tabs as spaces, its styles where they were."""
    if line.plain.isprintable():
        return line
    line = line.copy()
    line.expand_tabs(8)
    line.plain = printable(line.plain)  # of the same length
    return line


def console(stream: TextIO, width: int | None = None) -> Console:
    """A Rich console that colours only where colour is wanted, and never reads text as markup."""
    plain = not live_terminal(stream)
    return Console(
        file=unguarded(stream),
        width=width,
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=True,
        force_terminal=not plain,
        color_system=None if plain or "NO_COLOR" in os.environ else "auto",
    )


def render(lines: Sequence[Text], width: int, stream: TextIO) -> list[str]:
    """Lines as the terminal takes them, each cut to `width` cells."""
    out = StringIO()
    drawn = Console(
        file=out,
        width=width,
        markup=False,
        highlight=False,
        emoji=False,
        force_terminal=True,
        no_color="NO_COLOR" in os.environ,
    )
    for line in lines:
        line = clean(line).copy()
        line.truncate(width)
        drawn.print(line, soft_wrap=True)
    return out.getvalue().split("\n")[:-1]


def broken(lines: Sequence[Text], width: int) -> list[Text]:
    """Prose broken between words into lines of at most `width` cells; table rows and paths stay whole."""
    measure, result = Console(width=width), list[Text]()
    for line in lines:
        kept = line.no_wrap or line.overflow == "ignore" or line.cell_len <= width
        result += [line] if kept else line.wrap(measure, width)
    return result


def print_lines(lines: Sequence[Text], stream: TextIO | None = None) -> None:
    """Print lines once, none of them cut; on a terminal prose is broken between words."""
    stream = stream or sys.stdout
    out, lines = console(stream, width=10_000), [clean(line) for line in lines]
    for line in broken(lines, console(stream).width) if stream.isatty() else lines:
        out.print(line)
