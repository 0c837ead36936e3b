"""Where things are on this host."""

from __future__ import annotations

import os
from pathlib import Path


def runs_folder(given: Path | None = None) -> Path:
    """The folder of runs: the one given, else that of the variable CAFE_RUNS, else ./runs."""
    return given or Path(os.environ.get("CAFE_RUNS") or "runs")
