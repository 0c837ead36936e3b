"""Scalars as columns of numbers: what a view of many records needs, in two thirds of the time that records take.

The lines of a stage nearly all hold the same names. Once these are known, a decoder that expects them is made, and
decodes the next chunk without a dictionary for each line. Any other line makes it fail, and the chunk is then decoded
as ever: both ways give the same columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple, cast

import msgspec
from msgspec import NODEFAULT, UNSET, UnsetType, field

from engine.contract.run.records import (
    BEGINNING,
    UNREADABLE,
    AnyRecord,
    Cell,
    CheckpointWritten,
    ErrorNote,
    Message,
    Number,
    Progress,
    RecordReader,
    SampleSheet,
    Scalars,
    StageChange,
    Step,
    WarningNote,
    decode,
    one_a_line,
    to_float,
)

MOST_NAMES: Final = 256
"""Names for which a decoder is made; a stage of ours has twenty."""
OTHERS: Final = StageChange | Cell | Progress | SampleSheet | CheckpointWritten | WarningNote | ErrorNote | Message


class Curve(NamedTuple):
    """The values of one name where it occurs: steps, values (NaN for null and text) and unix seconds."""

    steps: Sequence[int]
    values: Sequence[float]
    times: Sequence[float]


class Columns(NamedTuple):
    """Scalars of one stage that follow each other, by name, in the order of their records; `t` is the newest's."""

    stage: str
    t: float
    curves: dict[str, Curve]


Piece = AnyRecord | Columns


def in_columns(records: Iterable[AnyRecord]) -> Iterator[Piece]:
    """The records in their order, runs of scalars of one stage as columns."""
    for kind, group in groupby(records, key=type):
        if kind is not Scalars:
            yield from group
            continue
        for stage, part in groupby(cast(Iterable[Scalars], group), key=attrgetter("stage")):
            curves: dict[str, tuple[list[int], list[float], list[float]]] = {}
            for record in part:
                for name, value in record.values.items():
                    if name not in curves:
                        curves[name] = [], [], []
                    steps, values, times = curves[name]
                    steps.append(record.step)
                    values.append(to_float(value))
                    times.append(record.t)
            yield Columns(stage, record.t, {name: Curve(*curve) for name, curve in curves.items()})


class ColumnReader(RecordReader):
    """A reader whose records come with their scalars as columns."""

    _shape: _Shape | None = None

    def read_columns(self, max_bytes: int = 3 << 15) -> list[Piece]:
        """What `read` would bring, through `in_columns`; less at a time, which the processor's cache holds."""
        while chunk := self._chunk(max_bytes):
            found = self._shape.decode(chunk) if self._shape else None
            if found is None:
                records, skipped = decode(chunk)
                self.skipped += skipped
                self._shape = None if skipped else _shape_of(records, self._shape)
                found = list(in_columns(records))
            if found:
                return found
        return []


def _shape_of(records: Sequence[AnyRecord], before: _Shape | None) -> _Shape | None:
    """What the next scalars will be like: of the stage of the newest of these, with all names that it has had."""
    scalars = [record for record in records if isinstance(record, Scalars)]
    if not scalars:
        return before
    stage = scalars[-1].stage
    names = dict.fromkeys(before.names if before and before.stage == stage else ())
    for record in scalars:
        if record.stage == stage:
            names.update(dict.fromkeys(record.values))
    if not 0 < len(names) <= MOST_NAMES or not all(name.isprintable() and not {*'"\\'} & {*name} for name in names):
        return None
    return _Shape(stage, list(names))


class _Shape:
    """Decodes chunks whose scalars are all of this stage and have none but these names."""

    def __init__(self, stage: str, names: Sequence[str]) -> None:
        self.stage, self.names = stage, names
        fields = [(f"f{i}", Number | UnsetType, field(default=UNSET, name=name)) for i, name in enumerate(names)]
        values: Any = msgspec.defstruct("Values", fields, forbid_unknown_fields=True, gc=False)
        self._getters = [attrgetter(name) for name, *_ in fields]
        rest: list[tuple[str, Any, Any]] = [
            ("step", Step, NODEFAULT),
            ("epoch", float, 0.0),
            ("values", values, field(default_factory=values)),
            ("v", int, 1),
            ("t", float, 0.0),
        ]
        self._kind: Any = msgspec.defstruct(
            "Shaped", [("stage", Literal[stage]), *rest], tag_field="kind", tag="scalars", gc=False
        )
        self._decoder: Any = msgspec.json.Decoder(self._kind | OTHERS)
        self._beginning = BEGINNING + b'scalars","stage":' + msgspec.json.encode(stage) + b',"step":'
        rest_kind: Any = msgspec.defstruct("Rest", rest, forbid_unknown_fields=True, gc=False)
        self._rest_decoder: Any = msgspec.json.Decoder(list[rest_kind])

    def decode(self, chunk: bytes) -> list[Piece] | None:
        """The records and columns of complete lines; None if any line is of another shape."""
        if (alike := self._decode_alike(chunk)) is not None:
            return [self._columns(alike)]
        try:
            found = self._decoder.decode_lines(chunk)
        except UNREADABLE:
            return None
        if not one_a_line(chunk, len(found)):
            return None
        pieces: list[Piece] = []
        for kind, group in groupby(found, key=type):
            part = list(group)
            pieces += [self._columns(part)] if kind is self._kind else part
        return pieces

    def _decode_alike(self, chunk: bytes) -> Sequence[Any] | None:
        """The records where every line begins as the writer begins scalars of this stage; else None.

        What all lines begin with is cut out, for a text takes the longer to decode the longer it is. No rest reaches
        into another: the quotes between them would end a string, and no field of a record is a list of objects.
        """
        if not (chunk.startswith(self._beginning) and chunk.endswith(b"}\n")):
            return None
        rests = chunk[len(self._beginning) : -2].split(b"}\n" + self._beginning)
        text = b'[{"step":' + b'},{"step":'.join(rests) + b"}]"
        if b"\n" in text:
            return None
        try:
            found: list[Any] = self._rest_decoder.decode(text)
        except UNREADABLE:
            return None
        return found if len(found) == len(rests) else None

    def _columns(self, records: Sequence[Any]) -> Columns:
        steps, times = [record.step for record in records], [record.t for record in records]
        values = [record.values for record in records]
        curves = {}
        for name, getter in zip(self.names, self._getters, strict=True):
            column = list(map(getter, values))
            try:
                sum(column)  # fails at the first that is no number, and is the quickest way to know that there is none
            except TypeError:
                given = [place for place, value in enumerate(column) if value is not UNSET]
                if given:
                    curves[name] = Curve(
                        [steps[place] for place in given],
                        [to_float(column[place]) for place in given],
                        [times[place] for place in given],
                    )
            else:
                curves[name] = Curve(steps, column, times)
        return Columns(self.stage, times[-1], curves)
