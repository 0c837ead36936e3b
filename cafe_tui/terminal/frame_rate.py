"""How often screens are drawn: as often as the line to the terminal takes it."""

from __future__ import annotations

from typing import Final

USUAL: Final = 0.25
"""Seconds between two looks at a live run."""
SLOW: Final = 1.0
"""The same for a line that is known to be slow."""
LONGEST: Final = 8.0
STUCK: Final = 0.1
"""A frame that takes longer than this to be taken does not drain: fewer frames are drawn."""
PATIENCE: Final = 20
"""Frames that must have drained well before the rate rises again."""


class FrameRate:
    """Doubles `interval` (seconds) when a frame gets stuck, halves it after a while without, never below `base`."""

    def __init__(self, base: float = USUAL) -> None:
        self.base = base
        self.interval = base
        self._well = 0

    def drained(self, seconds: float) -> None:
        """A frame was taken by the line in so many seconds."""
        if seconds > STUCK:
            self._well = 0
            self.interval = min(self.interval * 2, LONGEST)
            return
        self._well += 1
        if self._well >= PATIENCE and self.interval > self.base:
            self._well = 0
            self.interval = max(self.interval / 2, self.base)

    def set_base(self, base: float) -> None:
        """Draw at most so often from now on."""
        self.base = self.interval = base
