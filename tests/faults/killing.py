"""Ends engines by SIGKILL at drawn moments, and says what of a run must not depend on that."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

import msgspec
import numpy as np
import psutil
from safetensors.torch import load_file

from engine import process
from engine.contract.run.records import Cell, CheckpointWritten, Record, RecordReader, Scalars, StageChange
from engine.contract.run.rundir import RunDir
from engine.contract.weights import read_facts
from engine.record import Recorder

LIVES = multiprocessing.get_context("forkserver")
LIVES.set_forkserver_preload(["engine.pipeline", __name__])

CLOCKS = frozenset({"images_per_second"})
"""Scalars that tell the time."""
PATIENCE_SECONDS = 240.0
"""How long a condition may take to come true on a machine that is busy with something else."""


# --- one process: a moment inside the engine -------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """`after` seconds from the time when `step` steps of a stage are done.

    `end`: when its last weights are written, and no record tells of them yet. `told`: when its last record is written,
    and what it could be resumed from is not removed yet.
    """

    stage: str
    step: int | Literal["end", "told"]
    after: float = 0.0


def live(run: RunDir, moment: Moment) -> None:
    """Be an engine until the moment comes, or to the end of the run."""
    progress, write = Recorder.progress, Recorder.write

    def at_step(recorder: Recorder, at: str, step: int, total_steps: int, share: float) -> None:
        progress(recorder, at, step, total_steps, share)
        if at == moment.stage and isinstance(moment.step, int) and step >= moment.step:
            Recorder.progress = progress  # type: ignore[method-assign]
            _die(moment.after)

    def at_the_end(recorder: Recorder, record: Record) -> None:
        written = isinstance(record, CheckpointWritten) and (record.stage, record.label) == (moment.stage, "last")
        if written and moment.step == "end":
            _die(0.0)
        write(recorder, record)
        told = isinstance(record, StageChange) and (record.stage, record.state) == (moment.stage, "finished")
        if told and moment.step == "told":
            _die(0.0)

    with run.log_file.open("ab") as log:
        os.dup2(log.fileno(), 2)
    Recorder.progress, Recorder.write = at_step, at_the_end  # type: ignore[method-assign]
    sys.exit(process.run(run))


def _die(after: float) -> None:
    if after:
        threading.Timer(after, os.kill, (os.getpid(), signal.SIGKILL)).start()
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def killed(run: RunDir, moment: Moment) -> bool:
    """Whether an engine, which works on the run from where it is, was killed before it came to the end."""
    engine = LIVES.Process(target=live, args=(run, moment))
    engine.start()
    engine.join()
    assert engine.exitcode in (-signal.SIGKILL, 0), run.state().error
    assert run.status().state == ("finished" if engine.exitcode == 0 else "lost")
    return engine.exitcode != 0


def finish(run: RunDir) -> None:
    """Let an engine work on the run to its end."""
    never = Moment("", "end")
    assert not killed(run, never)


# --- several processes: moments seen from outside --------------------------------------------------------------------


def workers(folder: Path, *words: str) -> list[psutil.Process]:
    """The processes at work under a folder of runs: engines, their ranks, queues; those with all `words` alone."""
    found = []
    for each in psutil.process_iter(["cmdline"]):
        command = " ".join(each.info["cmdline"] or ())
        if f"{folder}{os.sep}" in command and " -m " in command and all(word in command for word in words):
            with suppress(psutil.NoSuchProcess):
                if each.status() != psutil.STATUS_ZOMBIE:
                    found.append(each)
    return found


def end_all(folder: Path) -> None:
    """End what is still at work under a folder."""
    while left := workers(folder):
        for each in left:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        time.sleep(0.05)


def runs_in(folder: Path) -> list[RunDir]:
    """The runs of a folder, in the order of their ids."""
    return [RunDir(file.parent) for file in sorted(folder.glob("[!.]*/run.json"))]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; no time of a busy machine is too long but what means that nothing happens any more."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def written(run: RunDir, *kinds: type[Record]) -> int:
    """How many records (of some kinds) a run has so far."""
    return sum(isinstance(record, kinds or Record) for record in records(run))


# --- what must be the same -------------------------------------------------------------------------------------------


def records(run: RunDir) -> Iterator[Record]:
    """All of them."""
    reader = RecordReader(run.records_file)
    while read := reader.read():
        yield from read


def found(run: RunDir) -> dict[str, object]:
    """All that a run found out and that does not depend on the clock; of a step that was done twice, both the same."""
    values: dict[str, object] = {}

    def note(key: str, value: object) -> None:
        assert values.setdefault(key, value) == value, f"{run.id}: {key} differs when it is done again"

    for record in records(run):
        if isinstance(record, Scalars):
            curves = {name: value for name, value in record.values.items() if name not in CLOCKS}
            note(f"{record.stage} {record.step} {sorted(record.values)}", curves)
        elif isinstance(record, Cell):
            note(f"cell {record.model} {record.attack}", _timeless(record))
        elif isinstance(record, StageChange) and record.state == "finished":
            note(f"{record.stage} finished", record.total_steps)
    for path in run.checkpoints.iterdir():
        assert path.suffix == ".safetensors", f"{path} was to be removed at the end"
        note(f"{path.name} facts", (read_facts(path) or {}) | {"run": ""})
        values |= {f"{path.name} {name}": tensor.numpy().tobytes() for name, tensor in load_file(path).items()}
    for path in run.outcomes.iterdir():
        with np.load(path) as saved:
            values |= {f"{path.name} {name}": saved[name].tobytes() for name in ("right", "labels", "column")}
    values |= {path.name: path.read_bytes() for path in run.samples.iterdir()}
    results = run.results()
    values["results"] = results and {
        "cells": [_timeless(cell) for cell in results.cells],
        "differences": results.differences,
        "headline": results.headline,
    }
    return values


def _timeless(cell: Cell) -> object:
    plain = msgspec.to_builtins(cell)
    for part in (plain, *plain["parts"]):
        part.pop("seconds")
    plain.pop("t")
    return plain


def differences(run: RunDir, undisturbed: RunDir) -> list[str]:
    """The names of what two runs have found differently."""
    a, b = found(run), found(undisturbed)
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def draw(random: Random, stage: str, steps: int, count: int) -> list[Moment]:
    """So many moments in a stage of `steps` steps, in the order in which they come."""
    moments = [Moment(stage, random.randint(0, steps), random.uniform(0.0, 0.1)) for _ in range(count)]
    return sorted(moments, key=lambda moment: moment.step)
