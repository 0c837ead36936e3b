"""Terminals that draw pictures, as far as the UI needs them: what they are sent becomes characters and pixels again."""

from __future__ import annotations

import base64
import fcntl
import os
import re
import struct
import sys
import termios
import time
import unicodedata
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pexpect
from PIL import Image

from tests.patience import PATIENCE

TOKENS = re.compile(
    r"\x1b\[(?P<row>\d*);?(?P<column>\d*)H|\x1b\[(?P<style>[\d;:]*)m|\x1b_G(?P<kitty>.*?)\x1b\\"
    r"|\x1bP\d*;(?P<around>\d*)[\d;]*q(?P<sixel>.*?)\x1b\\|(?P<screen>\x1b\[\?1049[hl])"
    r"|(?P<other>\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07)"
    r"|(?P<control>[\x00-\x1a\x1c-\x1f])|(?P<text>[^\x00-\x1f]+)",
    re.DOTALL,
)
SIXEL = re.compile(r"\"[\d;]+|#(?P<set>\d+);2;(\d+);(\d+);(\d+)|#(?P<use>\d+)|!(?P<count>\d+)(?P<what>.)|(?P<one>.)")
PLACEHOLDER = "\U0010eeee"
DIACRITICS = (
    "305 30d 30e 310 312 33d 33e 33f 346 34a 34b 34c 350 351 352 357 35b 363 364 365 366 367 368 369 36a 36b 36c 36d"
)
DIACRITICS += " 36e 36f 483 484 485 486 487"
NUMBERS = {chr(int(code, 16)): number for number, code in enumerate(DIACRITICS.split())}
"""The beginning of kitty's table: how rows and columns of a picture are written."""
NOTHING = (0, 0, 0, 0)
QUESTIONS = re.compile(r"\x1b\[(0?|>0?)c|\x1b\[1[468]t|\x1b_G[^;]*a=q")
"""What a program would ask such a terminal for its abilities, and it would answer with keys nobody pressed."""


class PictureScreen:
    """The cells and pixels of a terminal whose cells have `cell` pixels across and down."""

    def __init__(self, columns: int, lines: int, cell: tuple[int, int]) -> None:
        self.columns, self.lines, self.cell = columns, lines, cell
        self.sixels: list[int] = []
        """The length of every sixel picture that came."""
        self.sent: list[int] = []
        """The length of every picture that came by the kitty protocol."""
        self.kept: dict[int, Image.Image] = {}
        """Pictures that the terminal keeps, by their numbers."""
        self._boxes: dict[int, tuple[int, int]] = {}
        self._payloads: dict[int, str] = {}
        self._y = self._x = 0
        self._style = ""
        self._rest = ""
        self._clear()

    def _clear(self) -> None:
        self._cells = {(y, x): (" ", "") for y in range(self.lines) for x in range(self.columns)}
        self._painted = Image.new("RGBA", (self.columns * self.cell[0], self.lines * self.cell[1]), NOTHING)

    @property
    def display(self) -> list[str]:
        """The characters; placeholders of pictures are what they are."""
        return ["".join(self._cells[y, x][0] for x in range(self.columns)) for y in range(self.lines)]

    def character(self, y: int, x: int) -> str:
        """What is written in a cell."""
        return self._cells[y, x][0]

    def pixels(self) -> Image.Image:
        """All that pictures give to the screen; transparent elsewhere."""
        whole = self._painted.copy()
        width, height = self.cell
        for (y, x), (text, style) in self._cells.items():
            if text[0] == PLACEHOLDER:
                *_, red, green, blue = style.split(";")
                colour = int(red) << 16 | int(green) << 8 | int(blue)
                number = next(number for number in self.kept if number & 0xFFFFFF == colour)
                columns, rows = self._boxes[number]
                row, column = (NUMBERS[mark] for mark in text[1:3])
                picture = self.kept[number].resize((columns * width, rows * height), Image.Resampling.NEAREST)
                part = picture.crop((column * width, row * height, (column + 1) * width, (row + 1) * height))
                whole.paste(part, (x * width, y * height))
        return whole

    def feed(self, text: str) -> None:
        """Take what a program writes."""
        text, end = self._rest + text, 0
        for token in TOKENS.finditer(text):
            if token.start() != end:
                break
            end = token.end()
            self._obey(token)
        self._rest = text[end:]

    def _obey(self, token: re.Match[str]) -> None:
        kind = token.lastgroup
        if token["row"] is not None:
            self._y, self._x = int(token["row"] or 1) - 1, int(token["column"] or 1) - 1
        elif kind == "style":
            self._style = "" if token["style"] in ("", "0") else token["style"].removeprefix("0;")
        elif kind == "text":
            for character in token["text"]:
                self._put(character)
        elif kind == "kitty":
            self._kitty(token["kitty"])
        elif kind == "sixel":
            self.sixels.append(len(token["sixel"]))
            self._painted.paste(
                picture := sixel_picture(token["sixel"]), (self._x * self.cell[0], self._y * self.cell[1])
            )
            assert self._y + -(-picture.height // self.cell[1]) < self.lines, "would scroll"
            self._y, self._x = self.lines - 1, 0  # terminals differ in where they leave it
        elif kind == "screen":
            self._clear()
            self.kept = {}
        elif token["control"] == "\r":
            self._x = 0
        elif token["control"] == "\n":
            self._y += 1

    def _put(self, character: str) -> None:
        if unicodedata.combining(character):
            text, style = self._cells[self._y, self._x - 1]
            self._cells[self._y, self._x - 1] = (text + character, style)
        else:
            self._cells[self._y, self._x] = (character, self._style)
            width, height = self.cell
            left, top = self._x * width, self._y * height
            self._painted.paste(NOTHING, (left, top, left + width, top + height))
            self._x += 1

    def _kitty(self, message: str) -> None:
        head, _, payload = message.partition(";")
        keys = dict(pair.split("=") for pair in head.split(","))
        action, number = keys.get("a", "t"), int(keys["i"])
        assert keys["q"] == "2", "the terminal would answer"
        if action == "t":
            self._payloads[number] = self._payloads.get(number, "") + payload
            if keys["m"] == "0":
                data = self._payloads.pop(number)
                self.sent.append(len(data))
                self.kept[number] = Image.open(BytesIO(base64.b64decode(data))).convert("RGBA")
        elif action == "p":
            assert keys["U"] == "1"
            self._boxes[number] = int(keys["c"]), int(keys["r"])
        elif action == "d":
            assert keys["d"] == "I", "only then it is freed, and no other with it"
            self.kept.pop(number, None)


def sixel_picture(data: str) -> Image.Image:
    """The picture in the data of a sixel sequence."""
    _, _, across, down = (int(number) for number in re.findall(r"\d+", data)[:4])
    picture = Image.new("RGBA", (across, down), NOTHING)
    colours: dict[int, tuple[int, ...]] = {}
    colour, x, y = 0, 0, 0
    for token in SIXEL.finditer(data):
        if token["set"]:
            colour = int(token["set"])
            colours[colour] = tuple(round(int(part) * 2.55) for part in token.groups()[1:4])
        elif token["use"]:
            colour = int(token["use"])
        elif (what := token["what"] or token["one"]) == "$":
            x = 0
        elif what == "-":
            x, y = 0, y + 6
        elif what:
            count = int(token["count"] or 1)
            for bit in range(6):
                if (ord(what) - 0x3F) >> bit & 1:
                    assert y + bit < down
                    picture.paste((*colours[colour], 255), (x, y + bit, x + count, y + bit + 1))
            x += count
    return picture


class PictureTerminal:
    """`cafe` in a pseudo-terminal that draws pictures."""

    def __init__(
        self, runs: Path, cell: tuple[int, int] = (10, 20), size: tuple[int, int] = (80, 24), **env: str
    ) -> None:
        self.screen = PictureScreen(*size, cell)
        self.raw = ""
        foreign = ("COLUMNS", "LINES", "NO_COLOR", "TMUX", "STY", "TERM_PROGRAM", "KITTY_WINDOW_ID", "CAFE_PICTURES")
        inherited = {name: value for name, value in os.environ.items() if name not in foreign}
        self.process = pexpect.spawn(
            sys.executable,
            ["-m", "cafe_tui"],
            dimensions=(size[1], size[0]),
            env={**inherited, "COLORTERM": "truecolor", "CAFE_RUNS": str(runs), **env},
            encoding="utf-8",
        )
        pixels = struct.pack("HHHH", size[1], size[0], size[0] * cell[0], size[1] * cell[1])
        fcntl.ioctl(self.process.child_fd, termios.TIOCSWINSZ, pixels)

    def read(self, seconds: float) -> str:
        """What the program writes within so many seconds."""
        new, end = "", time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                new += self.process.read_nonblocking(65536, timeout=left)
            except (pexpect.TIMEOUT, pexpect.EOF):
                break
        self.raw += new
        self.screen.feed(new)
        return new

    def until_silent(self, seconds: float) -> None:
        """Read until the program writes nothing for so long."""
        end = time.monotonic() + PATIENCE
        while self.read(seconds):
            assert time.monotonic() < end, "goes on and on"

    def until(self, true: Callable[[], bool]) -> None:
        """Read until a condition is fulfilled, and then for as long as something comes."""
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, "\n".join(self.screen.display)
            self.read(0.1)
        self.until_silent(0.3)

    def shows(self, *texts: str) -> bool:
        """Whether all these are on screen."""
        return all(text in "\n".join(self.screen.display) for text in texts)

    def press(self, keys: str) -> None:
        """Send keys as they are."""
        self.process.send(keys)

    def end(self) -> int | None:
        """Wait for the program to end; its exit status."""
        deadline = time.monotonic() + PATIENCE
        while self.process.isalive():
            assert time.monotonic() < deadline, "still running"
            self.read(0.1)
        self.read(0.3)
        self.process.close()
        return self.process.exitstatus
