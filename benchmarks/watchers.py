"""What fifty watchers cost the engine that they watch: time and processor time of its training steps, in one run.

A real engine trains; five processes with ten followers each poll its directory as the screens do. They read and rest in
turn (rest, read, read, rest, ...), so that a slow moment of the machine meets both, and both meet the same run. Where
the system lets us, the engine has a processor of its own and the watchers the others: on a host of few cores fifty of
them would otherwise compete for the processor of the engine, as any other program does, which is not what is asked.
Processor time of the engine per step is measured beside wall time, since it does not depend on who else is at work.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.synchronize import Event
from pathlib import Path

import psutil
from common import Row, main

from cafe_tui.launch import local
from cafe_tui.reading.run import RunFollower
from engine.contract.profile import files as profiles
from engine.contract.run import rundir
from engine.contract.run.records import RecordReader, Scalars
from engine.contract.run.rundir import RunDir

READERS, FOLLOWERS = 5, 10
POLL_SECONDS = 0.25
"""How often a screen looks at its run."""
LIMIT = 1.02
PATIENCE_SECONDS = 120.0
SETTLING_SECONDS = 0.4
"""After the watchers begin or rest: what they then read at once, or are still reading, belongs to neither."""
PROFILE: dict[str, object] = {
    "name": "watched",
    "data": {"validation": 0.1},
    "threat": {"eps": 0.1},
    "compute": {"threads": 1, "device": "cpu"},
    "stage": [{"kind": "train", "epochs": 1_000_000, "batch_size": 64, "adversary": {"steps": 2}}],
}
CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Phase:
    """Milliseconds of a step while the watchers read, or rest: median wall time and mean processor time."""

    wall: float
    processor: float


def watch(run: Path, reading: Event, looks: multiprocessing.Value, processors: frozenset[int]) -> None:  # type: ignore[valid-type]
    """Ten followers, until the process is ended; `looks` counts the polls."""
    pin(os.getpid(), processors)
    followers = [RunFollower(RunDir(run)) for _ in range(FOLLOWERS)]
    while True:
        reading.wait()
        due = time.monotonic() + POLL_SECONDS
        for follower in followers:
            follower.poll()
        with looks.get_lock():  # type: ignore[attr-defined]
            looks.value += FOLLOWERS  # type: ignore[attr-defined]
        time.sleep(max(0.0, due - time.monotonic()))


def pin(pid: int, processors: frozenset[int]) -> None:
    """Keep the threads of a process to these processors, where the system can."""
    with suppress(AttributeError, psutil.Error, OSError):
        for thread in psutil.Process(pid).threads():
            os.sched_setaffinity(thread.id, processors)


def shares() -> tuple[frozenset[int], frozenset[int]]:
    """Processors for the engine and for the watchers: the same where there is but one."""
    ours = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    return frozenset(ours[:1]), frozenset(ours[1:] or ours)


@contextmanager
def engine_at_work(folder: Path) -> Iterator[tuple[RunDir, psutil.Process]]:
    """A run whose engine has begun to train and is ended afterwards."""
    run = rundir.create(folder, "watched", profiles.dumps(profiles.from_tables(PROFILE)))
    engine = local.spawn(run)
    try:
        wait_for(lambda: run.records_file.stat().st_size > 10_000 or engine.poll() is not None)
        if engine.poll() is not None:
            sys.exit(f"the engine ended: {run.log_file.read_text(encoding='utf-8')}")
        yield run, psutil.Process(engine.pid)
    finally:
        engine.kill()
        engine.wait()


@contextmanager
def watchers(run: RunDir, processors: frozenset[int]) -> Iterator[tuple[Event, multiprocessing.Value]]:  # type: ignore[valid-type]
    """Fifty followers in five processes, which read while the event is set."""
    reading, looks = CONTEXT.Event(), CONTEXT.Value("q", 0)
    readers = [
        CONTEXT.Process(target=watch, args=(run.path, reading, looks, processors), daemon=True) for _ in range(READERS)
    ]
    for reader in readers:
        reader.start()
    try:
        reading.set()
        wait_for(lambda: looks.value >= 2 * READERS * FOLLOWERS)
        yield reading, looks
    finally:
        for reader in readers:
            reader.kill()
            reader.join()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for a condition; a machine where it does not come true ends the benchmark."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("waited too long")
        time.sleep(0.02)


class Steps:
    """The steps of the engine, by its records."""

    def __init__(self, run: RunDir) -> None:
        self._reader = RecordReader(run.records_file)
        self.done = 0

    def news(self) -> list[Scalars]:
        """The records of steps that were written since the last call."""
        found: list[Scalars] = []
        while read := self._reader.read():
            found += [record for record in read if isinstance(record, Scalars) and "lr" in record.values]
        self.done = found[-1].step if found else self.done
        return found


def phase(engine: psutil.Process, steps: Steps, seconds: float) -> Phase:
    """The steps of so many seconds."""
    time.sleep(SETTLING_SECONDS)
    steps.news()
    done, spent = steps.done, -sum(engine.cpu_times()[:2])
    time.sleep(seconds)
    records = steps.news()
    spent += sum(engine.cpu_times()[:2])
    times = [(b.t - a.t) / (b.step - a.step) for a, b in pairwise(records)]
    return Phase(1e3 * statistics.median(times), 1e3 * spent / (steps.done - done))


def measure(quick: bool) -> list[Row]:
    """Wall time and processor time of a step with and without watchers."""
    pairs, seconds = (6, 1.6) if quick else (40, 2.6)
    for_engine, for_watchers = shares()
    resting, read = [], []
    with tempfile.TemporaryDirectory() as name, engine_at_work(Path(name)) as (run, engine):
        pin(engine.pid, for_engine)
        steps = Steps(run)
        with watchers(run, for_watchers) as (reading, looks):
            for turn in range(2 * pairs):
                if turn % 4 in (1, 2):
                    reading.set()
                    read.append(phase(engine, steps, seconds))
                else:
                    reading.clear()
                    resting.append(phase(engine, steps, seconds))
            polls = looks.value
    print(f"{polls} looks by {READERS} processes with {FOLLOWERS} followers each", file=sys.stderr)
    return [
        row("wall time", [p.wall for p in read], [p.wall for p in resting]),
        row("processor time", [p.processor for p in read], [p.processor for p in resting]),
    ]


def row(what: str, with_watchers: list[float], without: list[float]) -> Row:
    """Medians over the phases."""
    name = f"{what} of a training step with {READERS * FOLLOWERS} watchers, against none"
    return Row(name, statistics.median(with_watchers), statistics.median(without), "ms", target=LIMIT)


if __name__ == "__main__":
    main("watchers", measure)
