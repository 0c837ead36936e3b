"""The outcomes of an evaluation on disk, example by example: the basis of cells, paired comparisons and resuming."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engine.attacks.tally import COUNTS, Tally
from engine.checkpoints.own import unreadable
from engine.contract.run.fingerprint import Settings
from engine.contract.run.records import Cell, Counted
from engine.contract.run.results import Paired, make_cell, paired
from engine.contract.run.rundir import RunDir, write_atomically
from engine.data import Images, Splits

FACTS = tuple(name for name in Cell.__struct_fields__ if name not in Counted.__struct_fields__)
"""The fields of a cell that are written beside its outcomes; its count follows from these."""


@dataclass
class Outcomes:
    """One column for one network: which examples are still right (N,) bool, and its cell of the table.

    The count of `cell` is that of the examples that were right at first, until `record` makes it anew. `settings` is
    what it depends on, empty in a file of an earlier release; `tally` that of the attack in progress while the column
    is not finished. `index` are the places (N,) of the examples in the test set; None in a file of an earlier release,
    which took the first N.
    """

    right: np.ndarray
    cell: Cell
    settings: Settings
    tally: Tally | None = None
    index: np.ndarray | None = None

    @classmethod
    def begin(
        cls, model: str, attack: str, right: np.ndarray, settings: Settings, facts: Mapping[str, object]
    ) -> Outcomes:
        """With what is known of a cell before its attacks, by the names in FACTS. Raises ValueError for no examples."""
        return cls(right, make_cell(model, attack, int(right.sum()), len(right), **facts), settings)

    @property
    def examples(self) -> np.ndarray:
        """The places (N,) of the examples in the test set."""
        return np.arange(len(self.right)) if self.index is None else self.index

    def record(self, notes: Sequence[str] = ()) -> Cell:
        """The record of the finished column, with what the other columns have to say about it."""
        facts = {name: getattr(self.cell, name) for name in FACTS}
        facts["warnings"] = [*self.cell.warnings, *notes]
        return make_cell(self.cell.model, self.cell.attack, int(self.right.sum()), len(self.right), **facts)


def outcomes_file(run: RunDir, stage: str, model: str, column: str) -> Path:
    """Where the per-example outcomes of one finished cell are."""
    return run.outcomes / f"{stage}-{model}-{column}.npz"


def partial_file(run: RunDir, stage: str) -> Path:
    """Where the outcomes of the one unfinished cell are while the run is stopped."""
    return run.outcomes / f"{stage}.partial.npz"


def save(path: Path, outcomes: Outcomes, labels: np.ndarray, *, finished: bool = True) -> None:
    """Write them; those of an unfinished cell with its name, and with the tally of the attack in progress, if any."""
    cell, tally = outcomes.cell, outcomes.tally
    values: dict[str, np.ndarray] = {
        "right": outcomes.right,
        "labels": labels,
        "facts": np.array(msgspec.json.encode({name: getattr(cell, name) for name in FACTS}).decode()),
        "settings": np.array(json.dumps(outcomes.settings)),
        "column": np.array("" if finished else _unfinished(cell.model, cell.attack)),
    }
    if outcomes.index is not None:
        values["index"] = outcomes.index
    if tally is not None:
        values |= {"robust": tally.robust, "tried": tally.attempted, "fell": tally.broken, "counted": tally.counts}
        values["seconds"] = np.array(tally.seconds)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **values)  # type: ignore[arg-type]  # the stub takes a name for allow_pickle
    write_atomically(path, buffer.getvalue())


def load(path: Path, model: str, attack: str, count: int | None = None) -> Outcomes | None:
    """The inverse of `save`; None if nothing is saved for this cell, or not of `count` examples, or if it is damaged.

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
            if str(saved.get("column", "")) not in ("", _unfinished(model, attack)):
                return None
            settings, facts = json.loads(str(saved.get("settings", "{}"))), json.loads(str(saved["facts"]))
            if not isinstance(settings, dict) or not isinstance(facts, dict):
                return None
            right = _outcomes(saved["right"], saved["labels"], count)
            outcomes = Outcomes.begin(model, attack, right, settings, {})
            known = {name: facts[name] for name in FACTS if name in facts}
            outcomes.index = saved.get("index")
            outcomes.cell = msgspec.convert(msgspec.structs.asdict(outcomes.cell) | known, Cell)
            if "robust" in saved:
                outcomes.tally = _tally(saved, len(right))
            return outcomes
    except Exception:  # a damaged file can make zipfile, zlib and numpy raise nearly anything
        return None


def _outcomes(right: np.ndarray, labels: np.ndarray, count: int | None) -> np.ndarray:
    """The outcomes, if they are some. Raises ValueError."""
    if right.dtype != np.bool_ or right.ndim != 1 or right.shape != labels.shape or count not in (None, len(right)):
        raise ValueError(f"{right.dtype} {right.shape}")
    return right


def _tally(saved: Any, count: int) -> Tally:
    """The tally of the attack in progress on so many examples. Raises ValueError where it is none."""
    robust, tried, fell, counted = (saved[name] for name in ("robust", "tried", "fell", "counted"))
    shapes = [(count,), (count, *tried.shape[1:2]), tried.shape, (*tried.shape, len(COUNTS))]
    if [each.shape for each in (robust, tried, fell, counted)] != shapes:
        raise ValueError("its parts do not fit each other")
    if {robust.dtype, tried.dtype, fell.dtype} != {np.dtype(np.bool_)} or counted.dtype.kind != "i":
        raise ValueError("not what a tally is made of")
    return Tally(robust=robust, attempted=tried, broken=fell, counts=counted, seconds=float(saved["seconds"]))


def checksum(images: Images, splits: Splits) -> str:
    """What tells these test images from any others; empty where nothing is known of the test set."""
    total, known = len(splits.test), splits.sums.get("test", "")
    index = images.index.cpu().numpy()
    if not known or np.array_equal(index, np.arange(total)):
        return known
    return hashlib.sha256(known.encode() + index.astype("<i8").tobytes()).hexdigest()[: len(known)]


def _unfinished(model: str, attack: str) -> str:
    """The cell that an unfinished file belongs to."""
    return f"{model}-{attack}"


def compare(attack: str, a: str, b: str, file_a: Path, file_b: Path) -> Paired:
    """Networks `a` and `b` under one attack on the same examples, from their outcome files."""
    with np.load(file_a, allow_pickle=False) as one, np.load(file_b, allow_pickle=False) as two:
        right_a, right_b = one["right"], two["right"]
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return paired(attack, a, b, only_a=only_a, only_b=only_b, n=len(right_a))
