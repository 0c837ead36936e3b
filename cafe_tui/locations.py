"""Where things are on this host, and how far away its user is."""

from __future__ import annotations

import os
from pathlib import Path


def runs_folder(given: Path | None = None) -> Path:
    """The folder of runs: the one given, else that of the variable CAFE_RUNS, else ./runs."""
    return given or Path(os.environ.get("CAFE_RUNS") or "runs")


def slow_line(given: bool = False) -> bool:
    """Whether the line to the terminal is slow: it was said so, or the variable CAFE_SLOW is set (and not to 0).

    To be asked before Textual is imported, which then writes sixteen colours only.
    """
    slow = given or os.environ.get("CAFE_SLOW", "0") not in ("", "0")
    if slow:
        os.environ.setdefault("TEXTUAL_COLOR_SYSTEM", "standard")
    return slow
