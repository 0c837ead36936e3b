"""Samples by the protocols of kitty and sixel terminals, seen by terminals that turn them back into pixels."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pexpect
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cafe_tui.terminal.half_cells import Cell
from cafe_tui.terminal.protocols import INSTALL, Choice, EncodedPicture, PicturesUnavailable, Placements, choose
from cafe_tui.terminal.repaint import Repaint
from cafe_tui.ui.widgets.sample_grid import KINDS
from engine.contract.run.rundir import RunDir
from tests.patience import PATIENCE
from tests.recorded import record_run
from tests.ui.picture_terminal import QUESTIONS, PictureScreen, PictureTerminal

TERMS = {"kitty": "xterm-kitty", "sixel": "foot"}
EXACT = {"kitty": 0, "sixel": 3}
"""By how much a channel may differ: sixels tell colours in percent."""
MOST_BYTES = 20_000


@pytest.fixture
def terminals() -> Iterator[list[PictureTerminal]]:
    """Terminals to be closed at the end of the test."""
    opened: list[PictureTerminal] = []
    yield opened
    for terminal in opened:
        terminal.process.close(force=True)


def write_samples(run: RunDir, count: int, side: int, mode: str) -> None:
    """Pictures of noise, all different, of at most 200 colours each."""
    dice = random.Random(0)
    entries: list[dict[str, Any]] = []
    for index in range(count):
        files = {kind: f"{index:05}-{kind}.png" for kind in KINDS}
        for file in files.values():
            colours = [bytes(dice.randrange(256) for _ in mode) for _ in range(200)]
            pixels = b"".join(dice.choice(colours) for _ in range(side * side))
            Image.frombytes(mode, (side, side), pixels).save(run.samples / file)
        said = {"clean": 5, "adversarial": 9, "inversion": 5}
        entries.append({"index": index, "label": 5, "predictions": said, "files": files})
    sheet = {"stage": "evaluate", "model": "train", "attack": "pgd", "perturbation_gain": 10, "samples": entries}
    (run.samples / "samples.json").write_bytes(msgspec.json.encode(sheet))


def look_at_samples(terminal: PictureTerminal) -> None:
    """From the list through the run to its samples, by keys; waits until all is drawn."""
    terminal.until(lambda: terminal.shows("finished", "Quit"))
    terminal.press("\r")
    terminal.until(lambda: terminal.shows("Samples"))
    terminal.press("p")
    terminal.until(lambda: terminal.shows("test image") and bool(terminal.screen.pixels().getbbox()))


def pictures_are_right(terminal: PictureTerminal, run: RunDir, shown: range, off: int) -> None:
    """Whether the pixels under the heads and labels are those of the samples, and there are no others."""
    screen = terminal.screen
    pixels = screen.pixels()
    lines = screen.display
    heads = next(line for line in lines if "adversarial" in line)
    columns = [heads.index(word) for word in ("clean", "adversarial", "perturbation", "causal")]
    for index in shown:
        top = next(y for y, line in enumerate(lines) if f"test image {index} " in f"{line} ") + 2
        for kind, left in zip(KINDS, columns, strict=True):
            with Image.open(run.samples / f"{index:05}-{kind}.png") as opened:
                sample = opened.convert("RGB")
            room = (18 * screen.cell[0], 9 * screen.cell[1])
            zoom = min(room[0] // sample.width, room[1] // sample.height)
            x, y = left * screen.cell[0], top * screen.cell[1]
            box = (x, y, x + sample.width * zoom, y + sample.height * zoom)
            part = pixels.crop(box)
            expected = sample.resize(part.size, Image.Resampling.NEAREST)
            assert part.getchannel("A").getextrema() == (255, 255), f"{kind} of image {index} is not whole"
            worst = max(abs(a - b) for a, b in zip(part.convert("RGB").tobytes(), expected.tobytes(), strict=True))
            assert worst <= off, f"{kind} of image {index} differs by {worst}"
            pixels.paste((0, 0, 0, 0), box)
    assert pixels.getbbox() is None, "pixels where none should be"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["kitty", "sixel"])
@pytest.mark.parametrize(("side", "mode"), [(8, "L"), (32, "RGB")])
def test_pictures_come_once_and_go(
    tmp_path: Path, terminals: list[PictureTerminal], way: str, side: int, mode: str
) -> None:
    run = record_run(tmp_path)
    write_samples(run, 3, side, mode)
    terminals.append(terminal := PictureTerminal(tmp_path, TERM=TERMS[way]))
    screen = terminal.screen
    messages = screen.sent if way == "kitty" else screen.sixels
    look_at_samples(terminal)
    assert terminal.shows("label 5", "right: 5", "wrong: 9")
    seen = len(messages) // len(KINDS)
    pictures_are_right(terminal, run, range(seen), EXACT[way])
    assert max(messages) <= MOST_BYTES
    terminal.until_silent(1.0)
    terminal.press("kg")  # nothing before the first
    assert terminal.read(3.0) == "", "what is shown is sent again"
    terminal.press("j")
    terminal.until(lambda: terminal.shows(f"test image {seen}") and bool(screen.pixels().getbbox()))
    pictures_are_right(terminal, run, range(seen, min(2 * seen, 3)), EXACT[way])
    if way == "kitty":
        assert len(screen.kept) == len(KINDS) * (min(2 * seen, 3) - seen), "the former ones are kept"
    terminal.press("q")
    terminal.until(lambda: terminal.shows("Samples") and not screen.kept)
    assert screen.pixels().getbbox() is None
    terminal.press("\x03")
    assert terminal.end() == 0
    assert not QUESTIONS.search(terminal.raw)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["kitty", "sixel"])
def test_what_covers_pictures_is_whole_and_so_are_they_after_it(
    tmp_path: Path, terminals: list[PictureTerminal], way: str
) -> None:
    run = record_run(tmp_path)
    write_samples(run, 1, 32, "RGB")
    terminals.append(terminal := PictureTerminal(tmp_path, TERM=TERMS[way]))
    screen = terminal.screen
    look_at_samples(terminal)
    at_first = screen.pixels().tobytes()
    terminal.press("\x10")  # the palette
    terminal.until(lambda: terminal.shows("Leave the UI"))
    row = next(y for y, line in enumerate(screen.display) if "Leave the UI" in line)
    column = screen.display[row].index("Leave the UI")
    width, height = screen.cell
    box = (column * width, row * height, (column + 12) * width, (row + 1) * height)
    assert screen.pixels().crop(box).getbbox() is None
    assert screen.pixels().tobytes() != at_first
    terminal.press("\x1b")
    terminal.until(lambda: not terminal.shows("Leave the UI"))
    assert screen.pixels().tobytes() == at_first
    pictures_are_right(terminal, run, range(1), EXACT[way])
    # Sixels are lost where something covers them, and tinted cells are other cells.
    assert (len(screen.sent), len(screen.sixels)) == ((len(KINDS), 0) if way == "kitty" else (0, 3 * len(KINDS)))


@pytest.mark.slow
def test_leaving_from_the_samples_frees_the_pictures(tmp_path: Path, terminals: list[PictureTerminal]) -> None:
    write_samples(record_run(tmp_path), 1, 8, "L")
    terminals.append(terminal := PictureTerminal(tmp_path, TERM="xterm-kitty"))
    look_at_samples(terminal)
    numbers = set(terminal.screen.kept)
    assert len(numbers) == len(KINDS)
    terminal.press("\x03")
    assert terminal.end() == 0
    while_open, _, _ = terminal.raw.partition("\x1b[?1049l")
    assert {number for number in numbers if f"\x1b_Ga=d,d=I,i={number}," in while_open} == numbers


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [{"TERM": "xterm-256color"}, {"TERM": "xterm-kitty", "CAFE_PICTURES": "cells"}, {"TERM": "foot", "TMUX": "x"}],
)
def test_other_terminals_get_half_cells(
    tmp_path: Path, terminals: list[PictureTerminal], environment: dict[str, str]
) -> None:
    write_samples(record_run(tmp_path), 1, 8, "L")
    terminals.append(terminal := PictureTerminal(tmp_path, **environment))
    terminal.until(lambda: terminal.shows("finished", "Quit"))
    terminal.press("\r")
    terminal.until(lambda: terminal.shows("Samples"))
    terminal.press("p")
    terminal.until(lambda: terminal.shows("test image", "▀"))
    assert not terminal.screen.sent
    assert not terminal.screen.sixels


# --- which way -------------------------------------------------------------------------------------------------------

CELL = Cell(10, 20)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "cells"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, "cells"),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "sixel"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "sixel"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1", "TMUX": "/tmp/tmux-0/default,1,0"}, "cells"),
        ({"TERM": "screen", "TERM_PROGRAM": "WezTerm", "STY": "1.pts"}, "cells"),
        ({"TERM": "xterm-kitty", "NO_COLOR": ""}, "cells"),
        ({"TERM": "xterm-kitty", "TMUX": "x", "CAFE_PICTURES": "kitty"}, "kitty"),
        ({"TERM": "xterm-kitty", "CAFE_PICTURES": "cells"}, "cells"),
        ({"TERM": "xterm", "CAFE_PICTURES": "sixel"}, "sixel"),
        ({"TERM": "xterm-kitty", "CAFE_PICTURES": ""}, "kitty"),
    ],
)
def test_the_environment_tells_the_way(environment: dict[str, str], expected: str) -> None:
    assert choose(environment, CELL, installed=True).way == expected
    if expected != "cells" and not environment.get("CAFE_PICTURES"):
        assert choose(environment, CELL, installed=True, slow=True).way == "cells"
        without = choose(environment, CELL, installed=False)
        assert without.way == "cells"
        assert INSTALL in without.why
        assert choose(environment, None, installed=True).way == ("cells" if expected == "sixel" else "kitty")


def test_what_there_is_not_cannot_be_asked_for() -> None:
    with pytest.raises(PicturesUnavailable, match="cells, kitty, sixel"):
        choose({"CAFE_PICTURES": "png"}, CELL, installed=True)
    with pytest.raises(PicturesUnavailable, match="pip install"):
        choose({"CAFE_PICTURES": "sixel"}, CELL, installed=False)
    assert choose({"CAFE_PICTURES": "cells"}, CELL, installed=False) == Choice("cells", "CAFE_PICTURES says so")


def test_an_unknown_way_ends_the_start_with_one_message(tmp_path: Path) -> None:
    env = {**os.environ, "TERM": "xterm-256color", "CAFE_RUNS": str(tmp_path), "CAFE_PICTURES": "sixels"}
    process = pexpect.spawn(sys.executable, ["-m", "cafe_tui"], env=env, encoding="utf-8")
    process.expect(pexpect.EOF, timeout=PATIENCE)
    process.close()
    assert process.exitstatus == 2
    assert process.before.splitlines() == [
        "cafe: CAFE_PICTURES='sixels' is no way to show pictures",
        "There are: cells, kitty, sixel.",
    ]


def test_nobody_pays_for_it_before_looking_at_samples(tmp_path: Path) -> None:
    record_run(tmp_path)
    script = """
import asyncio, sys
from pathlib import Path
from cafe_tui.ui.app import CafeApp
async def look():
    async with CafeApp(Path(sys.argv[1]), pictures="kitty").run_test() as pilot:
        table = pilot.app.screen.query_one("RunTable")
        while not (table.has_focus and "finished" in table.text()):
            await pilot.pause(0.02)
        await pilot.press("enter")
        while not getattr(pilot.app.screen, "complete", False):
            await pilot.pause(0.02)
asyncio.run(look())
print([name for name in ("textual_image", "PIL") if name in sys.modules])
"""
    answer = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert answer.stdout == "[]\n"


# --- between Textual and the terminal --------------------------------------------------------------------------------

COLUMNS, LINES, DOTS = 8, 6, (2, 6)
BOX = (3, 2)
"""Columns and rows of the pictures here; every cell of them has its own colour."""


def small_picture(way: str, number: int) -> tuple[EncodedPicture, Image.Image]:
    """A picture of one colour a cell as it is sent, and how it looks."""
    columns, rows = BOX
    picture = Image.new("RGBA", (columns * DOTS[0], rows * DOTS[1]))
    sixels = f'"1;1;{picture.width};{picture.height}'
    for y in range(rows):
        for x in range(columns):
            red, green, blue = 20 * number, 40 * x, 40 * y
            sixels += f"#{y * columns + x};2;{red};{green};{blue}!{DOTS[0]}~"
            colour = (round(red * 2.55), round(green * 2.55), round(blue * 2.55), 255)
            picture.paste(colour, (x * DOTS[0], y * DOTS[1], (x + 1) * DOTS[0], (y + 1) * DOTS[1]))
        sixels += "-"
    if way == "sixel":
        return EncodedPicture(columns, rows, f"\x1bP0;1;0q{sixels}\x1b\\"), picture
    from base64 import b64encode
    from io import BytesIO

    picture.save(file := BytesIO(), "PNG")
    message = f"\x1b_Gi={number},m=0,f=100,q=2;{b64encode(file.getvalue()).decode()}\x1b\\"
    message += f"\x1b_Ga=p,i={number},c={columns},r={rows},U=1,q=2\x1b\\"
    marks = ["\u0305", "\u030d", "\u030e"]
    placeholders = tuple(tuple(f"\U0010eeee{marks[y]}{marks[x]}" for x in range(columns)) for y in range(rows))
    return EncodedPicture(columns, rows, message, number, placeholders, f"38;2;0;0;{number}"), picture


@st.composite
def paintings(draw: st.DrawFn) -> tuple[int, int, int, str]:
    """Which picture (0, 1) comes where; or a text (2) that covers what is there, or is taken away again (3)."""
    what = draw(st.integers(0, 3))
    if what < 2:
        return what, draw(st.integers(0, LINES - BOX[1] - 1)), draw(st.integers(0, COLUMNS - BOX[0])), ""
    y, x = draw(st.integers(0, LINES - 1)), draw(st.integers(0, COLUMNS - 1))
    return what, y, x, draw(st.text("ab ", min_size=1, max_size=COLUMNS - x))


def meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two pictures with these upper left corners have cells in common."""
    return abs(one[0] - other[0]) < BOX[1] and abs(one[1] - other[1]) < BOX[0]


@pytest.mark.parametrize("way", ["kitty", "sixel"])
@settings(deadline=None, max_examples=300)
@given(frames=st.lists(st.lists(paintings(), max_size=4), max_size=6), lost=st.sets(st.integers(0, 5)))
def test_cells_show_their_part_of_a_picture_or_their_text(
    way: str, frames: list[list[tuple[int, int, int, str]]], lost: set[int]
) -> None:
    placements = Placements("sixel" if way == "sixel" else "kitty")
    encoded = [small_picture(way, number) for number in (1, 2)]
    characters = [placements.add(sent) for sent, _ in encoded]
    repaint, terminal = Repaint(placements), PictureScreen(COLUMNS, LINES, DOTS)
    pictures: dict[int, tuple[int, int]] = {}  # of which no two lie on each other
    texts: dict[tuple[int, int], str] = {}
    before = [" " * COLUMNS] * LINES
    for number, frame in enumerate(frames):
        for what, top, left, text in frame:
            cells = [(top, left + x) for x in range(len(text))]
            if what == 2:
                texts |= dict(zip(cells, text, strict=True))
            elif what == 3:
                texts = {cell: text for cell, text in texts.items() if cell not in cells}
            else:
                pictures = {other: at for other, at in pictures.items() if not meet(at, (top, left))} | {
                    what: (top, left)
                }
        wanted = [[" "] * COLUMNS for _ in range(LINES)]
        for which, (top, left) in pictures.items():
            for y, row in enumerate(characters[which]):
                wanted[top + y][left : left + len(row)] = row
        for (y, x), text in texts.items():
            wanted[y][x] = text
        lines = ["".join(row) for row in wanted]
        if number in lost:
            repaint.forget()
            before = [""] * LINES
            terminal.sent = []
        changed = [y for y in range(LINES) if lines[y] != before[y]]
        repaint.feed("".join(f"\x1b[{y + 1};1H{lines[y]}" for y in changed))
        terminal.feed(repaint.take())
        before = lines
        pixels = terminal.pixels()
        for y in range(LINES):
            for x in range(COLUMNS):
                placed = placements.at(lines[y][x])
                cell = pixels.crop((x * DOTS[0], y * DOTS[1], (x + 1) * DOTS[0], (y + 1) * DOTS[1]))
                if placed:
                    picture = next(picture for sent, picture in encoded if sent is placed.picture)
                    dot = picture.getpixel((placed.column * DOTS[0], placed.row * DOTS[1]))
                    assert cell.getcolors() == [(DOTS[0] * DOTS[1], dot)]
                else:
                    assert cell.getbbox() is None
                    assert terminal.character(y, x) == lines[y][x]
        assert len(terminal.sent) <= len(encoded)
        repaint.feed("".join(f"\x1b[{y + 1};1H{lines[y]}" for y in range(LINES)))
        again = repaint.take()
        assert "\x1bP" not in again
        assert "\x1b_G" not in again
