"""Runs the quickstart with three seeds and writes what came out to docs/results.md, whatever it is.

python docs/make_results.py [--runs DIR]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from engine.contract import rundir
from engine.contract.results import Cell, Paired
from engine.contract.rundir import RunDir

SEEDS = (0, 1, 2)
ROOT = Path(__file__).resolve().parents[1]


def run(seed: int, runs: Path) -> tuple[RunDir, float]:
    """Run the quickstart; the run and its wall seconds, start of Python included."""
    command = [sys.executable, "-m", "cafe_tui", "run", "quickstart", "--set", f"seed={seed}", "--runs", str(runs)]
    started = time.perf_counter()
    subprocess.run([*command, "--tag", "results", "--plain"], check=True, stdout=subprocess.DEVNULL)
    return rundir.find(runs, "last"), time.perf_counter() - started


def report(found: list[tuple[int, RunDir, float]]) -> str:
    """The page."""
    info = found[0][1].info()
    lines = [
        "# Results",
        "",
        "## quickstart",
        "",
        "Written by `python docs/make_results.py`, three seeds, nothing left out. Percent of 450 test images; robust",
        "accuracy with its 95% Wilson interval; differences are paired on the same images, with the interval of",
        "Agresti and Min and the exact McNemar p-value. 450 images cannot tell differences of two points apart.",
        "",
        f"torch {info.versions['torch']}, {', '.join(info.devices)}, {time.strftime('%Y-%m-%d')}.",
        "",
        "### Features of the game",
        "",
        "| seed | Adv | CF | CC | AC | AC - Adv | seconds |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for seed, directory, seconds in found:
        head = _results(directory).headline
        adv, cf, cc, ac = (float(head[f"accuracy_{name}"] or 0) for name in ("adv", "cf", "cc", "ac"))
        lines.append(f"| {seed} | {adv:.1f} | {cf:.1f} | {cc:.1f} | {ac:.1f} | {ac - adv:+.1f} | {seconds:.0f} |")
    lines += ["", "### Accuracy of the base (`train`) and the inoculated network (`inoculate`)", ""]
    lines += ["| seed | attack | base | inoculated | difference | p |", "|--:|:--|:--|:--|:--|--:|"]
    for seed, directory, _ in found:
        results = _results(directory)
        cells = {(cell.model, cell.attack): cell for cell in results.cells}
        for row in results.differences:
            lines.append(f"| {seed} | {row.attack} | {_row(cells[row.a, row.attack], cells[row.b, row.attack], row)} |")
    return "\n".join([*lines, ""])


def _row(base: Cell, inoculated: Cell, row: Paired) -> str:
    cells = [f"{cell.accuracy:.1f} [{cell.low:.1f}, {cell.high:.1f}]" for cell in (base, inoculated)]
    return " | ".join([*cells, f"{row.difference:+.1f} [{row.low:.1f}, {row.high:.1f}]", f"{row.p:.3f}"])


def _results(directory: RunDir) -> rundir.Results:
    results = directory.results()
    assert results is not None, f"{directory.id} has no results"
    return results


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    runs = parser.parse_args().runs
    found = [(seed, *run(seed, runs)) for seed in SEEDS]
    (ROOT / "docs" / "results.md").write_text(report(found), encoding="utf-8")


if __name__ == "__main__":
    main()
