"""The life of an engine process: from its first sign of life to its last word. Light, so that both come early.

torch is imported inside, after the heartbeat has begun and signals are listened to.
"""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from engine.contract.errors import CafeError, RunFailed, Stopped, UsageError
from engine.contract.records import ErrorNote, Message
from engine.contract.rundir import RunDir
from engine.record import Recorder

STOP_POLL_SECONDS = 0.25


class Brake:
    """Whether somebody wants the run to stop: by signal, or by the file control/stop (also from another host)."""

    def __init__(self, run: RunDir) -> None:
        self._file = run.stop_file
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
        """Looked up on disk a few times a second at most."""
        now = time.monotonic()
        if not self._signalled and now - self._looked > STOP_POLL_SECONDS:
            self._looked = now
            self._signalled = self._file.exists()
        return self._signalled


def run(directory: RunDir) -> int:
    """Run, or go on with, the profile of a run directory; returns the exit code of the contract.

    Whatever happens is told in state.json, records.jsonl and (with tracebacks) on stderr, which is engine.log. Raises
    UsageError if another engine is at work, and DiskError if not even the first sign of life can be written.
    """
    before = directory.state()
    status = directory.status(before)
    if before.pid is not None and not status.final and before.state != "queued":  # that is the pid of the queue
        raise UsageError(f"{directory.id} is already running", "`cafe watch` follows it.")
    if status.final:  # a request that an earlier engine has obeyed, or did not live to obey
        directory.stop_file.unlink(missing_ok=True)
    brake = Brake(directory)
    with brake.listening(), Recorder(directory) as recorder:  # a reader who knows our pid may send a signal at once
        try:
            from engine.pipeline import execute

            execute(directory, recorder, brake)
        except Stopped as stop:
            recorder.write(Message(text=stop.message))
            recorder.state("stopped")
            return Stopped.exit_code
        except Exception as error:
            return _fail(recorder, error)
        recorder.state("finished")
        return 0


def _fail(recorder: Recorder, error: Exception) -> int:
    """Tell why, as far as the disk still lets us, and return the exit code."""
    traceback.print_exc(file=sys.stderr)
    known = _known(error)
    for tell in (
        lambda: recorder.write(ErrorNote(text=known.message, hint=known.hint)),
        lambda: recorder.state("failed", error=known.message, hint=known.hint),
    ):
        try:
            tell()
        except CafeError as also:
            print(also, file=sys.stderr)
    return known.exit_code


def _known(error: Exception) -> CafeError:
    if isinstance(error, CafeError):
        return error
    if (
        isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    ):  # torch's, which is not loaded here
        return RunFailed("out of memory", "Use smaller batches, such as --set stage.train.batch_size=64.")
    return RunFailed(
        f"internal error: {type(error).__name__}: {error}", "This is a defect; its traceback is in engine.log."
    )
