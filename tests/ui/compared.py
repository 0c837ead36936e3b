"""Runs to compare: recorded ones with made-up outcomes, and tables without a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from cafe_tui.results.exporting import Grid
from cafe_tui.results.groups import Compared
from cafe_tui.results.settings import Settings
from engine.contract.profile import files as profiles
from engine.contract.run.results import make_cell, table
from engine.contract.run.rundir import RunDir
from tests.recorded import record_run

LABELS = np.arange(450) % 10
EXPERIMENT = {"name": "quickstart", "description": "", "data.name": "digits", "threat.eps": 0.15, "stage.train.lr": 0.1}


def run_id(end: str, name: str = "quickstart") -> str:
    return f"20260921-144000-{name}-{end}"


def write_outcomes(
    run: RunDir, model: str, attack: str, right: Any, labels: Any = None, stage: str = "evaluate"
) -> Path:
    """A file as the engine writes it."""
    path = run.outcomes / f"{stage}-{model}-{attack}.npz"
    labels = LABELS[: len(right)] if labels is None else labels
    notes = np.array([], dtype=np.str_)
    np.savez_compressed(path, right=right, labels=labels, seconds=1.0, gradient_steps=10, warnings=notes)
    return path


def outcomes(seed: int, share: float = 0.7, n: int = 450) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Made-up outcomes, always the same."""
    return np.random.default_rng(seed).random(n) < share


def change_profile(run: RunDir, **changes: Any) -> None:
    """Rewrite the profile with other values; a double underscore parts the keys of a path."""
    sets = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in changes.items()]
    run.profile_file.write_text(profiles.dumps(profiles.load("quickstart", sets).profile), encoding="utf-8")


def run_with_outcomes(folder: Path, end: str, seed: int, share: float = 0.7) -> RunDir:
    """A finished run with outcomes of both networks under all three attacks."""
    run = record_run(folder, run_id=run_id(end))
    for number, model in enumerate(("train", "inoculate")):
        for more, attack in enumerate(("clean", "fgsm", "pgd")):
            write_outcomes(run, model, attack, outcomes(100 * seed + 10 * number + more, share))
    return run


def compared(end: str, seed: int, accuracies: dict[tuple[str, str], int], **changes: Any) -> Compared:
    """A run with a table of so many right of 450."""
    cells = [make_cell(model, attack, right, 450) for (model, attack), right in accuracies.items()]
    return Compared(run_id(end), end, Settings({**EXPERIMENT, "seed": seed, **changes}), table(cells))


def texts(grid: Grid) -> list[list[str]]:
    return [[entry.text.strip() for entry in row] for rows in grid.sections for row in rows]
