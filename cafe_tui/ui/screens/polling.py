"""A screen that reads the disk on a thread of its own while it is shown."""

from __future__ import annotations

import threading
from typing import ClassVar, Final

from textual import work
from textual.screen import Screen

from cafe_tui.terminal.frame_rate import USUAL, FrameRate

CALM: Final = 4
"""How many times as long a screen waits between two readings of what has ended."""
BREATH: Final = 0.005
"""Seconds for the UI thread between two readings of a long file."""


class PollingScreen(Screen[None]):
    """Calls `read` every `PERIOD` seconds, off the UI thread, from being shown until being covered or left.

    `read` returns True when there is more to read at once.
    """

    PERIOD: ClassVar[float] = 1.0

    def __init__(self) -> None:
        super().__init__()
        self._covered = threading.Event()
        self._woken = threading.Event()
        self._reading = threading.Lock()
        self.calm = False
        """Whether what is read has ended, so that only somebody who resumes it can change it."""

    def wake(self) -> None:
        """Read at once instead of at the end of the period."""
        self._woken.set()

    @property
    def period(self) -> float:
        """Seconds between two readings: no shorter than what the line to the terminal takes."""
        frame_rate = getattr(self.app, "frame_rate", None)
        wanted = self.PERIOD * (CALM if self.calm else 1)
        if isinstance(frame_rate, FrameRate) and frame_rate.interval > USUAL:
            return max(wanted, frame_rate.interval)
        return wanted

    def read(self) -> bool | None:
        """Look at the disk and post what is new. Runs on the reader thread, never twice at once."""
        raise NotImplementedError

    def rest(self) -> None:
        """Let go of what only reading needs. Runs on the reader thread once the screen is covered or left."""

    def on_screen_resume(self) -> None:
        # After the first painting: two threads that both want the interpreter would delay it severalfold.
        self._leave()
        self._covered = threading.Event()
        self._poll(self._covered)

    def on_screen_suspend(self) -> None:
        self._leave()

    def on_unmount(self) -> None:
        self._leave()

    def _leave(self) -> None:
        self._covered.set()
        self.wake()

    @work(thread=True, group="reader")
    def _poll(self, covered: threading.Event) -> None:
        # Each showing has an event of its own, so a reader that is slow to notice its end is never revived.
        while not covered.is_set():
            self._woken.clear()
            with self._reading:
                more = self.read()
            if not covered.is_set():
                self._woken.wait(BREATH if more else self.period)
        with self._reading:
            self.rest()
