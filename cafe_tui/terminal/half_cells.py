"""Small pictures as half cells: two pixels, one above the other, in each character. Pure: nothing is read or drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final, NamedTuple

RGB = tuple[int, int, int]
"""Red, green and blue, 0-255 each."""

HALF_BLOCK: Final = "▀"
RAMP: Final = " .:-=+*#%@"
"""From dark to bright, for terminals without enough colours."""
WIDEST_ZOOM: Final = 32
"""Cells up to which a small picture is enlarged: beyond it, the digits only get coarser."""


@dataclass(frozen=True)
class Picture:
    """Pixels row by row, three bytes (RGB) each: `width` x `height` of them, every `every`th of the picture's file."""

    width: int
    height: int
    pixels: bytes
    every: int = 1

    def row(self, y: int) -> list[RGB]:
        """The pixels of one row."""
        line = self.pixels[3 * self.width * y : 3 * self.width * (y + 1)]
        return list(zip(line[::3], line[1::3], line[2::3], strict=True))


class Cell(NamedTuple):
    """The dots across and down that a cell of the terminal has."""

    width: int
    height: int


HALVES: Final = Cell(1, 2)
"""A cell as two half cells."""


class Scale(NamedTuple):
    """Every `every`th pixel becomes `zoom` x `zoom` dots; one of the two is 1."""

    zoom: int = 1
    every: int = 1

    def cells(self, width: int, height: int, cell: Cell = HALVES) -> tuple[int, int]:
        """Columns and rows of cells that `width` x `height` pixels take."""
        across, down = -(-width // self.every) * self.zoom, -(-height // self.every) * self.zoom
        return -(-across // cell.width), -(-down // cell.height)


class Run(NamedTuple):
    """Cells side by side that look the same; `lower` is None below the last row of an odd height."""

    cells: int
    upper: RGB
    lower: RGB | None


def scale_for(width: int, height: int, cells: int, rows: int, cell: Cell = HALVES) -> Scale:
    """The largest whole scale at which `width` x `height` pixels (1 and up) fit into `cells` x `rows` (1 and up)."""
    across, down = cells * cell.width, rows * cell.height
    zoom = min(across // width, down // height)
    if zoom >= 1:
        return Scale(zoom=min(zoom, max(WIDEST_ZOOM * cell.width // width, 1)))
    return Scale(every=max(-(-width // across), -(-height // down)))


def half_cells(picture: Picture, scale: Scale) -> list[list[Run]]:
    """The picture as rows of runs, by nearest neighbour: no colour appears that is not in it."""
    rows = list(_scaled(picture, scale))
    lowers: list[list[RGB] | list[None]] = [*rows[1::2], *([[None] * len(rows[-1])] if len(rows) % 2 else [])]
    return [
        [Run(sum(1 for _ in same), *pair) for pair, same in groupby(zip(upper, lower, strict=True))]
        for upper, lower in zip(rows[::2], lowers, strict=True)
    ]


def _scaled(picture: Picture, scale: Scale) -> Iterator[list[RGB]]:
    for y in range(0, picture.height, scale.every):
        row = [pixel for pixel in picture.row(y)[:: scale.every] for _ in range(scale.zoom)]
        for _ in range(scale.zoom):
            yield row


def brightness(colour: RGB) -> float:
    """How bright a colour looks, 0-1 (the luma of ITU-R BT.601)."""
    red, green, blue = colour
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255


def ramp_character(run: Run) -> str:
    """The character of `RAMP` that is as bright as the two halves of a cell together."""
    halves = [run.upper, run.lower or run.upper]
    mean = sum(map(brightness, halves)) / 2
    return RAMP[round(mean * (len(RAMP) - 1))]
