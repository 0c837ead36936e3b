"""What every benchmark shares: rows, medians measured in turn, and one way to print them.

A benchmark is a function from `quick` to rows; `main` gives it the options, the table and the JSON of the contract:

    python benchmarks/NAME.py [--quick | --only GROUP] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a checkout can be measured without being installed

REPEATS = 5
"""Measurements of which the median is taken."""


@dataclass(frozen=True)
class Row:
    """One measured figure and what it is held against, both in `unit`.

    `peer` is another program doing the same work, or a limit set in advance. `target` bounds the ratio ours / peer:
    from above where less is better, from below where more is.
    """

    name: str
    ours: float
    peer: float
    unit: str
    target: float
    better: Literal["less", "more"] = "less"

    @property
    def ratio(self) -> float:
        """Ours divided by the peer's."""
        return self.ours / self.peer

    @property
    def met(self) -> bool:
        """Whether the ratio keeps to the target."""
        return bool(self.ratio <= self.target if self.better == "less" else self.ratio >= self.target)

    def document(self) -> dict[str, Any]:
        """The row as the contract's JSON has it."""
        plain = asdict(self)
        del plain["better"]
        return {**plain, "ratio": self.ratio, "met": self.met}


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(
    *works: Callable[[], object], repeats: int = REPEATS, tidy: Callable[[], object] = lambda: None
) -> list[float]:
    """Median seconds of each work, measured in turn (a, b, b, a, a, b, ...).

    A slow moment meets all of them, and none is always the one that finds the caches as another left them. `tidy` runs
    after each round, outside of the time.
    """
    times: list[list[float]] = [[] for _ in works]
    for turn in range(repeats):
        order = range(len(works))
        for index in order if turn % 2 == 0 else reversed(order):
            times[index].append(seconds(works[index]))
        tidy()
    return [statistics.median(each) for each in times]


def processor() -> str:
    """The processor in words, with its number of cores."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores"


def as_table(rows: Sequence[Row]) -> str:
    """The rows as aligned plain text."""
    cells = [("", "ours", "peer", "unit", "ratio", "target", "met")]
    for row in rows:
        sign = "<=" if row.better == "less" else ">="
        figures = (f"{row.ours:.4g}", f"{row.peer:.4g}", row.unit, f"{row.ratio:.3g}", f"{sign} {row.target:g}")
        cells.append((row.name, *figures, "yes" if row.met else "NO"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in cells)


def main(
    benchmark: str,
    measure: Callable[[bool], Sequence[Row]],
    device: Callable[[], str] = processor,
    groups: Mapping[str, Callable[[], Sequence[Row]]] | None = None,
) -> None:
    """Run `measure(quick)`, or one of the `groups` of its rows, by the command line and print what it found."""
    parser = argparse.ArgumentParser(prog=f"benchmarks/{benchmark}.py", description=f"Benchmark: {benchmark}.")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="less work, within 50 seconds on two cores")
    if groups:
        extent.add_argument("--only", choices=groups, help="one group of rows in full")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    options = parser.parse_args()
    rows = groups[options.only]() if groups and options.only else measure(options.quick)
    if options.json:
        print(json.dumps({"benchmark": benchmark, "device": device(), "rows": [row.document() for row in rows]}))
    else:
        print(f"{benchmark} on {device()}\n{as_table(rows)}")
