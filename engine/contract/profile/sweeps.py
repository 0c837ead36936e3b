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
from math import prod
from typing import Any, Generic, TypeVar

from engine.contract.profile.checking import show
from engine.contract.profile.tables import Tables

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
    content = {key: value for key, value in tables.items() if key != "description"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
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
    """A label and the values, by key path, of every run of the sweep; mistakes are added to `problems`."""
    if not isinstance(table, dict) or not table:
        problems.append(f"sweep: found {show(table)}; allowed: a table of key paths with a list of values each")
        return []
    axes = _axes(table, problems)
    cases = _cases(table, problems)
    for key in axes:
        if any(key in case for case in cases):
            problems.append(f"sweep.{key}: is a key of a case too; it may be one or the other")
    count = len(cases) * prod(len(values) for values in axes.values())
    if count > MOST_POINTS:
        problems.append(f"sweep: found {count} runs; allowed: at most {MOST_POINTS}")
        return []
    shown = {key for key, values in axes.items() if len(values) > 1}
    points = []
    for case in cases:
        for values in product(*axes.values()):
            own = dict(zip(axes, values, strict=True))
            points.append((_label(case, own, shown), case | own))
    return _numbered(points)


def _axes(table: Tables, problems: list[str]) -> dict[str, list[Any]]:
    """The keys of which every combination of values is run, with their values."""
    axes = {}
    for key, values in _paths({key: value for key, value in table.items() if key != CASES}):
        if isinstance(values, list) and values:
            axes[key] = values
        else:
            problems.append(f"sweep.{key}: found {show(values)}; allowed: a list with at least one value")
    return axes


def _cases(table: Tables, problems: list[str]) -> list[dict[str, Any]]:
    """The values of each case by key path; a sweep without cases has one without values."""
    cases = table.get(CASES, [{}])
    if not isinstance(cases, list) or not cases or not all(isinstance(case, dict) for case in cases):
        problems.append(f"sweep.{CASES}: found {show(cases)}; allowed: tables, each written under [[sweep.{CASES}]]")
        return [{}]
    return [dict(_paths(nested(case))) for case in cases]


def _paths(table: Tables, prefix: str = "") -> list[tuple[str, Any]]:
    """Every value with its key path. Unlike `tables.leaves`, lists of tables are values."""
    paths = []
    for key, value in table.items():
        if isinstance(value, dict):
            paths += _paths(value, f"{prefix}{key}.")
        else:
            paths.append((f"{prefix}{key}", value))
    return paths


def _label(case: dict[str, Any], own: dict[str, Any], shown: set[str]) -> str:
    """The first value of the case, then every key with several values: "digits-seed0"."""
    words = [str(value) for value in case.values()][:1]
    for key, value in own.items():
        if key in shown:
            words.append(value if isinstance(value, str) else f"{key.rpartition('.')[2]}{value}")
    return "-".join(re.sub(r"[^A-Za-z0-9._]+", "-", word).strip("-") for word in words) or "1"


def _numbered(points: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Labels that more than one run would have get the number of the run."""
    often = Counter(label for label, _ in points)
    numbered = []
    for i, (label, values) in enumerate(points, start=1):
        numbered.append((f"{label}-{i}" if often[label] > 1 else label, values))
    return numbered


def merged_problems(failures: Sequence[Sequence[str]], runs: int) -> list[str]:
    """The problems of all runs, each once; of one that only some runs have, how many."""
    often = Counter(problem for problems in failures for problem in dict.fromkeys(problems))
    merged = []
    for problem, count in often.items():
        everywhere = runs == 0 or count == runs
        merged.append(problem if everywhere else f"{problem} (in {count} of {runs} runs)")
    return merged
