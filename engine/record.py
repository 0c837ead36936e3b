"""The Recorder: the only writer of a run directory."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterable
from copy import copy
from pathlib import Path

import msgspec

from engine import distributed
from engine.contract.errors import DiskError, UsageError
from engine.contract.run import liveness, space
from engine.contract.run.liveness import HEARTBEAT_SECONDS
from engine.contract.run.records import Record, StageChange, WarningNote, encode, to_json
from engine.contract.run.results import Results
from engine.contract.run.rundir import RunDir, State, StateName, changed_info, write_atomically
from engine.log import log


def first_state(run: RunDir) -> State:
    """The state of a run that this engine begins to write."""
    known = liveness.process(distributed.engine_pid())
    ours = not distributed.elastic() or distributed.on_one_host()  # else the lock is rank 0's, and only the agent stays
    return State(
        **msgspec.structs.asdict(known),
        state="starting",
        lock=ours and liveness.held(run.lock_file) is True,
        heartbeat=time.time(),
    )


class Recorder:
    """Appends records, replaces state, and keeps the heartbeat going from a thread of its own.

    Used as a context manager; on leaving, the heartbeat ends and the files are closed. State changes reach the disk
    at once, progress with the next heartbeat or when `flush_state` is called.
    """

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._state = first_state(run)
        self._lock = threading.Lock()
        self._disk = threading.Lock()  # apart, so that `progress` never waits for a slow disk
        self._torn = False
        self._done = threading.Event()
        self._file = self._open(run.records_file)
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Recorder:
        self.flush_state()
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._heart.join()
        os.close(self._file)
        self._file = -1  # a later write must fail, not reach whichever file gets the number next

    @staticmethod
    def _open(path: Path) -> int:
        """Open for appending; a torn line left by a killed writer is ended, so that ours starts on a fresh one."""
        file = -1
        try:
            file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                os.write(file, b"\n")
        except OSError as error:
            if file >= 0:
                os.close(file)
            raise space.disk_error(f"cannot write {path}", path, error) from error
        return file

    def write(self, record: Record) -> None:
        """Stamp the time and append one line, in one system call, seen by readers at once. Raises DiskError."""
        record.t = time.time()
        line = b"\n" + encode(record) if self._torn else encode(record)
        try:
            written = os.write(self._file, line)
            self._torn = written != len(line)
            if self._torn:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if isinstance(record, StageChange):  # what a finished stage could go on from is removed after this
                os.fsync(self._file)
        except OSError as error:
            why, hint = space.refusal(error, self.run.records_file)
            raise DiskError(
                f"cannot write {self.run.records_file}: {why}", f"{hint} Checkpoints and earlier records are intact."
            ) from error
        log(record)

    def state(self, state: StateName, *, error: str = "", hint: str = "") -> None:
        """Change the state of the run, on disk before this returns."""
        with self._lock:
            self._state.state, self._state.error, self._state.hint = state, error, hint
        self.flush_state()

    def end(self, state: StateName, *, error: str = "", hint: str = "") -> None:
        """Change the state for the last time; where the disk is full, in the room that was kept for it."""
        try:
            self.state(state, error=error, hint=hint)
        except DiskError:
            if not self.make_room():
                raise
            self.flush_state()
        self.make_room()  # a run that has ended needs none

    def make_room(self) -> bool:
        """Free the reserve of the run for its last words; whether there was one."""
        return space.release(self.run.reserve_file)

    def progress(self, stage: str, step: int, total_steps: int, progress: float) -> None:
        """Note where the run is: `step` of `total_steps` within `stage`, `progress` (0-1) of the whole run."""
        with self._lock:
            self._state.stage, self._state.step, self._state.total_steps = stage, step, total_steps
            self._state.progress = min(max(progress, 0.0), 1.0)

    def flush_state(self) -> None:
        """Write state.json with a fresh heartbeat. Raises DiskError."""
        with self._disk:
            with self._lock:
                self._state.heartbeat = time.time()
                self._state.oom_kills = liveness.oom_kills(self._state.oom_source)
                state = copy(self._state)
            self.run.write_state(state)

    def results(self, results: Results) -> None:
        """Replace results.json. Raises DiskError."""
        write_atomically(self.run.results_file, msgspec.json.format(to_json(results)))

    def add_facts(self, *, versions: dict[str, str], devices: Iterable[str]) -> None:
        """Complete run.json with what only the engine knows: versions and devices.

        A file that cannot be read is left as it is, with a warning. Raises DiskError where it cannot be written.
        """
        try:
            with changed_info(self.run) as info:
                info.versions, info.devices = versions, list(devices)
        except UsageError as error:
            self.write(WarningNote(text=f"versions and devices are not recorded: {error.message}"))

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT_SECONDS):
            try:
                self.flush_state()
            except DiskError:
                continue  # the next record meets the same disk and tells the run


class Silent(Recorder):
    """The recorder of a rank that is not the first: rank 0 records the same."""

    def __init__(self, run: RunDir) -> None:
        self.run = run

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, record: Record) -> None:
        """Ignored: rank 0 records."""

    def state(self, state: StateName, *, error: str = "", hint: str = "") -> None:
        """Ignored: rank 0 records."""

    def end(self, state: StateName, *, error: str = "", hint: str = "") -> None:
        """Ignored: rank 0 records."""

    def make_room(self) -> bool:
        """Ignored: rank 0 records."""
        return False

    def progress(self, stage: str, step: int, total_steps: int, progress: float) -> None:
        """Ignored: rank 0 records."""

    def flush_state(self) -> None:
        """Ignored: rank 0 records."""

    def results(self, results: Results) -> None:
        """Ignored: rank 0 records."""

    def add_facts(self, *, versions: dict[str, str], devices: Iterable[str]) -> None:
        """Ignored: rank 0 records."""
