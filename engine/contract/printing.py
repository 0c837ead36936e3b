"""The printing end: whatever a process writes to its standard streams passes `printable` here, once.

Names, notes and messages come out of files and arguments, and a terminal obeys control characters in them: colours,
titles, the clipboard, a line that reads from right to left. `guard` stands before the standard streams of a process,
so that no caller has to think of it; `say` is `print` for single lines; who paints with control codes of its own
cleans the text that it paints and writes to the stream behind the guard (`unguarded`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast


def printable(text: str) -> str:
    """The text with every control character and lone surrogate replaced, so that a file cannot drive the terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "�" for c in text)


def printable_lines(text: str) -> str:
    """The same for text of several lines: newlines stay."""
    return "\n".join(map(printable, text.split("\n")))


def say(*lines: str, file: TextIO | None = None, flush: bool = False) -> None:
    """Print lines. Each stays one, whatever is in it; tabs become spaces."""
    for line in lines:
        print(printable(line.expandtabs()), file=file, flush=flush)


class _Guarded:
    """A text stream whose every text passes `printable_lines`."""

    def __init__(self, stream: TextIO) -> None:
        self.unguarded = stream

    def write(self, text: str) -> int:
        return self.unguarded.write(printable_lines(text.expandtabs()))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # a way around the guard, which click takes where the encoding is ASCII
            raise AttributeError(name)
        return getattr(self.unguarded, name)


def guard() -> None:
    """Let all that this process prints pass `printable`. Closed streams stay closed; a second call changes nothing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Guarded):
            setattr(sys, name, cast(TextIO, _Guarded(stream)))


def unguarded(stream: TextIO) -> TextIO:
    """The stream behind the guard, for those who write control codes of their own around text that they cleaned."""
    return stream.unguarded if isinstance(stream, _Guarded) else stream
