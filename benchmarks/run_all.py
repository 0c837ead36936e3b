"""Runs benchmarks and writes docs/benchmarks.md: all in full by `make bench`, all with --quick, or those named.

    python benchmarks/run_all.py [--quick | NAME ...]

A NAME is that of a benchmark or of one group of its rows, such as `attacks:speed-small`; the sections of the others
stay as they are.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import attacks
import game

HERE = Path(__file__).resolve().parent
REPORT = HERE.parent / "docs" / "benchmarks.md"
NOT_BENCHMARKS = {"common.py", "fake_runs.py", "peers.py", "run_all.py", "terminals.py"}
GROUPS = {"attacks": tuple(attacks.GROUPS), "game": tuple(game.GROUPS)}
HEAD = """# Benchmarks

Made by `make bench`: medians, measured in turn in one run.

A column `square` is not comparable with the official code on small images. Our squares reach the last row and column of
an image; those of the official code never do (its corner is drawn below `size - side`, where `size - side` is the last
one that fits). On images of 8x8 that leaves out 23% of the pixels, and ours breaks more: see `square-1000` of digits
below. On 28x28 both agree within the noise, and `aa` agrees on all images, as what is left for Square is little. Tables
carry a note where images are smaller than 28x28.
"""


def units(quick: bool) -> list[str]:
    """What is run by itself and has a section of its own: benchmarks, and in full the groups of those that have any."""
    names = [path.stem for path in sorted(HERE.glob("*.py")) if path.name not in NOT_BENCHMARKS]
    if quick:
        return names
    return [unit for name in names for unit in ([f"{name}:{group}" for group in GROUPS.get(name, ())] or [name])]


def main() -> int:
    """The number of units that could not be run."""
    parser = argparse.ArgumentParser(prog="benchmarks/run_all.py", description="Run benchmarks, write their report.")
    parser.add_argument("--quick", action="store_true", help="less work and fewer repeats")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(units(quick=False))}")
    options = parser.parse_args()
    known = units(options.quick)
    wanted = [unit for unit in known if not options.names or {unit, unit.split(":")[0]} & set(options.names)]
    if strange := [name for name in options.names if not any(name in (unit, unit.split(":")[0]) for unit in known)]:
        parser.error(f"there is no {', '.join(strange)}; there are {', '.join(known)}")
    failures = 0
    for unit in wanted:
        print(f"{unit} ...", flush=True)
        name, _, group = unit.partition(":")
        extent = ["--only", group] if group else ["--quick"] if options.quick else []
        command = [sys.executable, str(HERE / f"{name}.py"), "--json", *extent]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # stderr tells how far it is
        if answer.returncode:
            failures += 1
            body = f"could not be run (exit {answer.returncode})\n"
        else:
            body = section(json.loads(answer.stdout), options.quick)
        write(unit, body)
    return failures


def section(found: dict[str, object], quick: bool) -> str:
    """The rows of one unit as a table, with where and when they were measured."""
    rows = found["rows"]
    assert isinstance(rows, list)
    lines = [f"{found['device']}, {time.strftime('%Y-%m-%d')}{', with --quick' if quick else ''}", ""]
    lines += ["| | ours | peer or limit | unit | ratio | target | met |", "|:--|--:|--:|:--|--:|--:|:--|"]
    for row in rows:
        figures = f"{row['ours']:.4g} | {row['peer']:.4g} | {row['unit']} | {row['ratio']:.3g} | {row['target']:g}"
        lines.append(f"| {row['name']} | {figures} | {'yes' if row['met'] else '**no**'} |")
    return "\n".join([*lines, ""])


def write(unit: str, body: str) -> None:
    """Put the section of one unit into the report, in place of what it had.

    The whole of a benchmark takes the place of its groups; all of its groups together that of the whole.
    """
    text = REPORT.read_text(encoding="utf-8") if REPORT.exists() else ""
    sections = dict(re.findall(r"^## (\S+)\n\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL))
    sections = {known: old.rstrip() + "\n" for known, old in sections.items()} | {unit: body}
    name = unit.split(":")[0]
    groups = {f"{name}:{group}" for group in GROUPS.get(name, ())}
    superseded = groups if unit == name else {name} if groups <= sections.keys() else set()
    sections = {known: text for known, text in sections.items() if known not in superseded}
    order = [*units(quick=True), *units(quick=False)]
    kept = sorted(
        (known for known in sections if known in order), key=lambda known: (known.split(":")[0], order.index(known))
    )
    REPORT.write_text("\n".join([HEAD, *(f"## {known}\n\n{sections[known]}" for known in kept)]), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
