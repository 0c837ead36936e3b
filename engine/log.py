"""The human log: what a person wants to read of a run afterwards, a line each, on stderr, which is engine.log."""

from __future__ import annotations

import sys
import time
from contextlib import suppress

from engine.contract.run.records import (
    Cell,
    CheckpointWritten,
    ErrorNote,
    Message,
    Record,
    Scalars,
    StageChange,
    WarningNote,
)


def log(record: Record) -> None:
    """Write the line of a record, if it has one. A full disk is told by the records, not here."""
    level, text = _line(record)
    if text:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.t))
        with suppress(OSError):
            print(f"{stamp} {level:<7} {text}", file=sys.stderr, flush=True)


def _line(record: Record) -> tuple[str, str]:
    if isinstance(record, StageChange):
        length = f", {record.total_steps} steps" if record.state != "finished" else ""
        return "info", f"{record.stage}: {record.state}{length}"
    if isinstance(record, Scalars):
        held_out = {name: value for name, value in record.numbers().items() if name.startswith(("val_", "final_"))}
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in held_out.items())
        return "info", f"{record.stage}: epoch {record.epoch:g}, {numbers}" if held_out else ""
    if isinstance(record, Cell):
        interval = f"[{record.low:.1f}, {record.high:.1f}]"
        return (
            "info",
            f"{record.model} under {record.attack}: {record.accuracy:.1f}% {interval}, {record.seconds:.1f} s",
        )
    if isinstance(record, CheckpointWritten):
        return "info", f"{record.stage}: {record.label} weights written to {record.path}"
    if isinstance(record, WarningNote):
        return "warning", record.text
    if isinstance(record, ErrorNote):
        return "error", f"{record.text} {record.hint}".rstrip()
    return "info", record.text if isinstance(record, Message) else ""
