"""The newest values of a run's headline metric, read from the end of its records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from engine.contract.run.opening import regular
from engine.contract.run.records import Scalars, decode_lines, to_float
from engine.contract.run.rundir import RunDir

METRICS: Final = ("val_robust_accuracy", "val_accuracy_ac", "accuracy_ac", "val_accuracy", "loss")
"""Of these the first that a stage has is its headline."""
TAIL_BYTES: Final = 1 << 16
"""Of the records, from their end: a few hundred lines."""


def trend(run: RunDir) -> tuple[float, ...]:
    """The newest values of the headline metric of the latest stage that has one; empty without any, never an error."""
    try:
        with open(run.records_file, "rb", opener=regular) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - TAIL_BYTES, 0))
            chunk = file.read(TAIL_BYTES)
    except OSError:
        return ()
    begin = chunk.find(b"\n") + 1 if size > TAIL_BYTES else 0
    records = [record for record in decode_lines(chunk[begin : chunk.rfind(b"\n") + 1]) if isinstance(record, Scalars)]
    headline = _headline(records)
    return _values(records, *headline) if headline else ()


def _values(records: Sequence[Scalars], stage: str, name: str) -> tuple[float, ...]:
    """The values of one metric by rising step; a resume overwrites what was recorded before it."""
    values: dict[int, float] = {}
    for record in records:
        if record.stage != stage or name not in record.values:
            continue
        if record.step <= next(reversed(values), -1):  # a resume
            values = {step: value for step, value in values.items() if step < record.step}
        values[record.step] = to_float(record.values[name])
    return tuple(values.values())


def _headline(records: Sequence[Scalars]) -> tuple[str, str] | None:
    """Stage and name of the metric."""
    stage = None
    names: set[str] = set()
    for record in reversed(records):
        if names and record.stage != stage:
            break
        stage = record.stage
        names |= record.values.keys() & set(METRICS)
    return next(((stage, name) for name in METRICS if name in names), None) if stage is not None else None
