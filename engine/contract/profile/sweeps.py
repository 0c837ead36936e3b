"""Sweeps: which runs a table [sweep] stands for.

[sweep]
seed = [0, 1, 2]                 # every combination of the values of such keys,

[[sweep.case]]                   # each of them in every case; the keys of a case go together
"data.name" = "digits"
"threat.eps" = 0.15
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Generic, TypeVar

from engine.contract.profile.checking import Tables, show

CASES = "case"
MOST_POINTS = 1000
T = TypeVar("T")


@dataclass(frozen=True)
class Sweep(Generic[T]):
    """The runs that a profile stands for, in order: `labels` name them, `points` are their profiles.

    `tag` marks runs as those of this sweep. It changes with what the profile and --set say, its description aside.
    """

    name: str
    tag: str
    labels: Sequence[str]
    points: Sequence[T]


def tag_of(tables: Tables) -> str:
    """The tag of a sweep from its tables as they were written, [sweep] included."""
    told = {key: value for key, value in tables.items() if key != "description"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
    return f"{str(tables.get('name', 'unnamed'))[:33]}-{digest[:6]}"


def nested(table: Tables) -> Tables:
    """A table with key paths in quotes ("data.name") as one of tables in tables, as other keys of a file are."""
    whole: Tables = {}
    for path, value in table.items():
        *outer, last = path.split(".")
        at = whole
        for part in outer:
            inner = at.setdefault(part, {})
            at = inner if isinstance(inner, dict) else at.setdefault(f"{part}.", {})
        given = nested(value) if isinstance(value, dict) else value
        at[last] = {**at[last], **given} if isinstance(given, dict) and isinstance(at.get(last), dict) else given
    return whole


def combine(table: Any, problems: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """A label and the values, by key path, of every run of the sweep; mistakes are told in `problems`."""
    if not isinstance(table, dict) or not table:
        problems.append(f"sweep: found {show(table)}; allowed: a table of key paths with a list of values each")
        return []
    axes, cases = {}, table.get(CASES, [{}])
    for key, values in _paths({key: value for key, value in table.items() if key != CASES}):
        if isinstance(values, list) and values:
            axes[key] = values
        else:
            problems.append(f"sweep.{key}: found {show(values)}; allowed: a list with at least one value")
    if not isinstance(cases, list) or not cases or not all(isinstance(case, dict) for case in cases):
        problems.append(f"sweep.{CASES}: found {show(cases)}; allowed: tables, each written under [[sweep.{CASES}]]")
        cases = [{}]
    tied = [dict(_paths(nested(case))) for case in cases]
    for key in axes:
        if any(key in case for case in tied):
            problems.append(f"sweep.{key}: is a key of a case too; it may be one or the other")
    count = len(tied)
    for values in axes.values():
        count *= len(values)
    if count > MOST_POINTS:
        problems.append(f"sweep: found {count} runs; allowed: at most {MOST_POINTS}")
        return []
    points = []
    for case in tied:
        for values in product(*axes.values()):
            own = dict(zip(axes, values, strict=True))
            points.append((_label(case, own, {key for key in axes if len(axes[key]) > 1}), case | own))
    return _told_apart(points)


def _paths(table: Tables, prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in table.items():
        found += _paths(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return found


def _label(case: dict[str, Any], own: dict[str, Any], shown: set[str]) -> str:
    """The first value of the case, then every key with several values: "digits-seed0"."""
    words = [str(value) for value in case.values()][:1]
    for key, value in own.items():
        if key in shown:
            words.append(value if isinstance(value, str) else f"{key.rpartition('.')[2]}{value}")
    return "-".join(re.sub(r"[^A-Za-z0-9._]+", "-", word).strip("-") for word in words) or "1"


def _told_apart(points: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Labels that more than one run would have get the number of the run."""
    often = Counter(label for label, _ in points)
    return [
        (f"{label}-{i}" if often[label] > 1 else label, values) for i, (label, values) in enumerate(points, start=1)
    ]


def merged_problems(told: Sequence[Sequence[str]], runs: int) -> list[str]:
    """The problems of all runs, each once; of one that only some runs have, how many."""
    often = Counter(problem for problems in told for problem in dict.fromkeys(problems))
    return [
        problem if count == max(runs, 1) or runs == 0 else f"{problem} (in {count} of {runs} runs)"
        for problem, count in often.items()
    ]
