"""What a record costs the engine that writes it and the view that reads it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from common import Row, in_turn, main

from engine.contract.run import rundir
from engine.contract.run.records import RecordReader, Scalars, encode
from engine.record import Recorder

VALUES = {"loss": 1.2345, "accuracy": 56.78, "lr": 0.05, "images_per_second": 1234.5}


def scalars(step: int) -> Scalars:
    """A record as training writes them, once every logging interval."""
    return Scalars(stage="train", step=step, epoch=step / 100, values=dict(VALUES))


def writing(folder: Path, count: int) -> list[Row]:
    """Records through the Recorder, heartbeat and all, against the bare system call on the same lines."""
    run = rundir.create(folder / "runs", "bench", "")
    lines = [encode(scalars(step)) for step in range(count)]
    file = os.open(folder / "bare.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def bare() -> None:
        for line in lines:
            os.write(file, line)

    with Recorder(run) as recorder:

        def ours() -> None:
            for step in range(count):
                recorder.write(scalars(step))

        mine, theirs = (1e6 * time / count for time in in_turn(ours, bare))
    os.close(file)
    return [
        Row("make and write one record, against 30 us", mine, 30.0, "us", target=1.0),
        Row("make and write one record, against os.write of its line", mine, theirs, "us", target=10.0),
    ]


def reading(folder: Path, count: int) -> Row:
    """A whole file at once, as a view does that opens an old run, against json.loads line by line."""
    path = folder / "records.jsonl"
    path.write_bytes(b"".join(encode(scalars(step)) for step in range(count)))

    def ours() -> None:
        reader, found = RecordReader(path), 0
        while records := reader.read():
            found += len(records)
        assert found == count

    def plain() -> None:
        with path.open("rb") as file:
            assert len([json.loads(line) for line in file]) == count

    mine, theirs = in_turn(ours, plain)
    return Row(f"read {count:,} records, against json.loads per line", mine, theirs, "s", target=0.5)


def measure(_quick: bool) -> list[Row]:
    """All rows; the full work is quick enough."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [*writing(folder, 20_000), reading(folder, 100_000)]


if __name__ == "__main__":
    main("records", measure)
