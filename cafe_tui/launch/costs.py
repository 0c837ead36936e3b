"""What runs will cost, told before they start: image passes, and the time they take on this host."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cafe_tui import format as fmt
from cafe_tui.launch import queue
from cafe_tui.launch.spawn import python, talking
from engine.contract.plan import plan
from engine.contract.profile.files import Loaded
from engine.contract.profile.schema import Profile
from engine.contract.profile.sweeps import Sweep
from engine.contract.profile.tables import to_tables

MEASURE_SECONDS = 120
"""After this long measuring is given up."""
ASKED_EVERY = 0.2
"""Seconds between two questions whether its answer is still wanted."""


@dataclass(frozen=True)
class Offer:
    """What starting a sweep would do: `states` are those of its runs so far, "" where there is none yet."""

    sweep: Sweep[Loaded]
    states: Sequence[str]
    parallel: int

    @property
    def to_do(self) -> list[Profile]:
        """The profiles whose runs are not finished."""
        pairs = zip(self.sweep.points, self.states, strict=True)
        return [point.profile for point, state in pairs if state != "finished"]

    def rows(self) -> list[tuple[str, str, str]]:
        """Of each run its label, its state and what it costs."""
        every = zip(self.sweep.labels, self.states, self.sweep.points, strict=True)
        return [(label, state, f"{passes(point.profile):.3g} image passes") for label, state, point in every]


def offer(runs: Path, sweep: Sweep[Loaded], parallel: int | None = None) -> Offer:
    """What `cafe run` of a sweep would do with what is in `runs`, so many engines at once; None: what fits this host.

    Raises UsageError when the folder cannot be read.
    """
    states = ["" if run is None else run.status().state for run in queue.runs_of(runs, sweep)]
    return Offer(sweep, states, parallel or queue.side_by_side([point.profile for point in sweep.points]))


def passes(profile: Profile) -> float:
    """Passes of one image through the classifier that a run makes at most."""
    return sum(stage.cost for stage in plan(profile))


def announcement(offer: Offer, given_up: Callable[[], bool] = lambda: False) -> Iterator[str]:
    """What is to be done of a sweep and how long it will take, line by line as it becomes known.

    The time is measured, which takes seconds; once `given_up` says so it is not waited for.
    """
    tag, to_do, count = offer.sweep.tag, offer.to_do, len(offer.states)
    if not to_do:
        what = f"all {count} runs are" if count > 1 else "its run is"
        yield f"{tag}: {what} finished; `cafe table {tag}` shows their tables"
        return
    cost = [passes(profile) for profile in to_do]
    left = "" if len(to_do) == count else f", {count - len(to_do)} of {count} are finished"
    beside = f", {offer.parallel} side by side" if offer.parallel > 1 else ""
    runs = f"{len(to_do)} run{'s' * (len(to_do) != 1)}"
    yield f"{tag}: {runs} to do{beside}{left}; at most {sum(cost):.3g} image passes"
    speeds = _speeds(to_do, given_up)
    if speeds is None:
        yield "how long that takes could not be measured here"
        return
    seconds = [one / speed for one, speed in zip(cost, speeds, strict=True)]
    yield f"at most about {fmt.duration(_makespan(seconds, offer.parallel))} by a measurement on this host just now"


def _makespan(seconds: Sequence[float], parallel: int) -> float:
    """When the last of the runs ends if each begins as soon as one of `parallel` places is free."""
    free = [0.0] * parallel
    for length in seconds:
        free[free.index(min(free))] += length
    return max(free)


def _speeds(wanted: Sequence[Profile], given_up: Callable[[], bool]) -> list[float] | None:
    """Passes a second for each profile, measured once for those that compute alike; None where it cannot be done."""
    alike = [json.dumps([p.data.name, to_tables(p)["model"], to_tables(p)["compute"]]) for p in wanted]
    kinds = {kind: to_tables(profile) for kind, profile in zip(alike, wanted, strict=True)}
    try:
        answer = _answer(json.dumps(list(kinds.values())).encode(), given_up)
        found = dict(zip(kinds, json.loads(answer), strict=True))
    except (OSError, ValueError):
        return None  # the run itself will tell what is wrong
    return [found[kind] for kind in alike]


def _answer(question: bytes, given_up: Callable[[], bool]) -> bytes:
    """What the measuring process says; nothing when it fails, takes too long or is not waited for."""
    process = talking(python("-m", "engine", "speed", os.getcwd()))
    asked: bytes | None = question
    with process:
        for _ in range(round(MEASURE_SECONDS / ASKED_EVERY)):
            if given_up():
                break
            try:
                return process.communicate(asked, timeout=ASKED_EVERY)[0]
            except subprocess.TimeoutExpired:
                asked = None  # is on its way
        process.kill()
    return b""
