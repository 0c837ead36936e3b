"""What runs will cost, told before they start: image passes, and the time they take on this host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

from cafe_tui import format as fmt
from cafe_tui.launch import local
from engine.contract import profile as profiles
from engine.contract.plan import plan
from engine.contract.schema import Profile

MEASURE_SECONDS = 120
"""After this long measuring is given up."""


def passes(profile: Profile) -> float:
    """Passes of one image through the classifier that a run makes at most."""
    return sum(stage.cost for stage in plan(profile))


def announcement(tag: str, to_do: Sequence[Profile], count: int, parallel: int) -> list[str]:
    """What is to be done of a sweep of `count` runs and how long it will take, in lines."""
    if not to_do:
        return [f"{tag}: all {count} runs are finished; `cafe table {tag}` shows their tables"]
    cost = [passes(profile) for profile in to_do]
    left = "" if len(to_do) == count else f", {count - len(to_do)} of {count} are finished"
    beside = f", {parallel} side by side" if parallel > 1 else ""
    lines = [f"{tag}: {len(to_do)} runs to do{beside}{left}; at most {sum(cost):.3g} image passes"]
    speeds = _speeds(to_do)
    if speeds is None:
        return [*lines, "how long that takes could not be measured here"]
    seconds = [one / speed for one, speed in zip(cost, speeds, strict=True)]
    return [
        *lines,
        f"about {fmt.duration(_makespan(seconds, parallel))} by a measurement on this host just now",
    ]


def _makespan(seconds: Sequence[float], parallel: int) -> float:
    """When the last of the runs ends if each begins as soon as one of `parallel` places is free."""
    free = [0.0] * parallel
    for length in seconds:
        free[free.index(min(free))] += length
    return max(free)


def _speeds(wanted: Sequence[Profile]) -> list[float] | None:
    """Passes a second for each profile, measured once for those that compute alike; None where it cannot be done."""
    alike = [
        json.dumps([p.data.name, profiles.to_tables(p)["model"], profiles.to_tables(p)["compute"]]) for p in wanted
    ]
    kinds = {kind: profiles.to_tables(profile) for kind, profile in zip(alike, wanted, strict=True)}
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "engine", "speed", os.getcwd()],
            input=json.dumps(list(kinds.values())),
            capture_output=True,
            text=True,
            timeout=MEASURE_SECONDS,
            check=True,
            cwd=profiles.shipped_folder(),  # a file called engine or torch in the user's folder must not shadow ours
            env=local.environment(),
        )
        found = dict(zip(kinds, json.loads(answer.stdout), strict=True))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None  # the run itself will tell what is wrong
    return [found[kind] for kind in alike]
