"""Run directories for benchmarks of the screens: many that ended, long ones, and one whose engine is this process."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from engine.contract.run import liveness, rundir
from engine.contract.run.liveness import process_started
from engine.contract.run.records import Scalars, StageChange, encode, to_json
from engine.contract.run.results import Results, headline, make_cell
from engine.contract.run.rundir import Info, RunDir, State

LOSSES = ("hypothesis_loss", "test_function_loss")
PROFILE = Path(__file__).resolve().parents[1] / "profiles" / "quickstart.toml"
TOTAL = 1_000_000


def finished_runs(folder: Path, count: int) -> None:
    """So many small runs that ended, the last one the newest."""
    cells = [make_cell("train", attack, right, 450) for attack, right in (("clean", 437), ("pgd", 300))]
    results = to_json(Results(cells=cells, headline=headline(cells)))
    state = to_json(State(state="finished", stage="evaluate", step=6, total_steps=6, progress=1.0, heartbeat=1.7e9))
    for number in range(count):
        name = f"20260101-{number // 3600:02}{number // 60 % 60:02}{number % 60:02}-run{number:05}-{number:04x}"[:-1]
        run = RunDir(folder / f"{name}{number % 10}")
        run.path.mkdir(parents=True)
        run.info_file.write_bytes(to_json(Info(id=run.id, name=f"run{number:05}", created=1.7e9 + number)))
        run.state_file.write_bytes(state)
        run.results_file.write_bytes(results)


def values(step: int, names: Sequence[str]) -> dict[str, float | str | None]:
    """Noisy decays that are always the same."""
    noise = 0.05 * math.sin(1.7 * step) + 0.03 * math.sin(0.31 * step)
    return {name: (1 + i) * (0.3 + 2 * math.exp(-step / 3000)) + noise for i, name in enumerate(names)}


def long_run(folder: Path, records: int, names: Sequence[str] = LOSSES) -> RunDir:
    """A run with one stage of so many records."""
    run = rundir.create(folder, "long", PROFILE.read_text(encoding="utf-8"))
    with run.records_file.open("wb") as file:
        file.write(encode(StageChange(stage="game", stage_kind="game", total_steps=records, t=1.7e9)))
        for step in range(records):
            file.write(encode(Scalars(stage="game", step=step, t=1.7e9 + step, values=values(step, names))))
    run.write_state(State(state="finished", stage="game", progress=1.0, heartbeat=1.7e9 + records))
    return run


class Engine:
    """Appends `rate` records a second to a run of its own until it is stopped; remembers when it wrote what."""

    def __init__(self, folder: Path, rate: float = 100.0, names: Sequence[str] = LOSSES, begin: int = 1000) -> None:
        self.run = rundir.create(folder, "live", PROFILE.read_text(encoding="utf-8"))
        self.step = 0
        self._names, self._rate = names, rate
        self._stopped = threading.Event()
        self._file = self.run.records_file.open("ab", buffering=0)
        self._file.write(encode(StageChange(stage="game", stage_kind="game", total_steps=TOTAL, t=time.time())))
        for _ in range(begin):
            self.write()
        self.beat()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def write(self) -> None:
        """Append the next record."""
        self.step += 1
        scalars = Scalars(stage="game", step=self.step, t=time.time(), values=values(self.step, self._names))
        self._file.write(encode(scalars))

    def beat(self) -> None:
        """Renew state.json."""
        pid = os.getpid()
        self.run.write_state(
            State(
                state="running",
                stage="game",
                step=self.step,
                total_steps=TOTAL,
                progress=self.step / TOTAL,
                pid=pid,
                pid_started=process_started(pid),
                host=socket.gethostname(),
                heartbeat=time.time(),
            )
        )

    def start(self) -> Engine:
        """Begin to append."""
        self._thread.start()
        return self

    def _work(self) -> None:
        beat = 0.0
        while not self._stopped.wait(1 / self._rate):
            self.write()
            if time.monotonic() - beat > liveness.HEARTBEAT_SECONDS:
                beat = time.monotonic()
                self.beat()

    def stop(self) -> None:
        """End; the run stays as it is, without a final state."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._file.close()
