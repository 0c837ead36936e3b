"""The live view: right numbers, no line too wide, only changed lines written, the terminal left as it was."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Literal

import pyte
import pytest
from rich.text import Text

from cafe_tui.console import painter, views
from cafe_tui.console.painter import Painter
from cafe_tui.console.views import Signs
from cafe_tui.reading.run import RunFollower, RunView
from engine.contract.run.records import Cell, WarningNote, encode
from engine.contract.run.results import make_cell, table
from tests.recorded import record_run

SIZES = [(40, 12), (80, 24), (120, 40), (160, 50), (200, 60)]
Upto = Literal["train", "game", "inoculate", "evaluate", "finished"]


def view_of(tmp_path: Path, upto: str) -> RunView:
    run = record_run(tmp_path, upto=upto)
    view = RunFollower(run, clock=lambda: run.state().heartbeat + 1).poll()
    assert view is not None
    return view


@pytest.mark.parametrize(("width", "height"), [*SIZES, (20, 5), (1, 1)])
@pytest.mark.parametrize("upto", ["train", "game", "inoculate", "evaluate", "finished"])
@pytest.mark.parametrize("charset", ["braille", "ascii"])
def test_frames_fit_any_terminal(
    upto: str, charset: Literal["braille", "ascii"], width: int, height: int, tmp_path: Path
) -> None:
    view, signs = view_of(tmp_path, upto), Signs(charset)
    frame = views.frame(view, width, height, signs)
    assert len(frame) <= height
    for line in painter.render(frame, width, io.StringIO()):
        plain = Text.from_ansi(line)
        assert plain.cell_len <= width
    if charset == "ascii":
        assert all(line.plain.isascii() for line in frame)


@pytest.mark.parametrize(("width", "height"), SIZES[1:])
def test_a_frame_of_the_game_shows_both_players_and_the_four_readings(width: int, height: int, tmp_path: Path) -> None:
    view = view_of(tmp_path, "game")
    text = "\n".join(line.plain for line in views.frame(view, width, height, Signs()))
    assert "hypothesis loss" in text
    assert "test-function loss" in text
    assert "psi" in text
    assert view.id in text
    assert "running" in text
    for name, value in view.readings().items():
        assert name in text
        assert f"{value:.1f}%" in text
    assert "50%" in text, "progress of the stage"


def test_the_smallest_terminal_shows_state_readings_and_table(tmp_path: Path) -> None:
    game = [line.plain for line in views.frame(view_of(tmp_path, "game"), 40, 11, Signs())]
    assert game[0].startswith("▶ running")
    assert "▶ game" in game[1]
    assert "train" not in game[1], "only the running stage has room for its name"
    assert len(game[1]) <= 40
    view = view_of(tmp_path, "evaluate")
    text = "\n".join(line.plain[:40] for line in views.frame(view, 40, 11, Signs()))
    assert "  ".join(f"{name} {value:.1f}" for name, value in view.readings().items()) in text
    for number in ("96.2", "74.4", "66.4", "━━━"):
        assert number in text


def test_notes_are_broken_into_lines_that_fit(tmp_path: Path) -> None:
    frame = views.frame(view_of(tmp_path, "game"), 40, 11, Signs(), "one two three four five six seven eight nine ten")
    assert [line.plain for line in frame[-2:]] == ["one two three four five six seven eight", "nine ten"]


def test_prose_is_broken_between_words_and_rows_stay_whole() -> None:
    row = Text("a row of numbers", no_wrap=True)
    given = [Text("some words of prose"), row, Text("one/long path", overflow="ignore")]
    assert [line.plain for line in painter.broken(given, 10)] == [
        "some words",
        "of prose",
        row.plain,
        "one/long path",
    ]


def test_the_table_fills_cell_by_cell(tmp_path: Path) -> None:
    view = view_of(tmp_path, "evaluate")
    text = "\n".join(line.plain for line in views.frame(view, 100, 40, Signs()))
    assert "96.2 [94.0, 97.6]" in text, "a finished cell with its Wilson interval"
    assert "━━━" in text, "the cell in progress"
    assert "·" in text, "cells still to come"


def test_the_summary_compares_base_and_inoculated_model(tmp_path: Path) -> None:
    view = view_of(tmp_path, "finished")
    text = "\n".join(line.plain for line in views.summary(view, 100, Signs()))
    assert "train " in text
    assert "inoculate " in text
    assert "+3.1" in text
    assert "exact McNemar" in text
    assert "AC " in text
    assert "Adv 66.4%" in text


def test_narrow_tables_drop_the_intervals_and_keep_the_numbers() -> None:
    cells = [make_cell("train", attack, 300, 450) for attack in ("clean", "fgsm", "pgd", "pgd-l2")]
    text = "\n".join(line.plain for line in views.table_lines(table(cells), width=60))
    assert "66.7" in text
    assert "[" not in text


def test_warnings_stand_beside_their_number() -> None:
    cell = make_cell("train", "pgd", 3, 10, warnings=["3 answers were not finite"])
    shown = table([cell])
    assert "30.0 [10.8, 60.3] !" in views.table_lines(shown, width=80)[1].plain
    assert views.cell_warnings(shown) == ["train, pgd: 3 answers were not finite"]


def test_text_from_files_is_neither_markup_nor_control(tmp_path: Path) -> None:
    run = record_run(tmp_path, upto="game")
    with run.records_file.open("ab") as file:
        file.write(encode(WarningNote(text="[red]boo[/red] \x1b[31m\x07 [link=x]")))
        file.write(encode(Cell(model="[b]m", attack="\x1b]0;x\x07", correct=1, total=2, accuracy=50, low=1, high=99)))
    view = RunFollower(run, clock=lambda: run.state().heartbeat).poll()
    assert view is not None
    frame = views.frame(view, 200, 50, Signs())
    drawn = painter.render([*frame, *views.summary(view, 200, Signs())], 200, io.StringIO())
    seen = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in drawn]  # our own colours; that of the text is no escape
    assert any("[red]boo[/red] �[31m [link=x]" in line for line in seen)
    assert all(line.isprintable() for line in seen)


class Screen(io.StringIO):
    """A terminal that remembers what was written and shows what a person would see."""

    def __init__(self, columns: int, lines: int) -> None:
        super().__init__()
        self.screen = pyte.Screen(columns, lines)
        self.screen.set_mode(pyte.modes.LNM)  # as a tty does: a newline also returns to the first column
        self.seen = pyte.Stream(self.screen)
        self.written: list[str] = []

    def write(self, text: str) -> int:
        self.written.append(text)
        self.seen.feed(text)
        return len(text)

    def isatty(self) -> bool:
        return True

    def shown(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]


class FixedPainter(Painter):
    """A painter whose terminal has the size of its screen."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(screen)
        self._screen = screen

    def size(self) -> tuple[int, int]:
        return self._screen.screen.columns, self._screen.screen.lines


def lines(*texts: str) -> list[Text]:
    return [Text(text) for text in texts]


def test_only_changed_lines_are_written_and_the_screen_is_right() -> None:
    screen = Screen(20, 8)
    screen.write("$ cafe run x\n")
    painter = FixedPainter(screen)
    frames = [
        lines("one", "two", "three"),
        lines("one", "TWO", "three"),
        lines("one", "TWO", "three", "four", "five"),
        lines("ONE", "x"),
        lines("ONE", "x"),
        lines("a" * 50, "", "z"),
    ]
    with painter:
        for i, frame in enumerate(frames):
            before = len(screen.written)
            painter.paint(frame)
            expected = ["$ cafe run x", *[line.plain[:20] for line in frame]]
            assert screen.shown()[: len(expected)] == expected
            assert not any(screen.shown()[len(expected) :])
            assert screen.screen.cursor.y == len(expected)
            if i == 1:
                assert "".join(screen.written[before:]).count("o") == 0, "neither `one` nor `two` is written again"
            if i == 4:
                assert screen.written[before:] == [], "nothing changed, nothing is written"
        assert screen.screen.cursor.hidden
    assert not screen.screen.cursor.hidden


def test_a_change_inside_a_line_keeps_cells_and_colours() -> None:
    screen = Screen(40, 4)
    painter = FixedPainter(screen)
    first = Text.assemble(("abc", "red"), ("def", "bold green"), "ghi漢字", ("xyz", "red"))
    second = Text.assemble(("abc", "red"), ("dEf", "bold green"), "ghi漢字", ("xyZ!", "red"))
    third = Text.assemble(("abc", "red"), ("dEf", "bold green"), "ghi漢字", ("xy", "red"))
    expected = {0: "red", 4: "green", 8: "default", 14: "red"}
    for text in (first, second, third):
        painter.paint([text])
        assert screen.shown()[0].replace("\0", "") == text.plain
        for column, colour in expected.items():
            assert screen.screen.buffer[0][column].fg == colour
    assert not screen.screen.buffer[0][15].data.strip()


def test_frames_at_the_foot_of_a_full_terminal_stay_in_place() -> None:
    screen = Screen(20, 6)
    for i in range(10):
        screen.write(f"old {i}\n")
    painter = FixedPainter(screen)
    with painter:
        for n in range(5):
            painter.paint(lines("head", f"step {n}", "foot"))
        assert screen.shown() == ["old 8", "old 9", "head", "step 4", "foot", ""]
        painter.paint(lines("head", "1", "2", "3", "4", "5", "6"))
        assert screen.shown() == ["head", "1", "2", "3", "4", ""], "a frame is cut to what fits above the cursor"


def test_a_resize_draws_everything_again() -> None:
    screen = Screen(20, 8)
    painter = FixedPainter(screen)
    assert not painter.resized()
    painter.paint(lines("one", "two"))
    assert not painter.resized()
    screen.screen.resize(10, 30)
    assert painter.resized()
    painter.paint(lines("one", "two"))
    assert screen.shown()[:2] == ["one", "two"]
    assert not painter.resized()


def test_a_terminal_that_is_gone_does_not_hide_why_it_ended() -> None:
    class Gone(io.StringIO):
        def flush(self) -> None:
            if "\x1b[?25h" in self.getvalue():
                raise OSError(5, "Input/output error")

    with pytest.raises(SystemExit), Painter(Gone()):
        raise SystemExit(129)


def test_a_live_run_costs_few_bytes(tmp_path: Path) -> None:
    """A byte budget, counted: one step of the game at 120x40 rewrites only the lines in which something moved."""
    run = record_run(tmp_path, upto="game")
    from engine.contract.run.records import Scalars

    follower = RunFollower(run, clock=lambda: run.state().heartbeat)
    screen = Screen(120, 40)
    painter = FixedPainter(screen)
    view = follower.poll()
    assert view is not None
    axes: views.Axes = {}
    painter.paint(views.frame(view, 120, 39, Signs(), axes=axes))
    whole = sum(len(text.encode()) for text in screen.written)
    screen.written.clear()
    updates = 20
    for i in range(updates):
        values = {"hypothesis_loss": 0.5, "test_function_loss": 0.4, "psi": 0.5, "regulariser": 0.9}
        with run.records_file.open("ab") as file:
            file.write(encode(Scalars(stage="game", step=96 + 2 * i, values=dict(values))))
        view = follower.poll()
        assert view is not None
        painter.paint(views.frame(view, 120, 39, Signs(), axes=axes))
    each = sum(len(text.encode()) for text in screen.written) / updates
    assert each < whole / 5
    assert each < 1500, "four updates a second are then less than 6 kB/s"


def test_colours_follow_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32m" in painter.render([Text("x", "green")], 10, io.StringIO())[0]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in painter.render([Text("x", "green")], 10, io.StringIO())[0]
