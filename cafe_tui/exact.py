"""Every point of a part of a long run, read again from its records.

A series keeps a few thousand buckets. Where a picture shows fewer steps than a bucket holds, the points themselves are
wanted; an index of where which steps are in the file finds them without reading all of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from cafe_tui.series import Series
from engine.contract.records import Scalars, decode_lines, to_float

Key = tuple[str, str]
"""Stage and name of a series."""
PIECE: Final = 1 << 18
"""Bytes of the file that have one entry in the index."""
MOST_BYTES: Final = 24 << 20
"""Of records that are read for one part: a fifth of a second's worth."""
MOST_POINTS: Final = 200_000


class Place(NamedTuple):
    """The first scalars at or behind a byte of the file: their stage and step; nothing there has an empty stage."""

    offset: int
    stage: str
    step: int


class ExactReader:
    """Reads parts of one records file, which may grow, tear and vanish. For one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: list[Place] = []
        self._size = 0

    def read(self, keys: Iterable[Key], low: int, high: int) -> dict[Key, Series] | None:
        """The points of series of one stage at steps in [low, high), as a series has them after resumes.

        None where they are too many, or the file cannot be read.
        """
        wanted = list(keys)
        stages = {stage for stage, _ in wanted}
        try:
            with self._path.open("rb") as file:
                self._index(file)
                pieces = self._touching(stages, low, high)
                if sum(end - begin for begin, end in pieces) > MOST_BYTES:
                    return None
                found = {key: Series(capacity=MOST_POINTS) for key in wanted}
                for begin, end in pieces:
                    _collect(file, begin, end, found)
        except OSError:
            return None
        if any(series.width > 1 for series in found.values()):
            return None
        return {key: series.part(low, high) for key, series in found.items()}

    def _index(self, file: BinaryIO) -> None:
        """Bring the index up to the end of the file."""
        size = file.seek(0, os.SEEK_END)
        if size < self._size:
            self._places = []
        self._size = size
        begin = self._places[-1].offset // PIECE * PIECE + PIECE if self._places else 0
        for offset in range(begin, size, PIECE):
            self._places.append(_first_scalars(file, offset))

    def _touching(self, stages: set[str], low: int, high: int) -> list[tuple[int, int]]:
        """Byte ranges that may hold such steps: whole pieces, all that are not known to hold none."""
        ranges = []
        ends = [*self._places[1:], Place(self._size, "", 0)]
        for place, after in zip(self._places, ends, strict=True):
            ours = place.stage in stages or place.stage != after.stage  # which may hide a short stage between them
            ascending = place.stage == after.stage and place.step <= after.step
            if ours and not (ascending and (after.step < low or place.step >= high)):
                ranges.append((place.offset, after.offset))
        return ranges


def _first_scalars(file: BinaryIO, offset: int) -> Place:
    """The first scalars that begin at or behind a byte, within a piece."""
    file.seek(max(offset - 1, 0))
    if offset:
        file.readline()  # the line that the byte before belongs to
    begin = file.tell()
    while file.tell() < offset + PIECE and (line := file.readline()):
        for record in decode_lines(line):
            if isinstance(record, Scalars):
                return Place(begin, record.stage, record.step)
    return Place(begin, "", 0)


def _collect(file: BinaryIO, begin: int, end: int, found: dict[Key, Series]) -> None:
    file.seek(begin)
    chunk = file.read(end - begin)
    for record in decode_lines(chunk[: chunk.rfind(b"\n") + 1]):
        if isinstance(record, Scalars):
            for name, value in record.values.items():
                if (series := found.get((record.stage, name))) is not None:
                    series.append(record.step, to_float(value), record.t)
