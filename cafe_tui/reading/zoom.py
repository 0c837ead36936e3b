"""Every point of a part of a long run, read again from its records.

A series keeps a few thousand buckets. Where a picture shows fewer steps than a bucket holds, the points themselves are
wanted; an index of where which steps are in the file finds them without reading all of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from cafe_tui.charts.series import Series
from engine.contract.run.columns import Columns, in_columns
from engine.contract.run.opening import regular
from engine.contract.run.records import Scalars, decode_lines

Key = tuple[str, str]
"""Stage and name of a series."""
PIECE: Final = 1 << 18
"""Bytes of the file that have one entry in the index."""
MOST_BYTES: Final = 16 << 20
"""Of records that are read for one part: a fifth of a second's worth."""
STAGE_CHANGE: Final = b'"kind":"stage"'
"""Stands in a line that begins, resumes or ends a stage: only there do steps go back."""
MOST_POINTS: Final = 200_000


class Place(NamedTuple):
    """A piece of the file, which begins with a line: stage and step of its first scalars, no stage without any.

    `even` tells that no stage begins or resumes in it, so that the steps of its scalars rise.
    """

    offset: int
    stage: str
    step: int
    even: bool


class ZoomReader:
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
            with open(self._path, "rb", opener=regular) as file:
                self._index(file)
                pieces = self._touching(stages, low, high)
                if sum(end - begin for begin, end in pieces) > MOST_BYTES:
                    return None
                curves = {key: Series(capacity=MOST_POINTS) for key in wanted}
                for begin, end in pieces:
                    _collect(file, begin, end, curves)
        except OSError:
            return None
        if any(series.width > 1 for series in curves.values()):
            return None
        return {key: series.part(low, high) for key, series in curves.items()}

    def _index(self, file: BinaryIO) -> None:
        """Bring the index up to the end of the file; the last piece may have grown, or ended within a line."""
        if file.seek(0, os.SEEK_END) < self._size:
            self._places = []
        begin = self._places.pop().offset if self._places else 0
        file.seek(begin)
        while chunk := file.read(PIECE) + file.readline():
            self._places.append(_place(begin, chunk))
            begin += len(chunk)
        self._size = begin

    def _touching(self, stages: set[str], low: int, high: int) -> list[tuple[int, int]]:
        """Byte ranges that may hold such steps: whole pieces, all that are not known to hold none."""
        ranges = []
        ends = [*self._places[1:], Place(self._size, "", 0, even=False)]
        for place, after in zip(self._places, ends, strict=True):
            known = place.even and place.stage == after.stage  # then its steps are those from its own to the next's
            outside = place.stage not in stages or after.step < low or place.step >= high
            if not (known and outside):
                ranges.append((place.offset, after.offset))
        return ranges


def _place(offset: int, chunk: bytes) -> Place:
    """The index entry of a piece of the file, by its first scalars."""
    even, start = STAGE_CHANGE not in chunk, 0
    while end := chunk.find(b"\n", start) + 1:
        for record in decode_lines(chunk[start:end]):
            if isinstance(record, Scalars):
                return Place(offset, record.stage, record.step, even)
        start = end
    return Place(offset, "", 0, even)


def _collect(file: BinaryIO, begin: int, end: int, curves: dict[Key, Series]) -> None:
    """Add the points of these bytes to the curves that want them."""
    file.seek(begin)
    chunk = file.read(end - begin)
    for piece in in_columns(decode_lines(chunk[: chunk.rfind(b"\n") + 1])):
        if isinstance(piece, Columns):
            for name, curve in piece.curves.items():
                if (piece.stage, name) in curves:
                    curves[piece.stage, name].extend(*curve)
