"""Runs every benchmark and writes docs/benchmarks.md: in full by `make bench`, which takes hours, or with --quick."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOT_BENCHMARKS = {"common.py", "fake_runs.py", "peers.py", "run_all.py", "terminals.py"}


def main() -> int:
    """The number of benchmarks that could not be run."""
    quick = sys.argv[1:] == ["--quick"]
    made = "`python benchmarks/run_all.py --quick`: less work and fewer repeats than " if quick else ""
    parts = ["# Benchmarks", "", f"Made by {made}`make bench`: medians, measured in turn in one run.", ""]
    failures = 0
    for path in sorted(HERE.glob("*.py")):
        if path.name in NOT_BENCHMARKS:
            continue
        print(f"{path.stem} ...", flush=True)
        answer = subprocess.run(
            [sys.executable, str(path), "--json", *sys.argv[1:]], capture_output=True, text=True, check=False
        )
        if answer.returncode:
            failures += 1
            print(answer.stderr, file=sys.stderr)
            parts += [f"## {path.stem}", "", f"could not be run (exit {answer.returncode})", ""]
        else:
            parts += _section(json.loads(answer.stdout))
    (HERE.parent / "docs" / "benchmarks.md").write_text("\n".join(parts), encoding="utf-8")
    return failures


def _section(found: dict[str, object]) -> list[str]:
    rows = found["rows"]
    assert isinstance(rows, list)
    lines = [f"## {found['benchmark']}", "", f"{found['device']}, {time.strftime('%Y-%m-%d')}", ""]
    lines += ["| | ours | peer or limit | unit | ratio | target | met |", "|:--|--:|--:|:--|--:|--:|:--|"]
    for row in rows:
        figures = f"{row['ours']:.4g} | {row['peer']:.4g} | {row['unit']} | {row['ratio']:.3g} | {row['target']:g}"
        lines.append(f"| {row['name']} | {figures} | {'yes' if row['met'] else '**no**'} |")
    return [*lines, ""]


if __name__ == "__main__":
    sys.exit(main())
