"""Follow one run: what was appended and replaced since last time, reduced to frozen values for any view.

Nothing here draws, and nothing here raises because a directory is torn, empty, foreign, huge or vanishing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cafe_tui.charts.series import CAPACITY, Series
from cafe_tui.reading.eta import RESUMED_SECONDS, seconds_to_go
from engine.contract.errors import CafeError
from engine.contract.run.columns import ColumnReader, Columns, in_columns
from engine.contract.run.records import AnyRecord, Cell, ErrorNote, Message, Progress, StageChange, WarningNote
from engine.contract.run.results import Paired, Results, Table, table
from engine.contract.run.rundir import Info, RunDir, State, Status

if TYPE_CHECKING:
    from cafe_tui.reading.parallel import ParallelReader


KEPT_NOTES = 200
"""Warnings and messages kept of a run; a run that warns every step must not fill the memory of its viewers."""
READING_AT_FIRST, READING_LONGER, READING_AT_MOST = 0.01, 4, 0.4
"""For how long a poll of one run reads on: briefly at first, so that a curve is soon seen, then longer by a factor,
since each time the screen is drawn anew."""
SETTLED_PROGRESS, SETTLED_SECONDS = 0.1, 60.0
"""Of a stage so much more must be done or time gone: before, it is mostly its first step, the slowest of all."""


@dataclass(frozen=True)
class StageView:
    """A stage of the profile: `state` is waiting, running or finished; `started` and `finished` in unix seconds.

    The time between a stop and its resume does not count: `started` is later by it. `eta` is the seconds to go, None
    while unknown or not running.
    """

    id: str
    kind: str
    state: str = "waiting"
    step: int = 0
    total_steps: int = 0
    started: float | None = None
    finished: float | None = None
    eta: float | None = None

    @property
    def progress(self) -> float:
        """Share done, 0-1."""
        if self.state == "finished":
            return 1.0
        return min(self.step / self.total_steps, 1.0) if self.total_steps else 0.0


@dataclass(frozen=True)
class RunView:
    """One picture of a run. Series are copies that no reader changes any more.

    `elapsed` and `eta` in seconds, without the time between a stop and its resume.
    """

    id: str
    info: Info
    state: State
    status: Status
    stages: tuple[StageView, ...]
    series: Mapping[tuple[str, str], Series]
    latest: Mapping[tuple[str, str], float]
    table: Table
    attack_progress: Progress | None
    differences: tuple[Paired, ...]
    warnings: tuple[str, ...]
    messages: tuple[str, ...]
    error: str
    hint: str
    progress: float
    elapsed: float
    eta: float | None

    @property
    def current(self) -> StageView | None:
        """The stage that is running, or was when the run ended; None before the first."""
        begun = [stage for stage in self.stages if stage.state != "waiting"]
        return begun[-1] if begun else None

    def last_of_kind(self, *kinds: str) -> StageView | None:
        """The latest stage of one of these kinds that has begun."""
        begun = [stage for stage in self.stages if stage.kind in kinds and stage.state != "waiting"]
        return begun[-1] if begun else None

    def readings(self) -> dict[str, float]:
        """Adv, CF, CC and AC in percent, of the latest game: on test images at its end, held-out ones before."""
        game = self.last_of_kind("game")
        if game is None:
            return {}
        for prefix in ("final_", "val_", ""):
            names = {short: f"{prefix}accuracy_{short.lower()}" for short in ("Adv", "CF", "CC", "AC")}
            if all((game.id, name) in self.latest for name in names.values()):
                return {short: self.latest[game.id, name] for short, name in names.items()}
        return {}


class RunFollower:
    """Follows one run directory. With `keep`, `fresh` holds the records that the last poll brought.

    `behind` tells after a poll that there was more to read than it had time for. `capacity` bounds each series. With
    `parallel`, a process of its own may help to read a long file after the first poll; whoever wants it closes it.
    """

    def __init__(
        self,
        run: RunDir,
        *,
        clock: Callable[[], float] = time.time,
        keep: bool = False,
        capacity: int = CAPACITY,
        parallel: bool = False,
    ) -> None:
        self.run = run
        self._capacity = capacity
        self.fresh: list[AnyRecord] = []
        self.behind = False
        self._keep = keep
        self._patience = READING_AT_FIRST
        self._clock = clock
        self._reader = ColumnReader(run.records_file)
        self._parallel = parallel
        self._helper: ParallelReader | None = None
        self._series: dict[tuple[str, str], Series] = {}
        self._shown: dict[tuple[str, str], Series] = {}
        self._latest: dict[tuple[str, str], float] = {}
        self._stages: dict[str, StageView] = {}
        self._cells: list[Cell] = []
        self._attack: Progress | None = None
        self._warnings: list[str] = []
        self._messages: list[str] = []
        self._error: ErrorNote | None = None
        self._models: tuple[str, ...] = ()
        self._attacks: tuple[str, ...] = ()
        self._started: float | None = None
        self._newest: float | None = None
        self._idle = 0.0
        self._results: Results | None = None
        self._results_read: object = None
        self._signature: object = None
        self._planned = False
        self._parts: dict[str, tuple[float, float]] = {}  # of each stage, in progress of the run: its begin and length
        self.view = self._picture(State(state="starting"), Status("starting"))

    def poll(self, seconds: float | None = None) -> RunView | None:
        """The new picture, or None when nothing has changed (a running clock and having caught up count as changes).

        Of a long file it reads for about so many seconds, by default a little longer each time, and the rest later.
        """
        if seconds is None:
            seconds, self._patience = self._patience, min(READING_LONGER * self._patience, READING_AT_MOST)
        if not self._planned:
            self._plan()
        was_behind, read = self.behind, self._read(seconds)
        state = self.run.state()
        status = self.run.status(state, now=self._clock())
        if status.final:
            state = self.run.state()
        results = self.run.signature()[1]
        if results != self._results_read:
            self._results_read, self._results = results, self.run.results()
        elapsed = int(self._elapsed(state, status)) if not status.final else 0
        signature = (state.state, state.stage, state.step, state.progress, state.error, status, elapsed, results)
        if not read and signature == self._signature and not was_behind:
            return None
        self._signature = signature
        self.view = self._picture(state, status)
        return self.view

    def close(self) -> None:
        """End the process that helps to read; the next poll may start another. For the thread that polls."""
        if self._helper:
            self._helper.close()

    def _call_help(self) -> None:
        if self._helper is None:
            from cafe_tui.reading.parallel import ParallelReader  # some milliseconds that come after the first picture

            self._reader = self._helper = ParallelReader(self._reader)
        self._helper.call()

    def _plan(self) -> None:
        from engine.contract.plan import columns, plan
        from engine.contract.profile import files as profiles  # 16 ms that a list of runs need not pay
        from engine.contract.profile.schema import Evaluate

        try:
            tables = profiles.read_toml(self.run.profile_file)
            profile = profiles.from_tables(tables)
        except CafeError:
            self._planned = self.run.profile_file.exists()  # broken, and it is written once: not tried again
            return
        self._planned = True
        stages, begin = plan(profile), 0.0
        total = sum(stage.cost for stage in stages)
        for stage in stages:
            self._stages.setdefault(stage.id, StageView(stage.id, stage.kind, total_steps=stage.steps))
            self._parts[stage.id] = (begin / total, stage.cost / total)
            begin += stage.cost
        tables_planned = [stage for stage in profile.stage if isinstance(stage, Evaluate)]
        self._models = tuple(dict.fromkeys(name for stage in tables_planned for name in stage.models or ()))
        self._attacks = tuple(dict.fromkeys(c.name for stage in tables_planned for c in columns(profile, stage)))

    def _read(self, seconds: float) -> bool:
        """Take in records for about so many seconds; whether there were any."""
        self.fresh = []
        if self._parallel and self.behind:
            self._call_help()
        until, before = time.monotonic() + seconds, self._reader.offset
        self.behind = False
        while pieces := self._next():
            for piece in pieces:
                if isinstance(piece, Columns):
                    self._take_columns(piece)
                else:
                    self._take(piece)
            if time.monotonic() > until:
                self.behind = self._reader.more
                break
        return self._reader.offset != before

    def _next(self) -> Sequence[AnyRecord | Columns]:
        """The next part of the records, its scalars as columns; none if there is no more."""
        if not self._keep:
            return self._reader.read_columns()
        records = self._reader.read()
        self.fresh += records
        return list(in_columns(records))

    def _take(self, record: AnyRecord) -> None:
        if isinstance(record, StageChange):
            self._take_stage(record)
        elif isinstance(record, Cell):
            self._cells.append(record)
            self._attack = None
        elif isinstance(record, Progress):
            self._attack = record
        elif isinstance(record, ErrorNote):
            self._error = record
        elif isinstance(record, WarningNote):
            # An engine that was killed may have warned of the same before.
            others = [text for text in self._warnings if text != record.text]
            self._warnings = [*others, record.text][-KEPT_NOTES:]
        elif isinstance(record, Message):
            self._messages = [*self._messages, record.text][-KEPT_NOTES:]
        self._newest = record.t

    def _take_columns(self, columns: Columns) -> None:
        """Add scalars to their series."""
        for name, curve in columns.curves.items():
            self._series_of(columns.stage, name).extend(*curve)
            self._shown.pop((columns.stage, name), None)
            self._latest[columns.stage, name] = curve.values[-1]
        self._newest = columns.t

    def _series_of(self, stage: str, name: str) -> Series:
        if (stage, name) not in self._series:
            self._series[stage, name] = Series(capacity=self._capacity)
        return self._series[stage, name]

    def _take_stage(self, record: StageChange) -> None:
        stage = self._stages.get(record.stage, StageView(record.stage, record.stage_kind))
        total = record.total_steps or stage.total_steps
        if record.state == "finished":
            stage = replace(stage, state="finished", step=total, total_steps=total, finished=record.t)
        else:
            started = record.t
            if stage.state == "running" and stage.started and self._newest:  # an earlier engine had begun it
                idle = max(record.t - self._newest, 0.0)
                self._idle, started = self._idle + idle, stage.started + idle
            stage = replace(stage, state="running", total_steps=total, started=started, finished=None)
            self._error = None
        self._stages[record.stage] = stage
        self._started = self._started or record.t

    def _elapsed(self, state: State, status: Status) -> float:
        created = self.run.info().created or self._started or state.heartbeat
        if self._started and self._started - created > RESUMED_SECONDS:  # it waited in a queue
            created = self._started
        until = state.heartbeat if status.final and state.heartbeat else self._clock()
        return max(until - created - self._idle, 0.0) if created else 0.0

    def _eta(self, started: float | None, progress: float, status: Status) -> float | None:
        """Seconds to go for what has come to `progress` since `started`."""
        if status.final or started is None:
            return None
        seconds = seconds_to_go(self._clock() - started, progress)
        return None if seconds is None else round(seconds, 3)

    def _share(self, stage: StageView, state: State) -> float:
        """Share of the work of the stage at work that is done (0-1): an example of an evaluation is not one of another.

        What the engine says of the whole run has it, where the profile tells what stages cost.
        """
        if stage.id not in self._parts:
            return stage.progress
        begin, length = self._parts[stage.id]
        return min(max((state.progress - begin) / length, 0.0), 1.0)

    def _picture(self, state: State, status: Status) -> RunView:
        for key, series in self._series.items():
            if key not in self._shown:
                self._shown[key] = series.copy()
        running = self._running(state, status)
        stages = self._stages | {running.id: running} if running else self._stages
        return RunView(
            id=self.run.id,
            info=self.run.info(),
            state=state,
            status=status,
            stages=tuple(stages.values()),
            series=dict(self._shown),
            latest=dict(self._latest),
            table=table(self._cells, self._models, self._attacks),
            attack_progress=None if status.final else self._attack,
            differences=tuple(self._results.differences) if self._results else (),
            warnings=tuple(self._warnings),
            messages=tuple(self._messages),
            error=self._reason(status),
            hint=state.hint,
            progress=state.progress,
            elapsed=self._elapsed(state, status),
            eta=self._run_eta(running, state, status),
        )

    def _running(self, state: State, status: Status) -> StageView | None:
        """The stage at work as far as the engine says it has come, with its time to go; None between stages."""
        stage = self._stages.get(state.stage)
        if stage is None or stage.state != "running":
            return None
        stage = replace(stage, step=state.step, total_steps=state.total_steps or stage.total_steps)
        done = self._share(stage, state)
        settled = done >= SETTLED_PROGRESS or self._clock() - (stage.started or 0) >= SETTLED_SECONDS
        return replace(stage, eta=self._eta(stage.started, done, status)) if settled else stage

    def _run_eta(self, running: StageView | None, state: State, status: Status) -> float | None:
        """Seconds to go of the run. By the speed of earlier stages it could seem to end before its stage does."""
        eta = self._eta(self._started and self._started + self._idle, state.progress, status)
        if eta is None or running is None or running.eta is None:
            return eta
        return max(eta, running.eta)

    def _reason(self, status: Status) -> str:
        """Why the run failed or was lost; empty for others."""
        failed = self._error.text if self._error and status.state == "failed" else ""
        return status.reason or failed


def whole_view(run: RunDir) -> RunView:
    """The picture of a run after everything that is on disk now."""
    follower = RunFollower(run)
    follower.poll()
    while follower.behind:
        follower.poll()
    return follower.view


def stage_to_show(stages: Sequence[StageView], with_curves: Container[str]) -> str:
    """Id of the stage whose curves say most: the one running, else the latest game, else the latest with any."""
    drawable = [stage for stage in stages if stage.id in with_curves]
    running = [stage for stage in drawable if stage.state == "running"]
    games = [stage for stage in drawable if stage.kind == "game"]
    best = running or games or drawable
    return best[-1].id if best else ""
