"""Whether somebody wants a run to stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from engine import distributed
from engine.contract.run.rundir import RunDir

STOP_POLL_SECONDS = 0.25


class Brake:
    """Whether somebody wants the run to stop: by signal, or by the file control/stop (also from another host)."""

    def __init__(self, run: RunDir) -> None:
        self._file = run.stop_file  # looked at by rank 0 alone: one look a moment is enough for all
        self._signalled = False
        self._looked = 0.0

    @contextmanager
    def listening(self) -> Iterator[Brake]:
        """Turn SIGTERM and SIGINT into a wish to stop within this context."""
        old = {number: signal.signal(number, self._signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True

    def wanted(self) -> bool:
        """Agreed between the ranks, who all ask after the same step; looked up on disk a few times a second at most."""
        now = time.monotonic()
        if distributed.first() and not self._signalled and now - self._looked > STOP_POLL_SECONDS:
            self._looked = now
            self._signalled = self._file.exists()
        return distributed.anywhere(self._signalled)
