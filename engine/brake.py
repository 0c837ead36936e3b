"""Whether somebody wants a run to stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from engine import distributed
from engine.contract.run.liveness import WISHES
from engine.contract.run.rundir import RunDir

STOP_POLL_SECONDS = 0.25


@contextmanager
def answering(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within this context the handler answers WISHES, but for a hang-up that is to be ignored, as under nohup."""
    heard = [n for n in WISHES if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    old = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)


class Brake:
    """Whether somebody wants the run to stop: by a signal, or by the file control/stop (also from another host)."""

    def __init__(self, run: RunDir) -> None:
        self._file = run.stop_file  # looked at by rank 0 alone: one look a moment is enough for all
        self.pulled = False
        """Whether the wish is known to this process."""
        self._looked = 0.0

    @contextmanager
    def listening(self) -> Iterator[Brake]:
        """Turn WISHES into a wish to stop within this context."""
        with answering(self._signal):
            yield self

    def _signal(self, number: int, frame: FrameType | None) -> None:
        self.pulled = True

    def wanted(self) -> bool:
        """Agreed between the ranks, who all ask after the same step; looked up on disk a few times a second at most."""
        now = time.monotonic()
        if distributed.first() and not self.pulled and now - self._looked > STOP_POLL_SECONDS:
            self._looked = now
            self.pulled = self._file.exists()
        return distributed.anywhere(self.pulled)
