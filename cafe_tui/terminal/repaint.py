"""Only cells that changed go to the terminal.

Textual repaints a line from the left edge of a widget, and a scroll bar whole, whatever of them changed. Over a slow
line that is most of what is sent. What it writes is a small language (move, style, text), so it can be read back into
cells and compared with what the terminal shows already.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Final

from rich.cells import cell_len

from cafe_tui.terminal.protocols import FIRST, EncodedPicture, Placements, farewell

Cell = tuple[str, str]
"""A character and the parameters of its style; the second half of a wide character is an empty string."""
Row = list[Cell | None]
"""The cells of a line; what is not known is None, and so is all behind its end."""

NEAR: Final = 5
"""Unchanged cells that cost less to send again than to jump over."""
TOKENS: Final = re.compile(
    r"\x1b\[(?P<style>[\d;:]*)m(?:(?P<styled>[^\x00-\x1f\x7f]+)(?P<reset>\x1b\[0m)?)?"  # most often all of it
    r"|(?P<move>\x1b\[(?P<row>\d*);?(?P<column>\d*)H)"
    r"|(?P<sync>\x1b\[\?2026[hl])"
    r"|(?P<other>\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[PX^_].*?\x1b\\|\x1b[^\[\]PX^_]"
    r"|[\x00-\x09\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f])"
    r"|(?P<return>\r)|(?P<line>\n)"
    r"|(?P<text>[^\x00-\x1f\x7f]+)",
    re.DOTALL,
)
STYLED: Final = ("style", "styled", "reset")
"""The last group of a token that sets a style."""
PLACING: Final = ("text", "styled", "reset", "move", "return", "line")
"""The last groups of tokens after which the cursor is where the program knows it."""
HARMLESS: Final = re.compile(r"\x1b\[(\?[\d;]+([hl]|\$p)|[<>=?][\d;]*u|c|\d+n|\d*t|\d+ q)|\x1b\]|\x1b_Ga=d|\x07")
"""Sequences that change no cell: modes, queries, titles, the clipboard, the end of a picture that is out of sight."""
SCREENS: Final = re.compile(r"\x1b\[\?(47|1047|1049)[hl]")
"""Modes that do: the alternate screen."""
CURSOR: Final = {"\x1b[?25l": True, "\x1b[?25h": False}
"""Whether it is hidden from then on."""
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"


class Repaint:
    """What a terminal shows, and what it is to show.

    `feed` takes what a program writes, `take` gives what remains of it. Anything that is not understood goes to the
    terminal as it is, and everything is then painted anew. Characters that stand for pictures of `placements` are
    replaced by those.
    """

    def __init__(self, placements: Placements | None = None) -> None:
        self._placements = placements
        self._known: set[int] = set()  # numbers of the pictures that the terminal keeps
        self._wanted: dict[int, Row] = {}
        self._shown: dict[int, Row] = {}
        self._touched: dict[int, tuple[int, int]] = {}  # of each row, the columns in which it may have changed
        self._with_wide: set[int] = set()  # rows that have had wide characters
        self._row = self._column = 0
        self._placed = False  # the cursor, by the program: until then it is where the terminal has it
        self._style = ""
        self._sync = False
        self._hidden = False  # the cursor, which may then be anywhere
        self._out: list[str] = []
        self._rest = ""  # the beginning of a sequence that is not complete yet
        self._at: tuple[int, int] | None = None  # where the terminal's cursor is, if that is known
        self._worn: str | None = None  # the style that it has

    def forget(self) -> None:
        """The terminal may show anything now, as after a change of its size; what was fed before is void."""
        self._wanted, self._shown, self._touched, self._with_wide = {}, {}, {}, set()
        self._known = set()
        self._at = self._worn = None

    def feed(self, text: str) -> None:
        """Take what a program writes."""
        text, self._rest = self._rest + text, ""
        end = 0
        for token in TOKENS.finditer(text):
            if token.start() != end:
                break
            end = token.end()
            self._obey(token)
        if end < len(text):
            self._rest = text[end:]
            if len(self._rest) > 64 and not self._rest.startswith(("\x1b]", "\x1bP", "\x1b_", "\x1bX", "\x1b^")):
                self._pass(self._rest)
                self._rest = ""

    def take(self) -> str:
        """What the terminal needs, to show all that was fed."""
        self._paint()
        known = bool(self._out) or self._at is not None
        if self._out:
            self._undress()
        if known and self._placed and not self._hidden and (self._row, self._column) != self._at:
            self._move(self._row, self._column)
        text = "".join(self._out)
        if text and self._sync:
            text = f"{BEGIN}{text}{END}"
        self._out, self._sync = [], False
        return text

    # --- reading -----------------------------------------------------------------------------------------------------

    def _obey(self, token: re.Match[str]) -> None:
        kind = token.lastgroup
        self._placed = self._placed or kind in PLACING
        if kind in STYLED:
            self._obey_style(*token.group("style", "styled", "reset"))
        elif kind == "text":
            self._put(token["text"])
        elif kind == "move":
            self._row, self._column = int(token["row"] or 1) - 1, int(token["column"] or 1) - 1
        elif kind == "sync":
            self._sync = True
        elif kind == "return":
            self._column = 0
        elif kind == "line":
            self._row += 1
        else:
            self._pass(token["other"])

    def _obey_style(self, given: str, text: str | None, reset: str | None) -> None:
        """Take on a style, then the text that was written in it and the reset behind that, if there are any."""
        # A program that adds to a style instead of setting it anew after a reset is followed too.
        if given.startswith("0;") or given in ("", "0"):
            self._style = given[2:]
        else:
            self._style = f"{self._style};{given}" if self._style else given
        if text:
            self._put(text)
        if reset:
            self._style = ""

    def _pass(self, sequence: str) -> None:
        self._paint()
        self._undress()
        screens = SCREENS.match(sequence)
        harmless = HARMLESS.match(sequence) and not screens
        if not harmless and self._placed and (self._row, self._column) != self._at:
            self._move(self._row, self._column)
        if screens:  # beyond it, pictures are out of reach
            self._out += map(farewell, sorted(self._known))
            self._placed = False  # on the other screen it is where that was left, as a shell left its own
        self._out.append(sequence)
        self._hidden = CURSOR.get(sequence, self._hidden)
        if not harmless:
            self.forget()

    def _put(self, text: str) -> None:
        """Write text at the cursor, in the present style, into what is wanted of the cursor's row."""
        row = self._wanted.setdefault(self._row, [])
        start = self._column
        # Nothing was ever written between the end of the row and the cursor, so nobody knows what those cells show.
        if len(row) < start:
            row.extend([None] * (start - len(row)))
        # Mostly each character takes one cell; only else each has to be looked at.
        if text.isascii() or cell_len(text) == len(text):
            cells = list(zip(text, repeat(self._style)))
        else:
            cells = list(self._wide(text))
            self._with_wide.add(self._row)
        end = start + len(cells)
        # The text may begin or end in the middle of a wide character. What then stays of its other half differs
        # between terminals: that cell is unknown, and is sent again when something is next written there.
        if start and _is_second_half(row, start):
            row[start - 1] = None
        if _is_second_half(row, end):
            row[end] = None
        row[start:end] = cells
        # `_paint` compares no more of a row than what was written since the last frame.
        first, last = self._touched.get(self._row, (start, end))
        self._touched[self._row] = min(first, start), max(last, end)
        self._column = end

    def _wide(self, text: str) -> Iterator[Cell]:
        held = ""
        for character in text:
            cells = cell_len(character)
            if cells == 0 and held:
                held += character
                continue
            if held:
                yield from self._cells(held)
            held = character
        if held:
            yield from self._cells(held)

    def _cells(self, cluster: str) -> Iterator[Cell]:
        yield cluster, self._style
        if cell_len(cluster[0]) == 2:
            yield "", self._style

    # --- writing -----------------------------------------------------------------------------------------------------

    def _paint(self) -> None:
        for picture, top, left in self._pictures_to_send():
            if not picture.number:
                self._paint_picture(picture, top, left)
            elif picture.number not in self._known:
                self._known.add(picture.number)
                self._out.append(picture.message)
        for row, (first, end) in sorted(self._touched.items()):
            self._paint_row(row, first, end)
        self._touched = {}

    def _paint_row(self, row: int, first: int, end: int) -> None:
        """Send what the columns [first, end) of a row show no longer as it is wanted."""
        wanted, shown = self._wanted[row], self._shown.setdefault(row, [])
        shown += [None] * (len(wanted) - len(shown))
        if row in self._with_wide:
            first, end = 0, len(wanted)
        if wanted[first:end] == shown[first:end]:
            return
        pairs = zip(wanted[first:end], shown[first:end], strict=True)
        changed = [i for i, (new, old) in enumerate(pairs, first) if new != old]
        # All cells are sent where characters are wide, as terminals differ in what those are.
        if row in self._with_wide and any(cell and len(cell[0]) != 1 for cell in (*wanted, *shown)):
            changed = list(range(len(wanted)))
        for start, behind in _runs(wanted, changed):
            for column, cells in self._with_placeholders(start, wanted[start:behind]):
                self._write(row, column, cells)
        shown[first:end] = wanted[first:end]

    def _pictures_to_send(self) -> list[tuple[EncodedPicture, int, int]]:
        """Those of which cells are wanted that are not shown, with the row and column of their upper left corners."""
        if self._placements is None:
            return []
        missing: dict[tuple[EncodedPicture, int, int], None] = {}
        for row in sorted(self._touched):
            wanted, shown = self._wanted.get(row, []), self._shown.get(row, [])
            if wanted == shown:
                continue
            for column, cell in enumerate(wanted):
                if cell and cell[0] >= FIRST and shown[column : column + 1] != [cell]:
                    placed = self._placements.at(cell[0])
                    if placed:
                        missing[placed.picture, row - placed.row, column - placed.column] = None
        return list(missing)

    def _paint_picture(self, picture: EncodedPicture, top: int, left: int) -> None:
        """Send all of a sixel picture, on blank cells; what covers a part of it is then painted again."""
        assert self._placements is not None
        for y in range(picture.rows):
            row = self._wanted.setdefault(top + y, [])
            cells: Row = []
            for cell in (row + [None] * (left + picture.columns))[left : left + picture.columns]:
                placed = cell and self._placements.at(cell[0])
                cells.append(cell if placed and placed.picture is picture else None)
            self._write(top + y, left, [(" ", cell[1] if cell else "") for cell in cells])
            shown = self._shown.setdefault(top + y, [])
            shown += [None] * (left - len(shown))
            shown[left : left + picture.columns] = cells
            self._touched[top + y] = (0, len(row))
        self._undress()
        self._move(top, left)
        self._out.append(picture.message)
        self._at = None

    def _with_placeholders(self, start: int, cells: Row) -> Iterator[tuple[int, Row]]:
        """The cells from column `start` on as they are written, in parts: sixel pictures are left out."""
        if self._placements is None or not any(cell and cell[0] >= FIRST for cell in cells):
            yield start, cells
            return
        part: Row = []
        for column, cell in enumerate(cells, start):
            assert cell is not None
            written = _as_written(cell, self._placements)
            if written is not None:
                part.append(written)
            elif part:
                yield column - len(part), part
                part = []
        if part:
            yield start + len(cells) - len(part), part

    def _write(self, row: int, column: int, cells: Row) -> None:
        if (row, column) != self._at:
            self._move(row, column)
        for cell in cells:
            assert cell is not None
            text, style = cell
            if style != self._worn:
                self._out.append(f"\x1b[0;{style}m" if style else "\x1b[0m")
                self._worn = style
            self._out.append(text)
        self._at = (row, column + len(cells))

    def _undress(self) -> None:
        """Leave no style behind, whatever may be written next by whom."""
        if self._worn:
            self._out.append("\x1b[0m")
            self._worn = ""

    def _move(self, row: int, column: int) -> None:
        self._out.append(f"\x1b[{row + 1};{column + 1}H")
        self._at = (row, column)


def _runs(wanted: Row, changed: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The runs of cells to be sent for the changed ones, as far as these are known."""
    start = end = None
    for i in changed:
        if wanted[i] is None:
            continue
        if start is None or end is None:
            start = i
        elif i > end + NEAR or None in wanted[end:i]:
            yield start, end + 1
            start = i
        end = i
    if start is not None and end is not None:
        yield start, end + 1


def _is_second_half(row: Row, column: int) -> bool:
    """Whether a wide character begins in the cell before this one."""
    cell = row[column] if column < len(row) else None
    return cell is not None and not cell[0]


def _as_written(cell: Cell, placements: Placements) -> Cell | None:
    """A cell with the kitty placeholder of its picture, if it is one of a picture; None for one of a sixel picture."""
    character, style = cell
    if character < FIRST:
        return cell
    placed = placements.at(character)
    if placed is None:
        return " ", style  # the picture was removed already
    picture = placed.picture
    if not picture.number:
        return None
    return picture.placeholders[placed.row][placed.column], f"{style};{picture.style}" if style else picture.style
