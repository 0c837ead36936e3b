"""What an evaluation found, example by example, on disk: the basis of cells, paired comparisons and resuming."""

from __future__ import annotations

import io
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import msgspec
import numpy as np

from engine.attacks.scheduler import Found
from engine.checkpoints.own import unreadable
from engine.contract.run.fingerprint import Settings
from engine.contract.run.records import Cell, Part
from engine.contract.run.results import Paired, make_cell, paired
from engine.contract.run.rundir import RunDir, write_atomically


class Facts(msgspec.Struct, kw_only=True):
    """What a cell tells beside its count."""

    seconds: float = 0.0
    gradient_steps: int = 0
    forwards: int = 0
    norm: str = ""
    eps: float = 0.0
    source: str = ""
    how: str = ""
    parts: list[Part] = []
    warnings: list[str] = []


@dataclass
class Outcomes:
    """One column for one network: which examples are still right (N,) bool, and what it took.

    `settings` is what it depends on, empty in a file of an earlier release; `found` the attack at work while the column
    is not finished.
    """

    right: np.ndarray
    facts: Facts = field(default_factory=Facts)
    settings: Settings = field(default_factory=dict)
    found: Found | None = None


def outcomes_file(run: RunDir, stage: str, model: str, column: str) -> Path:
    """Where the per-example outcomes of one finished cell are."""
    return run.outcomes / f"{stage}-{model}-{column}.npz"


def partial_file(run: RunDir, stage: str) -> Path:
    """Where the outcomes of the one cell that is at work are while the run is stopped."""
    return run.outcomes / f"{stage}.partial.npz"


def save(path: Path, outcomes: Outcomes, labels: np.ndarray, column: str = "") -> None:
    """Write them; with the work of an unfinished part, and the `column` it belongs to, if there is any."""
    values: dict[str, np.ndarray] = {
        "right": outcomes.right,
        "labels": labels,
        "facts": np.array(msgspec.json.encode(outcomes.facts).decode()),
        "settings": np.array(json.dumps(outcomes.settings)),
        "column": np.array(column),
    }
    if outcomes.found is not None:
        found = outcomes.found
        values |= {"robust": found.robust, "tried": found.tried, "fell": found.fell, "counted": found.counted}
        values["seconds"] = np.array(found.seconds)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **values)  # type: ignore[arg-type]  # the stub takes a name for allow_pickle
    write_atomically(path, buffer.getvalue())


def load(path: Path, column: str = "") -> Outcomes | None:
    """The inverse of `save`; None if there is nothing for this column, or what there is is damaged.

    Raises DiskError when it cannot be read now.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as saved:
            if str(saved.get("column", "")) != column:
                return None
            facts = msgspec.json.decode(str(saved["facts"]), type=Facts)
            outcomes = Outcomes(saved["right"], facts, json.loads(str(saved.get("settings", "{}"))))
            if "robust" in saved:
                arrays = {name: saved[name] for name in ("robust", "tried", "fell", "counted")}
                outcomes.found = Found(**arrays, seconds=float(saved["seconds"]))
            return outcomes
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, BadZipFile, zlib.error, msgspec.MsgspecError):
        return None  # RuntimeError: a zip file that claims to be encrypted, or compressed by a method that is none


def cell_of(model: str, column: str, outcomes: Outcomes, notes: list[str]) -> Cell:
    """The record of a finished column, with what the other columns have to say about it."""
    facts = msgspec.structs.asdict(outcomes.facts)
    facts["warnings"] = [*facts["warnings"], *notes]
    return make_cell(model, column, int(outcomes.right.sum()), len(outcomes.right), **facts)


def compare(attack: str, a: str, b: str, file_a: Path, file_b: Path) -> Paired:
    """Networks `a` and `b` under one attack on the same examples, from their outcome files."""
    with np.load(file_a, allow_pickle=False) as one, np.load(file_b, allow_pickle=False) as two:
        right_a, right_b = one["right"], two["right"]
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return paired(attack, a, b, only_a=only_a, only_b=only_b, n=len(right_a))
