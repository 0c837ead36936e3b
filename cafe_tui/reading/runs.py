"""Follow a folder of runs: one row a run, read anew only where its files have changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from cafe_tui.reading.eta import RESUMED_SECONDS, seconds_to_go
from cafe_tui.reading.sparkline import trend
from engine.contract.run import listing, rundir
from engine.contract.run.results import Results
from engine.contract.run.rundir import Info, RunDir, State

READING_SECONDS = 0.05
"""For how long a look at many runs reads on."""
ENDED_AT_ONCE = 1000
"""Ended runs out of sight at most that one look at a folder asks for changes; the others have their turn later."""
SETTLED_NS = 4_000_000_000
"""Nanoseconds after which the time of a folder tells every change."""
VALUED_OPTIONS = frozenset({"--set", "--name", "--tag", "--device", "--parallel", "--runs"})
"""Of `cafe run`: the word after one of them is not the profile."""


@dataclass(frozen=True)
class RunRow:
    """A run in a list of runs; `created` in unix seconds, `progress` 0-1.

    `eta` is the seconds to go, None while unknown; `trend` the newest values of the headline metric, if it was read.
    `trouble` is what is wrong with its run.json.
    `interval` is the paired 95% interval of the headline's difference in points, None where the run has none.
    """

    id: str
    name: str
    state: str
    reason: str
    stage: str
    step: int
    total_steps: int
    progress: float
    created: float
    tags: tuple[str, ...]
    headline: Mapping[str, float | str | None]
    profile: str = ""
    eta: float | None = None
    trend: tuple[float, ...] = ()
    trouble: str = ""
    interval: tuple[float, float] | None = None

    @cached_property
    def words(self) -> str:
        """All that the run is found by, in lower case."""
        return " ".join((self.id, self.name, self.profile, self.state, self.stage, *self.tags)).lower()

    def to_json(self) -> dict[str, Any]:
        """The row of the `ls` document of the contract."""
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "reason": self.reason,
            "stage": self.stage,
            "step": self.step,
            "total_steps": self.total_steps,
            "progress": self.progress,
            "created": self.created,
            "tags": list(self.tags),
            "headline": dict(self.headline),
        }


def row_of(run: RunDir, now: float | None = None) -> RunRow:
    """The row of one run, read from its small files. Raises OSError where it cannot be read."""
    (info, trouble), state, results = run.look(), run.state(), run.results()
    status = run.status(state, now)
    return RunRow(
        id=run.id,
        name=info.name,
        state=status.state,
        reason=status.reason,
        stage=state.stage,
        step=state.step,
        total_steps=state.total_steps,
        progress=state.progress,
        created=info.created,
        tags=tuple(info.tags),
        headline=dict(results.headline) if results else {},
        profile=_profile_of(info),
        eta=_eta(info, state, time.time() if now is None else now) if not status.final else None,
        trouble=trouble,
        interval=_interval(results) if results else None,
    )


def rows_of(
    runs: Path, now: float | None = None, *, at_most: int | None = None
) -> tuple[list[RunRow], Mapping[str, str]]:
    """The rows of a folder, newest first, and what is wrong with other entries, by name. Raises UsageError.

    With `at_most` so many, which are likely the newest: for a first picture, before all have been read.
    """
    scanned = listing.scan(runs)
    rows, troubles = [], dict(scanned.skipped)
    chosen = scanned.runs if at_most is None else listing.likely_newest(scanned, at_most)
    for run in chosen:
        try:
            rows.append(row_of(run, now))
        except FileNotFoundError:
            continue  # it was deleted between the two looks
        except OSError as error:
            troubles[run.id] = listing.reason(error)
    return _in_order(rows), {**troubles, **_damages(rows)}


def _in_order(rows: Iterable[RunRow]) -> list[RunRow]:
    """Newest first."""
    return sorted(rows, key=lambda row: listing.place(row.created, row.id), reverse=True)


def _damages(rows: Iterable[RunRow]) -> dict[str, str]:
    return {row.id: row.trouble for row in rows if row.trouble}


def _interval(results: Results) -> tuple[float, float] | None:
    """That of the paired difference which the headline names."""
    head = results.headline
    named = (head.get("attack"), head.get("base"), head.get("model"))
    return next(((each.low, each.high) for each in results.differences if (each.attack, each.a, each.b) == named), None)


def profile_reference(info: Info) -> str:
    """What the command that started the run named as its profile; empty when that is not known, or was a stream."""
    words = iter(info.command[2:] if info.command[1:2] == ["run"] else ())
    for word in words:
        if not word.startswith("-"):
            return "" if word.startswith(("/dev/", "/proc/")) else word
        if word in VALUED_OPTIONS:
            next(words, None)
    return ""


def _profile_of(info: Info) -> str:
    """The name of the profile that the run was started from; where that is an earlier run's, its own name."""
    named = PurePath(profile_reference(info))
    return info.name if named.name in ("", "profile.toml") else named.stem


def _eta(info: Info, state: State, now: float) -> float | None:
    """Seconds to go by the mean speed so far; None early on and for an engine that went on with an older one's work."""
    began = state.pid_started
    if began is None or abs(began - info.created) > RESUMED_SECONDS:
        return None
    return seconds_to_go(now - began, state.progress)


class RunsFollower:
    """Follows the runs folder: runs whose files did not change are not read again.

    Of the runs whose ids are `visible`, the trend is read too. `behind` tells after a poll that some is still missing,
    `troubles` which entries of the folder cannot be read, and why.
    """

    def __init__(self, runs: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.runs = runs
        self._clock = clock
        self._known: dict[str, tuple[object, RunRow]] = {}
        self._rows: tuple[RunRow, ...] | None = None
        self._scan = listing.Scan((), {})
        self._damaged: Mapping[str, str] = {}
        self.troubles: Mapping[str, str] = {}
        self._changed = 0
        self._turn = 0  # the first of the ended runs out of sight that are looked at next
        self._trends: dict[str, tuple[object, tuple[float, ...]]] = {}
        self.visible: frozenset[str] = frozenset()
        self.behind = False

    def poll(self) -> tuple[RunRow, ...] | None:
        """All runs, newest first; None when nothing has changed. Raises UsageError when the folder is unreadable."""
        until, self.behind = time.monotonic() + READING_SECONDS, False
        listed = self._scanned()
        turn = self._next_turn(len(listed))
        troubles, known = dict(self._scan.skipped), {}
        for place, run in enumerate(listed):
            try:
                known[run.id] = self._up_to_date(run, due=place in turn or run.id in self.visible)
            except FileNotFoundError:
                continue  # it was deleted between the two looks
            except OSError as error:
                troubles[run.id] = listing.reason(error)
        if known != self._known:
            self._known = {row.id: known[row.id] for row in _in_order(row for _, row in known.values())}
            self._damaged = _damages(row for _, row in known.values())
        self.troubles = {**troubles, **self._damaged}
        visible = [run for run in listed if run.id in self.visible]
        self._trends = {run.id: self._trends[run.id] for run in visible if run.id in self._trends}
        for run in visible:
            self._look_at_trend(run, until)
        rows = tuple(self._with_trend(row) for _, row in self._known.values())
        if rows == self._rows:
            return None
        self._rows = rows
        return rows

    def _next_turn(self, count: int) -> range:
        """The places of the ended runs that are looked at this time though they are out of sight."""
        turn = range(self._turn, self._turn + ENDED_AT_ONCE)
        self._turn = turn.stop if turn.stop < count else 0
        return turn

    def _up_to_date(self, run: RunDir, *, due: bool) -> tuple[object, RunRow]:
        """The signature and the row of a run; as they were if it has ended and is not `due`, or has not changed."""
        before = self._known.get(run.id)
        # A heartbeat that stops changes no file: the state of a run that is not final is judged each time.
        ended = before is not None and before[1].state in rundir.FINAL
        if before and ended and not due:
            return before
        signature = run.signature()
        if before and ended and before[0] == signature:
            return before
        return signature, row_of(run, self._clock())

    def _look_at_trend(self, run: RunDir, until: float) -> None:
        """Read the trend of a run if its records changed and there is time, until a moment of the monotonic clock."""
        changed = run.records_signature()
        if run.id not in self._trends or self._trends[run.id][0] != changed:
            if time.monotonic() > until:
                self.behind = True
            else:
                self._trends[run.id] = (changed, trend(run))

    def _with_trend(self, row: RunRow) -> RunRow:
        _, values = self._trends.get(row.id, (None, ()))
        return replace(row, trend=values) if values else row

    def _scanned(self) -> Sequence[RunDir]:
        """The runs; those found last if the folder has not changed since, which costs a long list nothing."""
        try:
            changed = self.runs.stat().st_mtime_ns
        except OSError:
            changed = 0
        # A change soon after the listing may bear the same time, as some file systems count in seconds.
        # What was skipped may become readable without a change of the folder.
        if changed != self._changed or time.time_ns() - changed < SETTLED_NS or self._scan.skipped:
            self._scan, self._changed = listing.scan(self.runs), changed
        return self._scan.runs
