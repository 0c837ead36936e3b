"""Textual's driver for Unix terminals, which sends only what changed and notices when the line is slow."""

from __future__ import annotations

import threading
import time
from typing import IO, Any, Protocol, cast

from textual.drivers.linux_driver import LinuxDriver

from cafe_tui.terminal.frame_rate import FrameRate
from cafe_tui.terminal.protocols import Placements
from cafe_tui.terminal.repaint import Repaint


class Clock(Protocol):
    """Seconds since some moment."""

    def __call__(self) -> float: ...


class Output:
    """A text file in front of the terminal's; `frame_rate` learns how long the terminal takes for each frame."""

    def __init__(
        self,
        file: IO[str],
        frame_rate: FrameRate,
        clock: Clock = time.monotonic,
        placements: Placements | None = None,
    ) -> None:
        self._file, self._frame_rate, self._clock = file, frame_rate, clock
        self._repaint = Repaint(placements)
        self._lost = threading.Event()

    def forget(self) -> None:
        """The terminal has lost what it showed. May be called from any thread."""
        self._lost.set()

    def write(self, text: str) -> None:
        """Take a part of a frame."""
        if self._lost.is_set():
            self._lost.clear()
            self._repaint.forget()
        self._repaint.feed(text)

    def flush(self) -> None:
        """Send what the frame changes."""
        text = self._repaint.take()
        if text:
            start = self._clock()
            self._file.write(text)
            self._file.flush()
            self._frame_rate.drained(self._clock() - start)

    def fileno(self) -> int:
        """That of the terminal."""
        return self._file.fileno()

    def isatty(self) -> bool:
        """That of the terminal."""
        return self._file.isatty()


class SparingDriver(LinuxDriver):
    """Sends changed cells only, and reports to the app's frame rate how long the terminal takes for each frame."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        self._output: Output | None = None
        if self._file is not None:
            self._output = Output(self._file, app.frame_rate, placements=app.placements)
            self._file = cast(Any, self._output)

    def start_application_mode(self) -> None:
        """Take over the terminal, also after a suspension, in which others wrote to it."""
        self.forget()
        super().start_application_mode()  # type: ignore[no-untyped-call]

    def forget(self) -> None:
        """The terminal may show anything now."""
        if self._output is not None:
            self._output.forget()
