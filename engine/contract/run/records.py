"""records.jsonl: what a run has to tell, one JSON object a line, appended by one writer, read by anyone.

A line is `{"kind": ..., "v": 1, "t": unix seconds, ...}`. A reader passes over kinds and keys it does not know and
leaves a line without its newline for next time, so reading while the engine writes, or after it was killed, is safe.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from engine.contract.run.opening import regular

Number = float | str | None
"""A scalar as written: a finite number, null, or one of "nan", "inf", "-inf" (JSON has no such numbers)."""


BEGINNING = b'{"kind":"'
"""With which a line of ours begins; a reader takes any other order of keys too."""

Step = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)]
"""An optimiser step; a line with another number is no record, so that every reader may keep steps as 64 bits."""


class Record(msgspec.Struct, kw_only=True, tag_field="kind", omit_defaults=False, gc=False):
    """What all records share: format version and wall time in unix seconds (stamped by the writer).

    None refers to itself, so the garbage collector need not look at them: that halves the time to read a long file.
    """

    v: int = 1
    t: float = 0.0


class StageChange(Record, tag="stage"):
    """A stage of the profile started or finished; `stage` is its id and `stage_kind` its kind."""

    stage: str
    stage_kind: str = ""
    state: Literal["started", "finished", "resumed"] = "started"
    total_steps: int = 0
    total_epochs: int = 0


class Scalars(Record, tag="scalars"):
    """Values of named curves at one optimiser step of one stage (`epoch` is fractional, 1.0 = one epoch done)."""

    stage: str
    step: Step
    epoch: float = 0.0
    values: dict[str, Number] = {}

    def numbers(self) -> dict[str, float]:
        """The values as floats: null and unreadable text become NaN."""
        return {name: to_float(value) for name, value in self.values.items()}


class Part(msgspec.Struct, kw_only=True, gc=False):
    """One attack of an ensemble: `correct` examples are still right after it and all before it."""

    attack: str
    correct: int
    gradient_steps: int = 0
    forwards: int = 0
    seconds: float = 0.0


class Counted(Record):
    """How many examples a network still classifies right; accuracy and its 95% Wilson interval are percent, 0-100."""

    model: str
    attack: str
    correct: int
    total: int
    accuracy: float
    low: float
    high: float


OWN_FORMAT = "the network computes in "
"""With which `how` begins for a network that has another number format than fp32, whatever it is asked in."""


class Cell(Counted, tag="cell"):
    """A finished cell of a robust-accuracy table: the count, and the facts about how it was measured.

    `gradient_steps` counts gradients of single examples, `forwards` answers to single examples without a gradient.
    `source` is the network that the attack was crafted on, if another; `how` says number format and speed levers.
    `images` is a checksum of the examples, their labels and their order: only cells that agree in it are about the
    same ones. Cells of earlier releases have none.
    """

    seconds: float = 0.0
    gradient_steps: int = 0
    forwards: int = 0
    norm: str = ""
    eps: float = 0.0
    source: str = ""
    how: str = ""
    images: str = ""
    parts: list[Part] = []
    warnings: list[str] = []


class Progress(Record, tag="progress"):
    """How far a long attack has come: `done` of `total` examples, `robust_so_far` of the done still right.

    Within an ensemble `part` is the attack at work and `parts` those behind it; `share` (0-1) is the work done.
    """

    model: str
    attack: str
    done: int
    total: int
    robust_so_far: int = 0
    part: str = ""
    parts: list[Part] = []
    share: float = 0.0


class SampleSheet(Record, tag="sample"):
    """Pictures were written: `path` of their samples.json relative to the run directory."""

    stage: str
    path: str


class CheckpointWritten(Record, tag="checkpoint"):
    """Weights were saved: `path` relative to the run directory, `label` is `last` or `best`."""

    stage: str
    path: str
    step: int = 0
    label: str = "last"


class WarningNote(Record, tag="warning"):
    """Something a reader of the numbers must know."""

    text: str
    stage: str = ""


class ErrorNote(Record, tag="error"):
    """Why the run failed; the traceback is in engine.log."""

    text: str
    stage: str = ""
    hint: str = ""


class Message(Record, tag="message"):
    """A remark on what the engine is doing."""

    text: str
    stage: str = ""


AnyRecord = (
    StageChange | Scalars | Cell | Progress | SampleSheet | CheckpointWritten | WarningNote | ErrorNote | Message
)

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What bytes that are no record raise."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AnyRecord)


def to_number(value: float) -> Number:
    """A float as it is written: NaN and infinities as text, since JSON has none."""
    if math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def to_float(value: Number) -> float:
    """The inverse of `to_number`; null and unreadable text become NaN."""
    if isinstance(value, str):
        return {"inf": math.inf, "-inf": -math.inf}.get(value, math.nan)
    return math.nan if value is None else float(value)


def encode(record: Record) -> bytes:
    """One line, newline included."""
    return to_json(record) + b"\n"


def to_json(value: object) -> bytes:
    """The value as UTF-8 JSON; a question mark stands for what UTF-8 cannot hold, such as bytes of a file name.

    Letters of all languages stay as they are. What a terminal would obey, or not show, is escaped: C1 controls,
    marks that turn the direction of writing, spaces without width and the like.
    """
    try:
        data = _encoder.encode(value)
    except UnicodeEncodeError:
        import json  # 2 ms that nearly nobody needs

        data = json.dumps(msgspec.to_builtins(value), ensure_ascii=False).encode(errors="replace")
    if data.isascii() and b"\x7f" not in data:  # JSON itself escapes the controls below the space
        return data
    text = data.decode()
    return data if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text).encode()


def _escaped(sign: str) -> str:
    """The character as JSON escapes it, in one or two units of UTF-16."""
    units = sign.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def to_dict(record: Record) -> dict[str, Any]:
    """The record as plain values, as it stands in the file."""
    return dict(msgspec.to_builtins(record))


def decode_lines(chunk: bytes) -> list[AnyRecord]:
    """The records of complete lines; lines that are none are passed over."""
    return decode(chunk)[0]


def decode(chunk: bytes) -> tuple[list[AnyRecord], int]:
    """The records of complete lines, and how many lines are none."""
    try:
        records: list[AnyRecord] = _decoder.decode_lines(chunk)
    except UNREADABLE:
        return _decode_each(chunk)
    return (records, 0) if one_a_line(chunk, len(records)) else _decode_each(chunk)


def one_a_line(chunk: bytes, records: int) -> bool:
    """Whether complete lines out of which so many records were decoded at once hold exactly one each.

    msgspec also takes two records on one line, and a record broken over lines where a chunk holds all of it. Neither
    can be where as many lines as there are records begin and end like the writer's.
    """
    whole = chunk.startswith(BEGINNING) and chunk.endswith(b"}\n")
    # A longer text is found sooner: it lets the search jump.
    return not chunk or (whole and records == chunk.count(b"\n") == chunk.count(b"}\n" + BEGINNING) + 1)


def _decode_each(chunk: bytes) -> tuple[list[AnyRecord], int]:
    records: list[AnyRecord] = []
    skipped = 0
    for line in chunk.split(b"\n"):
        if not line.strip():
            continue
        try:
            records.append(_decoder.decode(line))
        except UNREADABLE:
            skipped += 1
    return records, skipped


class RecordReader:
    """Reads what was appended to a records file since the last call.

    `skipped` counts complete lines that are no record of a known kind. A file that became shorter is read again
    from its start; `restarts` counts how often. `more` tells whether the file went on behind what was read last.
    Nothing is read behind the byte `limit`, where a line must begin.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.skipped = 0
        self.restarts = 0
        self.more = False
        self.limit: int | None = None

    def read(self, max_bytes: int = 1 << 20) -> list[AnyRecord]:
        """The new complete records, at most about `max_bytes` of them (the rest comes with the next call).

        None are there only if no record follows: lines that are none are passed over at once. A file that cannot be
        read (yet, or any more, or for a moment over NFS) has no news. A single line longer than `max_bytes` is read
        whole.
        """
        while chunk := self._chunk(max_bytes):
            records, skipped = decode(chunk)
            self.skipped += skipped
            if records:
                return records
        return []

    def _chunk(self, max_bytes: int) -> bytes:
        """The next complete lines; empty without any."""
        self.more = False
        try:
            with open(self.path, "rb", opener=regular) as file:
                size = file.seek(0, 2)
                if size < self.offset:
                    self.offset = 0
                    self.restarts += 1
                if self.offset in (size, self.limit):
                    return b""
                file.seek(self.offset)
                chunk = file.read(max_bytes if self.limit is None else min(max_bytes, self.limit - self.offset))
                if b"\n" not in chunk and len(chunk) == max_bytes:
                    chunk += file.readline()
        except OSError:
            return b""
        self.more = self.offset + len(chunk) < size
        end = chunk.rfind(b"\n") + 1
        self.offset += end
        return chunk[:end]
