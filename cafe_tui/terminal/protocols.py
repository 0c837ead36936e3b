"""Pictures that the terminal draws itself, and which of the ways to have them drawn it knows.

Textual knows cells only. A picture is therefore given to it as characters that nothing else uses, one for each cell of
its box, and where those are to be shown `repaint` sends the picture instead. So it is sent when it comes into view and
not again, whatever is repainted around it, and what covers it or takes its place needs to know nothing of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final, Literal, NamedTuple, get_args

from cafe_tui.terminal.half_cells import Cell

Way = Literal["cells", "kitty", "sixel"]
"""Half cells, as everywhere; or a protocol."""
VARIABLE: Final = "CAFE_PICTURES"
INSTALL: Final = "pip install 'cafe-tui[images]'"
KITTY_TERMS: Final = ("xterm-kitty", "xterm-ghostty")
SIXEL_TERMS: Final = ("foot", "foot-extra", "mlterm")
PROGRAMS: Final[Mapping[str, Way]] = {"ghostty": "kitty", "WezTerm": "sixel", "iTerm.app": "sixel"}
"""By TERM_PROGRAM. WezTerm knows the kitty protocol too, but not the placeholders in which pictures are sent here."""

ASSUMED: Final = Cell(10, 20)
"""Of a terminal that does not tell: textual-image's assumption too, which no kitty minds, as it scales pictures."""
FIRST, LAST = "\U00100000", "\U0010fffd"
"""The characters that stand for cells of pictures: private ones, which `format.printable` lets nobody else show."""


class PicturesUnavailable(ValueError):
    """The way asked for by the variable CAFE_PICTURES does not exist or is not installed; `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}\n{hint}")
        self.message = message
        self.hint = hint


class Choice(NamedTuple):
    """A way to show pictures, and what speaks for it."""

    way: Way
    why: str


def choose(environment: Mapping[str, str], cell: Cell | None, *, installed: bool, slow: bool = False) -> Choice:
    """How pictures are shown in a terminal with such an environment and such cells (None: unknown).

    Raises PicturesUnavailable when the variable CAFE_PICTURES asks for what there is not.
    """
    ways: dict[str, Way] = {way: way for way in get_args(Way)}
    if asked := environment.get(VARIABLE):
        if asked not in ways:
            raise PicturesUnavailable(
                f"{VARIABLE}={asked!r} is no way to show pictures", f"There are: {', '.join(ways)}."
            )
        if asked != "cells" and not installed:
            raise PicturesUnavailable(f"{VARIABLE}={asked} needs textual-image", f"{INSTALL} brings it.")
        return Choice(ways[asked], f"{VARIABLE} says so")
    way, sign = _known(environment)
    if way == "cells":
        return Choice(way, "this is not known to be a terminal with a protocol for pictures")
    if against := _against(environment, way, cell, installed, slow):
        return Choice("cells", f"{sign} speaks for {way}, but {against}")
    return Choice(way, sign)


def _known(environment: Mapping[str, str]) -> tuple[Way, str]:
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if term in KITTY_TERMS or term in SIXEL_TERMS:
        return "kitty" if term in KITTY_TERMS else "sixel", f"TERM={term}"
    if "KITTY_WINDOW_ID" in environment:
        return "kitty", "KITTY_WINDOW_ID"
    return PROGRAMS.get(program, "cells"), f"TERM_PROGRAM={program}"


def _against(environment: Mapping[str, str], way: Way, cell: Cell | None, installed: bool, slow: bool) -> str:
    """What speaks against a protocol that the terminal knows; empty when nothing does."""
    for variable, program in (("TMUX", "tmux"), ("STY", "screen")):
        if variable in environment:
            return f"{program} is in between"
    if slow or "NO_COLOR" in environment:
        return "the line is slow" if slow else "NO_COLOR is set"
    if not installed:
        return f"textual-image is missing: {INSTALL}"
    return "the terminal does not tell the size of its cells" if way == "sixel" and cell is None else ""


def installed() -> bool:
    """Whether textual-image is there. Does not import it, which would take 200 ms and ask the terminal questions."""
    return find_spec("textual_image") is not None


def terminal_cell() -> Cell | None:
    """The pixels of a cell, if this is a terminal that tells its kernel; nothing is asked of the terminal itself."""
    from array import array
    from fcntl import ioctl
    from termios import TIOCGWINSZ

    for stream in (sys.__stderr__, sys.__stdout__, sys.__stdin__):
        answer = array("H", [0, 0, 0, 0])
        try:
            if stream is None or not os.isatty(stream.fileno()):
                continue
            ioctl(stream.fileno(), TIOCGWINSZ, answer)
        except (OSError, ValueError):
            continue
        rows, columns, across, down = answer
        if rows and columns and across >= columns and down >= rows:
            return Cell(across // columns, down // rows)
    return None


@dataclass(frozen=True, eq=False)
class EncodedPicture:
    """A picture as the terminal takes it, in a box of `rows` x `columns` cells.

    A sixel picture is painted at the cursor by its `message`. By the kitty protocol `message` makes the picture known
    as `number`; what is then to be written in each cell is in `placeholders`, and `style` says of which picture.
    """

    columns: int
    rows: int
    message: str
    number: int = 0
    placeholders: tuple[tuple[str, ...], ...] = ()
    style: str = ""


def farewell(number: int) -> str:
    """What lets a terminal free a picture that it keeps by this number."""
    return f"\x1b_Ga=d,d=I,i={number},q=2\x1b\\"


class PictureCell(NamedTuple):
    """A cell of a picture."""

    picture: EncodedPicture
    row: int
    column: int


class Placements:
    """The pictures that may be on screen. Filled by widgets, looked into by the thread that writes to the terminal."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self._cells: dict[str, PictureCell] = {}
        self._next = ord(FIRST)

    def cell(self) -> Cell:
        """Pixels of a cell now: a terminal changes them with the size of its letters."""
        return (terminal_cell() if self.way == "sixel" else None) or ASSUMED

    def add(self, picture: EncodedPicture) -> list[str]:
        """Make room for a picture; the rows of characters that stand for it."""
        if self._next + picture.rows * picture.columns > ord(LAST):
            self._next = ord(FIRST)  # more than two full screens later: what had these characters is out of sight
        rows = []
        for row in range(picture.rows):
            characters = [chr(self._next + column) for column in range(picture.columns)]
            self._cells |= {text: PictureCell(picture, row, column) for column, text in enumerate(characters)}
            self._next += picture.columns
            rows.append("".join(characters))
        return rows

    def remove(self, rows: Iterable[str]) -> None:
        """Forget the picture for which these characters stand."""
        for character in "".join(rows):
            self._cells.pop(character, None)

    def at(self, character: str) -> PictureCell | None:
        """What a character stands for."""
        return self._cells.get(character)
